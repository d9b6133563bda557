"""Slices by rules on sentences made for them, and their report against means and the verdict's intervals."""

import json

import numpy as np
import pytest

from distil.evaluate.slice import ENOUGH_EXAMPLES, slice_report, slice_rows
from distil.evaluate.verdict import compare


def negates(text: str) -> bool:
    return bool(slice_rows([text])["negation"][0])


def contrasts(text: str) -> bool:
    return bool(slice_rows([text])["contrast"][0])


@pytest.mark.parametrize(
    "text",
    [
        *("It is NOT good", "no plot", "never again", "Nothing works", "neither here", "nor there", "without wit"),
        *("it does n't work", "it doesn't work", "it doesn’t work", "I cannot", "hardly a film", "nobody came"),
        *("床很不舒服", "没有窗户", "無法入住", "千万别去", "从未来过", "非五星", "不错", "特别不好", "还没"),
    ],
)
def test_negations_are_found(text: str) -> None:
    assert negates(text)


@pytest.mark.parametrize(
    "text",
    [
        *("a notable nose", "know now", "another Norwegian film", "the knot", "it is", "pant", ""),
        *(
            "非常好",
            "特别好",
            "别墅很大",
            "分别住了两天",
            "区别很大",
            "千差万别",
            "无论如何",
            "不仅干净",
            "未来会来",
            "很好不过贵",
        ),
    ],
)
def test_words_that_only_look_like_negations_are_none(text: str) -> None:
    assert not negates(text)


@pytest.mark.parametrize(
    "text",
    [
        *("good, but long", "However good", "Although it is long", "in spite of it", "on the other hand, it is short"),
        *("房间很大，但是贵", "不过很贵", "服务却不好", "然而贵", "可是贵"),
    ],
)
def test_contrasts_are_found(text: str) -> None:
    assert contrasts(text)


@pytest.mark.parametrize("text", ["a button", "thought", "howevermuch", "不但大而且干净", "但愿再来", "房间冷却了"])
def test_words_that_only_look_like_contrasts_are_none(text: str) -> None:
    assert not contrasts(text)


def test_lengths_count_words_and_in_chinese_characters() -> None:
    """Lengths 1, 2, 3, 4, 5: the quartiles are 2 and 4."""
    rows = slice_rows(["incomprehensibilities", "a b", "很好。", "一二三四", "a b c d e"])
    assert rows["short"].tolist() == [True, True, False, False, False]
    assert rows["long"].tolist() == [False, False, False, True, True]


def test_equal_lengths_are_neither_short_nor_long() -> None:
    rows = slice_rows(["a b", "c d", "e f", "g h", "i", "j k l"])
    assert not rows["short"].any()
    assert not rows["long"].any()


@pytest.fixture
def arms() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    return {
        name: (generator.random((3, 200)) < share).astype(float) for name, share in (("a", 0.9), ("b", 0.6), ("c", 0.5))
    }


def test_a_report_has_each_slice_s_means_and_the_difference_with_the_verdict_s_intervals(
    arms: dict[str, np.ndarray],
) -> None:
    rows = np.arange(200) % 4 == 1
    found = slice_report(arms, {"every": np.ones(200, dtype=bool), "fourth": rows}, distilled="a", control="b")
    assert [each["name"] for each in found] == ["every", "fourth"]
    assert [each["support"] for each in found] == [200, 50]
    assert found[0]["means"] == {name: pytest.approx(values.mean()) for name, values in arms.items()}
    fourth = found[1]
    assert fourth["means"]["c"] == pytest.approx(arms["c"][:, 1::4].mean())
    assert fourth["difference"] == pytest.approx(arms["a"][:, 1::4].mean() - arms["b"][:, 1::4].mean())
    expected = compare(arms["a"][:, 1::4], arms["b"][:, 1::4])
    assert fourth["interval"] == list(expected.interval)
    assert fourth["seed_interval"] == list(expected.seed_interval or ())
    assert fourth["interval"][0] < fourth["difference"] < fourth["interval"][1]
    json.dumps(found)


def test_few_examples_have_a_difference_and_no_interval(arms: dict[str, np.ndarray]) -> None:
    few, enough = np.arange(200) < ENOUGH_EXAMPLES - 1, np.arange(200) < ENOUGH_EXAMPLES
    found = slice_report(arms, {"few": few, "enough": enough}, distilled="a", control="c")
    assert found[0]["difference"] == pytest.approx(arms["a"][:, few].mean() - arms["c"][:, few].mean())
    assert (found[0]["interval"], found[0]["seed_interval"]) == (None, None)
    assert found[1]["interval"] is not None


def test_groups_are_resampled_together(arms: dict[str, np.ndarray]) -> None:
    """Every example twice, as a group, has the interval of every example once."""
    twice = {name: np.repeat(values, 2, axis=1) for name, values in arms.items()}
    groups = [f"{number // 2:03}" for number in range(400)]
    rows = np.repeat(np.arange(200) % 4 == 1, 2)
    (found,) = slice_report(twice, {"fourth": rows}, distilled="a", control="b", groups=groups)
    expected = compare(arms["a"][:, 1::4], arms["b"][:, 1::4])
    assert found["support"] == 100
    assert found["interval"] == pytest.approx(expected.interval)
    (alone,) = slice_report(twice, {"fourth": rows}, distilled="a", control="b", groups=["one"] * 400)
    assert (alone["difference"], alone["interval"]) == (pytest.approx(expected.difference), None)


def test_an_empty_slice_has_no_numbers(arms: dict[str, np.ndarray]) -> None:
    (found,) = slice_report(arms, {"none": np.zeros(200, dtype=bool)}, distilled="a", control="b")
    assert found == {
        "name": "none",
        "support": 0,
        "means": {"a": None, "b": None, "c": None},
        "difference": None,
        "interval": None,
        "seed_interval": None,
    }


def test_one_seed_has_no_interval_over_seeds(arms: dict[str, np.ndarray]) -> None:
    one = {name: values[:1] for name, values in arms.items()}
    (found,) = slice_report(one, {"every": np.ones(200, dtype=bool)}, distilled="a", control="b")
    assert found["interval"] is not None
    assert found["seed_interval"] is None
