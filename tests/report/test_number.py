"""Numbers as text: expected values were written by hand."""

import math

import pytest

from distil.report import number

NBSP = "\u00a0"


@pytest.mark.parametrize(
    ("fraction", "digits", "expected"),
    [
        (0.959, 1, "95.9%"),
        (0.0, 1, "0.0%"),
        (1.0, 1, "100.0%"),
        (0.9997, 1, "99.97%"),
        (0.99999, 0, "99.999%"),
        (0.0004, 1, "0.04%"),
        (1e-9, 1, "<0.001%"),
        (-0.05, 1, "−5.0%"),
        (None, 1, "–"),
        (math.nan, 1, "–"),
    ],
)
def test_percent(fraction: float | None, digits: int, expected: str) -> None:
    assert number.percent(fraction, digits) == expected


@pytest.mark.parametrize(
    ("difference", "expected"), [(0.059, "+5.9"), (-0.012, "−1.2"), (0.0, "0.0"), (-0.0001, "0.0"), (None, "–")]
)
def test_points_have_a_sign_unless_they_round_to_zero(difference: float | None, expected: str) -> None:
    assert number.points(difference) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.012345, "0.0123"),
        (2.5, "2.50"),
        (1234.6, "1,235"),
        (0, "0"),
        (2.1e-6, "2.10 × 10⁻⁶"),
        (-3.21e9, "−3.21 × 10⁹"),
        (None, "–"),
        (math.inf, "–"),
    ],
)
def test_significant(value: float | None, expected: str) -> None:
    assert number.significant(value) == expected


@pytest.mark.parametrize(
    ("num_bytes", "expected"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.00 kB"), (19_240, "19.2 kB"), (999_900, "1.00 MB"), (2_395_210, "2.40 MB")],
)
def test_sizes_are_si(num_bytes: int, expected: str) -> None:
    assert number.size(num_bytes) == expected.replace(" ", NBSP)


@pytest.mark.parametrize(
    ("value", "expected"), [(4810, "4,810"), (300_554, "301 k"), (2_395_210, "2.40 M"), (7e9, "7.00 G")]
)
def test_quantity(value: int, expected: str) -> None:
    assert number.quantity(value) == expected.replace(" ", NBSP)


@pytest.mark.parametrize(
    ("value", "expected"), [(0.0213, "21.3 µs"), (3.4, "3.40 ms"), (250, "250 ms"), (12_340, "12.3 s"), (None, "–")]
)
def test_milliseconds(value: float | None, expected: str) -> None:
    assert number.milliseconds(value) == expected.replace(" ", NBSP)


def test_size_ticks_are_short() -> None:
    assert [number.size_tick(value) for value in (500, 30_000, 1_000_000, 2_000_000_000)] == [
        f"500{NBSP}B",
        f"30{NBSP}kB",
        f"1{NBSP}MB",
        f"2{NBSP}GB",
    ]


def test_a_rough_percentage_never_says_all_or_nothing_by_rounding() -> None:
    assert [number.rough_percent(value) for value in (0.0, 0.001, 0.37, 0.999, 1.0)] == [
        "0%",
        "<1%",
        "37%",
        ">99%",
        "100%",
    ]


def test_quality_and_gain_follow_the_metric() -> None:
    assert number.quality(0.9, "accuracy") == "90.0%"
    assert number.quality(0.9, "negative_log_likelihood") == "0.900"
    assert number.gain(0.02, "accuracy") == "+2.0"
    assert number.gain(0.02, "negative_log_likelihood") == "+0.0200"
    assert number.gain(-0.02, "negative_log_likelihood") == "−0.0200"
    assert number.gain_unit("accuracy") == "percentage points"


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        ("hit_at_1", "84.6%"),
        ("hit_at_10", "84.6%"),
        ("entity_f1", "84.6%"),
        ("exact_match", "84.6%"),
        ("sentence_tag_accuracy", "84.6%"),
        ("sentence_chrf", "84.6%"),
        ("mean_average_precision", "84.6%"),
        ("spearman", "0.846"),
        ("mean_reciprocal_rank", "0.846"),
        ("bits_per_byte", "0.8457"),
        ("document_bits_per_byte", "0.8457"),
        ("perplexity_per_token", "0.846"),
    ],
)
def test_shares_are_in_percent_and_other_metrics_are_not(metric: str, expected: str) -> None:
    assert number.quality(0.84567, metric) == expected


def test_counts_are_whole() -> None:
    assert number.quality(412_305, "bytes") == "412,305"


def test_gains_of_metrics_of_about_one_have_as_many_places_as_each_other() -> None:
    assert [number.gain(value, "bits_per_byte") for value in (0.1012, -0.00761, 0.0)] == [
        "+0.1012",
        "−0.0076",
        "0.0000",
    ]
    assert number.gain(None, "spearman") == "–"
    assert number.gain_unit("document_bits_per_byte") == "bits per byte"
    assert number.gain_unit("spearman") == "Spearman"


def test_which_way_is_better_follows_from_the_name() -> None:
    lower = ("bits_per_byte", "token_perplexity", "nats_per_token", "negative_log_likelihood", "kl_to_teacher")
    assert all(map(number.is_lower_better, (*lower, "expected_calibration_error", "brier_score")))
    assert not any(map(number.is_lower_better, ("accuracy", "spearman", "hit_at_1", "agreement_with_teacher")))


def test_a_second_digit_only_where_there_are_examples_for_it() -> None:
    assert number.digits_for(1078) == 1
    assert number.digits_for(10_000) == 2


def test_names_of_metrics() -> None:
    assert number.metric_name("negative_log_likelihood") == "negative log-likelihood"
    assert number.metric_name("kl_to_teacher") == "KL to teacher"
    assert number.metric_name("entity_f1") == "entity F1"
    assert [number.metric_title(name) for name in ("negative_log_likelihood", "kl_to_teacher", "chrf")] == [
        "Negative log-likelihood",
        "KL to teacher",
        "chrF",
    ]
