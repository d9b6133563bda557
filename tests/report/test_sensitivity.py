"""Sensitivity panels from a tuning record."""

from dataclasses import replace

import pytest

from distil.report.html import render
from distil.report.record import RunRecord
from distil.report.sensitivity import sensitivity_panels


def trial(smoothing: float, value: float | None, *, is_pruned: bool = False) -> dict:
    return {"settings": {"labels.smoothing": smoothing}, "value": value, "values": [], "is_pruned": is_pruned}


TUNED = {
    "best": {"labels.smoothing": 0.2},
    "value": 0.93,
    "trials": [trial(0.1, 0.9), trial(0.2, 0.93), trial(0.3, 0.91, is_pruned=True), trial(0.4, None)],
    "num_pruned": 1,
    "seconds": 12.4,
}


@pytest.fixture
def tuned(record: RunRecord) -> RunRecord:
    arm = next(iter(record.arms))
    return replace(record, tuning={"metric": "accuracy", "arms": {arm: TUNED}})


def test_nothing_tuned_nothing_drawn(record: RunRecord) -> None:
    assert sensitivity_panels(record) == ()


def test_a_dot_for_each_trial_that_came_through_higher_is_better(tuned: RunRecord) -> None:
    (panel,) = sensitivity_panels(tuned)
    assert [dot.is_chosen for dot in panel.dots] == [False, True, False]
    assert [dot.is_pruned for dot in panel.dots] == [False, False, True]
    assert panel.dots[0].x < panel.dots[1].x < panel.dots[2].x
    assert panel.dots[1].y < panel.dots[2].y < panel.dots[0].y
    assert "3 trials on validation, 1 stopped early, 12 s" in panel.note


def test_a_metric_that_is_to_be_low_is_shown_as_it_is(language_record: RunRecord) -> None:
    """Trials are rated such that higher is better: 1.2 bits per byte are rated -1.2."""
    trials = [trial(0.1, -1.3), trial(0.2, -1.2)]
    tuning = {"metric": "bits_per_byte", "arms": {"scratch": TUNED | {"trials": trials}}}
    (panel,) = sensitivity_panels(replace(language_record, tuning=tuning))
    assert [dot.value for dot in panel.dots] == ["1.300", "1.200"]
    assert panel.dots[0].y < panel.dots[1].y


def test_words_have_no_curve(tuned: RunRecord) -> None:
    arm = next(iter(tuned.arms))
    words = {
        **TUNED,
        "best": {"x.noise": "sampled"},
        "trials": [
            {"settings": {"x.noise": word}, "value": 0.9, "values": [], "is_pruned": False}
            for word in ("sampled", "constant")
        ],
    }
    assert sensitivity_panels(replace(tuned, tuning={"metric": "accuracy", "arms": {arm: words}})) == ()


def test_the_page_has_the_section_and_its_numbers(tuned: RunRecord) -> None:
    page = render(tuned)
    assert 'id="tuning"' in page
    assert "labels.smoothing" in page
    assert "stopped early" in page
