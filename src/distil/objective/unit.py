"""Units: what a term has one value for. An example, an answer for a token, or a token of a text."""

from collections.abc import Callable, Mapping
from typing import Literal, TypeAlias

from jaxtyping import Bool
from torch import Tensor

from distil.core.errors import CompatibilityError
from distil.core.inputs import real_tokens
from distil.data.batch import Batch
from distil.models.tap import Outputs, Tap
from distil.objective.alignment import is_per_token
from distil.objective.term import Binding, BoundTerm, TermInput
from distil.objective.term_config import TeacherTermConfig, TermConfig

Unit: TypeAlias = Literal["answer", "example", "token"]
# answer: on what networks say in the end: one for each example, or for each token of tasks that answer for tokens
# example: on layers, or on attention, whose formulas take a mask
# token: on layers that have a vector for each token of a text

_ON_ANSWERS = ("labels", "responses", "own")


def unit_of(term: TermConfig, bound: BoundTerm, binding: Binding) -> Unit:
    """What the term has one value for, or, of scope ``batch``, what it compares.

    Raises:
        CompatibilityError: it compares tokens with whole texts, or needs a label for each token.
    """
    if not bound.student_taps:
        return "answer" if term.knowledge in _ON_ANSWERS else "example"
    taps = [(tap, binding.student) for tap in bound.student_taps]
    if binding.teacher is not None:
        taps += [(tap, binding.teacher) for tap in bound.teacher_taps]
    per_token = [is_per_token(tap, description) for tap, description in taps]
    if not any(per_token):
        return "example"
    if not all(per_token):
        tokens, whole = (taps[per_token.index(kind)][0].name for kind in (True, False))
        raise binding.refuse(
            f"{tokens} has a vector for each token and {whole} one for the whole text; write layers that are alike"
        )
    if term.needs_labels and term.scope == "example":
        raise binding.refuse("it needs a label for each thing it compares, and tokens have none; choose pooled layers")
    return "token"


