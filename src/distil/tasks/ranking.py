"""Ranking: the right ones among the candidates of a group, such as the sentences of a context for a question."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from distil.core.errors import CompatibilityError, DataError, MissingExtraError, NumericError

METRIC = "hit_at_1"

_HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_WORDS = re.compile(rf"[{_HAN}]|[^\W{_HAN}]+")


@dataclass(frozen=True, eq=False)
class RankedGroups:
    """How each group was ranked, in the order in which the groups first occur.

    Attributes:
        names: of the groups.
        hit_at_1: whether a right candidate is first: 0..1, the headline metric, which is their mean.
        reciprocal_rank: 1 over the rank of the first right candidate: 0..1.
    """

    names: tuple[str, ...]
    hit_at_1: Float[np.ndarray, " groups"]
    reciprocal_rank: Float[np.ndarray, " groups"]


def rank_groups(
    scores: Float[np.ndarray, " pairs"], right: Bool[np.ndarray, " pairs"], groups: Sequence[str]
) -> RankedGroups:
    """Hit at 1 and reciprocal rank of each group, highest score first.

    Equal scores are in random order, and what counts is the expectation over it: with m candidates equal at the top of
    which r are right, the hit at 1 is r / m. So a model that gives all the same score is as good as chance.

    Args:
        scores: of each pair, such as a question and a sentence.
        right: which pairs are right; a group may have several.
        groups: the group of each pair.

    Raises:
        DataError: a group has no right candidate, or there is no group.
        NumericError: a score is not a number.
    """
    if np.isnan(scores).any():
        raise NumericError("a score of ranking is not a number; the model's weights or inputs are broken")
    rows = _rows(right, groups)
    expected = [_first_right(scores[each], right[each]) for each in rows.values()]
    return RankedGroups(
        names=tuple(rows),
        hit_at_1=np.array([places[0] for places in expected]),
        reciprocal_rank=np.array([(places / np.arange(1, len(places) + 1)).sum() for places in expected]),
    )


def ranking_metrics(ranked: RankedGroups) -> dict[str, float]:
    """Means over groups, as fractions, the headline first."""
    return {METRIC: float(ranked.hit_at_1.mean()), "mean_reciprocal_rank": float(ranked.reciprocal_rank.mean())}


def chance_hit(right: Bool[np.ndarray, " pairs"], groups: Sequence[str]) -> float:
    """The hit at 1 of a random order: the mean over groups of the share of candidates that is right.

    Raises:
        DataError: a group has no right candidate, or there is no group.
    """
    return float(np.mean([right[each].mean() for each in _rows(right, groups).values()]))


def words(text: str) -> list[str]:
    """The words of a text in lower case, each Chinese character on its own; punctuation is left out.

    >>> words("BM25 ranks 排名, well.")
    ['bm25', 'ranks', '排', '名', 'well']
    """
    return _WORDS.findall(text.lower())


def bm25_scores(queries: Sequence[str], documents: Sequence[str]) -> Float[np.ndarray, "queries documents"]:
    r"""How well each document fits each query by the words they share: what ranks without any training.

    .. math:: \sum_{w \in q} \log\left(1 + \frac{N - n_w + 0.5}{n_w + 0.5}\right)
        \frac{f_w}{f_w + k_1 (1 - b + b L / \bar L)}

    with f the times that a word stands in the document, L its length, n_w how many of the N documents have the word,
    k_1 = 1.5 and b = 0.75. A word that the query repeats counts as often. No stop words are left out and no endings cut
    off; Chinese is compared by single characters.

    Args:
        queries: texts; one without a word that occurs scores 0 everywhere.
        documents: all among which is ranked; how rare a word is comes from them.

    Raises:
        DataError: the documents have no words.
        MissingExtraError: `bm25s` is not installed.

    Source: Robertson, Zaragoza 2009, *The probabilistic relevance framework*; in the form of Lucene, which leaves out
    the constant k_1 + 1, by bm25s (Lù 2024, arXiv:2407.03618).
    """
    try:
        from bm25s import BM25
    except ImportError as error:
        raise MissingExtraError("bm25s", extra="text", purpose="the BM25 baseline") from error
    in_words = [words(document) for document in documents]
    if not any(in_words):
        raise DataError(f"none of {len(documents)} documents has a word; there is nothing to rank")
    index = BM25(k1=1.5, b=0.75, method="lucene")
    index.index(in_words, show_progress=False)
    nothing = np.zeros(len(documents), dtype=np.float32)
    asked = (words(query) for query in queries)
    return np.stack([index.get_scores(query) if query else nothing for query in asked])


def bm25_pair_scores(queries: Sequence[str], documents: Sequence[str]) -> Float[np.ndarray, " pairs"]:
    """BM25 of each pair of a query and a document; how rare a word is comes from all different documents.

    Raises:
        CompatibilityError: there are not as many queries as documents.
        DataError: the documents have no words.
        MissingExtraError: `bm25s` is not installed.
    """
    if len(queries) != len(documents):
        raise CompatibilityError(f"there are {len(queries)} queries and {len(documents)} documents; pairs are needed")
    rows, columns = (
        {text: number for number, text in enumerate(dict.fromkeys(texts))} for texts in (queries, documents)
    )
    table = bm25_scores(list(rows), list(columns))
    return table[[rows[query] for query in queries], [columns[document] for document in documents]]


def _rows(right: np.ndarray, groups: Sequence[str]) -> dict[str, np.ndarray]:
    """The rows of each group."""
    if len(groups) != len(right) or not len(groups):
        raise DataError(f"there are {len(right)} pairs and {len(groups)} names of groups; one name a pair is needed")
    rows: dict[str, list[int]] = {}
    for row, name in enumerate(groups):
        rows.setdefault(name, []).append(row)
    without = [name for name, of_group in rows.items() if not right[of_group].any()]
    if without:
        raise DataError(
            f"{len(without)} of {len(rows)} groups have no right candidate, such as {without[0]!r}; "
            "leave such groups out, as no order of theirs is better than another"
        )
    return {name: np.array(of_group) for name, of_group in rows.items()}


def _first_right(scores: np.ndarray, right: np.ndarray) -> np.ndarray:
    """How probable it is that the first right candidate has rank 1, 2, ..., when equal scores are in random order."""
    best = scores[right].max()
    above, equal = int((scores > best).sum()), scores == best
    size, num_right = int(equal.sum()), int(right[equal].sum())
    places = np.zeros(len(scores))
    for place in range(size - num_right + 1):  # the first right one of the equal ones, after so many wrong ones
        places[above + place] = math.comb(size - place - 1, num_right - 1) / math.comb(size, num_right)
    return places
