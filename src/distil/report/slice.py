"""Slices: how the arms do on named parts of the test split, such as texts with a negation."""

from dataclasses import dataclass

from distil.report.axis import Scale, padded
from distil.report.number import ABSENT, Number, count, digits_for, gain, quality
from distil.report.record import RunRecord, Slice
from distil.report.sentence import span


@dataclass(frozen=True)
class SliceRow:
    """One slice; ``values`` are of the arms in the order of ``slice_arms``, places are on an axis of 0..100."""

    name: str
    support: str
    values: tuple[str, ...]
    difference: str
    interval: str
    zero: Number
    at: Number | None
    bar: tuple[Number, Number] | None
    seed_bar: tuple[Number, Number] | None


def slice_arms(record: RunRecord) -> tuple[str, ...]:
    """The arms that have a value on any slice, distilled first."""
    known = {arm for each in _slices(record) for arm in each.means}
    return tuple(arm for arm in (*record.distilled_arms, *record.controls) if arm in known)


def slice_table(record: RunRecord) -> tuple[SliceRow, ...]:
    """A row for each slice, all intervals on one axis; none where the run has no slices."""
    slices, arms = _slices(record), slice_arms(record)
    bounds = [bound for each in slices for pair in (each.interval, each.seed_interval) for bound in pair or ()]
    points = [each.difference for each in slices if each.difference is not None]
    everything = [0.0, *bounds, *points]
    place = Scale(*padded(min(everything), max(everything)), 0, 100)
    return tuple(_row(record, each, arms, place) for each in slices)


def _slices(record: RunRecord) -> tuple[Slice, ...]:
    return record.summary.slices if record.summary is not None else ()


def _row(record: RunRecord, each: Slice, arms: tuple[str, ...], place: Scale) -> SliceRow:
    metric, digits = record.verdict.metric, digits_for(each.support)
    return SliceRow(
        name=each.name,
        support=count(each.support),
        values=tuple(quality(each.means.get(arm), metric, digits) for arm in arms),
        difference=gain(each.difference, metric, digits),
        interval=span(each.interval, record.verdict) if each.interval else ABSENT,
        zero=place(0.0),
        at=None if each.difference is None else place(each.difference),
        bar=_bar(each.interval, place),
        seed_bar=_bar(each.seed_interval, place),
    )


def _bar(interval: tuple[Number, Number] | None, place: Scale) -> tuple[Number, Number] | None:
    return None if interval is None else (place(interval[0]), place(interval[1]))
