"""Confusion and change per class."""

from dataclasses import replace
from pathlib import Path

import pytest

from distil.report.confusion import HEAT_LEVELS, class_changes, confusion
from distil.report.read import read_run
from distil.report.record import ClassChange, RunRecord, Summary

from .run_directory_fixture import write_run


def test_the_matrix_is_the_shipped_students(record: RunRecord) -> None:
    found = confusion(record)
    assert tuple(tuple(cell.count for cell in row) for row in found.rows) == record.student.evaluation.confusion
    assert found.num_errors == record.student.evaluation.metrics["errors"]


def test_the_diagonal_is_right_and_one_error_is_visible(record: RunRecord) -> None:
    found = confusion(record)
    for index, row in enumerate(found.rows):
        assert [cell.is_right for cell in row] == [column == index for column in range(len(row))]
        assert all((cell.heat > 0) == (cell.count > 0) for cell in row)
        assert all(cell.heat <= HEAT_LEVELS for cell in row)


def test_pairs_are_ordered_by_number(record: RunRecord) -> None:
    pairs = confusion(record).pairs
    counts = [int(pair.count) for pair in pairs]
    assert counts == sorted(counts, reverse=True)
    assert pairs[0].width == 100
    matrix = record.student.evaluation.confusion
    errors = [n for true, row in enumerate(matrix) for column, n in enumerate(row) if true != column]
    assert counts[0] == max(errors)


def test_many_classes_show_pairs_only(tmp_path: Path) -> None:
    names = [f"class {index}" for index in range(21)]
    found = confusion(read_run(write_run(tmp_path / "run", class_names=names)))
    assert found.rows == ()
    assert found.pairs


def changes(record: RunRecord, *values: float) -> RunRecord:
    classes = tuple(ClassChange(str(index), 10, 0.5, 0.5 + value, value) for index, value in enumerate(values))
    return replace(record, summary=Summary({}, classes, "scratch"))


def test_changes_are_ordered_and_drawn_from_zero(record: RunRecord) -> None:
    found, left_out = class_changes(changes(record, -0.1, 0.3, 0.0))
    assert [change.change for change in found] == ["+30.0", "0.0", "−10.0"]
    assert [(each.zero, each.start, each.width) for each in found] == [(25, 25, 75), (25, 25, 0), (25, 0, 25)]
    assert [change.is_gain for change in found] == [True, True, False]
    assert left_out == 0


def test_no_change_anywhere_can_be_drawn(record: RunRecord) -> None:
    assert [each.width for each in class_changes(changes(record, 0.0, 0.0))[0]] == [0, 0]


def test_a_long_list_keeps_its_two_ends(record: RunRecord) -> None:
    found, left_out = class_changes(changes(record, *(index / 100 for index in range(-15, 16))))
    assert len(found) == 20
    assert left_out == 11
    assert (found[0].change, found[-1].change) == ("+15.0", "−15.0")


def test_without_a_summary_there_are_no_changes(bare_record: RunRecord) -> None:
    assert class_changes(bare_record) == ((), 0)


@pytest.mark.parametrize("num_classes", [2, 20])
def test_up_to_twenty_classes_have_a_matrix(tmp_path: Path, num_classes: int) -> None:
    names = [f"class {index}" for index in range(num_classes)]
    found = confusion(read_run(write_run(tmp_path / "run", class_names=names, gallery=num_classes > 3)))
    assert len(found.rows) == num_classes
