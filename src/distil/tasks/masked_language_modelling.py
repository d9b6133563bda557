"""Masked language modelling: hidden tokens are said from those around them."""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from distil.core.errors import DataError
from distil.core.seeds import derive, uniform
from distil.tasks.causal_language_modelling import perplexity

METRIC = "example_masked_accuracy"


class MaskedTokens(NamedTuple):
    """Token ids with some hidden, and what was there.

    Attributes:
        input_ids: what a model reads, [batch, tokens].
        labels: the true ids, [batch, tokens]; 0, without meaning, where not supervised.
        mask: which positions are supervised, [batch, tokens]; at some of them the true token still stands.
    """

    input_ids: Tensor
    labels: Tensor
    mask: Tensor


def mask_tokens(
    input_ids: Int[Tensor, "batch tokens"],
    attention_mask: Int[Tensor, "batch tokens"],
    special_mask: Int[Tensor, "batch tokens"],
    ids: Int[Tensor, " batch"],
    *,
    seed: int,
    epoch: int,
    probability: float = 0.15,
    mask_id: int,
    vocabulary_size: int,
) -> MaskedTokens:
    """A share of each example's tokens chosen at random, and most of them hidden.

    Of n tokens that are neither special nor padding, p n are chosen, rounded, and at least one. Of those chosen each
    is replaced by the mask with probability 0.8 and by a token drawn from the whole vocabulary with 0.1, and stays with
    0.1. A draw is a function of seed, epoch, example and the token's place among the example's tokens: what stands
    beside it in the batch, and on which side padding is, change nothing.

    Args:
        input_ids: of texts.
        attention_mask: 1 for tokens, 0 for padding.
        special_mask: 1 for special tokens, which are never chosen.
        ids: the number of each example.
        seed: of the run.
        epoch: a new choice in each; a fixed one for evaluation, so that all models are asked the same.
        probability: p, 0 < p <= 1.
        mask_id: of the mask.
        vocabulary_size: ids are drawn below it.

    Returns:
        An example without any token that can be chosen has no target.

    Raises:
        ValueError: the probability, or the id of the mask, is outside its domain.

    Source: Devlin et al. 2018, arXiv:1810.04805, section 3.1 and appendix A.1. The share is taken of the tokens that
    can be chosen, its code counts special tokens too; and it is chosen anew in each epoch, as in Liu et al. 2019,
    arXiv:1907.11692, section 4.1.
    """
    if not 0 < probability <= 1:
        raise ValueError(f"probability is {probability}; it must be above 0 and at most 1")
    if not 0 <= mask_id < vocabulary_size:
        raise ValueError(f"mask_id is {mask_id}; it must be an id of the vocabulary, 0 to {vocabulary_size - 1}")
    real = attention_mask.bool()
    places = (real.cumsum(dim=1) - 1).clamp_min(0).numpy()
    choice, way, other = (
        torch.from_numpy(_draws(places, ids, derive("masked tokens", seed, epoch, what)))
        for what in ("choice", "way", "other")
    )
    mask = _smallest(choice, real & ~special_mask.bool(), probability)
    hidden = torch.where(way < 0.8, mask_id, torch.where(way < 0.9, (other * vocabulary_size).long(), input_ids))
    return MaskedTokens(torch.where(mask, hidden, input_ids), input_ids.masked_fill(~mask, 0), mask)


def num_right(
    logits: Float[Tensor, "batch tokens vocabulary"],
    labels: Int[Tensor, "batch tokens"],
    mask: Bool[Tensor, "batch tokens"],
) -> Int[Tensor, " batch"]:
    """How many of the supervised tokens of each row have the highest score."""
    right = torch.zeros_like(mask)
    right[mask] = logits[mask].argmax(dim=-1) == labels[mask]
    return right.sum(dim=1)


def masked_accuracy(
    right: Int[np.ndarray, " examples"], num_tokens: Int[np.ndarray, " examples"]
) -> Float[np.ndarray, " examples"]:
    """The share of each example's supervised tokens that is right: the headline metric, which is their mean.

    Raises:
        DataError: an example has no supervised token.
    """
    if not (num_tokens > 0).all():
        raise DataError(
            f"{int((num_tokens <= 0).sum())} of {len(num_tokens)} examples have no token that could be masked; "
            "leave out empty texts"
        )
    return right / num_tokens


def masked_language_model_metrics(
    right: Int[np.ndarray, " examples"],
    nats: Float[np.ndarray, " examples"],
    num_tokens: Int[np.ndarray, " examples"],
) -> dict[str, float]:
    """The metrics of a test set, the headline first.

    ``example_masked_accuracy`` is a mean over examples; ``masked_accuracy`` and ``masked_token_perplexity``, which is
    the exponential of the nats for each supervised token, are over all supervised tokens.

    Args:
        right: how many supervised tokens of each example are right.
        nats: of them, as ``supervised_nats`` of causal language modelling gives them.
        num_tokens: supervised tokens of each example.

    Raises:
        DataError: an example has no supervised token.
    """
    tokens = int(num_tokens.sum())
    return {
        METRIC: float(masked_accuracy(right, num_tokens).mean()),
        "masked_accuracy": float(right.sum() / tokens),
        "masked_token_perplexity": perplexity(float(nats.sum()), tokens),
    }


def _draws(places: np.ndarray, ids: Tensor, seed: int) -> np.ndarray:
    return np.stack([uniform(derive(seed, example), row) for example, row in zip(ids.tolist(), places, strict=True)])


def _smallest(choice: Tensor, allowed: Tensor, probability: float) -> Tensor:
    """Of what is allowed in each row the share with the smallest numbers, and at least one."""
    ranks = choice.masked_fill(~allowed, 1.0).argsort(dim=1).argsort(dim=1)
    wanted = (allowed.sum(dim=1, keepdim=True) * probability).round().clamp_min(1)
    return allowed & (ranks < wanted)
