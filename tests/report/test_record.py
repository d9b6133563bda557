"""The questions that a record answers about itself."""

from dataclasses import FrozenInstanceError, replace

import pytest

from distil.report.record import RunRecord


def test_a_record_cannot_be_changed(record: RunRecord) -> None:
    with pytest.raises(FrozenInstanceError):
        record.verdict.verdict = "BEATS"  # type: ignore[misc]


def test_controls_and_distilled_arms_are_told_apart(record: RunRecord) -> None:
    assert record.controls == ("scratch", "label-smoothing", "permuted-knowledge")
    assert record.distilled_arms == ("distilled",)


def test_the_verdict_tells_the_controls_where_the_recipe_does_not(record: RunRecord) -> None:
    assert replace(record, recipe={}).controls == record.controls


def test_the_student_is_the_one_that_ships(record: RunRecord) -> None:
    assert record.student is record.arms["distilled"][4]
    assert replace(record, shipped=None).student is record.arms["distilled"][0]


def test_the_name_is_the_directory_where_the_recipe_has_none(record: RunRecord) -> None:
    assert record.name == "digits"
    assert replace(record, recipe={}).name == record.directory.name


def test_a_teachers_export_is_not_the_students(record: RunRecord, bare_record: RunRecord) -> None:
    export = record.student_export("fp32")
    assert export is not None
    assert export.name == "onnx-fp32"
    assert bare_record.student_export("fp32") is None
