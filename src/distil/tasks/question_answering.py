"""Extractive question answering: the part of a context that answers a question. Contexts are read in windows."""

import math
import re
import string
import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from distil.core.errors import DataError, NumericError
from distil.losses.tensor import at_least_float32

METRIC = "answer_f1"

Language = Literal["en", "zh"]

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_CHINESE_TOKENS = re.compile(rf"[{_HAN}]|[^\s{_HAN}]+")


class Window(NamedTuple):
    """What a model says about one window of a context.

    Attributes:
        start_logits: that the answer starts at a token, [tokens].
        end_logits: that it ends there, [tokens].
        offsets: the characters of each token in its text, as (first, one past the last), in code points.
        context: which tokens are of the context, and not of the question, special or padding, [tokens].
    """

    start_logits: Float[Tensor, " tokens"]
    end_logits: Float[Tensor, " tokens"]
    offsets: Sequence[tuple[int, int]]
    context: Bool[Tensor, " tokens"]


class Span(NamedTuple):
    """An answer: ``context[start:end]``. The score is the sum of two logits, ``window`` the number of its window."""

    start: int
    end: int
    score: float
    window: int


def context_mask(encoding: Any) -> Bool[Tensor, " tokens"]:
    """Which tokens are of the context: the second text of the pair."""
    return torch.tensor([sequence == 1 for sequence in encoding.sequence_ids])


def answer_positions(encoding: Any, answer_start: int, answer_text: str) -> tuple[int, int] | None:
    """The first and the last token of an answer in a window, or None where the window does not hold all of it.

    Args:
        encoding: one window: question and context as a pair, of `tokenizers`.
        answer_start: where the answer starts in the whole context, in code points from 0.
        answer_text: the answer; space around it is not part of it.

    Returns:
        Positions in the window, the last included. Tokens that reach beyond the answer are taken whole.
    """
    start = answer_start + len(answer_text) - len(answer_text.lstrip())
    end = start + len(answer_text.strip())
    places = [place for place, sequence in enumerate(encoding.sequence_ids) if sequence == 1]
    if not places or not encoding.offsets[places[0]][0] <= start < end <= encoding.offsets[places[-1]][1]:
        return None
    inside = [place for place in places if encoding.offsets[place][0] < end and encoding.offsets[place][1] > start]
    return (inside[0], inside[-1]) if inside else None


def best_spans(windows: Sequence[Window], *, max_answer_tokens: int, top_n: int = 1) -> list[Span]:
    r"""The likeliest answers in all windows of one question, best first.

    .. math:: \max_{i \le j < i + m} s_i + e_j

    with s and e the start and end logits and m the longest answer. Every pair of tokens is looked at, not only those of
    the best starts and ends, so there always is an answer. Logits of different windows are compared as they are.

    Args:
        windows: of one question.
        max_answer_tokens: m, at least 1.
        top_n: how many answers with different bounds; fewer where there are not so many.

    Returns:
        Of equal scores the first window, the first start and the first end win.

    Raises:
        DataError: no window has a token of the context.
        NumericError: a logit is not a number.
        ValueError: a setting is outside its domain.

    Source: Devlin et al. 2018, arXiv:1810.04805, section 4.2; windows as in its code.
    """
    if max_answer_tokens < 1 or top_n < 1:
        raise ValueError(f"max_answer_tokens is {max_answer_tokens} and top_n {top_n}; both must be at least 1")
    found: dict[tuple[int, int], Span] = {}
    for number, window in enumerate(windows):
        for span in _spans(window, number, max_answer_tokens, top_n):
            known = found.setdefault((span.start, span.end), span)
            if span.score > known.score:
                found[span.start, span.end] = span
    if not found:
        raise DataError(
            "no window of a question has a token of its context; the question fills all tokens. Raise max_length"
        )
    return sorted(found.values(), key=lambda span: (-span.score, span.window, span.start, span.end))[:top_n]


