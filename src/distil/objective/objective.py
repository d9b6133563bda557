"""The objective: a weighted sum of terms, each divided by the number of units it supervises in the whole batch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from jaxtyping import Float
from torch import Tensor, nn

from distil.core.errors import CompatibilityError
from distil.core.seeds import derive, seeded
from distil.data.batch import Batch
from distil.losses.tensor import at_least_float32
from distil.models.describe import ModelDescription
from distil.models.tap import Outputs, Tap
from distil.objective.bind import bind_term
from distil.objective.config import Term
from distil.objective.response_config import TopK
from distil.objective.term import Binding, BoundTerm
from distil.objective.term_config import TeacherTermConfig, TermConfig
from distil.objective.unit import Choice, Unit, unit_of

Said = Outputs | Tensor  # a tensor is logits alone


@dataclass(frozen=True, eq=False)
class Loss:
    """A loss: ``total`` is the sum over terms of weight times part."""

    total: Float[Tensor, ""]
    parts: Mapping[str, Float[Tensor, ""]]


@dataclass(frozen=True)
class Requires:
    """What an objective needs from others.

    Attributes:
        teacher_outputs: names of teachers that must be asked.
        labels: whether any label is used.
        student_taps: points of the student to capture.
        teacher_taps: the same for each teacher that is asked.
        largest: of teachers of whom no more is needed, how many of the likeliest classes at which temperature.
    """

    teacher_outputs: frozenset[str]
    labels: bool
    student_taps: tuple[Tap, ...] = ()
    teacher_taps: Mapping[str, tuple[Tap, ...]] = field(default_factory=dict)
    largest: Mapping[str, tuple[int, float]] = field(default_factory=dict)


class Objective:
    """A weighted sum of terms, not yet bound to networks.

    Args:
        terms: by name. A term of weight 0 is not computed.
        task: whose labels are used.
        view: the student's input, whose padding does not count.

    >>> from distil.objective.response_config import SoftTargets, TrueLabels
    >>> objective = Objective({"true-labels": TrueLabels(weight=0.1), "soft-targets": SoftTargets(weight=0.9)})
    >>> objective = objective.bind(3, {"teacher": 3})
    >>> sorted(objective.weights)
    ['soft-targets', 'true-labels']
    """

    def __init__(self, terms: Mapping[str, Term], *, task: str = "main", view: str = "student") -> None:
        self._terms = {name: term for name, term in terms.items() if term.weight > 0}
        self._task, self._view = task, view

    def bind(
        self,
        student: ModelDescription | int,
        teachers: Mapping[str, ModelDescription | int] | None = None,
        *,
        seed: int = 0,
        num_ids: int | None = None,
    ) -> "BoundObjective":
        """The objective for a student and its teachers: with taps, projectors and memory of its own.

        Args:
            student: described, or the number of its classes where no term compares layers.
            teachers: the same for each teacher.
            seed: of the initial weights of projectors.
            num_ids: the examples' ids lie below it; needed by terms that remember examples.

        Raises:
            CompatibilityError: a term's teacher is missing or ambiguous, or the networks do not fit the term.
        """
        known = {name: _described(teacher) for name, teacher in (teachers or {}).items()}
        described = _described(student)
        named: dict[str, Term] = {name: _name_teacher(name, term, list(known)) for name, term in self._terms.items()}
        bound: dict[str, BoundTerm] = {}
        units: dict[str, Unit] = {}
        for name, term in named.items():
            teacher = _teacher_of(term)
            if teacher is not None and known[teacher].num_classes != described.num_classes and _on_logits(term):
                raise CompatibilityError(
                    f"term {name!r}: the teacher {teacher!r} has {known[teacher].num_classes} classes and the student "
                    f"{described.num_classes}; both must answer for the same classes"
                )
            with seeded(derive("term", name, seed)):
                binding = Binding(name, described, known[teacher] if teacher is not None else None, num_ids)
                bound[name] = bind_term(term, binding)
                units[name] = unit_of(term, bound[name], binding)
        return BoundObjective(named, bound, units, task=self._task, view=self._view)


class BoundObjective:
    """An objective bound to networks.

    Attributes:
        module: what is trained and remembered beside the student: projectors, memory banks. Saved, never shipped.
        requires: which teachers are asked, and which taps must be open.
        weights: of every term that is computed.
    """

    def __init__(
        self,
        terms: Mapping[str, Term],
        bound: Mapping[str, BoundTerm],
        units: Mapping[str, Unit] | None = None,
        *,
        task: str,
        view: str = "student",
    ) -> None:
        self._terms, self._bound = dict(terms), dict(bound)
        self._units: dict[str, Unit] = {}
        for name, each in bound.items():
            self._units[name] = "example" if each.student_taps else "answer"
        self._units.update(units or {})
        self._task, self._view = task, view
        self.module = nn.ModuleList(bound.values())
        self.weights = {name: term.weight for name, term in terms.items()}
        self.requires = _requires(self._terms, self._bound)

    def observe(self, validation_loss: float) -> dict[str, float]:
        """Tells every term the negative log-likelihood on validation; the answer is what they changed in themselves."""
        changed = {name: term.observe(validation_loss) for name, term in self._bound.items()}
        return {f"{name}.{setting}": value for name, each in changed.items() for setting, value in each.items()}

    def counts(self, batch: Batch) -> dict[str, int]:
        """For each term, the number of units it supervises in the batch. Needs no forward pass."""
        chosen = Choice(batch, task=self._task, view=self._view)
        return {name: chosen.count(term, self._units[name]) for name, term in self._terms.items()}

    def __call__(self, student: Said, knowledge: Mapping[str, Said], batch: Batch, counts: Mapping[str, int]) -> Loss:
        """The share of a (micro-)batch in the loss of the global batch.

        Args:
            student: what it says about the examples of ``batch``, logits or more; gradient flows here.
            knowledge: the same of each teacher.
            batch: whose labels are used where present.
            counts: of the global batch, summed over its micro-batches and ranks. Shares of micro-batches add up to the
                loss of the whole.

        Raises:
            CompatibilityError: a term of scope ``batch`` gets a piece of the batch.
        """
        said = _said(student)
        heard = {name: _said(outputs) for name, outputs in knowledge.items()}
        parts: dict[str, Tensor] = {}
        total = said.logits.new_zeros((), dtype=at_least_float32(said.logits[:0]).dtype)
        for name, term in self._terms.items():
            part = self._part(name, term, said, heard, batch, counts[name])
            parts[name] = part
            total = total + term.weight * part
        return Loss(total=total, parts=parts)

    def _part(
        self, name: str, term: TermConfig, said: Outputs, heard: Mapping[str, Outputs], batch: Batch, count: int
    ) -> Tensor:
        teacher = _teacher_of(term)
        chosen = Choice(batch, task=self._task, view=self._view)
        given = chosen.given(term, self._units[name], said, heard[teacher] if teacher is not None else None)
        values = self._bound[name](given)
        if term.scope == "example":
            return values.sum() / max(count, 1)
        if len(given.ids) != count:
            raise CompatibilityError(
                f"term {name!r} compares the examples of a batch with each other and got {len(given.ids)} of {count}; "
                "remove training.micro_batch_size"
            )
        return values


def _requires(terms: Mapping[str, TermConfig], bound: Mapping[str, BoundTerm]) -> Requires:
    asked: dict[str, dict[Tap, None]] = {}
    for name, term in terms.items():
        teacher = _teacher_of(term)
        if teacher is not None:
            asked.setdefault(teacher, {}).update(dict.fromkeys(bound[name].teacher_taps))
    return Requires(
        teacher_outputs=frozenset(asked),
        labels=any(term.needs_labels for term in terms.values()),
        student_taps=tuple(dict.fromkeys(tap for each in bound.values() for tap in each.student_taps)),
        teacher_taps={teacher: tuple(taps) for teacher, taps in asked.items()},
        largest={teacher: found for teacher in asked if (found := _largest(terms, teacher)) is not None},
    )


def _largest(terms: Mapping[str, TermConfig], teacher: str) -> tuple[int, float] | None:
    listening = [term for term in terms.values() if _teacher_of(term) == teacher]
    if not all(isinstance(term, TopK) for term in listening):
        return None
    wanted = {(term.k, term.temperature) for term in listening if isinstance(term, TopK)}
    return wanted.pop() if len(wanted) == 1 else None


def _described(model: ModelDescription | int) -> ModelDescription:
    return ModelDescription(num_classes=model) if isinstance(model, int) else model


def _said(outputs: Said) -> Outputs:
    """Captured values in at least float32: projectors are, also where the networks run in half precision."""
    if isinstance(outputs, Tensor):
        return Outputs(outputs)
    taps = {tap: at_least_float32(value) for tap, value in outputs.taps.items()}
    return Outputs(outputs.logits, taps, outputs.largest)


def _teacher_of(term: TermConfig) -> str | None:
    return term.teacher if isinstance(term, TeacherTermConfig) and term.needs_teacher else None


def _on_logits(term: TermConfig) -> bool:
    return term.knowledge == "responses" and "embeddings" not in term.targets


def _name_teacher(name: str, term: Term, teachers: Sequence[str]) -> Term:
    if not isinstance(term, TeacherTermConfig) or not term.needs_teacher:
        return term
    if term.teacher is None and len(teachers) == 1:
        return term.model_copy(update={"teacher": teachers[0]})
    if term.teacher not in teachers:
        wanted = "no teacher is named" if term.teacher is None else f"there is no teacher {term.teacher!r}"
        raise CompatibilityError(f"term {name!r}: {wanted}; the teachers are {sorted(teachers) or 'none'}")
    return term
