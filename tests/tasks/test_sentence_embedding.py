import doctest
import math

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torchmetrics.functional.retrieval import retrieval_hit_rate, retrieval_reciprocal_rank

from distil.core.errors import DataError, NumericError
from distil.tasks import sentence_embedding
from distil.tasks.sentence_embedding import (
    RETRIEVAL_METRIC,
    cosines,
    reciprocal_ranks,
    retrieval_metrics,
    retrieval_ranks,
    spearman,
    spearman_values,
)


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_36_cosines_by_hand() -> None:
    first = torch.tensor([[3.0, 4.0], [1.0, 0.0], [1.0, 1.0], [0.0, 0.0]])
    second = torch.tensor([[6.0, 8.0], [0.0, 2.0], [-1.0, -1.0], [1.0, 0.0]])
    assert cosines(first, second).tolist() == pytest.approx([1.0, 0.0, -1.0, 0.0])


def test_36_the_rank_correlation_by_hand() -> None:
    # ranks 1 2 3 4 against 1 3 2 4: 1 - 6 * 2 / (4 * 15)
    assert spearman(np.array([0.1, 0.2, 0.3, 0.9]), np.array([0.0, 3.0, 2.5, 5.0])) == pytest.approx(0.8)
    assert spearman(np.array([0.1, 0.2, 0.3]), np.array([3.0, 2.0, 1.0])) == pytest.approx(-1.0)


@pytest.mark.parametrize("seed", range(4))
def test_36_the_rank_correlation_is_scipy_s_also_with_ties(seed: int) -> None:
    random = np.random.default_rng(seed)
    scores = random.integers(0, 6, size=50).astype(float)
    cosine = np.round(scores + 2 * random.normal(size=50))
    assert spearman(cosine, scores) == pytest.approx(spearmanr(cosine, scores).statistic)


def test_the_values_of_the_pairs_have_the_correlation_as_their_mean_and_are_the_jackknife_s() -> None:
    random = np.random.default_rng(0)
    scores = random.integers(0, 6, size=30).astype(float)
    cosine = scores + 2 * random.normal(size=30)
    cosine[:5] = cosine[5:10]  # ties on both sides
    values = spearman_values(cosine, scores)
    assert values.mean() == pytest.approx(spearman(cosine, scores))
    without = np.array([spearmanr(np.delete(cosine, pair), np.delete(scores, pair)).statistic for pair in range(30)])
    np.testing.assert_allclose(values - values.mean(), 29 * (without.mean() - without), atol=1e-12)


def test_the_values_say_how_uncertain_the_difference_of_two_models_is() -> None:
    """Against the spread of the difference over many samples of pairs."""
    random = np.random.default_rng(0)
    differences, errors = [], []
    for _ in range(150):
        truth, shared = random.normal(size=(2, 80))
        scores = np.round(2 * truth)
        one, other = (truth + 0.6 * shared + spread * random.normal(size=80) for spread in (0.5, 0.8))
        gap = spearman_values(one, scores) - spearman_values(other, scores)
        differences.append(gap.mean())
        errors.append(gap.std(ddof=1) / math.sqrt(80))
    assert np.mean(errors) == pytest.approx(np.std(differences), rel=0.2)


def test_pairs_without_an_order_are_refused() -> None:
    with pytest.raises(NumericError, match="collapsed"):
        spearman(np.ones(3), np.array([1.0, 2.0, 3.0]))
    with pytest.raises(DataError, match="all pairs have the same score"):
        spearman(np.array([1.0, 2.0, 3.0]), np.ones(3))
    with pytest.raises(DataError, match="two or more"):
        spearman(np.array([1.0]), np.array([1.0]))
    with pytest.raises(NumericError, match="not finite"):
        spearman(np.array([1.0, math.nan]), np.array([1.0, 2.0]))
    with pytest.raises(DataError, match="1 of 2 scores are not numbers"):
        spearman(np.array([1.0, 2.0]), np.array([1.0, math.nan]))


def test_36_retrieval_by_hand() -> None:
    candidates = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0], [-1.0, 0.0]])
    queries = torch.tensor([[2.0, 0.1], [2.0, 0.1], [0.1, 2.0], [5.0, 0.1]])
    ranks = retrieval_ranks(queries, candidates, torch.tensor([0, 1, 2, 3]))
    assert ranks.tolist() == [1.0, 2.0, 1.0, 4.0]
    assert reciprocal_ranks(ranks).tolist() == [1.0, 0.5, 1.0, 0.25]
    found = retrieval_metrics(ranks, at=(1, 2))
    assert found == {RETRIEVAL_METRIC: 2.75 / 4, "hit_at_1": 0.5, "hit_at_2": 0.75}
    assert next(iter(found)) == RETRIEVAL_METRIC


def test_36_retrieval_is_torchmetrics_s() -> None:
    queries, candidates, right = randn(40, 6), randn(30, 6, seed=1), torch.arange(40) % 30
    ranks = retrieval_ranks(queries, candidates, right)
    # torchmetrics takes what has a score of 0 or less for irrelevant, so all are raised above it
    cosine = 2 + torch.nn.functional.normalize(queries) @ torch.nn.functional.normalize(candidates).T
    for row in range(40):
        target = torch.arange(30) == right[row]
        assert reciprocal_ranks(ranks)[row] == pytest.approx(retrieval_reciprocal_rank(cosine[row], target).item())
        for k in (1, 5, 10):
            assert float(ranks[row] <= k) == retrieval_hit_rate(cosine[row], target, top_k=k).item()


def test_ties_count_against_the_query() -> None:
    candidates = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    ranks = retrieval_ranks(torch.tensor([[1.0, 0.0]]), candidates, torch.tensor([0]))
    assert ranks.tolist() == [1.5]
    assert retrieval_metrics(ranks)["hit_at_1"] == 0.0


@pytest.mark.parametrize("noise", [0.0, 1e-8])
def test_embeddings_that_have_collapsed_find_nothing(noise: float) -> None:
    alike = torch.ones(20, 8) + noise * randn(20, 8)
    ranks = retrieval_ranks(alike, alike, torch.arange(20))
    assert ranks.tolist() == [10.5] * 20
    assert retrieval_metrics(ranks)["hit_at_10"] == 0.0


def test_what_cannot_be_ranked_is_refused() -> None:
    with pytest.raises(DataError, match="rows 0 to 2; found 1 to 3"):
        retrieval_ranks(randn(2, 4), randn(3, 4), torch.tensor([1, 3]))
    with pytest.raises(NumericError, match="not finite"):
        retrieval_ranks(randn(1, 4) * math.inf, randn(3, 4), torch.tensor([1]))


def test_the_examples_in_the_docstrings_are_true() -> None:
    results = doctest.testmod(sentence_embedding)
    assert results.attempted >= 1
    assert results.failed == 0