def answer_tokens(text: str, *, language: Language) -> list[str]:
    """What is compared of an answer: its words in English, its characters in Chinese; empty where nothing is left.

    English: lower case, without ASCII punctuation and articles, split at space, as in SQuAD's script. Chinese: lower
    case, without punctuation of any script, each Chinese character on its own and words of other scripts whole, as in
    MLQA's script. CMRC 2018's differs: it scores the longest common substring. Full-width letters and digits stay.

    Source: Rajpurkar et al. 2016, arXiv:1606.05250, section 6.1; Lewis et al. 2019, arXiv:1910.07475, section 5.

    >>> answer_tokens("The U.S. Senate!", language="en"), answer_tokens("《红楼梦》, 1791 年", language="zh")
    (['us', 'senate'], ['红', '楼', '梦', '1791', '年'])
    """
    lower = text.lower()
    if language == "en":
        return _ARTICLES.sub(" ", "".join(each for each in lower if each not in string.punctuation)).split()
    return _CHINESE_TOKENS.findall("".join(each for each in lower if not _is_punctuation(each)))


def exact_match(prediction: str, references: Sequence[str], *, language: Language) -> float:
    """1 where the prediction has the same tokens in the same order as one of the references, else 0."""
    answer = answer_tokens(prediction, language=language)
    return float(any(answer == answer_tokens(reference, language=language) for reference in references))


def token_f1(prediction: str, references: Sequence[str], *, language: Language) -> float:
    """F1 of the prediction's tokens against those of the reference it is nearest to: 0..1.

    A token counts as often as it stands on both sides. Where one side has no tokens left it is 1 if both have none,
    else 0, as in SQuAD 2.0's script.
    """
    answer = Counter(answer_tokens(prediction, language=language))
    return max(_f1(answer, Counter(answer_tokens(reference, language=language))) for reference in references)


def answer_values(
    predictions: Sequence[str], references: Sequence[Sequence[str]], *, language: Language
) -> Float[np.ndarray, " questions"]:
    """F1 of each question: the headline metric, which is their mean.

    Raises:
        DataError: a question has no reference.
    """
    _require_references(references)
    pairs = zip(predictions, references, strict=True)
    return np.array([token_f1(answer, known, language=language) for answer, known in pairs])


def answer_metrics(
    predictions: Sequence[str], references: Sequence[Sequence[str]], *, language: Language
) -> dict[str, float]:
    """Means over questions, as fractions and not in percent, the headline first.

    Raises:
        DataError: a question has no reference.
    """
    values = answer_values(predictions, references, language=language)
    pairs = zip(predictions, references, strict=True)
    exact = [exact_match(answer, known, language=language) for answer, known in pairs]
    return {METRIC: float(values.mean()), "exact_match": float(np.mean(exact))}


def _spans(window: Window, number: int, max_answer_tokens: int, top_n: int) -> list[Span]:
    start, end = (
        at_least_float32(logits).masked_fill(~window.context, -math.inf)
        for logits in (window.start_logits, window.end_logits)
    )
    scores = start[:, None] + end[None, :]
    if scores.isnan().any():
        raise NumericError(
            "a start or end logit of a question is not a number; the model's weights or inputs are broken"
        )
    in_order = torch.ones_like(scores, dtype=torch.bool).triu().tril(max_answer_tokens - 1)
    scores = scores.masked_fill(~in_order, -math.inf)
    spans = []
    for _ in range(top_n):
        first, last = divmod(int(scores.argmax()), len(scores))
        score = scores[first, last].item()
        if score == -math.inf:
            break
        spans.append(Span(window.offsets[first][0], window.offsets[last][1], score, number))
        scores[first, last] = -math.inf
    return spans


def _f1(answer: Counter[str], reference: Counter[str]) -> float:
    if not answer or not reference:
        return float(answer == reference)
    return 2 * (answer & reference).total() / (answer.total() + reference.total())


def _is_punctuation(character: str) -> bool:
    return character in string.punctuation or unicodedata.category(character).startswith("P")


def _require_references(references: Sequence[Sequence[str]]) -> None:
    without = [number for number, known in enumerate(references) if not known]
    if without:
        raise DataError(f"{len(without)} questions have no answer, the first is number {without[0]}; each needs one")
