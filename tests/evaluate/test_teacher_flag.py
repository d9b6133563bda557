"""Correctness, line 37: a teacher that is no better than the student alone is flagged."""

import pytest

from distil.evaluate.teacher_flag import flag_weak_teacher


def flag(teacher: float, *controls: float) -> str | None:
    return flag_weak_teacher("big", teacher, "scratch", controls, split="validation")


def test_37_a_worse_teacher_is_flagged_with_both_numbers_and_what_to_do() -> None:
    assert flag(0.9, 0.9, 0.94) == (
        "The teacher 'big' is no better than the student alone: 0.9000 against 0.9200 of the control 'scratch' on the "
        "validation split. Train it longer or choose another; students of such a teacher can end up worse."
    )


def test_37_an_equal_teacher_is_flagged_and_a_better_one_is_not() -> None:
    assert flag(0.92, 0.92) is not None
    assert flag(0.9201, 0.92) is None


@pytest.mark.parametrize(("teacher", "flagged"), [(0.85, True), (0.95, False)])
def test_37_the_mean_over_seeds_counts_not_the_best(teacher: float, flagged: bool) -> None:
    assert (flag(teacher, 0.8, 0.9, 0.94) is not None) == flagged
