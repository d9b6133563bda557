"""The verdict rule (architecture, section 6) on arrays made for each word; its intervals against SciPy and chance."""

import json
import time
from collections.abc import Mapping

import numpy as np
import pytest
from jaxtyping import TypeCheckError
from scipy import stats

from distil.evaluate.verdict import (
    RESAMPLES,
    Comparison,
    Verdict,
    bootstrap_intervals,
    compare,
    decide,
    seed_interval,
    smallest_detectable,
    verdict_record,
)

EXAMPLES = 400


def arm(*right: int, examples: int = EXAMPLES, first: int = 0) -> np.ndarray:
    """Whether an example is right: for each seed the first ``right`` from ``first`` on, so that arms are paired."""
    scores = np.zeros((len(right), examples), dtype=bool)
    for seed, count in enumerate(right):
        scores[seed, first : first + count] = True
    return scores


GOOD = arm(380, 379, 381, 380, 378)
MIDDLE = arm(340, 342, 341, 339, 340)
BAD = arm(300, 301, 299, 302, 300)
UNEVEN = arm(300, 390, 340, 300, 395)  # seeds differ by more than the arms do


def word(distilled: np.ndarray, controls: Mapping[str, np.ndarray], margin: float = 0.005) -> str:
    return decide(distilled, controls, margin=margin).word


def test_beats_needs_every_control() -> None:
    assert word(GOOD, {"a": MIDDLE}) == "BEATS"
    assert word(GOOD, {"a": MIDDLE, "b": BAD}) == "BEATS"
    assert word(GOOD, {"a": MIDDLE, "b": GOOD}) != "BEATS"


def test_worse_needs_only_one_control() -> None:
    assert word(BAD, {"a": MIDDLE}) == "WORSE"
    assert word(MIDDLE, {"a": BAD, "b": GOOD}) == "WORSE"
    assert word(MIDDLE, {"a": MIDDLE, "b": GOOD}) == "WORSE"


def test_equivalent_looks_at_the_best_control_and_the_margin() -> None:
    assert word(GOOD, {"a": GOOD}) == "EQUIVALENT"
    assert word(GOOD, {"a": GOOD, "b": BAD}) == "EQUIVALENT"
    nearly = GOOD.copy()
    nearly[:, 0] = False
    assert word(GOOD, {"a": nearly}, margin=0.02) == "EQUIVALENT"
    assert word(GOOD, {"a": nearly}, margin=0.001) == "INCONCLUSIVE"
    assert word(GOOD, {"a": GOOD}, margin=0.0) == "INCONCLUSIVE"  # nothing lies inside of nothing


def test_equivalence_uses_the_narrower_interval_of_90_percent() -> None:
    """Twenty examples are won and twenty lost, in every seed: a difference of 0 with an interval around it."""
    distilled, control = arm(*[380] * 5), arm(*[380] * 5, first=20)
    comparison = compare(distilled, control)
    assert comparison.difference == 0
    wide, narrow = (max(map(abs, each)) for each in (comparison.interval, comparison.equivalence_interval))
    assert 0 < narrow < wide
    assert word(distilled, {"a": control}, margin=(narrow + wide) / 2) == "EQUIVALENT"
    assert word(distilled, {"a": control}, margin=narrow * 0.99) == "INCONCLUSIVE"


def test_better_over_examples_but_not_over_seeds_is_inconclusive() -> None:
    comparison = compare(UNEVEN, arm(310, 320, 330, 320, 310))
    assert comparison.interval[0] > 0
    assert comparison.seed_interval is not None
    assert comparison.seed_interval[0] < 0 < comparison.seed_interval[1]
    assert word(UNEVEN, {"a": arm(310, 320, 330, 320, 310)}) == "INCONCLUSIVE"


def test_a_control_that_is_better_in_one_interval_only_makes_it_not_worse() -> None:
    control = arm(310, 320, 330, 320, 310)
    comparison = compare(control, UNEVEN)
    assert comparison.interval[1] < 0
    assert comparison.seed_interval is not None
    assert comparison.seed_interval[1] > 0
    assert word(control, {"a": UNEVEN}) == "INCONCLUSIVE"


def test_better_over_seeds_but_not_over_examples_is_inconclusive() -> None:
    """Every seed gains the same single example: certain over seeds, and nothing over examples."""
    control = arm(100, 100, 100, examples=101)
    comparison = compare(arm(101, 101, 101, examples=101), control)
    assert comparison.seed_interval == (pytest.approx(1 / 101), pytest.approx(1 / 101))
    assert comparison.interval[0] <= 0
    assert word(arm(101, 101, 101, examples=101), {"a": control}) == "INCONCLUSIVE"


