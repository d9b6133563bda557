"""The objective: a weighted sum of terms, each divided by the number of units it supervises in the whole batch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import assert_never

from jaxtyping import Float
from torch import Tensor

from distil.core.errors import CompatibilityError
from distil.data.batch import Batch
from distil.knowledge.response import Responses
from distil.losses.logit import label_cross_entropy, soft_target_kl, teacher_label_cross_entropy
from distil.objective.config import SoftTargets, TeacherLabels, Term, TrueLabels


@dataclass(frozen=True, eq=False)
class Loss:
    """A loss: ``total`` is the sum over terms of weight times part."""

    total: Float[Tensor, ""]
    parts: Mapping[str, Float[Tensor, ""]]


@dataclass(frozen=True)
class Requires:
    """What an objective needs from others: names of teachers, and whether any label."""

    teacher_outputs: frozenset[str]
    labels: bool


class Objective:
    """A weighted sum of terms.

    Args:
        terms: by name. A term of weight 0 is not computed.

    >>> import torch
    >>> objective = Objective({"true-labels": TrueLabels(weight=0.1), "soft-targets": SoftTargets(weight=0.9)})
    >>> objective = objective.bind(num_classes=3, teachers={"teacher": 3})
    >>> sorted(objective.weights)
    ['soft-targets', 'true-labels']
    """

    def __init__(self, terms: Mapping[str, Term], *, task: str = "main") -> None:
        self._terms = {name: term for name, term in terms.items() if term.weight > 0}
        self._task = task

    @property
    def weights(self) -> dict[str, float]:
        """The weight of every term that is computed."""
        return {name: term.weight for name, term in self._terms.items()}

    @property
    def requires(self) -> Requires:
        """Which teachers must be asked, and whether labels are used. Complete once bound."""
        teachers = {
            t.teacher for t in self._terms.values() if isinstance(t, (SoftTargets, TeacherLabels)) and t.teacher
        }
        return Requires(frozenset(teachers), labels=any(term.needs_labels for term in self._terms.values()))

    def bind(self, *, num_classes: int, teachers: Mapping[str, int]) -> "Objective":
        """The objective with every term's teacher named, after a look at whether student and teachers fit together.

        Args:
            num_classes: numbers in the student's output for an example.
            teachers: for each teacher, the numbers in its output.

        Raises:
            CompatibilityError: a term's teacher is missing or ambiguous, or the classes differ.
        """
        bound = {name: _bind_term(name, term, list(teachers)) for name, term in self._terms.items()}
        for name, term in bound.items():
            teacher = None if isinstance(term, TrueLabels) else term.teacher
            if teacher is not None and teachers[teacher] != num_classes:
                raise CompatibilityError(
                    f"term {name!r}: the teacher {teacher!r} has {teachers[teacher]} classes and the student "
                    f"{num_classes}; both must answer for the same classes"
                )
        return Objective(bound, task=self._task)

    def counts(self, batch: Batch) -> dict[str, int]:
        """For each term, the number of units it supervises in the batch. Needs no forward pass."""
        labelled = int(batch.present[self._task].sum())
        return {name: labelled if term.needs_labels else len(batch) for name, term in self._terms.items()}

    def __call__(
        self,
        student_logits: Float[Tensor, "batch classes"],
        knowledge: Responses,
        batch: Batch,
        counts: Mapping[str, int],
    ) -> Loss:
        """The share of a (micro-)batch in the loss of the global batch.

        Args:
            student_logits: for the examples of ``batch``; gradient flows here.
            knowledge: each teacher's logits for the same examples.
            batch: whose labels are used where present.
            counts: of the global batch, summed over its micro-batches and ranks. Shares of micro-batches add up to the
                loss of the whole.
        """
        parts: dict[str, Tensor] = {}
        total = student_logits.new_zeros(())
        for name, term in self._terms.items():
            values = self._values(term, student_logits, knowledge, batch)
            parts[name] = values.sum() / max(counts[name], 1)
            total = total + term.weight * parts[name]
        return Loss(total=total, parts=parts)

    def _values(self, term: Term, student_logits: Tensor, knowledge: Responses, batch: Batch) -> Tensor:
        match term:
            case TrueLabels():
                present = batch.present[self._task]
                labels = batch.targets[self._task]
                if not bool(present.all()):
                    student_logits, labels = student_logits[present], labels[present]
                return label_cross_entropy(student_logits, labels, smoothing=term.smoothing)
            case SoftTargets():
                return soft_target_kl(student_logits, _of(term.teacher, knowledge), temperature=term.temperature)
            case TeacherLabels():
                return teacher_label_cross_entropy(student_logits, _of(term.teacher, knowledge))
            case _:
                assert_never(term)


def _bind_term(name: str, term: Term, teachers: Sequence[str]) -> Term:
    if isinstance(term, TrueLabels):
        return term
    if term.teacher is None and len(teachers) == 1:
        return term.model_copy(update={"teacher": teachers[0]})
    if term.teacher not in teachers:
        wanted = "no teacher is named" if term.teacher is None else f"there is no teacher {term.teacher!r}"
        raise CompatibilityError(f"term {name!r}: {wanted}; the teachers are {sorted(teachers) or 'none'}")
    return term


def _of(teacher: str | None, knowledge: Responses) -> Tensor:
    if teacher is None:
        (only,) = knowledge.values()
        return only
    return knowledge[teacher]
