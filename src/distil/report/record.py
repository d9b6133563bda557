"""What a finished run left behind, as frozen values. ``read.py`` fills them from the run directory.

Fractions are 0..1, losses are in nats, sizes in bytes, times in the unit that the name says.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distil.report.noun import Nouns, nouns_of
from distil.report.number import Number


@dataclass(frozen=True)
class Epoch:
    """One epoch of training. ``parts`` are the unweighted means of the terms; ``loss`` is their weighted sum."""

    epoch: int
    step: int
    loss: Number
    parts: Mapping[str, Number]
    weights: Mapping[str, Number]
    learning_rate: Number
    validation: Mapping[str, Number] | None
    seconds: Number


@dataclass(frozen=True)
class ClassQuality:
    """Accuracy on the ``support`` test examples of one class; None where there are none."""

    name: str
    support: int
    accuracy: Number | None


@dataclass(frozen=True)
class ReliabilityBin:
    """Mean confidence and accuracy of the ``count`` examples whose confidence fell into one bin."""

    confidence: Number
    accuracy: Number
    count: int


@dataclass(frozen=True)
class Evaluation:
    """One model on the test split. ``confusion`` has the true class in rows and the predicted class in columns.

    Where an example does not have one class, ``per_class``, ``confusion`` and ``reliability`` are empty.
    """

    split: str
    num_examples: int
    metrics: Mapping[str, Number | None]
    num_parameters: int
    size_bytes: int
    per_class: tuple[ClassQuality, ...]
    confusion: tuple[tuple[int, ...], ...]
    reliability: tuple[ReliabilityBin, ...]
    multiply_accumulates: int | None = None
    validation: Mapping[str, Number] | None = None
    still_improving: bool | None = None
    labelled_examples: int | None = None


@dataclass(frozen=True)
class TrainedModel:
    """A teacher, or one seed of an arm. ``epochs`` is empty where the weights were given and not trained here."""

    evaluation: Evaluation
    epochs: tuple[Epoch, ...] = ()
    kept_epoch: int | None = None


@dataclass(frozen=True)
class ArmQuality:
    """The metric of one arm: one value for each seed, and their mean."""

    mean: Number
    values: tuple[Number, ...]


@dataclass(frozen=True)
class Baseline:
    """A reference point that costs no training of a network: its quality, and in a sentence what it is."""

    value: Number
    note: str = ""


@dataclass(frozen=True)
class Comparison:
    """How much better the distilled student is than a control, positive whether the metric is to be high or low."""

    difference: Number
    interval: tuple[Number, Number]
    seed_interval: tuple[Number, Number] | None = None


@dataclass(frozen=True)
class Verdict:
    """The content of ``verdict.json``. Without a control there is no difference, no interval and no best control.

    ``distilled`` is None where no arm has a teacher. Arms, teachers and baselines are in the unit of the metric.
    """

    verdict: str
    metric: str
    higher_is_better: bool
    confidence: Number
    difference: Number | None
    interval: tuple[Number, Number] | None
    seed_interval: tuple[Number, Number] | None
    best_control: str | None
    distilled: str | None
    seeds: tuple[int, ...]
    test_examples: int
    arms: Mapping[str, ArmQuality]
    teachers: Mapping[str, Number]
    against: Mapping[str, Comparison]
    baselines: Mapping[str, Baseline] = field(default_factory=dict)
    parts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    smallest_detectable: Number | None = None
    teacher_flag: str | None = None


@dataclass(frozen=True)
class GalleryExample:
    """A real example and what teacher, student and control say about it; ``image`` is a ``data:`` URI.

    An example has an image or a text; the texts of a pair are lines of one.
    """

    id: str
    image: str | None
    label: int | None
    why: str
    teacher_plain: tuple[Number, ...]
    teacher_softened: tuple[Number, ...]
    student: tuple[Number, ...]
    control: tuple[Number, ...] | None = None
    text: str | None = None


@dataclass(frozen=True)
class Gallery:
    """Examples that show what the temperature did."""

    temperature: Number
    class_names: tuple[str, ...]
    examples: tuple[GalleryExample, ...]


@dataclass(frozen=True)
class ClassChange:
    """Accuracy on one class, distilled against the best control, and the difference."""

    name: str
    support: int
    control: Number
    distilled: Number
    change: Number


@dataclass(frozen=True)
class Slice:
    """The arms on a named part of the test split, and the difference to the best control; None: too few examples."""

    name: str
    support: int
    means: Mapping[str, Number | None]
    difference: Number | None
    interval: tuple[Number, Number] | None
    seed_interval: tuple[Number, Number] | None = None


@dataclass(frozen=True)
class Summary:
    """What was computed over several models: inherited errors per arm, the change per class, and slices."""

    inherited_errors: Mapping[str, Number | None]
    per_class_change: tuple[ClassChange, ...]
    best_control: str | None = None
    slices: tuple[Slice, ...] = ()


@dataclass(frozen=True)
class Parity:
    """Does the exported file behave like the model? ``agreement`` is the fraction of equal answers."""

    runtime: str
    num_samples: int
    max_abs_error: Number
    mean_abs_error: Number
    agreement: Number | None
    metric: Mapping[str, Any] | None
    dynamic_batch: bool
    repeat_bit_equal: bool
    sha256: str
    size_bytes: int
    passed: bool
    tolerance: Mapping[str, Any] = field(default_factory=dict)
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class SpeedUp:
    """Ratio of the reference's median time to this one's. May be named only where ``claimed``."""

    ratio: Number
    interval: tuple[Number, Number]
    claimed: bool
    why: str


@dataclass(frozen=True)
class Latency:
    """Time of one call on pinned threads. ``tokens`` is the length of the text that it was measured with."""

    threads: int
    batch_size: int
    rounds: int
    p50_ms: Number
    p95_ms: Number
    p50_interval: tuple[Number, Number]
    load_ms: Number
    cpu: str
    reference: str | None = None
    speed_up: SpeedUp | None = None
    tokens: int | None = None


@dataclass(frozen=True)
class Export:
    """One artefact. ``teacher`` is the teacher's name where it is a teacher's; ``loader`` is its ten-line loader."""

    name: str
    target: str
    precision: str
    teacher: str | None
    parity: Parity | None
    latency: Latency | None
    loader: str | None = None


@dataclass(frozen=True)
class Shipped:
    """Which arm and seed became the student that ships."""

    arm: str
    seed: int


@dataclass(frozen=True)
class RunRecord:
    """Everything that the report and the model card are made from."""

    directory: Path
    recipe: Mapping[str, Any]
    recipe_text: str
    environment: Mapping[str, Any]
    data: Mapping[str, Any]
    verdict: Verdict
    teachers: Mapping[str, TrainedModel]
    arms: Mapping[str, Mapping[int, TrainedModel]]
    manifest: Mapping[str, Any]
    shipped: Shipped | None = None
    preprocessing: Mapping[str, Any] | None = None
    exports: tuple[Export, ...] = ()
    gallery: Gallery | None = None
    summary: Summary | None = None
    tuning: Mapping[str, Any] | None = None  # the content of tuning.json
    has_huggingface_folder: bool = False  # student/huggingface

    @property
    def name(self) -> str:
        """The recipe's name, or the directory's where the recipe has none."""
        return str(self.recipe.get("name") or self.directory.name)

    @property
    def nouns(self) -> Nouns:
        """The words for this run's task."""
        return nouns_of(self.data)

    @property
    def latency_input(self) -> str:
        """What latencies are the time of: ``one text of 32 tokens``."""
        tokens = {each.latency.tokens for each in self.exports if each.latency and each.latency.tokens}
        return f"one {self.nouns.input}" + (f" of {tokens.pop()} tokens" if len(tokens) == 1 else "")

    @property
    def controls(self) -> tuple[str, ...]:
        """The arms without a teacher, in the order of the recipe."""
        return tuple(arm for arm in self.arms if arm in self.verdict.against or self._says_control(arm))

    @property
    def distilled_arms(self) -> tuple[str, ...]:
        """The arms with a teacher; the one that the verdict is about comes first."""
        others = [arm for arm in self.arms if arm not in self.controls and arm != self.verdict.distilled]
        return (self.verdict.distilled, *others) if self.verdict.distilled else tuple(others)

    @property
    def student(self) -> TrainedModel:
        """The student that ships."""
        return self.arms[self.student_arm][self.student_seed]

    @property
    def student_arm(self) -> str:
        """The arm of the student that ships; the distilled one, or the first, where none was written."""
        return self.shipped.arm if self.shipped else self.verdict.distilled or next(iter(self.arms))

    @property
    def student_seed(self) -> int:
        """The seed of the student that ships; the first where none was written."""
        return self.shipped.seed if self.shipped else self.verdict.seeds[0]

    def student_export(self, precision: str) -> Export | None:
        """The student's ONNX artefact of one precision, None where it was not exported."""
        matches = (each for each in self.exports if each.teacher is None and each.precision == precision)
        return next(matches, None)

    def _says_control(self, arm: str) -> bool:
        return bool((self.recipe.get("arms") or {}).get(arm, {}).get("control"))
