"""Slices: parts of a test set of texts on which students often differ from the whole, found by rules on the text.

The rules read words, not meaning: they find most negations and contrasts and some that are none. Both languages' rules
are tried on every text.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Shaped

from distil.data.text_augmentation import split_words
from distil.evaluate.verdict import compare

ENOUGH_EXAMPLES = 20  # with fewer, resampling says little: no interval is given

_ENGLISH_NEGATION = re.compile(
    r"\b(?:not|no|never|none|nothing|nobody|nowhere|neither|nor|without|cannot|hardly|scarcely|barely)\b|n['’]t\b",
    re.IGNORECASE,
)
_ENGLISH_CONTRAST = re.compile(
    r"\b(?:but|however|although|though|albeit|nevertheless|nonetheless|whereas|despite|in spite of|"
    r"on the other hand)\b",
    re.IGNORECASE,
)
_CHINESE_NEGATION = re.compile(r"[不没沒无無非别別未]")
# words with one of these characters that negate nothing: very, special, difference, villa, others, no matter, not only,
# however, future
_CHINESE_NO_NEGATION = re.compile(
    r"非常|[特分区區级級个個差类類性告鉴鑒之][别別]|差[万萬][别別]|[别別][墅人的处處]|[无無不][论論]|不[管仅僅但光只过過断斷]|"
    r"(?<![从從])未[来來]"
)
_CHINESE_CONTRAST = re.compile(r"但|不[过過]|却|卻|然而|可是")
_CHINESE_NO_CONTRAST = re.compile(r"[不非]但|但愿|但願|[冷忘了退推][却卻]|[却卻]步")  # not only, if only, to cool


def slice_rows(texts: Sequence[str]) -> dict[str, Bool[np.ndarray, " texts"]]:
    """Which texts are in each slice; a text may be in several or in none.

    - ``negation``: has a word that negates, such as *not*, *n't*, *never*, *without*, 不 or 没.
    - ``contrast``: has a word that turns, such as *but*, *although*, *despite*, 但 or 却. *Yet* and *while* are left
      out: most often they speak of time.
    - ``short``, ``long``: as long as the first quartile or shorter, as the third or longer, in words, or in characters
      where no spaces are between words. Equal lengths can make these more than a quarter; where the two quartiles are
      one, both slices are empty.

    >>> {name: rows.tolist() for name, rows in slice_rows(["not bad", "good but too long"]).items()}
    {'negation': [True, False], 'contrast': [False, True], 'short': [True, False], 'long': [False, True]}
    """
    lengths = np.array([len(split_words(text)) for text in texts])
    short, long = np.quantile(lengths, [0.25, 0.75])
    return {
        "negation": np.array([_negates(text) for text in texts]),
        "contrast": np.array([_contrasts(text) for text in texts]),
        "short": (lengths <= short) & (short < long),
        "long": (lengths >= long) & (short < long),
    }


def slice_report(
    values_by_arm: Mapping[str, Shaped[np.ndarray, "seeds examples"]],
    slices: Mapping[str, Bool[np.ndarray, " examples"]],
    *,
    distilled: str,
    control: str,
    groups: Sequence[str] | None = None,
) -> list[dict[str, Any]]:
    """How the arms did on each slice, and by how much the distilled arm differs from the control there.

    The intervals are those of the verdict, each for its slice alone: of many slices a few differ by chance.

    Args:
        values_by_arm: the score of every test example by seed, of every arm; same seeds, same examples.
        slices: which examples are in each slice.
        distilled: the name of the distilled arm.
        control: the name of the arm that it is compared with.
        groups: of each example, such as its article: examples of a group are resampled together, as in the verdict.

    Returns:
        For each slice ``name``, ``support`` (its number of examples), ``means`` by arm, ``difference`` (distilled minus
        control), its ``interval`` over examples and its ``seed_interval`` over seeds. None stands for what cannot be
        told: all of an empty slice, the intervals of one with fewer than 20 examples or of one group alone, seeds where
        there is one.
    """
    return [
        {"name": name, "support": int(rows.sum()), **_report(values_by_arm, rows, distilled, control, groups)}
        for name, rows in slices.items()
    ]


def _report(
    values_by_arm: Mapping[str, np.ndarray],
    rows: np.ndarray,
    distilled: str,
    control: str,
    groups: Sequence[str] | None,
) -> dict[str, Any]:
    if not rows.any():
        return {"means": dict.fromkeys(values_by_arm), "difference": None, "interval": None, "seed_interval": None}
    inside = {arm: values[:, rows] for arm, values in values_by_arm.items()}
    together = None if groups is None else [groups[row] for row in np.flatnonzero(rows).tolist()]
    comparison = compare(inside[distilled], inside[control], groups=together)
    enough = rows.sum() >= ENOUGH_EXAMPLES and (together is None or len(set(together)) > 1)
    seeds = comparison.seed_interval if enough else None
    return {
        "means": {arm: float(values.mean()) for arm, values in inside.items()},
        "difference": comparison.difference,
        "interval": list(comparison.interval) if enough else None,
        "seed_interval": list(seeds) if seeds else None,
    }


def _negates(text: str) -> bool:
    return bool(_ENGLISH_NEGATION.search(text) or _CHINESE_NEGATION.search(_CHINESE_NO_NEGATION.sub(" ", text)))


def _contrasts(text: str) -> bool:
    return bool(_ENGLISH_CONTRAST.search(text) or _CHINESE_CONTRAST.search(_CHINESE_NO_CONTRAST.sub(" ", text)))
