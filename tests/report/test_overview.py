"""The table of the first screen."""

from dataclasses import replace

import pytest

from distil.report.overview import has_calibration, mean_metric, quality_range, rows, wilson_interval
from distil.report.record import RunRecord


def test_every_model_has_a_row_and_the_artefact_follows_its_student(record: RunRecord) -> None:
    assert [row.label for row in rows(record)] == [
        "teacher",
        "distilled",
        "int8 ONNX file",
        "scratch",
        "label-smoothing",
        "permuted-knowledge",
    ]


def test_a_row_holds_quality_range_size_and_speed(record: RunRecord) -> None:
    student = rows(record)[1]
    values = record.verdict.arms["distilled"].values
    assert student.quality == f"{100 * record.verdict.arms['distilled'].mean:.1f}%"
    assert student.range == f"{100 * min(values):.1f}–{100 * max(values):.1f}%"
    assert student.size == "36.4\u00a0kB"
    assert student.latency == "12.3\u00a0µs"
    assert student.is_distilled
    assert not student.same_network


def test_a_control_with_the_same_network_borrows_the_latency_and_says_so(record: RunRecord) -> None:
    control = next(row for row in rows(record) if row.label == "scratch")
    assert control.latency == "12.3\u00a0µs"
    assert control.same_network


def test_a_control_with_another_network_borrows_nothing(record: RunRecord) -> None:
    arms = dict(record.recipe["arms"])
    arms["scratch"] = arms["scratch"] | {"student": {"model": {"kind": "mlp", "widths": [8]}}}
    changed = replace(record, recipe=dict(record.recipe) | {"arms": arms})
    control = next(row for row in rows(changed) if row.label == "scratch")
    assert control.latency == "–"
    assert not control.same_network


def test_without_exports_there_is_no_latency(bare_record: RunRecord) -> None:
    assert [row.latency for row in rows(bare_record)] == ["–", "–"]


def test_the_teachers_labels_are_shown_only_where_it_had_others(record: RunRecord) -> None:
    assert rows(record)[0].role == "539 labels"
    same = replace(record, data=dict(record.data) | {"teacher_labels": {"teacher": 100}})
    assert rows(same)[0].role == "teacher"


def test_the_wilson_interval_agrees_with_a_published_value() -> None:
    """Newcombe 1998, table I: 81 of 263 gives 0.2553 to 0.3662; 0 of 20 gives 0 to 0.1611."""
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson_interval(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)


def test_one_seed_has_an_interval_and_several_have_a_range(record: RunRecord) -> None:
    assert quality_range(record, (0.9, 0.8, 0.85)) == (0.8, 0.9)
    low, high = quality_range(record, (0.9,)) or (0, 0)
    assert low < 0.9 < high


def test_a_metric_that_is_no_accuracy_has_no_wilson_interval(record: RunRecord) -> None:
    changed = replace(record, verdict=replace(record.verdict, metric="negative_log_likelihood"))
    assert quality_range(changed, (0.9,)) is None


def test_the_mean_leaves_out_what_was_not_measured(record: RunRecord) -> None:
    assert mean_metric(record.arms["distilled"].values(), "no such metric") is None
    assert mean_metric(record.teachers.values(), "accuracy") == pytest.approx(0.9972, abs=1e-3)


def test_references_come_last_with_their_quality_and_their_note(text_record: RunRecord, record: RunRecord) -> None:
    last = rows(text_record)[-2:]
    assert [(row.label, row.role, row.quality) for row in last] == [
        ("majority class", "reference", "50.9%"),
        ("TF-IDF and logistic regression", "reference", "82.3%"),
    ]
    assert last[0].note == "Always the most frequent class."
    assert all(row.is_reference and not row.latency and not row.size for row in last)
    assert not any(row.is_reference for row in rows(record))


def test_only_where_a_model_has_a_calibration_error_it_has_a_column(
    record: RunRecord, text_record: RunRecord, language_record: RunRecord
) -> None:
    assert has_calibration(rows(record))
    assert has_calibration(rows(text_record))
    assert not has_calibration(rows(language_record))


def test_qualities_of_a_language_model_are_numbers(language_record: RunRecord) -> None:
    teacher, student, *_ = rows(language_record)
    assert float(teacher.quality) == pytest.approx(2.5 - 1.4 * 1075 / 1078, abs=5e-4)
    assert teacher.range == ""
    assert teacher.role == "539 texts"
    assert len(student.quality) == len("1.234")


def test_the_artefact_of_a_run_without_its_metric_has_a_dash(text_record: RunRecord) -> None:
    exports = tuple(
        replace(each, parity=replace(each.parity, metric=None)) for each in text_record.exports if each.parity
    )
    assert rows(replace(text_record, exports=exports))[2].quality == "–"
