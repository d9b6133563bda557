"""Causal language modelling: each token is said from those before it. Sums over tokens, with explicit denominators."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from distil.core.errors import DataError
from distil.losses.logit import label_cross_entropy

METRIC = "document_bits_per_byte"


def next_token_targets(
    input_ids: Int[Tensor, "batch tokens"],
    attention_mask: Int[Tensor, "batch tokens"],
    prompt_lengths: Int[Tensor, " batch"] | None = None,
) -> tuple[Int[Tensor, "batch tokens"], Bool[Tensor, "batch tokens"]]:
    """What the output at each position should say: the token at the next one.

    Args:
        input_ids: padded on the left or on the right.
        attention_mask: 1 for tokens, 0 for padding. What is supervised is known from it alone, so a token that ends a
            text is supervised also where padding has the same id.
        prompt_lengths: how many tokens at the start of each text, padding not counted, are given and need not be said.

    Returns:
        Labels and mask, aligned with the outputs and not with the tokens. The first token of a text has nothing before
        it and is no target, and nothing is asked of the last position. Where the mask is False the label is 0.

    >>> labels, mask = next_token_targets(torch.tensor([[5, 6, 2, 2]]), torch.tensor([[1, 1, 1, 0]]))  # 2 ends and pads
    >>> labels, mask
    (tensor([[6, 2, 0, 0]]), tensor([[ True,  True, False, False]]))
    """
    real = attention_mask.bool()
    asked = real[:, 1:] & real[:, :-1]
    if prompt_lengths is not None:
        asked = asked & (real.cumsum(dim=1)[:, 1:] > prompt_lengths[:, None])
    mask = torch.cat([asked, torch.zeros_like(real[:, :1])], dim=1)
    return input_ids.roll(-1, dims=1).masked_fill(~mask, 0), mask


def supervised_nats(
    logits: Float[Tensor, "batch tokens vocabulary"],
    labels: Int[Tensor, "batch tokens"],
    mask: Bool[Tensor, "batch tokens"],
) -> Float[Tensor, " batch"]:
    """Negative log-likelihood of the supervised tokens of each row, in nats, summed in float64."""
    nats = torch.zeros(mask.shape, dtype=torch.float64, device=logits.device)
    nats[mask] = label_cross_entropy(logits[mask], labels[mask]).double()
    return nats.sum(dim=1)


def bytes_of(text: str) -> int:
    """The length of a text in UTF-8: 1 for an ASCII letter, 3 for most Chinese characters."""
    return len(text.encode())


def predicted_bytes(text: str, offsets: Sequence[tuple[int, int]], mask: Sequence[bool]) -> int:
    """Bytes of the part of a text that was to be said: from the first token that is a target to the last.

    Neither a first token without anything before it, nor a prompt, nor what was cut off is counted, as its nats are not
    either. The nats of a token that ends a text are counted, and it has no bytes.

    Args:
        text: what was tokenised.
        offsets: the characters of each token, in code points, as `tokenizers` gives them; (0, 0) for special tokens.
        mask: of the outputs, as ``next_token_targets`` gives it for this text.
    """
    said = [place for place, asked in zip(offsets[1:], mask[:-1], strict=True) if asked and place[0] < place[1]]
    return bytes_of(text[min(start for start, _ in said) : max(end for _, end in said)]) if said else 0


def bits_per_byte(
    nats: Float[np.ndarray, " documents"], num_bytes: Int[np.ndarray, " documents"]
) -> Float[np.ndarray, " documents"]:
    r"""Bits that a byte of each document costs: the headline metric, which is their mean over documents.

    .. math:: \frac{n}{b \ln 2}

    with n the nats and b the bytes. Unlike perplexity per token it compares models with different tokenizers.

    Raises:
        DataError: a document has no bytes.
    """
    if not (num_bytes > 0).all():
        raise DataError(
            f"{int((num_bytes <= 0).sum())} of {len(num_bytes)} documents have no byte that could be predicted; "
            "leave out empty documents and those of one token"
        )
    return nats / (num_bytes * math.log(2))


def perplexity(nats: float, count: int) -> float:
    """The exponential of the nats for each token, or byte, that is counted; infinite where it is too large."""
    try:
        return math.exp(nats / count)
    except OverflowError:
        return math.inf


def language_model_metrics(
    nats: Float[np.ndarray, " documents"],
    num_tokens: Int[np.ndarray, " documents"],
    num_bytes: Int[np.ndarray, " documents"],
) -> dict[str, float]:
    """The metrics of a test set, the headline first; lower is better for all.

    ``document_bits_per_byte`` is a mean over documents. The others divide the nats of all documents by the number of
    all supervised tokens or all predicted bytes, so that long documents count more.

    Args:
        nats: of the supervised tokens of each document.
        num_tokens: supervised tokens.
        num_bytes: predicted bytes.

    Raises:
        DataError: a document has no bytes.
    """
    values = bits_per_byte(nats, num_bytes)
    total, tokens, size = float(nats.sum()), int(num_tokens.sum()), int(num_bytes.sum())
    return {
        METRIC: float(values.mean()),
        "bits_per_byte": total / (size * math.log(2)),
        "byte_perplexity": perplexity(total, size),
        "token_perplexity": perplexity(total, tokens),
        "nats_per_token": total / tokens,
    }
