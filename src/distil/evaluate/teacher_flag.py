"""A teacher that is no better than the student alone teaches nothing: said before any distilled arm is trained."""

from collections.abc import Sequence


def flag_weak_teacher(
    name: str, teacher_accuracy: float, control: str, control_accuracies: Sequence[float], *, split: str
) -> str | None:
    """A warning where the teacher's accuracy is not above the control's mean; None where it is.

    Args:
        name: of the teacher.
        teacher_accuracy: of the teacher.
        control: name of the control.
        control_accuracies: of the control, by seed.
        split: the split on which all were measured.
    """
    mean = sum(control_accuracies) / len(control_accuracies)
    if teacher_accuracy > mean:
        return None
    return (
        f"The teacher {name!r} is no better than the student alone: {teacher_accuracy:.4f} against {mean:.4f} of the "
        f"control {control!r} on the {split} split. Train it longer or choose another; students of such a teacher "
        "can end up worse."
    )
