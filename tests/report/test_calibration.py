"""Reliability diagrams and the table of probabilistic measures."""

import pytest

from distil.report.calibration import MEASURES, diagrams, measure_names, measures
from distil.report.record import RunRecord


def test_student_control_and_teacher_are_shown(record: RunRecord, bare_record: RunRecord) -> None:
    assert [each.title for each in diagrams(record)] == ["Student that ships", "label-smoothing, seed 4", "Teacher"]
    assert [each.title for each in diagrams(bare_record)] == ["Student that ships", "Teacher"]


def test_a_model_that_is_too_sure_lies_below_the_diagonal(record: RunRecord) -> None:
    for diagram in diagrams(record):
        for dot, each in zip(diagram.dots, diagram.bins, strict=True):
            below = dot.y > dot.foot
            assert below == (each.accuracy < each.confidence - 1e-3) or abs(dot.y - dot.foot) < 0.3


def test_the_area_of_a_dot_is_the_number_of_its_examples(record: RunRecord) -> None:
    dots = diagrams(record)[0].dots
    assert dots[-1].radius == 8.0
    assert dots[0].radius < dots[-1].radius


def test_the_table_has_a_value_for_each_measure(record: RunRecord) -> None:
    found = {each.name: each.values for each in measures(record)}
    assert all(len(values) == len(MEASURES) == len(measure_names()) for values in found.values())
    assert found["teacher"][3:] == ("–", "–")
    mean = sum(model.evaluation.metrics["kl_to_teacher"] or 0 for model in record.arms["distilled"].values()) / 5
    assert float(found["distilled"][4]) == pytest.approx(mean, rel=0.01)


def test_the_heads_are_readable() -> None:
    assert measure_names()[0] == "Negative log-likelihood"
    assert measure_names()[-1] == "KL to teacher"
