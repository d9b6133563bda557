"""Scales, ticks and places of labels."""

import math
from itertools import pairwise

import pytest

from distil.report.axis import Scale, linear_values, log_values, padded, path, spread


def test_a_linear_scale_maps_its_ends_and_its_middle() -> None:
    scale = Scale(0.0, 10.0, 100, 200)
    assert [scale(value) for value in (0, 5, 10)] == [100, 150, 200]


def test_a_log_scale_gives_equal_ratios_equal_distances() -> None:
    scale = Scale(1, 10_000, 0, 400, logarithmic=True)
    assert [scale(value) for value in (1, 10, 100, 1000, 10_000)] == [0, 100, 200, 300, 400]


def test_a_value_outside_of_the_domain_stays_inside_of_the_chart() -> None:
    assert Scale(0, 1, 0, 100)(7) == 100
    assert Scale(0, 1, 0, 100)(-7) == 0


def test_a_scale_may_run_downwards() -> None:
    assert Scale(0, 1, 280, 30)(1) == 30


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (1, 60, [10, 20, 30, 40, 50, 60]),
        (0.861, 0.999, [0.88, 0.9, 0.92, 0.94, 0.96, 0.98]),
        (-3, 3, [-2, 0, 2]),
    ],
)
def test_linear_ticks_are_round_and_inside(low: float, high: float, expected: list[float]) -> None:
    assert linear_values(low, high) == pytest.approx(expected)


def test_log_ticks_are_denser_in_a_short_range() -> None:
    assert log_values(1, 1e6) == pytest.approx([10.0**power for power in range(7)])
    assert log_values(20_000, 2_000_000) == pytest.approx([30_000, 100_000, 300_000, 1_000_000])
    assert log_values(1, 10) == pytest.approx([1, 2, 5, 10])
    assert log_values(36_000, 79_000) == pytest.approx([40_000, 50_000, 60_000, 70_000])


def test_ticks_carry_their_label() -> None:
    ticks = Scale(0, 1, 0, 100).ticks(lambda value: f"{value:.1f}")
    assert (ticks[0].position, ticks[0].label) == (0, "0.0")
    assert (ticks[-1].position, ticks[-1].label) == (100, "1.0")


def test_padding_respects_limits_and_never_gives_an_empty_domain() -> None:
    assert padded(0.5, 1.0, ceiling=1.0) == pytest.approx((0.46, 1.0))
    low, high = padded(3.0, 3.0)
    assert low < 3.0 < high
    low, high = padded(0.0, 0.0)
    assert low < high


def test_labels_are_moved_apart_and_keep_their_order() -> None:
    placed = spread([100, 101, 102, 200], gap=15, low=0, high=300)
    assert placed[3] == 200
    assert placed[0] < placed[1] < placed[2]
    assert all(after - before >= 15 - 1e-6 for before, after in pairwise(placed[:3]))
    assert sum(placed[:3]) / 3 == pytest.approx(101, abs=0.2)


def test_labels_that_are_far_apart_stay() -> None:
    assert spread([10, 90, 50], gap=15, low=0, high=100) == [10, 90, 50]


def test_labels_stay_inside() -> None:
    placed = spread([0, 1, 299, 300], gap=20, low=10, high=280)
    assert min(placed) >= 10
    assert max(placed) <= 280
    assert all(math.isfinite(place) for place in placed)


def test_a_path_is_a_polyline() -> None:
    assert path([(0, 1), (2.5, 3)]) == "M0 1L2.5 3"
    assert path([(0, 1), (2, 3)], closed=True).endswith("Z")
