"""Figures: what a selection measures, all of it on training and validation examples."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from distil.compare.agreement import Agreement
from distil.compare.similarity import Similarity
from distil.evaluate.verdict import Interval


@dataclass(frozen=True)
class Removal:
    """What leaving something out of the objective does: the full objective minus the one without it, on validation.

    Attributes:
        arm: the name of the arm without it.
        terms: that were left out.
        teacher: whose terms these are, where a teacher was left out; None: a term.
        word: of the full objective against the one without: ``BEATS`` means that it is worth having.
        difference: of the accuracies.
        interval: over examples.
        seed_interval: over seeds; None with one.
        p: after Holm's correction.
    """

    arm: str
    terms: tuple[str, ...]
    teacher: str | None
    word: str
    difference: float
    interval: Interval
    seed_interval: Interval | None
    p: float

    @property
    def helps(self) -> bool:
        return self.word != "EQUIVALENT" and self.difference > 0


@dataclass(frozen=True)
class Gap:
    """How far a teacher is from its student.

    Attributes:
        teacher: its name.
        said: what ``distil check`` says about the two.
        is_wide: whether it finds that suspicious.
        accuracy: of the teacher on validation.
        sizes: of student and teacher, each parameters and operations.
        num_inputs: numbers in the student's input, or its longest text in tokens.
        num_classes: in its output.
    """

    teacher: str
    said: str
    is_wide: bool
    accuracy: float
    sizes: tuple[tuple[int, int], tuple[int, int]]
    num_inputs: int
    num_classes: int


@dataclass(frozen=True)
class Standing:
    """The distilled arm against the best control, on validation."""

    word: str
    accuracy: float
    best_control: str
    difference: float
    interval: Interval
    seed_interval: Interval | None


@dataclass(frozen=True)
class Figures:
    """Everything that was measured, all of it on training and validation examples."""

    standing: Standing
    removals: Sequence[Removal] = ()
    agreements: Sequence[Agreement] = ()
    similarities: Mapping[str, Similarity] = field(default_factory=dict)
    gaps: Sequence[Gap] = ()
