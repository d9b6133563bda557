import doctest
import itertools
import math
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distil.core.errors import CompatibilityError, DataError, MissingExtraError, NumericError
from distil.tasks import ranking
from distil.tasks.ranking import (
    METRIC,
    bm25_pair_scores,
    bm25_scores,
    chance_hit,
    rank_groups,
    ranking_metrics,
    words,
)


def test_36_groups_by_hand() -> None:
    scores = np.array([0.1, 0.9, 0.5, 0.2, 0.8, 0.3])
    right = np.array([False, True, False, True, False, False])
    found = rank_groups(scores, right, ["b", "b", "b", "a", "a", "a"])
    assert found.names == ("b", "a")  # as they first occur
    assert found.hit_at_1.tolist() == [1.0, 0.0]
    assert found.reciprocal_rank.tolist() == pytest.approx([1.0, 1 / 3])
    assert ranking_metrics(found) == {METRIC: 0.5, "mean_reciprocal_rank": pytest.approx(2 / 3)}


def test_groups_need_not_stand_together() -> None:
    scores, right = np.array([0.9, 0.1, 0.2, 0.8]), np.array([True, False, True, False])
    assert rank_groups(scores, right, ["a", "b", "b", "a"]).hit_at_1.tolist() == [1.0, 1.0]


def test_36_ties_at_the_top_are_worth_their_share_of_right_ones() -> None:
    scores = np.array([0.9, 0.9, 0.9, 0.1])
    found = rank_groups(scores, np.array([True, True, False, True]), ["a"] * 4)
    assert found.hit_at_1.tolist() == pytest.approx([2 / 3])
    assert found.reciprocal_rank.tolist() == pytest.approx([2 / 3 * 1 + 1 / 3 * 1 / 2])


@settings(deadline=None, max_examples=60)
@given(
    pairs=st.lists(st.tuples(st.integers(0, 2), st.booleans()), min_size=1, max_size=6).filter(
        lambda p: any(r for _, r in p)
    )
)
def test_36_ties_are_the_mean_over_all_orders(pairs: list[tuple[int, bool]]) -> None:
    firsts = []
    for order in itertools.permutations(pairs):
        ranked = sorted(order, key=lambda pair: -pair[0])  # stable: equal scores stay in the order drawn
        firsts.append(next(place for place, (_, is_right) in enumerate(ranked, start=1) if is_right))
    scores, right = np.array([float(score) for score, _ in pairs]), np.array([is_right for _, is_right in pairs])
    found = rank_groups(scores, right, ["a"] * len(pairs))
    assert found.hit_at_1[0] == pytest.approx(np.mean([first == 1 for first in firsts]))
    assert found.reciprocal_rank[0] == pytest.approx(np.mean([1 / first for first in firsts]))


def test_a_model_that_gives_all_the_same_score_is_as_good_as_chance() -> None:
    random = np.random.default_rng(0)
    right = random.random(60) < 0.3
    groups = [f"question {number % 7}" for number in range(60)]
    right[:7] = True
    found = rank_groups(np.full(60, 0.5), right, groups)
    assert ranking_metrics(found)[METRIC] == pytest.approx(chance_hit(right, groups))


def test_36_chance_by_hand() -> None:
    right = np.array([True, False, False, False, True, True])
    assert chance_hit(right, ["a", "a", "a", "a", "b", "b"]) == pytest.approx((1 / 4 + 1) / 2)


def test_groups_that_cannot_be_ranked_are_refused() -> None:
    scores, right = np.array([0.1, 0.2, 0.3]), np.array([True, False, False])
    for call in (lambda: rank_groups(scores, right, ["a", "b", "b"]), lambda: chance_hit(right, ["a", "b", "b"])):
        with pytest.raises(DataError, match="1 of 2 groups have no right candidate, such as 'b'"):
            call()
    with pytest.raises(DataError, match="3 pairs and 2 names"):
        rank_groups(scores, right, ["a", "b"])
    with pytest.raises(NumericError, match="not a number"):
        rank_groups(np.array([0.1, math.nan, 0.3]), right, ["a", "a", "a"])


def by_the_formula(query: list[str], documents: list[list[str]], number: int) -> float:
    mean = sum(len(document) for document in documents) / len(documents)
    score = 0.0
    for word in query:
        containing = sum(word in document for document in documents)
        count = documents[number].count(word)
        rarity = math.log(1 + (len(documents) - containing + 0.5) / (containing + 0.5))
        score += rarity * count / (count + 1.5 * (0.25 + 0.75 * len(documents[number]) / mean))
    return score


def test_36_bm25_is_its_formula() -> None:
    documents = ["The cat sat on the mat.", "A dog sat.", "Cats and dogs", "cat cat cat dog"]
    queries = ["cat", "Cat dog?", "sat sat", "the unknown cat"]
    found = bm25_scores(queries, documents)
    in_words = [words(document) for document in documents]
    expected = [[by_the_formula(words(query), in_words, number) for number in range(4)] for query in queries]
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert found[0].argmax() == 3


def test_bm25_reads_chinese_by_characters() -> None:
    assert words("2008年，北京奥运会") == ["2008", "年", "北", "京", "奥", "运", "会"]
    found = bm25_scores(["北京在哪里？"], ["上海是大城市。", "北京是首都。"])
    assert found[0, 0] == 0.0
    assert found[0, 1] > 0


def test_bm25_of_words_that_do_not_occur_is_0_and_of_no_documents_refused() -> None:
    assert bm25_scores(["?", "unknown", ""], ["a b", "..."]).tolist() == [[0.0, 0.0]] * 3
    with pytest.raises(DataError, match="none of 2 documents has a word"):
        bm25_scores(["a"], ["...", ""])


def test_bm25_of_pairs_counts_each_document_once() -> None:
    queries, documents = ["cat", "cat", "dog"], ["the cat", "a dog and a cat", "the cat"]
    table = bm25_scores(["cat", "dog"], ["the cat", "a dog and a cat"])
    assert bm25_pair_scores(queries, documents).tolist() == [table[0, 0], table[0, 1], table[1, 0]]
    with pytest.raises(CompatibilityError, match="1 queries and 2 documents"):
        bm25_pair_scores(["a"], ["a", "b"])


def test_a_missing_library_names_the_pip_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bm25s", None)
    with pytest.raises(MissingExtraError, match=r"distil\[text\]"):
        bm25_scores(["a"], ["a"])


def test_the_examples_in_the_docstrings_are_true() -> None:
    results = doctest.testmod(ranking)
    assert results.attempted >= 1
    assert results.failed == 0
