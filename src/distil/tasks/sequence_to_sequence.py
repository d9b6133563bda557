"""Sequence to sequence: a text written from a text, such as a translation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from distil.core.errors import CompatibilityError, DataError, MissingExtraError, ModelError

METRIC = "sentence_chrf"

Tokenisation = Literal["13a", "zh", "char"]


class DecoderTargets(NamedTuple):
    """What a decoder reads and what it should say.

    Attributes:
        input_ids: the start, then the target without its last token, [batch, tokens]; padding where not supervised.
        labels: the target, [batch, tokens]; 0, without meaning, where not supervised.
        mask: which positions are supervised: the target's tokens, its end included, [batch, tokens].
    """

    input_ids: Tensor
    labels: Tensor
    mask: Tensor


@dataclass(frozen=True, eq=False)
class WritingQuality:
    """How near texts are to their references.

    Attributes:
        values: chrF of each sentence, 0..1: the headline metric, which is their mean.
        metrics: by name, 0..1, the headline first.
        signatures: how sacrebleu computed each, to be reported with it.
    """

    values: Float[np.ndarray, " sentences"]
    metrics: dict[str, float]
    signatures: dict[str, str]


def decoder_targets(
    target_ids: Int[Tensor, "batch tokens"],
    target_mask: Int[Tensor, "batch tokens"],
    *,
    start_id: int,
    pad_id: int,
) -> DecoderTargets:
    """Each target moved one place to the right to be read, and as it is to be said.

    Args:
        target_ids: with their end token, padded on the right.
        target_mask: 1 for tokens, 0 for padding. What is supervised is known from it alone, so the end token is
            supervised also where padding has the same id.
        start_id: what the decoder reads first.
        pad_id: what it reads where there is nothing.

    Raises:
        ValueError: a target is padded on the left, or the shapes differ.

    >>> targets = decoder_targets(torch.tensor([[7, 8, 2, 2]]), torch.tensor([[1, 1, 1, 0]]), start_id=0, pad_id=2)
    >>> targets.input_ids, targets.labels
    (tensor([[0, 7, 8, 2]]), tensor([[7, 8, 2, 0]]))
    """
    mask = target_mask.bool()
    if (mask[:, 1:] & ~mask[:, :-1]).any():
        raise ValueError("a target is padded on the left or inside; a decoder's targets must be padded on the right")
    moved = torch.cat([torch.full_like(target_ids[:, :1], start_id), target_ids[:, :-1]], dim=1)
    return DecoderTargets(moved.masked_fill(~mask, pad_id), target_ids.masked_fill(~mask, 0), mask)


def generate(
    model: nn.Module, inputs: Mapping[str, Tensor], *, max_new_tokens: int, num_beams: int = 1
) -> Int[Tensor, "batch generated"]:
    """What an encoder-decoder of `transformers` writes, without its start token.

    Nothing is drawn at random: the likeliest token at each step (greedy), or with several beams the likeliest text
    found. Forced tokens and the penalty for length are those of the model's own ``generation_config``.

    Args:
        model: in evaluation mode.
        inputs: ``input_ids`` and ``attention_mask`` of the texts that are read.
        max_new_tokens: the longest text.
        num_beams: 1 is greedy.

    Raises:
        ModelError: the model cannot generate, or dropout may be active in it.
    """
    own: Any = getattr(model, "generate", None)
    if own is None:
        raise ModelError(f"{type(model).__name__} has no generate; give an encoder-decoder of transformers")
    if any(module.training for module in model.modules()):
        raise ModelError("a model that writes is in training mode, where dropout is active; call model.eval() first")
    with torch.no_grad():
        return own(**inputs, max_new_tokens=max_new_tokens, num_beams=num_beams, do_sample=False)[:, 1:]


def written_texts(tokenizer: Any, generated: Int[Tensor, "batch generated"], *, end_id: int) -> list[str]:
    """Generated ids as texts, each up to its end token, without special tokens. The tokenizer is of `tokenizers`."""
    rows = [row[: row.index(end_id)] if end_id in row else row for row in generated.tolist()]
    return tokenizer.decode_batch(rows, skip_special_tokens=True)


def writing_quality(
    predictions: Sequence[str], references: Sequence[str], *, tokenisation: Tokenisation = "13a"
) -> WritingQuality:
    """chrF and BLEU of texts against one reference each, by sacrebleu, as fractions: 0.25 where papers write 25.

    BLEU and chrF of a corpus add up counts over all sentences, so they are not means over sentences and no interval
    over sentences can be drawn for them. The headline is the mean of chrF of each sentence; BLEU of one sentence is
    mostly 0 and is not used.

    Args:
        predictions: what was written, detokenised.
        references: what should have been.
        tokenisation: of BLEU alone: ``13a`` for European languages, ``zh`` for Chinese, ``char`` for other languages
            without spaces.

    Raises:
        CompatibilityError: there are not as many predictions as references.
        DataError: there are none, or a reference is empty.
        MissingExtraError: `sacrebleu` is not installed.

    Source: Post 2018, arXiv:1804.08771 (sacrebleu); Papineni et al. 2002 (BLEU); Popović 2015 (chrF).
    """
    try:
        from sacrebleu.metrics import BLEU, CHRF  # pyright: ignore[reportPrivateImportUsage]
    except ImportError as error:
        raise MissingExtraError("sacrebleu", extra="text", purpose="BLEU and chrF") from error
    _require_pairs(predictions, references)
    bleu, chrf = BLEU(tokenize=tokenisation), CHRF()
    metrics = {
        "chrf": chrf.corpus_score(list(predictions), [list(references)]).score / 100,
        "bleu": bleu.corpus_score(list(predictions), [list(references)]).score / 100,
    }
    signatures = {"chrf": str(chrf.get_signature()), "bleu": str(bleu.get_signature())}
    pairs = zip(predictions, references, strict=True)
    values = np.array([chrf.sentence_score(written, [known]).score / 100 for written, known in pairs])
    return WritingQuality(values, {METRIC: float(values.mean()), **metrics}, {METRIC: signatures["chrf"], **signatures})


def _require_pairs(predictions: Sequence[str], references: Sequence[str]) -> None:
    if len(predictions) != len(references):
        raise CompatibilityError(f"there are {len(predictions)} predictions and {len(references)} references")
    empty = [number for number, known in enumerate(references) if not known.strip()]
    if empty or not references:
        found = f"reference {empty[0]} is empty" if empty else "there are no references"
        raise DataError(f"{found}; each text that is scored needs one")
