"""Reliability diagrams."""

from distil.report.calibration import diagrams
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


def test_a_task_without_classes_has_no_diagram(language_record: RunRecord, text_record: RunRecord) -> None:
    assert diagrams(language_record) == ()
    assert len(diagrams(text_record)) == 3
