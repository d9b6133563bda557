"""Which classes the student takes for which, and on which classes distillation changed something."""

import math
from dataclasses import dataclass

from distil.report.axis import Scale
from distil.report.number import Number, count, percent, points
from distil.report.record import ClassChange, RunRecord

MOST_CLASSES = 20
MOST_PAIRS = 15
MOST_PAIRS_BESIDE_MATRIX = 8
MOST_CHANGES = 10  # at each end of a long list
HEAT_LEVELS = 8


@dataclass(frozen=True)
class Cell:
    """Examples of the row's class that were taken for the column's; ``heat`` 0..HEAT_LEVELS is the share of the row."""

    count: int
    heat: int
    is_right: bool


@dataclass(frozen=True)
class Pair:
    """Two classes that are confused: ``count`` examples of ``true``, a share of all its examples."""

    true: str
    predicted: str
    count: str
    share: str
    width: Number


@dataclass(frozen=True)
class Confusion:
    """The most confused ``pairs``, and the matrix (``rows``) unless there are too many classes for one."""

    class_names: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    pairs: tuple[Pair, ...]
    num_errors: int
    num_examples: int


@dataclass(frozen=True)
class Change:
    """One class; the bar goes from ``start`` over ``width`` on an axis of 0..100 that has no change at ``zero``."""

    name: str
    support: str
    control: str
    distilled: str
    change: str
    zero: Number
    start: Number
    width: Number
    is_gain: bool


def confusion(record: RunRecord) -> Confusion:
    """The confusion of the shipped student on the test split."""
    matrix = record.student.evaluation.confusion
    names = tuple(str(name) for name in record.data["class_names"])
    right = sum(row[index] for index, row in enumerate(matrix))
    total = sum(sum(row) for row in matrix)
    is_long = len(names) > MOST_CLASSES
    return Confusion(
        class_names=names,
        rows=() if is_long else tuple(_row(index, row) for index, row in enumerate(matrix)),
        pairs=_pairs(names, matrix)[: MOST_PAIRS if is_long else MOST_PAIRS_BESIDE_MATRIX],
        num_errors=total - right,
        num_examples=total,
    )


def class_changes(record: RunRecord) -> tuple[tuple[Change, ...], int]:
    """The changes, largest gain first, and how many classes of little change were left out of a long list."""
    if record.summary is None:
        return (), 0
    ordered = sorted(record.summary.per_class_change, key=lambda each: each.change, reverse=True)
    shown = ordered
    if len(ordered) > MOST_CLASSES:
        shown = ordered[:MOST_CHANGES] + ordered[-MOST_CHANGES:]
    low = min([0.0, *(each.change for each in shown)])
    high = max([0.0, *(each.change for each in shown)])
    axis = Scale(low, high if high > low else low + 1, 0, 100)
    return tuple(_change(each, axis) for each in shown), len(ordered) - len(shown)


def _row(index: int, row: tuple[int, ...]) -> tuple[Cell, ...]:
    total = sum(row) or 1
    return tuple(Cell(number, _heat(number / total), column == index) for column, number in enumerate(row))


def _heat(share: Number) -> int:
    """The square root makes a confusion of 1% visible beside a diagonal of 99%."""
    return math.ceil(HEAT_LEVELS * math.sqrt(share) - 1e-9)


def _pairs(names: tuple[str, ...], matrix: tuple[tuple[int, ...], ...]) -> tuple[Pair, ...]:
    found = [
        (number, true, predicted)
        for true, row in enumerate(matrix)
        for predicted, number in enumerate(row)
        if true != predicted and number > 0
    ]
    found = sorted(found, key=lambda each: (-each[0], each[1], each[2]))[:MOST_PAIRS]
    return tuple(
        Pair(
            names[true],
            names[predicted],
            count(number),
            percent(number / sum(matrix[true]), 0),
            round(100 * number / found[0][0], 1),
        )
        for number, true, predicted in found
    )


def _change(each: ClassChange, axis: Scale) -> Change:
    zero, end = axis(0.0), axis(each.change)
    return Change(
        name=each.name,
        support=count(each.support),
        control=percent(each.control),
        distilled=percent(each.distilled),
        change=points(each.change),
        zero=zero,
        start=min(zero, end),
        width=round(abs(end - zero), 1),
        is_gain=each.change >= 0,
    )
