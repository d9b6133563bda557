"""Token classification: a tag for each word, read from the first of its pieces."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from distil.core.errors import DataError, MissingExtraError

ENTITY_METRIC = "sentence_entity_f1"
TAG_METRIC = "sentence_tag_accuracy"

Tags = Sequence[Sequence[str]]  # the tags of each sentence, a word each


class WordTargets(NamedTuple):
    """What the outputs of one sentence should be.

    Attributes:
        labels: class numbers, [tokens]; 0, without meaning, where not supervised.
        mask: which tokens are supervised, [tokens].
        num_lost_words: words that no token stands for, most often cut off at the end. They are not scored, so the
            number must be shown beside the score.
    """

    labels: Tensor
    mask: Tensor
    num_lost_words: int


def word_targets(encoding: Any, tags: Sequence[int]) -> WordTargets:
    """The tag of each word on its first piece; later pieces, special tokens and padding are not supervised.

    Args:
        encoding: of `tokenizers`, made from a list of words (``is_pretokenized``).
        tags: class numbers, one a word, in the order of the words.

    Raises:
        DataError: the tokenizer saw more words than there are tags.
    """
    first: dict[int, int] = {}
    for place, word in enumerate(encoding.word_ids):
        if word is not None:
            first.setdefault(word, place)
    if first and max(first) >= len(tags):
        raise DataError(
            f"a sentence has {len(tags)} tags, and the tokenizer saw at least {max(first) + 1} words; "
            "give it the list of words, with one tag each, and not the sentence as one text"
        )
    labels = torch.zeros(len(encoding.word_ids), dtype=torch.int64)
    mask = torch.zeros(len(encoding.word_ids), dtype=torch.bool)
    for word, place in first.items():
        labels[place], mask[place] = tags[word], True
    return WordTargets(labels, mask, len(tags) - len(first))


def tag_names(classes: Int[Tensor, " tokens"], mask: Bool[Tensor, " tokens"], class_names: Sequence[str]) -> list[str]:
    """The tags of the supervised tokens of one sentence, a word each."""
    return [class_names[int(number)] for number in classes[mask]]


def has_entities(class_names: Sequence[str]) -> bool:
    """Whether tags mark entities: each is O, or B- or I- with a type behind it. Others are plain tags."""
    marked = [name for name in class_names if name != "O"]
    return bool(marked) and all(name[:2] in ("B-", "I-") and len(name) > 2 for name in marked)


def tag_values(true: Tags, predicted: Tags, class_names: Sequence[str]) -> Float[np.ndarray, " sentences"]:
    """The headline metric of each sentence: F1 of its entities, or for plain tags the share that is right.

    Entity F1 over a test set counts entities, not sentences, so it is not a mean over sentences and no interval over
    sentences can be drawn for it; that over sentences is a mean. A sentence without entities in which none are found
    counts 1.

    Raises:
        DataError: a sentence has no words, or not as many predicted tags as words.
        MissingExtraError: `nervaluate` is needed and not installed.
    """
    if not has_entities(class_names):
        return _share_right(true, predicted)
    right, said, held = entity_counts(true, predicted).T
    return np.divide(2 * right, said + held, out=np.ones(len(right)), where=said + held > 0)


def tag_metrics(true: Tags, predicted: Tags, class_names: Sequence[str]) -> dict[str, float]:
    """The metrics of a test set, as fractions, the headline first.

    ``entity_f1``, ``entity_precision`` and ``entity_recall`` count entities with the right bounds and the right type
    (strict), 0 where none is right; an I- tag that continues nothing begins an entity, as in CoNLL 2000's script.
    ``sentence_entity_f1`` and ``sentence_tag_accuracy`` are means over sentences, ``tag_accuracy`` is over words. Plain
    tags have no entities and none of their metrics.

    Raises:
        DataError: a sentence has no words, or not as many predicted tags as words.
        MissingExtraError: `nervaluate` is needed and not installed.
    """
    share = _share_right(true, predicted)
    sizes = np.array([len(sentence) for sentence in true])
    tags = {TAG_METRIC: float(share.mean()), "tag_accuracy": float((share * sizes).sum() / sizes.sum())}
    if not has_entities(class_names):
        return tags
    right, said, held = entity_counts(true, predicted).sum(axis=0)
    return {
        ENTITY_METRIC: float(tag_values(true, predicted, class_names).mean()),
        "entity_f1": float(2 * right / max(said + held, 1)),
        "entity_precision": float(right / max(said, 1)),
        "entity_recall": float(right / max(held, 1)),
        **tags,
    }


def entity_counts(true: Tags, predicted: Tags) -> Int[np.ndarray, "sentences counts"]:
    """Entities found with the right bounds and type, entities found, and entities there are, for each sentence."""
    try:
        from nervaluate import Evaluator
        from nervaluate.strategies import StrictEvaluation
    except ImportError as error:
        raise MissingExtraError("nervaluate", extra="text", purpose="entity F1") from error
    types = sorted({tag[2:] for sentence in (*true, *predicted) for tag in sentence if tag != "O"})
    read = Evaluator([list(tags) for tags in true], [list(tags) for tags in predicted], tags=types, loader="list")
    strict = StrictEvaluation()
    results = [strict.evaluate(held, said, types)[0] for held, said in zip(read.true, read.pred, strict=True)]
    return np.array([[result.correct, result.actual, result.possible] for result in results])


def _share_right(true: Tags, predicted: Tags) -> np.ndarray:
    if not true:
        raise DataError("there is no sentence to score")
    shares = []
    for number, (tags, answers) in enumerate(zip(true, predicted, strict=True)):
        if not tags or len(tags) != len(answers):
            raise DataError(f"sentence {number} has {len(tags)} words to score and {len(answers)} predicted tags")
        shares.append(np.mean([tag == answer for tag, answer in zip(tags, answers, strict=True)]))
    return np.array(shares)
