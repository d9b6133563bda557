"""Transfer set of texts: variants of each text on which a teacher says what it thinks, so that a student sees more.

Words are masked and a text is sometimes cut to a few words in a row. Each variant is a function of (seed, example,
variant) alone: any order, any number of copies and any restart gives the same one.
"""

import re
from itertools import pairwise

import numpy as np

from distil.core.seeds import derive

LONGEST_NGRAM = 5
# Han, kana, and the punctuation that stands among them: scripts in which no space ends a word
UNSPACED = (
    "\u3001-\u303f\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff01-\uff0f\uff1a-\uff20\uff3b-\uff40"
    "\uff5b-\uff9f\U00020000-\U0003ffff"
)
_WORD = re.compile(rf"[{UNSPACED}]|[^\s{UNSPACED}]+")


def split_words(text: str) -> list[str]:
    """The words of a text: pieces between whitespace, and of Chinese and Japanese each character by itself.

    Only Han and kana characters, with their punctuation, are taken one by one; other scripts without spaces, such as
    Thai, count as one word from whitespace to whitespace, since their marks mean nothing without the letter before.

    >>> split_words("a 4-star hotel")
    ['a', '4-star', 'hotel']
    >>> split_words("房间wifi很好。")
    ['房', '间', 'wifi', '很', '好', '。']
    """
    return _WORD.findall(text)


def transfer_texts(
    text: str,
    *,
    example_id: int,
    seed: int,
    copies: int,
    mask_probability: float,
    ngram_probability: float,
    mask_token: str,
) -> list[str]:
    """The variants of a text that differ from it and from each other, in the order they were drawn.

    For each of ``copies`` draws every word becomes ``mask_token`` with ``mask_probability``; then, with
    ``ngram_probability``, only n words in a row stay, n drawn from 1..5 and the place from all there are. A text of n
    words or fewer stays whole. What is left of a text keeps its own spaces between words.

    Args:
        text: any text; one without words has no variants.
        example_id: the example's number; with the seed and the number of the draw it fixes the variant.
        seed: of the run or the arm.
        copies: variants drawn, at least 0. Fewer come back where some are equal; more copies add to the same list.
        mask_probability: 0..1, for each word.
        ngram_probability: 0..1, for each variant.
        mask_token: what the tokenizer of the models takes for its mask, such as ``[MASK]``.

    Raises:
        ValueError: a count or a probability is outside its domain, or the mask is empty.

    Source: Tang, Lu, Liu, Mou, Vechtomova, Lin 2019, arXiv:1903.12136, the section on data augmentation: 20 copies,
    masks with 0.1, n-grams with 0.25. Deviation: a word is never replaced by another of its part of speech, the third
    change of the paper, which needs a tagger.
    """
    _check(copies, mask_probability, ngram_probability, mask_token)
    drawn = [
        transfer_variant(
            text,
            example_id=example_id,
            seed=seed,
            variant=variant,
            mask_probability=mask_probability,
            ngram_probability=ngram_probability,
            mask_token=mask_token,
        )
        for variant in range(copies)
    ]
    return [variant for variant in dict.fromkeys(drawn) if variant != text.strip()]


def transfer_pairs(
    first: str,
    second: str,
    *,
    example_id: int,
    seed: int,
    copies: int,
    mask_probability: float,
    ngram_probability: float,
    mask_token: str,
) -> list[tuple[str, str]]:
    """``transfer_texts`` of the first text, each variant with the second text as it is.

    Deviation from the paper: it changes the first text, the second and both in turn, with 10 copies. Here the second,
    such as a question's context, stays, and the first is changed as if it stood alone.
    """
    variants = transfer_texts(
        first,
        example_id=example_id,
        seed=seed,
        copies=copies,
        mask_probability=mask_probability,
        ngram_probability=ngram_probability,
        mask_token=mask_token,
    )
    return [(variant, second) for variant in variants]


def transfer_variant(
    text: str,
    *,
    example_id: int,
    seed: int,
    variant: int,
    mask_probability: float,
    ngram_probability: float,
    mask_token: str,
) -> str:
    """One variant of a text, which may be equal to it; ``transfer_texts`` says how it is made.

    Its domain is not checked again here: this is called for every text of an epoch.
    """
    places = [match.span() for match in _WORD.finditer(text)]
    if not places:
        return text.strip()
    numbers = np.random.Generator(np.random.Philox(key=derive("transfer", seed, example_id, variant))).random
    masked = numbers(len(places)) < mask_probability
    words = [mask_token if hidden else text[slice(*place)] for place, hidden in zip(places, masked, strict=True)]
    gaps = ["", *(text[end:start] for (_, end), (start, _) in pairwise(places))]
    cut, size, place = numbers(3)
    if cut < ngram_probability:
        length = min(1 + int(size * LONGEST_NGRAM), len(words))
        first = int(place * (len(words) - length + 1))
        words, gaps = words[first : first + length], ["", *gaps[first + 1 : first + length]]
    return "".join(gap + word for gap, word in zip(gaps, words, strict=True))


def _check(copies: int, mask_probability: float, ngram_probability: float, mask_token: str) -> None:
    if copies < 0:
        raise ValueError(f"copies is {copies}; it must be at least 0")
    for name, value in (("mask_probability", mask_probability), ("ngram_probability", ngram_probability)):
        if not 0 <= value <= 1:
            raise ValueError(f"{name} is {value}; it must be between 0 and 1")
    if not mask_token.strip():
        raise ValueError("mask_token is empty; name the token that the tokenizer masks with, such as [MASK]")
