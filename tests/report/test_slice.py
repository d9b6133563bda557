"""Slices."""

from dataclasses import replace

import pytest

from distil.report.record import RunRecord
from distil.report.slice import slice_arms, slice_table


def test_a_row_for_each_slice_with_every_arm_distilled_first(text_record: RunRecord) -> None:
    assert slice_arms(text_record) == ("distilled", "scratch", "label-smoothing", "permuted-knowledge")
    rows = slice_table(text_record)
    assert [row.name for row in rows] == ["negation", "contrast", "long"]
    assert rows[0].values == ("91.0%", "83.0%", "86.0%", "84.0%")
    assert (rows[0].support, rows[0].difference, rows[0].interval) == ("212", "+5.0", "+1.4 to +8.8")
    assert rows[1].difference == "−2.0"


def test_all_slices_are_drawn_on_one_axis(text_record: RunRecord) -> None:
    """From -6.1 to 8.8 points with 8% of room on both sides: -7.292 to 9.992."""
    negation, contrast, _ = slice_table(text_record)
    assert negation.zero == contrast.zero == pytest.approx(100 * 7.292 / 17.284, abs=0.1)
    assert negation.bar is not None
    assert negation.bar[0] == pytest.approx(100 * (7.292 + 1.4) / 17.284, abs=0.1)
    assert contrast.at is not None
    assert contrast.at < contrast.zero < negation.bar[0]


def test_a_slice_with_too_few_examples_has_no_interval(text_record: RunRecord) -> None:
    row = slice_table(text_record)[2]
    assert (row.interval, row.bar, row.seed_bar) == ("–", None, None)


def test_an_empty_slice_has_only_dashes(text_record: RunRecord) -> None:
    assert text_record.summary is not None
    first = text_record.summary.slices[0]
    empty = replace(first, support=0, means=dict.fromkeys(first.means), difference=None, interval=None)
    (row,) = slice_table(replace(text_record, summary=replace(text_record.summary, slices=(empty,))))
    assert row.values == ("–",) * 4
    assert row.difference == "–"


def test_without_slices_there_is_nothing(record: RunRecord, bare_record: RunRecord) -> None:
    assert slice_table(record) == slice_table(bare_record) == ()
    assert slice_arms(bare_record) == ()
