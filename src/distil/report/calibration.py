"""Calibration: does a confidence of 90% mean right in 90 of 100? One reliability diagram for each model."""

import math
from dataclasses import dataclass

from distil.report.axis import Scale, Tick
from distil.report.number import Number, percent
from distil.report.record import Evaluation, ReliabilityBin, RunRecord
from distil.report.series import Series, series_of

WIDTH, HEIGHT = 300, 296
LEFT, RIGHT, TOP, BOTTOM = 46, 290, 12, 256
SMALLEST_DOT, LARGEST_DOT = 2.5, 8.0


@dataclass(frozen=True)
class Dot:
    """One bin: its centre, its radius by the number of examples, and the foot of its gap on the diagonal."""

    x: Number
    y: Number
    foot: Number
    radius: Number


@dataclass(frozen=True)
class Reliability:
    """The diagram of one model."""

    key: str
    title: str
    error: str
    series: Series
    dots: tuple[Dot, ...]
    bins: tuple[ReliabilityBin, ...]
    ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = RIGHT
    top: int = TOP
    bottom: int = BOTTOM


def diagrams(record: RunRecord) -> tuple[Reliability, ...]:
    """The shipped student, the same seed of the best control, and every teacher."""
    looks = series_of(record)
    seed = record.student_seed
    chosen = [("Student that ships", looks["arm", record.student_arm], record.student.evaluation)]
    control = record.verdict.best_control
    if control is not None:
        chosen.append((f"{control}, seed {seed}", looks["arm", control], record.arms[control][seed].evaluation))
    for name, teacher in record.teachers.items():
        title = "Teacher" if len(record.teachers) == 1 else f"Teacher {name}"
        chosen.append((title, looks["teacher", name], teacher.evaluation))
    return tuple(
        _diagram(f"reliability-{index}", title, look, evaluation)
        for index, (title, look, evaluation) in enumerate(chosen)
        if evaluation.reliability
    )


def _diagram(key: str, title: str, look: Series, evaluation: Evaluation) -> Reliability:
    x_scale, y_scale = Scale(0.0, 1.0, LEFT, RIGHT), Scale(0.0, 1.0, BOTTOM, TOP)
    most = max(each.count for each in evaluation.reliability)
    values = (0.0, 0.25, 0.5, 0.75, 1.0)
    return Reliability(
        key=key,
        title=title,
        error=percent(evaluation.metrics.get("expected_calibration_error")),
        series=look,
        dots=tuple(
            Dot(
                x=x_scale(each.confidence),
                y=y_scale(each.accuracy),
                foot=y_scale(each.confidence),
                radius=round(max(SMALLEST_DOT, LARGEST_DOT * math.sqrt(each.count / most)), 1),
            )
            for each in evaluation.reliability
        ),
        bins=evaluation.reliability,
        ticks=tuple(Tick(x_scale(value), percent(value, 0)) for value in values),
        y_ticks=tuple(Tick(y_scale(value), percent(value, 0)) for value in values),
    )
