"""What differs between arms."""

from distil.report.difference import differences
from distil.report.record import RunRecord


def test_33_the_difference_between_the_arms_is_exactly_what_is_shown(record: RunRecord) -> None:
    found, num_same = differences(record.recipe["arms"])
    shown = {each.key: each.values for each in found}
    assert shown == {
        "objective.true-labels.weight": ("1.0", "1.0", "0.1", "0.1"),
        "objective.true-labels.smoothing": ("0.0", "0.1", "0.0", "0.0"),
        "objective.soft-targets.kind": ("–", "–", "soft-targets", "soft-targets"),
        "objective.soft-targets.weight": ("–", "–", "0.9", "0.9"),
        "objective.soft-targets.temperature": ("–", "–", "4.0", "4.0"),
        "objective.soft-targets.permuted": ("–", "–", "true", "–"),
    }
    assert num_same == 11


def test_33_a_control_with_another_budget_cannot_hide() -> None:
    arm = {"control": False, "stages": [{"kind": "train", "training": {"epochs": 20}}]}
    longer = {"control": True, "stages": [{"kind": "train", "training": {"epochs": 40}}]}
    found, _ = differences({"distilled": arm, "scratch": longer})
    assert [(each.key, each.values) for each in found] == [("training.epochs", ("20", "40"))]


def test_several_stages_keep_their_index() -> None:
    two = {"stages": [{"kind": "train"}, {"kind": "prune", "share": 0.5}]}
    found, _ = differences({"a": two, "b": {"stages": [{"kind": "train"}]}})
    assert "stages[1].share" in [each.key for each in found]


def test_equal_arms_differ_in_nothing() -> None:
    arm = {"control": True, "student": {"model": {"widths": [64, 64]}}}
    assert differences({"a": arm, "b": dict(arm)}) == ((), 1)


def test_no_arms_at_all() -> None:
    assert differences({}) == ((), 0)