class Choice:
    """Of a batch, what each term is to be given: only what is real and, where labels are needed, labelled."""

    def __init__(self, batch: Batch, *, task: str, view: str) -> None:
        self._batch, self._view = batch, view
        self._labels, self._present = batch.targets[task], batch.present[task]
        self._positions = batch.positions.get(task)

    def count(self, term: TermConfig, unit: Unit) -> int:
        """How many units the term supervises."""
        if unit == "answer" and self._positions is not None:
            return int(self._answers(term).sum())
        if unit == "token" and term.scope == "example":
            return int(self._real().sum())
        chosen = self._chosen(term, unit)
        return len(self._batch) if chosen is None else int(chosen.sum())

    def given(self, term: TermConfig, unit: Unit, student: Outputs, teacher: Outputs | None) -> TermInput:
        """What student and teacher say about the units that the term supervises."""
        labels, ids = self._labels, self._batch.ids
        if unit == "answer" and self._positions is not None:
            return self._of_answers(self._answers(term), student, teacher)
        if unit == "token" or term.knowledge == "attention":
            self._require_same_tokens(term)
        if unit == "token":
            student, teacher, ids = self._of_tokens(term, student, teacher)
        mask = self._mask() if unit == "example" else None
        given, chosen = TermInput(student, teacher, labels, ids, mask), self._chosen(term, unit)
        return given if chosen is None or bool(chosen.all()) else _rows(given, chosen)

    def _chosen(self, term: TermConfig, unit: Unit) -> Tensor | None:
        """The examples that the term supervises: labelled, if it needs that, and on attention not empty; None: all."""
        mask = self._mask() if unit == "example" and term.knowledge == "attention" else None
        if not term.needs_labels:
            return None if mask is None else mask.any(dim=1)
        if self._positions is not None:
            raise CompatibilityError(
                f"a term of kind {getattr(term, 'kind', type(term).__name__)} needs one label for each text, and this "
                "task has them for tokens; remove the term"
            )
        return self._present if mask is None else self._present & mask.any(dim=1)

    def _require_same_tokens(self, term: TermConfig) -> None:
        """Kept values have no input in the batch; those of layers of texts are never kept."""
        name = term.teacher if isinstance(term, TeacherTermConfig) else None
        if name is None or name not in self._batch.inputs:
            return
        ours, theirs = self._mask(), real_tokens(self._batch.inputs[name])
        if ours is None or theirs is None or ours.shape != theirs.shape or bool((ours == theirs).all()):
            return
        raise CompatibilityError(
            f"some texts have another number of tokens for the teacher {name!r} than for the student; terms on layers "
            "need a student and a teacher that read texts by the same tokenizer and to the same length"
        )

    def _answers(self, term: TermConfig) -> Bool[Tensor, "batch tokens"]:
        assert self._positions is not None
        return self._positions & self._present if term.needs_labels else self._positions

    def _of_answers(self, chosen: Tensor, student: Outputs, teacher: Outputs | None) -> TermInput:
        if teacher is not None:
            teacher = _as_wide(teacher, student.logits.shape[-1])
        if teacher is not None and teacher.logits.shape[:2] != student.logits.shape[:2]:
            raise CompatibilityError(
                f"the student answers for {list(student.logits.shape[:2])} tokens and the teacher for "
                f"{list(teacher.logits.shape[:2])} [batch, tokens]; both must read texts by the same tokenizer"
            )
        each = chosen.sum(dim=1).cpu()
        return TermInput(
            student.rows(chosen),
            teacher.rows(chosen) if teacher is not None else None,
            self._labels[chosen],
            self._batch.ids.repeat_interleave(each),
        )

    def _of_tokens(
        self, term: TermConfig, student: Outputs, teacher: Outputs | None
    ) -> tuple[Outputs, Outputs | None, Tensor]:
        """Layers with the tokens one after the other; for terms that compare examples, with the mean of the tokens."""
        mask = self._real()
        reduce = _mean_of_tokens if term.scope == "batch" else _tokens
        ids = self._batch.ids
        if term.scope == "example":
            ids = ids.repeat_interleave(mask.sum(dim=1).cpu())
        theirs = None if teacher is None else Outputs(teacher.logits, _reduced(teacher.taps, mask, reduce))
        return Outputs(student.logits, _reduced(student.taps, mask, reduce)), theirs, ids

    def _mask(self) -> Tensor | None:
        return real_tokens(self._batch.inputs[self._view]) if self._view in self._batch.inputs else None

    def _real(self) -> Tensor:
        mask = self._mask()
        if mask is None:
            raise CompatibilityError(f"the input {self._view!r} of the batch has no attention_mask [batch, tokens]")
        return mask


def _reduced(taps: Mapping[Tap, Tensor], mask: Tensor, reduce: Callable[[Tensor, Tensor], Tensor]) -> dict[Tap, Tensor]:
    found: dict[Tap, Tensor] = {}
    for tap, value in taps.items():
        if value.ndim == 3 and value.shape[:2] == mask.shape:
            found[tap] = reduce(value, mask)
        elif value.ndim == 3:
            raise CompatibilityError(
                f"{tap.name} has {value.shape[1]} tokens and the student's text {mask.shape[1]}; terms on layers need "
                "a student and a teacher that read texts by the same tokenizer and to the same length"
            )
        else:
            found[tap] = value
    return found


def _as_wide(teacher: Outputs, width: int) -> Outputs:
    """Kept answers have a place for each window of the longest text of all; the batch may have fewer windows."""
    beyond = teacher.logits[..., width:]
    if not beyond.numel() or not bool(beyond.isneginf().all()):
        return teacher
    return Outputs(teacher.logits[..., :width], teacher.taps, teacher.largest)


def _tokens(value: Tensor, mask: Tensor) -> Tensor:
    return value[mask]


def _mean_of_tokens(value: Tensor, mask: Tensor) -> Tensor:
    weights = mask.to(value.dtype).unsqueeze(-1)
    return (value * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)


def _rows(given: TermInput, present: Tensor) -> TermInput:
    return TermInput(
        student=given.student.rows(present),
        teacher=given.teacher.rows(present) if given.teacher is not None else None,
        labels=given.labels[present],
        ids=given.ids[present.cpu()],
        mask=given.mask[present] if given.mask is not None else None,
    )
