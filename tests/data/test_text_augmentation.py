"""Variants of texts: what stays, what is masked, how often, and that each is a function of its own numbers alone."""

from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distil.data.text_augmentation import LONGEST_NGRAM, split_words, transfer_pairs, transfer_texts, transfer_variant

ENGLISH = "the film is not half so good as its trailer"
CHINESE = "房间很大，但是wifi不好。"
CHANGES: dict[str, Any] = {"mask_probability": 0.1, "ngram_probability": 0.25, "mask_token": "[MASK]"}
N_GRAMS: dict[str, Any] = {"mask_probability": 0.0, "ngram_probability": 1.0, "mask_token": "[MASK]"}


def variants(text: str, *, example_id: int = 3, seed: int = 5, copies: int = 20, **changes: Any) -> list[str]:
    return transfer_texts(text, example_id=example_id, seed=seed, copies=copies, **(CHANGES | changes))


def drawn(text: str, count: int, **changes: Any) -> list[str]:
    """One variant of each of many examples with this text."""
    return [
        transfer_variant(text, example_id=number, seed=1, variant=0, **(CHANGES | changes)) for number in range(count)
    ]


def test_words_are_pieces_between_whitespace_and_of_chinese_and_japanese_each_character() -> None:
    assert split_words(" it 's\n a don't\tre-do ") == ["it", "'s", "a", "don't", "re-do"]
    assert split_words(CHINESE) == ["房", "间", "很", "大", "，", "但", "是", "wifi", "不", "好", "。"]
    assert split_words("「カメラと寿司。」") == ["「", "カ", "メ", "ラ", "と", "寿", "司", "。", "」"]
    assert split_words("２０間") == ["２０", "間"]  # digits of full width are no script of their own
    assert split_words("ดีมาก มาก") == ["ดีมาก", "มาก"]
    assert split_words(" \u3000\n") == []


def test_with_probability_1_every_word_is_masked_and_spaces_stay_as_they_were() -> None:
    everything = {"copies": 1, "mask_probability": 1.0, "ngram_probability": 0.0}
    assert variants("good  film\tindeed", **everything) == ["[MASK]  [MASK]\t[MASK]"]
    assert variants("很好 wifi", **everything) == ["[MASK][MASK] [MASK]"]


def test_with_probability_0_nothing_changes_so_nothing_comes_back() -> None:
    assert variants(ENGLISH, mask_probability=0.0, ngram_probability=0.0) == []
    assert variants(f"  {ENGLISH} \n", mask_probability=0.0, ngram_probability=0.0) == []


@pytest.mark.parametrize(("text", "between"), [(ENGLISH, " "), ("房间很大但是不好", "")])
def test_an_n_gram_is_a_run_of_1_to_5_words_each_as_often_at_any_place(text: str, between: str) -> None:
    words = split_words(text)
    runs = {
        between.join(words[first : first + length]): (length, first)
        for length in range(1, LONGEST_NGRAM + 1)
        for first in range(len(words) - length + 1)
    }
    counts = Counter(runs[variant] for variant in drawn(text, 6000, **N_GRAMS))
    lengths = Counter(length for length, _ in counts.elements())
    assert all(abs(lengths[length] - 1200) < 160 for length in range(1, LONGEST_NGRAM + 1))  # 5 deviations of 31
    places = Counter(first for length, first in counts.elements() if length == LONGEST_NGRAM)
    expected = lengths[LONGEST_NGRAM] / (len(words) - LONGEST_NGRAM + 1)
    assert all(abs(places[first] - expected) < 5 * expected**0.5 for first in range(len(words) - LONGEST_NGRAM + 1))


def test_a_text_shorter_than_the_n_gram_stays_whole() -> None:
    seen = Counter(drawn("so good", 1000, **N_GRAMS))
    assert set(seen) == {"so", "good", "so good"}
    assert seen["so good"] > 700  # four of five lengths reach the end


def test_the_probabilities_are_those_of_a_word_and_of_a_variant() -> None:
    words = [word for text in drawn(ENGLISH, 3000, ngram_probability=0.0) for word in text.split()]
    assert abs(words.count("[MASK]") / len(words) - 0.1) < 0.01
    shorter = [len(text.split()) < 10 for text in drawn(ENGLISH, 3000)]
    assert abs(sum(shorter) / len(shorter) - 0.25) < 0.04


@settings(max_examples=60, deadline=None)
@given(text=st.text(alphabet="ab 很，\n", max_size=30), example_id=st.integers(0, 2**62), variant=st.integers(0, 99))
def test_a_variant_is_a_run_of_the_text_with_words_in_place_or_masked(text: str, example_id: int, variant: int) -> None:
    made = transfer_variant(text, example_id=example_id, seed=0, variant=variant, **(CHANGES | {"mask_token": "_"}))
    words, left = split_words(text), split_words(made.replace("_", " _ "))
    fits = [
        all(word in ("_", original) for word, original in zip(left, words[first:], strict=False))
        for first in range(len(words) - len(left) + 1)
    ]
    assert any(fits)
    assert made == made.strip()


def test_28_31_a_variant_depends_on_seed_example_and_its_own_number_alone() -> None:
    twenty, hundred = variants(ENGLISH), variants(ENGLISH, copies=100)
    assert hundred[: len(twenty)] == twenty
    assert variants(ENGLISH) == twenty
    assert variants(ENGLISH, seed=6) != twenty
    assert variants(ENGLISH, example_id=4) != twenty
    alone = transfer_variant(ENGLISH, example_id=3, seed=5, variant=99, **CHANGES)
    assert alone in {*hundred, ENGLISH}


def test_equal_variants_and_the_text_itself_come_back_once_and_not_at_all() -> None:
    made = variants("so good", copies=300, mask_probability=0.3)
    assert len(made) == len(set(made))
    assert set(made) == {"so", "good", "[MASK]", "[MASK] good", "so [MASK]", "[MASK] [MASK]"}


def test_no_words_and_no_copies_give_no_variants() -> None:
    assert variants(" \n", mask_probability=1.0) == []
    assert variants("", ngram_probability=1.0) == []
    assert variants(ENGLISH, copies=0) == []


def test_of_a_pair_the_second_text_stays() -> None:
    made = transfer_pairs(ENGLISH, "a second text", example_id=3, seed=5, copies=20, **CHANGES)
    assert made == [(text, "a second text") for text in variants(ENGLISH)]
    assert len(made) > 5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"copies": -1}, "copies is -1; it must be at least 0"),
        ({"mask_probability": 1.5}, "mask_probability is 1.5; it must be between 0 and 1"),
        ({"ngram_probability": -0.1}, "ngram_probability is -0.1; it must be between 0 and 1"),
        ({"mask_probability": float("nan")}, "mask_probability is nan"),
        ({"mask_token": " "}, "mask_token is empty"),
    ],
)
def test_settings_outside_their_domain_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        variants(ENGLISH, **changes)