@pytest.mark.parametrize(("controls", "missing"), [({}, "no control"), ({"a": GOOD}, "no distilled arm")])
def test_not_tested(controls: Mapping[str, np.ndarray], missing: str) -> None:
    verdict = decide(GOOD if not controls else None, controls, margin=0.005)
    assert verdict == Verdict("NOT TESTED", notes=(f"The recipe has {missing}, so nothing was compared.",))


def test_the_best_control_is_the_one_with_the_highest_mean() -> None:
    verdict = decide(GOOD, {"a": BAD, "b": MIDDLE}, margin=0.005)
    assert verdict.best_control == "b"
    assert list(verdict.against) == ["a", "b"]
    assert verdict.against["b"].difference == pytest.approx((GOOD.mean() - MIDDLE.mean()).item())


def test_differences_are_distilled_minus_control() -> None:
    there, back = compare(GOOD, BAD), compare(BAD, GOOD)
    assert there.difference > 0
    assert back.difference == -there.difference
    assert there.interval[0] > 0 > back.interval[1]


def test_one_seed_uses_the_interval_over_examples_alone_and_says_so() -> None:
    verdict = decide(GOOD[:1], {"a": MIDDLE[:1]}, margin=0.005)
    assert verdict.word == "BEATS"
    assert verdict.against["a"].seed_interval is None
    assert verdict.notes == ("One seed: the interval covers other test examples, not other trainings.",)
    assert decide(BAD[:1], {"a": MIDDLE[:1]}, margin=0.005).word == "WORSE"


def test_fewer_than_five_seeds_are_marked() -> None:
    for seeds in (2, 3, 4):
        [note] = decide(GOOD[:seeds], {"a": MIDDLE[:seeds]}, margin=0.005).notes
        assert note == f"{seeds} seeds: fewer than 5, so the interval over seeds is wide."
    assert decide(GOOD, {"a": MIDDLE}, margin=0.005).notes == ()


def test_inconclusive_says_what_could_have_been_shown() -> None:
    verdict = decide(UNEVEN, {"a": arm(310, 320, 330, 320, 310)}, margin=0.005)
    half = smallest_detectable(verdict.against["a"])
    assert verdict.notes == (
        f"This run could not have told a difference below {half:.4f} from none; "
        "more seeds or more test examples would.",
    )


def test_the_smallest_detectable_difference_is_half_of_the_wider_interval() -> None:
    assert smallest_detectable(Comparison(0.1, (0.0, 0.2), (-0.2, 0.4), (0.0, 0.0))) == pytest.approx(0.3)
    assert smallest_detectable(Comparison(0.1, (-0.3, 0.5), (0.0, 0.2), (0.0, 0.0))) == pytest.approx(0.4)
    assert smallest_detectable(Comparison(0.1, (-0.3, 0.5), None, (0.0, 0.0))) == pytest.approx(0.4)


def test_arms_of_other_seeds_or_examples_are_not_compared() -> None:
    for control in (GOOD[:1], GOOD[:, :100]):
        with pytest.raises((AssertionError, TypeCheckError)):  # the second where shapes are checked at run time
            compare(GOOD, control)


# intervals


def test_the_interval_over_examples_is_scipys() -> None:
    values = np.random.default_rng(3).choice([-0.4, 0.0, 0.2, 1.0], p=[0.05, 0.7, 0.15, 0.1], size=300)
    found = bootstrap_intervals(values, confidences=(0.95, 0.9))
    for interval, confidence in zip(found, (0.95, 0.9), strict=True):
        expected = stats.bootstrap(
            (values,),
            np.mean,
            confidence_level=confidence,
            n_resamples=RESAMPLES,
            method="BCa",
            rng=np.random.default_rng(0),
        ).confidence_interval
        assert interval == pytest.approx(tuple(expected), abs=1e-12)


def test_it_is_the_same_every_time_and_for_any_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(3).normal(size=300)
    before = bootstrap_intervals(values, confidences=[0.95])
    monkeypatch.setattr("distil.evaluate.verdict.RESAMPLED_AT_ONCE", 1_000)
    assert bootstrap_intervals(values, confidences=[0.95]) == before


@pytest.mark.parametrize("value", [0.0, 0.25, -1.0])
def test_where_all_differences_are_equal_the_interval_is_that_value(value: float) -> None:
    assert bootstrap_intervals(np.full(50, value), confidences=(0.95, 0.9)) == [(value, value)] * 2
    assert bootstrap_intervals(np.array([value]), confidences=[0.95]) == [(value, value)]


def test_differences_that_are_equal_but_for_rounding_give_numbers() -> None:
    values = np.array([0.2] * 3 + [0.1 + 0.1] * 3 + [0.30000000000000004 - 0.1] * 4)
    assert np.ptp(values) > 0
    [(low, high)] = bootstrap_intervals(values, confidences=[0.95])
    assert low == high == pytest.approx(0.2)


