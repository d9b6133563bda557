"""Every model has its own look, by more than its colour."""

from distil.report.record import RunRecord
from distil.report.series import series_of


def test_models_differ_in_marker_and_style(record: RunRecord) -> None:
    looks = list(series_of(record).values())
    assert len({look.outline for look in looks}) == len(looks)
    assert len({look.style for look in looks}) == len(looks)
    assert len({look.dash for look in looks}) == len(looks)


def test_teachers_come_first_and_controls_last(record: RunRecord) -> None:
    roles = [look.role for look in series_of(record).values()]
    assert roles == ["teacher", "distilled", "control", "control", "control"]


def test_a_teacher_and_an_arm_may_share_a_name(record: RunRecord) -> None:
    assert ("teacher", "teacher") in series_of(record)
    assert ("arm", "distilled") in series_of(record)
