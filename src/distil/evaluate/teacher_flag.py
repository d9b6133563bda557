"""A teacher that is no better than the student alone teaches nothing: said before any distilled arm is trained."""

from collections.abc import Sequence


def flag_weak_teacher(
    name: str,
    teacher_value: float,
    control: str,
    control_values: Sequence[float],
    *,
    split: str,
    higher_is_better: bool = True,
) -> str | None:
    """A warning where the teacher is not better than the control's mean; None where it is.

    Args:
        name: of the teacher.
        teacher_value: its metric.
        control: name of the control.
        control_values: of the control, by seed.
        split: the split on which all were measured.
        higher_is_better: of the metric.
    """
    mean = sum(control_values) / len(control_values)
    if (teacher_value > mean) if higher_is_better else (teacher_value < mean):
        return None
    return (
        f"The teacher {name!r} is no better than the student alone: {teacher_value:.4f} against {mean:.4f} of the "
        f"control {control!r} on the {split} split. Train it longer or choose another; students of such a teacher "
        "can end up worse."
    )