@pytest.mark.parametrize("values", [[0, 1], [0, 0, 1], [1] * 50 + [0], [0] * 9_999 + [-1]])
def test_few_or_lone_differences_give_numbers(values: list[int]) -> None:
    [(low, high)] = bootstrap_intervals(np.array(values, dtype=np.float64), confidences=[0.95])
    assert min(values) <= low <= np.mean(values) <= high <= max(values)


def test_the_interval_over_seeds_is_students() -> None:
    values = np.array([0.01, 0.03, 0.02, 0.05, 0.01])
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert seed_interval(values, confidence=0.95) == pytest.approx((expected.low, expected.high), rel=1e-12)
    # by hand: mean 0.024, standard deviation 0.016733, t(4) = 2.7764
    assert seed_interval(values, confidence=0.95) == pytest.approx((0.003223, 0.044777), abs=1e-6)


def test_the_interval_over_seeds_covers_19_of_20() -> None:
    rng = np.random.default_rng(0)
    intervals = [seed_interval(rng.normal(0.3, 1, size=5), confidence=0.95) for _ in range(2000)]
    covered = np.mean([low <= 0.3 <= high for low, high in intervals])
    assert 0.935 < covered < 0.965  # three standard errors


def test_the_interval_over_examples_covers_19_of_20(monkeypatch: pytest.MonkeyPatch) -> None:
    """Differences like those of two accurate students: mostly 0, now and then one seed or another differs."""
    monkeypatch.setattr("distil.evaluate.verdict.RESAMPLES", 999)
    rng = np.random.default_rng(1)
    values, chances = [-0.2, 0.0, 0.2, 0.4], [0.05, 0.75, 0.15, 0.05]
    truth = float(np.dot(values, chances))
    covered = []
    for _ in range(400):
        [(low, high)] = bootstrap_intervals(rng.choice(values, p=chances, size=150), confidences=[0.95])
        covered.append(low <= truth <= high)
    assert 0.915 < np.mean(covered) < 0.985


def test_ten_thousand_examples_take_less_than_three_seconds() -> None:
    rng = np.random.default_rng(0)
    control = rng.random((5, 10_000)) < 0.97
    distilled = control ^ (rng.random((5, 10_000)) < 0.01)
    start = time.process_time()
    compare(distilled, control)
    assert time.process_time() - start < 3


# groups of examples


def clusters(values: np.ndarray, times: int) -> tuple[np.ndarray, list[str]]:
    """Each value so many times, as a group."""
    return np.repeat(values, times), [f"group {number}" for number in range(len(values)) for _ in range(times)]


def test_groups_are_drawn_whole_so_that_copies_of_an_example_make_nothing_surer() -> None:
    values = np.random.default_rng(3).normal(0.1, 1.0, size=60)
    [expected] = bootstrap_intervals(values, confidences=[0.95])
    copies, groups = clusters(values, 9)
    [found] = bootstrap_intervals(copies, confidences=[0.95], groups=groups)
    [naive] = bootstrap_intervals(copies, confidences=[0.95])
    assert found == pytest.approx(expected, abs=1e-9)
    assert naive[1] - naive[0] == pytest.approx((expected[1] - expected[0]) / 3, rel=0.1)


def test_groups_of_one_example_are_no_groups() -> None:
    values = np.random.default_rng(4).normal(size=50)
    alone = [f"{number:02}" for number in range(50)]
    confidences = (0.95, 0.9)
    found = bootstrap_intervals(values, confidences=confidences, groups=alone)
    expected = bootstrap_intervals(values, confidences=confidences)
    assert np.array(found) == pytest.approx(np.array(expected), abs=1e-9)


def test_examples_of_a_group_need_not_stand_together_nor_be_as_many_as_of_others() -> None:
    rng = np.random.default_rng(5)
    groups = rng.choice(list("abcdefghijklm"), p=np.arange(1, 14) / 91, size=200).tolist()
    values = rng.normal(size=200) + np.array([ord(group) % 5 for group in groups])
    order = rng.permutation(200)
    [found] = bootstrap_intervals(values, confidences=[0.95], groups=groups)
    [shuffled] = bootstrap_intervals(values[order], confidences=[0.95], groups=[groups[row] for row in order])
    assert shuffled == pytest.approx(found)
    names = sorted(set(groups))
    sums = np.array([sum(v for v, g in zip(values, groups, strict=True) if g == name) for name in names])
    sizes = np.array([float(groups.count(name)) for name in names])
    expected = stats.bootstrap(
        (sums, sizes),
        lambda total, size, axis=-1: total.sum(axis=axis) / size.sum(axis=axis),
        paired=True,
        vectorized=True,
        n_resamples=RESAMPLES,
        rng=np.random.default_rng(0),
    ).confidence_interval
    assert found == pytest.approx(tuple(expected))
    assert found[0] < values.mean() < found[1]


