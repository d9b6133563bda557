"""Losses on logits: what the student says against what the teacher, or the label, says. One value per example."""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from distil.core.errors import CompatibilityError


def soft_target_kl(
    student_logits: Float[Tensor, "*batch classes"],
    teacher_logits: Float[Tensor, "*batch teacher_classes"],
    *,
    temperature: float,
) -> Float[Tensor, "*batch"]:
    r"""Divergence of the student's softened classes from the teacher's, per example.

    .. math:: T^2 \sum_c p_c (\log p_c - \log q_c)

    with p and q the softmax of the teacher's and the student's logits divided by T. Dividing by T shows how the teacher
    ranks the wrong classes; the factor T^2 keeps the size of the gradient about the same when T changes.

    Args:
        student_logits: unnormalised scores; gradient flows here. Half precision is computed in float32.
        teacher_logits: unnormalised scores of the same shape; no gradient flows here. A class at -inf has probability 0
            and adds nothing.
        temperature: T > 0; 1 leaves the distributions as they are.

    Returns:
        Nats, >= 0, and 0 where the two agree. Infinite only where the student rules out (-inf) what the teacher allows.

    Raises:
        CompatibilityError: the shapes differ.
        ValueError: the temperature is not above 0.

    Source: Hinton, Vinyals, Dean 2015, arXiv:1503.02531, section 2.

    >>> logits = torch.tensor([[2.0, 0.0, -1.0]])
    >>> soft_target_kl(logits, logits, temperature=4.0)
    tensor([0.])
    """
    _same_shape(student_logits, teacher_logits)
    if not temperature > 0:
        raise ValueError(f"temperature is {temperature}; it must be above 0")
    log_teacher = F.log_softmax(_at_least_float32(teacher_logits.detach()) / temperature, dim=-1)
    log_student = F.log_softmax(_at_least_float32(student_logits) / temperature, dim=-1)
    teacher = log_teacher.exp()
    gap = (log_teacher - log_student).masked_fill(teacher == 0, 0.0)
    return temperature**2 * (teacher * gap).sum(dim=-1)


def label_cross_entropy(
    student_logits: Float[Tensor, "*batch classes"],
    labels: Int[Tensor, "*batch"],
    *,
    smoothing: float = 0.0,
) -> Float[Tensor, "*batch"]:
    r"""Cross-entropy of the student's classes against the true label, per example.

    .. math:: -(1 - s) \log q_y - \frac{s}{C} \sum_c \log q_c

    with q the softmax of the logits, y the label and s the smoothing, which moves that share of the target from the
    label to all C classes alike.

    Args:
        student_logits: unnormalised scores; gradient flows here. Half precision is computed in float32.
        labels: class numbers, 0 <= label < classes.
        smoothing: 0 <= s < 1; 0 is the plain cross-entropy.

    Returns:
        Nats, >= 0.

    Raises:
        ValueError: the smoothing is outside its domain.

    Source: Szegedy et al. 2016, arXiv:1512.00567, section 7 (smoothing).

    >>> label_cross_entropy(torch.zeros(1, 4), torch.tensor([2]))
    tensor([1.3863])
    """
    if not 0 <= smoothing < 1:
        raise ValueError(f"smoothing is {smoothing}; it must be at least 0 and below 1")
    scores = _at_least_float32(student_logits)
    rows = scores.reshape(-1, scores.shape[-1])
    flat = F.cross_entropy(rows, labels.reshape(-1), reduction="none", label_smoothing=smoothing)
    return flat.reshape(labels.shape)


def teacher_label_cross_entropy(
    student_logits: Float[Tensor, "*batch classes"],
    teacher_logits: Float[Tensor, "*batch teacher_classes"],
) -> Float[Tensor, "*batch"]:
    r"""Cross-entropy of the student's classes against the teacher's decision, per example.

    .. math:: -\log q_{\hat y}, \quad \hat y = \arg\max_c z^{teacher}_c

    The teacher's label replaces the true one, so unlabelled examples can be used; the order of its other classes is
    lost.

    Args:
        student_logits: unnormalised scores; gradient flows here.
        teacher_logits: unnormalised scores of the same shape; no gradient flows here. Of equal scores the first wins.

    Returns:
        Nats, >= 0.

    Raises:
        CompatibilityError: the shapes differ.

    Source: the hard-label distillation of Touvron et al. 2021, arXiv:2012.12877, section 4.

    >>> teacher_label_cross_entropy(torch.zeros(1, 2), torch.tensor([[3.0, 1.0]]))
    tensor([0.6931])
    """
    _same_shape(student_logits, teacher_logits)
    return label_cross_entropy(student_logits, teacher_logits.detach().argmax(dim=-1))


def _at_least_float32(logits: Tensor) -> Tensor:
    return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits


def _same_shape(student_logits: Tensor, teacher_logits: Tensor) -> None:
    if student_logits.shape != teacher_logits.shape:
        raise CompatibilityError(
            f"student logits have shape {tuple(student_logits.shape)} and teacher logits "
            f"{tuple(teacher_logits.shape)}; both must list the same classes for the same examples"
        )
