"""Logits of two models over the tokens that both know. What only one knows is left out, as if its logit were -inf."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from distil.core.errors import CompatibilityError
from distil.losses.tensor import at_least_float32


def shared_logits(
    student_logits: Float[Tensor, "*batch student_classes"],
    teacher_logits: Float[Tensor, "*teacher_batch teacher_classes"],
    *,
    student_ids: int | Int[Tensor, " shared"],
    teacher_ids: int | Int[Tensor, " teacher_shared"],
) -> tuple[Float[Tensor, "*batch shared_classes"], Float[Tensor, "*batch shared_classes"]]:
    r"""The logits of both at the places that mean the same tokens, for any loss on logits of one shape.

    .. math:: \mathrm{softmax}(z_S / T)_c = \frac{p_c}{\sum_{s \in S} p_s}, \quad p = \mathrm{softmax}(z / T)

    with z the logits of one model and S its shared places: the softmax of what is kept is the model's own distribution,
    renormalised, at every temperature. To put 0 in place of what the other lacks would give it a probability.

    Args:
        student_logits: unnormalised scores; gradient flows here, and is 0 at the places left out.
        teacher_logits: unnormalised scores of the same positions; no gradient flows here.
        student_ids: places in the student's output, each once; a number n stands for the first n.
        teacher_ids: places of the same tokens in the teacher's, in the same order.

    Returns:
        Student's and teacher's logits, of one shape.

    Raises:
        CompatibilityError: an id is outside of its output, the numbers of ids differ, there are none, or the logits
            are of other positions.

    Source: none; the definition of a conditional distribution.

    >>> student, teacher = torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[1.0, 2.0, 3.0, 9.0]])
    >>> shared_logits(student, teacher, student_ids=3, teacher_ids=3)
    (tensor([[1., 2., 3.]]), tensor([[1., 2., 3.]]))
    """
    if student_logits.shape[:-1] != teacher_logits.shape[:-1]:
        raise CompatibilityError(
            f"student logits have shape {tuple(student_logits.shape)} and teacher logits "
            f"{tuple(teacher_logits.shape)}; they must be of the same positions of the same text"
        )
    student, teacher = _at(student_logits, student_ids), _at(teacher_logits.detach(), teacher_ids)
    if student.shape != teacher.shape:
        raise CompatibilityError(
            f"{student.shape[-1]:,} places of the student and {teacher.shape[-1]:,} of the teacher are named; each "
            "place must have its counterpart"
        )
    return student, teacher


def shared_mass(logits: Float[Tensor, "*batch classes"], ids: int | Int[Tensor, " shared"]) -> Float[Tensor, "*batch"]:
    r"""The probability that a model puts on shared tokens, per position: what is left before it is renormalised.

    .. math:: \sum_{s \in S} p_s, \quad p = \mathrm{softmax}(z)

    Where it is small, most of what the model says is lost, and a loss on shared tokens teaches little.

    Args:
        logits: unnormalised scores; no gradient flows here. Half precision is computed in float32.
        ids: shared places in the output, each once; a number n stands for the first n.

    Returns:
        A fraction, 0 to 1 to the rounding of a sum; 1 where nothing is lost.

    Raises:
        CompatibilityError: an id is outside of the output, or there are none.

    Source: none.

    >>> shared_mass(torch.tensor([[0.5, 0.3, 0.2]]).log(), 2)
    tensor([0.8000])
    """
    logits = at_least_float32(logits.detach())
    return (_at(logits, ids).logsumexp(dim=-1) - logits.logsumexp(dim=-1)).exp()


def _at(logits: Tensor, ids: int | Tensor) -> Tensor:
    width = logits.shape[-1]
    if isinstance(ids, int):
        lowest, highest, num_ids = 0, ids - 1, ids
    elif torch.compiler.is_compiling():  # no look at values in a graph; there the selection itself refuses them
        return logits.index_select(-1, ids.to(logits.device))
    else:
        num_ids = len(ids)
        lowest, highest = (int(ids.min()), int(ids.max())) if num_ids else (0, -1)
    if num_ids < 1:
        raise CompatibilityError("no shared ids are given; logits without a token in common cannot be compared")
    if lowest < 0 or highest >= width:
        raise CompatibilityError(
            f"shared ids go from {lowest:,} to {highest:,} and the output has {width:,} places, 0 to {width - 1:,}; "
            "give the ids that match these logits"
        )
    return logits[..., :ids] if isinstance(ids, int) else logits.index_select(-1, ids.to(logits.device))
