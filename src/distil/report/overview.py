"""The one table of the first screen: every model with quality, size and speed, like compared with like."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from distil.report.number import ABSENT, Number, digits_for, milliseconds, percent, quality, quantity, size
from distil.report.record import ArmQuality, Export, RunRecord, TrainedModel
from distil.report.series import Series, series_of

STANDARD_NORMAL_95 = 1.959964
PROPORTIONS = ("accuracy", "hit_at_1")  # of test units that are either right or wrong


@dataclass(frozen=True)
class Row:
    """One line of the table, ready to be read. ``note`` says what a reference point is."""

    series: Series | None
    label: str
    role: str
    quality: str
    range: str
    parameters: str
    size: str
    latency: str
    calibration: str
    is_distilled: bool = False
    is_artefact: bool = False
    same_network: bool = False
    is_reference: bool = False
    note: str = ""


def rows(record: RunRecord) -> tuple[Row, ...]:
    """Teachers, distilled arms (the shipped one with its int8 artefact), controls, reference points."""
    looks = series_of(record)
    teachers = [_teacher_row(record, name, looks["teacher", name]) for name in record.teachers]
    arms: list[Row] = []
    for name in (*record.distilled_arms, *record.controls):
        arms.append(_arm_row(record, name, looks["arm", name]))
        if name == record.student_arm:
            arms += _artefact_rows(record)
    return (*teachers, *arms, *_reference_rows(record))


def has_calibration(rows: Iterable[Row]) -> bool:
    """Whether any model of the table has a calibration error: whether its column is shown."""
    return any(row.calibration not in ("", ABSENT) for row in rows)


def wilson_interval(successes: Number, trials: int) -> tuple[Number, Number]:
    """The 95% score interval of a proportion (Wilson 1927); stays inside 0..1 where the normal one does not."""
    share, z2 = successes / trials, STANDARD_NORMAL_95**2
    centre = (share + z2 / (2 * trials)) / (1 + z2 / trials)
    half = STANDARD_NORMAL_95 / (1 + z2 / trials) * math.sqrt(share * (1 - share) / trials + z2 / (4 * trials**2))
    return max(0.0, centre - half), min(1.0, centre + half)


def quality_range(record: RunRecord, values: Iterable[Number]) -> tuple[Number, Number] | None:
    """Smallest and largest seed; with one value the Wilson interval of a proportion, None for another metric."""
    values = tuple(values)
    if len(values) > 1:
        return min(values), max(values)
    if record.verdict.metric not in PROPORTIONS or not values:
        return None
    return wilson_interval(values[0] * record.verdict.test_examples, record.verdict.test_examples)


def mean_metric(models: Iterable[TrainedModel], metric: str) -> Number | None:
    """Mean over seeds of one metric; None where no seed has it."""
    values = [model.evaluation.metrics.get(metric) for model in models]
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _teacher_row(record: RunRecord, name: str, look: Series) -> Row:
    model = record.teachers[name]
    value = record.verdict.teachers[name]
    matches = (each for each in record.exports if each.teacher == name and each.precision == "fp32")
    labels = record.data["teacher_labels"].get(name, record.data["labelled"])
    facts = [] if name == "teacher" else ["teacher"]
    facts += [] if labels == record.data["labelled"] else [f"{labels:,} {record.nouns.labels}"]
    return _row(
        record,
        look,
        ArmQuality(value, (value,)),
        [model],
        label=name,
        role=", ".join(facts) or "teacher",
        latency=_latency(next(matches, None)),
    )


def _arm_row(record: RunRecord, name: str, look: Series) -> Row:
    arms = record.recipe.get("arms") or {}
    exported = record.student_arm
    shares_network = name in arms and arms[name].get("student") == arms.get(exported, {}).get("student")
    latency = _latency(record.student_export("fp32")) if name == exported or shares_network else ABSENT
    return _row(
        record,
        look,
        record.verdict.arms[name],
        record.arms[name].values(),
        label=name,
        role="control" if look.role == "control" else "student",
        latency=latency,
        same_network=name != exported and latency != ABSENT,
    )


def _row(
    record: RunRecord,
    look: Series,
    measured: ArmQuality,
    models: Iterable[TrainedModel],
    *,
    label: str,
    role: str,
    latency: str,
    same_network: bool = False,
) -> Row:
    models = tuple(models)
    metric, digits = record.verdict.metric, digits_for(record.verdict.test_examples)
    bounds = quality_range(record, measured.values)
    return Row(
        series=look,
        label=label,
        role=role,
        quality=quality(measured.mean, metric, digits),
        range=_span(bounds, metric, digits),
        parameters=quantity(models[0].evaluation.num_parameters),
        size=size(models[0].evaluation.size_bytes),
        latency=latency,
        calibration=percent(mean_metric(models, "expected_calibration_error")),
        is_distilled=look.role == "distilled",
        same_network=same_network,
    )


def _artefact_rows(record: RunRecord) -> list[Row]:
    """The int8 file of the shipped student: the same network, but its quality is one seed's, measured on the file."""
    export = record.student_export("int8")
    if export is None or export.parity is None:
        return []
    metric = export.parity.metric or {}
    digits = digits_for(record.verdict.test_examples)
    return [
        Row(
            series=None,
            label="int8 ONNX file",
            role=f"seed {record.student_seed} of it",
            quality=quality(metric.get("artefact"), str(metric.get("name")), digits),
            range="",
            parameters="",
            size=size(export.parity.size_bytes),
            latency=_latency(export),
            calibration="",
            is_artefact=True,
        )
    ]


def _reference_rows(record: RunRecord) -> list[Row]:
    """What is reached without training a network: its quality and nothing else."""
    metric, digits = record.verdict.metric, digits_for(record.verdict.test_examples)
    return [
        Row(
            series=None,
            label=name,
            role="reference",
            quality=quality(baseline.value, metric, digits),
            range="",
            parameters="",
            size="",
            latency="",
            calibration="",
            is_reference=True,
            note=baseline.note,
        )
        for name, baseline in record.verdict.baselines.items()
    ]


def _latency(export: Export | None) -> str:
    return ABSENT if export is None or export.latency is None else milliseconds(export.latency.p50_ms)


def _span(bounds: tuple[Number, Number] | None, metric: str, digits: int) -> str:
    if bounds is None:
        return ""
    low, high = (quality(bound, metric, digits) for bound in bounds)
    return f"{low.removesuffix('%')}–{high}"
