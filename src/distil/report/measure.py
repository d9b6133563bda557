"""Which measures a run has beside the headline metric, in which order, and what every model reached in them."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from distil.report.number import COUNTS, Number, is_absent, is_lower_better, metric_name, quality
from distil.report.overview import mean_metric
from distil.report.record import RunRecord
from distil.report.sentence import listed
from distil.report.series import Series, series_of

FIDELITY = ("agreement_with_teacher", "kl_to_teacher")
LAST = ("negative_log_likelihood", "expected_calibration_error", "brier_score", *FIDELITY)
ELSEWHERE = COUNTS | {"inherited_errors"}  # have a place of their own


@dataclass(frozen=True)
class Measures:
    """A line of the table of measures; one text for each column."""

    series: Series
    name: str
    values: tuple[str, ...]


def measures_of(record: RunRecord) -> tuple[str, ...]:
    """The measures that any model has: first those of the task, then probabilities, then fidelity to the teacher."""
    models = [*record.teachers.values(), *(model for seeds in record.arms.values() for model in seeds.values())]
    found = {name for each in models for name, value in each.evaluation.metrics.items() if not is_absent(value)}
    found -= {record.verdict.metric, *ELSEWHERE}
    return (*sorted(found - {*LAST}, key=_natural), *(name for name in LAST if name in found))


def measure_table(record: RunRecord) -> tuple[Measures, ...]:
    """Every model with the mean over its seeds, in the order of ``measures_of``."""
    names, found = measures_of(record), []
    for (kind, name), look in series_of(record).items():
        models = (record.teachers[name],) if kind == "teacher" else tuple(record.arms[name].values())
        found.append(Measures(look, name, tuple(quality(mean_metric(models, each), each) for each in names)))
    return tuple(found)


def direction(names: Iterable[str]) -> str:
    """Which way is better, in a sentence: ``Lower is better, except agreement.``"""
    lower: list[str] = []
    higher: list[str] = []
    for name in names:
        (lower if is_lower_better(name) else higher).append(metric_name(name).removesuffix(" with teacher"))
    word, others = ("Lower", higher) if len(higher) <= len(lower) else ("Higher", lower)
    return f"{word} is better, except {listed(others)}." if others else f"{word} is better."


def reached(record: RunRecord) -> tuple[tuple[str, Number | None], ...]:
    """What the student that ships reached: the headline metric, every measure, and how much was measured."""
    metrics = record.student.evaluation.metrics
    names = (record.verdict.metric, *measures_of(record), *(name for name in ("tokens", "bytes") if name in metrics))
    return tuple((name, metrics.get(name)) for name in names)


def _natural(name: str) -> list[tuple[int, str]]:
    """``hit_at_5`` comes before ``hit_at_10``."""
    return [(int(piece), "") if piece.isdigit() else (0, piece) for piece in re.split(r"(\d+)", name)]
