"""A term bound to two networks: which taps it opens, what it learns beside the student, and its value."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from distil.core.errors import CompatibilityError
from distil.models.describe import ModelDescription, Shape
from distil.models.tap import Outputs, Tap


@dataclass(frozen=True, eq=False)
class TermInput:
    """What a term is given: the examples that it supervises.

    Attributes:
        student: what the student says; gradient flows here.
        teacher: what the term's teacher says, without gradient; None where the term has none.
        labels: targets of the task; of terms that need labels all are known.
        ids: the examples' numbers.
        mask: of texts, for terms on attention: the tokens that are real.
    """

    student: Outputs
    teacher: Outputs | None
    labels: Tensor
    ids: Tensor
    mask: Tensor | None = None

    @property
    def teacher_logits(self) -> Tensor:
        assert self.teacher is not None
        return self.teacher.logits


@dataclass(frozen=True)
class AlignedPair:
    """A tap of the student, the tap of the teacher it is compared with, and the shapes of one example's values."""

    student: Tap
    teacher: Tap
    student_shape: Shape
    teacher_shape: Shape

    def __str__(self) -> str:
        return f"{self.student.name} {list(self.student_shape)} <- {self.teacher.name} {list(self.teacher_shape)}" + (
            f" ({self.student.take})" if self.student.take != "output" else ""
        )


@dataclass(frozen=True)
class Binding:
    """Two networks that a term is bound to.

    Attributes:
        name: of the term, for messages.
        student: what is known about the student.
        teacher: the same of the term's teacher; None where the term has none.
        num_ids: ids lie in 0..num_ids-1; None: nobody knows, and terms with a bank cannot be bound.
    """

    name: str
    student: ModelDescription
    teacher: ModelDescription | None = None
    num_ids: int | None = None

    @property
    def required_teacher(self) -> ModelDescription:
        assert self.teacher is not None
        return self.teacher

    def refuse(self, why: str) -> CompatibilityError:
        """The error that says why the term cannot be bound to these networks."""
        return CompatibilityError(f"term {self.name!r}: {why}")


class BoundTerm(nn.Module):
    """A term as a module. Parameters are trained with the student and, like buffers, saved; nothing of it is shipped.

    ``forward`` takes a ``TermInput`` and gives one value an example, or one for the batch, as the term's scope says.
    """

    def __init__(
        self,
        pairs: Sequence[AlignedPair] = (),
        *,
        student_taps: tuple[Tap, ...] = (),
        teacher_taps: tuple[Tap, ...] = (),
    ) -> None:
        super().__init__()
        self.student_taps = student_taps or tuple(pair.student for pair in pairs)
        self.teacher_taps = teacher_taps or tuple(pair.teacher for pair in pairs)

    def captured(self, said: TermInput) -> list[tuple[Tensor, Tensor]]:
        """The values of each pair of layers: the student's, and the teacher's without gradient."""
        assert said.teacher is not None
        return [
            (said.student.taps[ours], said.teacher.taps[theirs].detach())
            for ours, theirs in zip(self.student_taps, self.teacher_taps, strict=True)
        ]

    def forward(self, said: TermInput) -> Tensor:
        raise NotImplementedError

    def observe(self, validation_loss: float) -> dict[str, float]:  # noqa: ARG002
        """Takes the negative log-likelihood on validation after each epoch; the answer is what it changed, by name."""
        return {}


class FunctionTerm(BoundTerm):
    """A term without layers or state: a function of what both say."""

    def __init__(self, function: Callable[[TermInput], Tensor]) -> None:
        super().__init__()
        self._function = function

    def forward(self, said: TermInput) -> Tensor:
        return self._function(said)
