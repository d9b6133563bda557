"""Sentence embeddings: near for texts that mean the same. Measured against scores of pairs, or by retrieval."""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int
from scipy.stats import rankdata
from torch import Tensor

from distil.core.errors import DataError, NumericError
from distil.losses.tensor import unit_vectors

PAIR_METRIC = "spearman"
RETRIEVAL_METRIC = "mean_reciprocal_rank"

# cosines that differ by less are equal: texts that are the same get embeddings that differ by rounding
EQUAL = 1e-6


def cosines(first: Float[Tensor, "pairs features"], second: Float[Tensor, "pairs features"]) -> Float[Tensor, " pairs"]:
    """Cosine of the angle between the two embeddings of each pair, in float64; 0 where one of them is 0.

    >>> import torch
    >>> cosines(torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 1.0]]))
    tensor([0.7071], dtype=torch.float64)
    """
    return (unit_vectors(first.double()) * unit_vectors(second.double())).sum(dim=-1)


def spearman(cosine: Float[np.ndarray, " pairs"], scores: Float[np.ndarray, " pairs"]) -> float:
    """Rank correlation of the cosines with the scores that people gave, -1..1; equal ones share their mean rank.

    Raises:
        DataError: there are fewer than two pairs, or all scores are equal.
        NumericError: all cosines are equal, as of a model whose embeddings have collapsed, or one is not a number.
    """
    return _correlation(*_ranks(cosine, scores))


def spearman_values(
    cosine: Float[np.ndarray, " pairs"], scores: Float[np.ndarray, " pairs"]
) -> Float[np.ndarray, " pairs"]:
    r"""What each pair adds to the rank correlation; their mean is it.

    .. math:: \rho + (n - 1) \left( \overline{\rho_{-}} - \rho_{-i} \right)

    with \rho_{-i} the correlation without pair i and the bar their mean. A rank correlation is not a mean over pairs;
    these numbers (the jackknife's, centred on \rho) are what an interval over pairs can be drawn from.

    Raises:
        DataError: there are fewer than three pairs, or all scores, without one, are equal.
        NumericError: all cosines, without one, are equal, or one is not a number.

    Source: Tukey 1958; Efron, Tibshirani 1993, *An introduction to the bootstrap*, chapter 11.
    """
    ranks = _ranks(cosine, scores)
    count = len(cosine)
    without = np.array([_correlation(*(_without(each, pair) for each in ranks)) for pair in range(count)])
    return _correlation(*ranks) + (count - 1) * (without.mean() - without)


def retrieval_ranks(
    queries: Float[Tensor, "queries features"],
    candidates: Float[Tensor, "candidates features"],
    right: Int[Tensor, " queries"],
) -> Float[np.ndarray, " queries"]:
    """The rank of the right candidate of each query by cosine, 1 for the nearest.

    Candidates as near as the right one share their mean rank with it, so a tie at the top is not rank 1: embeddings
    that are all alike find nothing.

    Args:
        queries: their embeddings.
        candidates: embeddings of what is looked for, the same for all queries.
        right: the row of each query's candidate.

    Raises:
        DataError: a query's candidate does not exist.
        NumericError: an embedding is not finite.
    """
    if len(right) and not 0 <= int(right.min()) <= int(right.max()) < len(candidates):
        raise DataError(f"right candidates are rows 0 to {len(candidates) - 1}; found {right.min()} to {right.max()}")
    cosine = unit_vectors(queries.double()) @ unit_vectors(candidates.double()).T
    if not cosine.isfinite().all():
        raise NumericError("an embedding is not finite; the model's weights or inputs are broken")
    gap = cosine - cosine.gather(1, right[:, None])
    nearer, equal = (gap > EQUAL).sum(dim=1), (gap.abs() <= EQUAL).sum(dim=1)
    return (1 + nearer + (equal - 1) / 2).double().numpy()


def reciprocal_ranks(ranks: Float[np.ndarray, " queries"]) -> Float[np.ndarray, " queries"]:
    """1 over the rank of each query: the headline metric of retrieval, which is their mean."""
    return 1 / ranks


def retrieval_metrics(ranks: Float[np.ndarray, " queries"], *, at: Sequence[int] = (1, 5, 10)) -> dict[str, float]:
    """Mean reciprocal rank, and the share of queries whose candidate is among the first 1, 5 and 10."""
    hits = {f"hit_at_{k}": float((ranks <= k).mean()) for k in at}
    return {RETRIEVAL_METRIC: float(reciprocal_ranks(ranks).mean()), **hits}


def _ranks(cosine: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if len(cosine) != len(scores) or len(cosine) < 2:
        raise DataError(f"there are {len(cosine)} cosines and {len(scores)} scores; two or more of each are needed")
    if not np.isfinite(cosine).all():
        raise NumericError("an embedding is not finite; the model's weights or inputs are broken")
    if not np.isfinite(scores).all():
        raise DataError(f"{int((~np.isfinite(scores)).sum())} of {len(scores)} scores are not numbers")
    return rankdata(cosine), rankdata(scores)


def _without(ranks: np.ndarray, pair: int) -> np.ndarray:
    """The ranks of the other pairs among themselves."""
    moved = ranks - (ranks > ranks[pair]) - 0.5 * (ranks == ranks[pair])
    return np.delete(moved, pair)


def _correlation(of_cosines: np.ndarray, of_scores: np.ndarray) -> float:
    one, other = of_cosines - of_cosines.mean(), of_scores - of_scores.mean()
    if not one.any():
        raise NumericError(
            "all pairs have the same cosine; the embeddings have collapsed, and no order can be measured"
        )
    if not other.any():
        raise DataError("all pairs have the same score; no order can be measured")
    return float((one * other).sum() / math.sqrt((one**2).sum() * (other**2).sum()))