def test_the_interval_over_groups_covers_19_of_20(monkeypatch: pytest.MonkeyPatch) -> None:
    """Examples of a group go together: drawn one by one they would seem far surer than they are."""
    monkeypatch.setattr("distil.evaluate.verdict.RESAMPLES", 499)
    rng = np.random.default_rng(6)
    covered, naive = [], []
    for _ in range(300):
        values, groups = clusters(rng.normal(0.2, 1.0, size=40), 5)
        values = values + rng.normal(0, 0.5, size=200)
        for found, by in ((covered, groups), (naive, None)):
            [(low, high)] = bootstrap_intervals(values, confidences=[0.95], groups=by)
            found.append(low <= 0.2 <= high)
    assert 0.90 < np.mean(covered) < 0.985
    assert np.mean(naive) < 0.75


def test_a_verdict_over_groups_is_less_sure() -> None:
    """Ten groups of forty: eight are won by one more example of forty each, two are lost by three."""
    groups = [f"article {row // 40}" for row in range(400)]
    control = np.zeros((5, 400), dtype=bool)
    distilled = control.copy()
    for article in range(10):
        first = 40 * article
        if article < 8:
            distilled[:, first : first + 8] = True
        else:
            control[:, first : first + 24] = True
    alone, together = (compare(distilled, control, groups=by) for by in (None, groups))
    assert alone.difference == together.difference == pytest.approx((64 - 48) / 400)
    assert together.interval[0] < alone.interval[0]
    assert together.interval[1] > alone.interval[1]
    assert together.equivalence_interval[0] >= together.interval[0]  # ten groups of two kinds: few values to end at
    assert together.seed_interval == alone.seed_interval
    assert decide(distilled, {"a": control}, margin=0.005, groups=groups).word == "INCONCLUSIVE"
    verdict = decide(distilled, {"a": control}, margin=0.005, groups=groups)
    assert verdict.against["a"] == together


def test_groups_that_all_have_the_same_mean_give_that_mean() -> None:
    values, groups = np.array([1.0, 0.0, 0.0, 0.0, 1.0, 0.0]), list("aaabbb")
    assert bootstrap_intervals(values, confidences=[0.95], groups=groups) == [pytest.approx((1 / 3, 1 / 3))]


# the record


def record_of(verdict: Verdict) -> dict[str, object]:
    record = verdict_record(
        verdict,
        metric="accuracy",
        distilled="distilled",
        arms={"a": [0.5, 0.7], "distilled": [0.9, 0.8]},
        teachers={"teacher": 0.99},
        seeds=(0, 1),
        test_examples=400,
        teacher_flag=None,
    )
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    return record


CONTRACT = {
    "format", "verdict", "metric", "higher_is_better", "confidence", "difference", "interval", "seed_interval",
    "best_control", "distilled", "seeds", "test_examples", "arms", "teachers", "against", "parts", "notes",
    "smallest_detectable", "teacher_flag", "baselines",
}  # fmt: skip


def test_the_record_has_the_keys_of_the_contract() -> None:
    verdict = decide(GOOD[:2], {"a": MIDDLE[:2], "b": BAD[:2]}, margin=0.005)
    record = record_of(verdict)
    assert record.keys() == CONTRACT
    best = verdict.against["a"]
    assert (record["verdict"], record["best_control"], record["confidence"]) == (verdict.word, "a", 0.95)
    assert (record["difference"], record["interval"]) == (best.difference, list(best.interval))
    assert record["seed_interval"] == list(best.seed_interval or ())
    assert record["smallest_detectable"] == smallest_detectable(best)
    assert record["arms"] == {
        "a": {"mean": pytest.approx(0.6), "values": [0.5, 0.7]},
        "distilled": {"mean": pytest.approx(0.85), "values": [0.9, 0.8]},
    }
    assert record["notes"] == list(verdict.notes)
    against = record["against"]
    assert isinstance(against, dict)
    assert against["b"]["difference"] == verdict.against["b"].difference


def test_the_record_of_one_seed_and_of_nothing() -> None:
    assert record_of(decide(GOOD[:1], {"a": MIDDLE[:1]}, margin=0.005))["seed_interval"] is None
    nothing = record_of(decide(GOOD, {}, margin=0.005))
    assert nothing.keys() == CONTRACT
    for key in ("difference", "interval", "seed_interval", "smallest_detectable", "best_control"):
        assert nothing[key] is None
    assert nothing["against"] == {}
