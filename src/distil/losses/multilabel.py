"""Losses on logits of classes that do not exclude each other: each a yes or no of its own. One value per example."""

from jaxtyping import Float, Shaped
from torch import Tensor
from torch.nn import functional as F

from distil.losses.tensor import at_least_float32, require_same_shape


def binary_kl(
    student_logits: Float[Tensor, "*batch classes"],
    teacher_logits: Float[Tensor, "*batch teacher_classes"],
    *,
    temperature: float,
) -> Float[Tensor, "*batch"]:
    r"""Divergence of the student's yes-or-no answers from the teacher's, summed over the classes, per example.

    .. math:: T^2 \sum_c \left[ p_c \log \frac{p_c}{q_c} + (1 - p_c) \log \frac{1 - p_c}{1 - q_c} \right]

    with p and q the sigmoid of the teacher's and the student's logits divided by T. The classes do not compete: there
    is no softmax, so any number of them may be right at once, or none. The factor T^2 keeps the size of the gradient
    about the same when T changes.

    Args:
        student_logits: one score a class, 0 at even odds; gradient flows here. Half precision is computed in float32.
        teacher_logits: scores of the same shape; no gradient flows here. At -inf a class is certainly absent, at inf
            certainly present.
        temperature: T > 0; 1 leaves the probabilities as they are.

    Returns:
        Nats, >= 0, and 0 where the two agree. A sum over the classes, so it grows with their number. Infinite only
        where the student is certain (-inf or inf) of what the teacher doubts.

    Raises:
        CompatibilityError: the shapes differ.
        ValueError: the temperature is not above 0.

    Source: Yang et al. 2023, arXiv:2308.06453 (multi-label logits distillation). The paper has no temperature; T and
    T^2 are this project's convention. Its code clamps probabilities at 1e-8, which ends the gradient there; this is
    computed from the logits.

    >>> import torch
    >>> logits = torch.tensor([[2.0, 1.0, -3.0]])
    >>> binary_kl(logits, logits, temperature=2.0)
    tensor([0.])
    >>> binary_kl(torch.zeros(1, 2), torch.tensor([[90.0, 90.0]]), temperature=1.0)  # log 2 for each class
    tensor([1.3863])
    """
    require_same_shape(student_logits, teacher_logits, what="logits")
    if not temperature > 0:
        raise ValueError(f"temperature is {temperature}; it must be above 0")
    student = at_least_float32(student_logits) / temperature
    teacher = at_least_float32(teacher_logits.detach()) / temperature
    return temperature**2 * (_one_side(student, teacher) + _one_side(-student, -teacher)).sum(dim=-1)


def binary_cross_entropy(
    student_logits: Float[Tensor, "*batch classes"], labels: Shaped[Tensor, "*batch classes"]
) -> Float[Tensor, "*batch"]:
    r"""Cross-entropy of a yes or no to each class, summed over the classes, per example.

    .. math:: -\sum_c \left[ y_c \log q_c + (1 - y_c) \log (1 - q_c) \right]

    with q the sigmoid of the student's logits and y 1 where the class is right.

    Args:
        student_logits: one score a class, 0 at even odds; gradient flows here. Half precision is computed in float32.
        labels: 0 or 1, or a share of yes, for each class.

    Returns:
        Nats, >= 0. A sum over the classes, so it grows with their number.

    Raises:
        CompatibilityError: the shapes differ.

    Source: Bishop 2006, *Pattern Recognition and Machine Learning*, section 4.3.2, for each class by itself.

    >>> import torch
    >>> binary_cross_entropy(torch.zeros(1, 2), torch.tensor([[1, 0]]))  # log 2 for each class
    tensor([1.3863])
    """
    require_same_shape(student_logits, labels, what="logits and labels")
    student = at_least_float32(student_logits)
    return F.binary_cross_entropy_with_logits(student, labels.to(student.dtype), reduction="none").sum(dim=-1)


def _one_side(
    student: Float[Tensor, "*batch classes"], teacher: Float[Tensor, "*batch classes"]
) -> Float[Tensor, "*batch classes"]:
    """p log(p / q) with p and q the sigmoids; 0 where p is."""
    present = teacher.sigmoid()
    return present * (F.logsigmoid(teacher) - F.logsigmoid(student)).masked_fill(present == 0, 0.0)
