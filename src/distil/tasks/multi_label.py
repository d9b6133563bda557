"""Multi-label classification: any number of classes may hold for an example, each a yes or no of its own."""

import numpy as np
from jaxtyping import Bool, Float, Shaped
from sklearn.metrics import average_precision_score
from torch import Tensor

from distil.core.errors import DataError

METRIC = "example_f1"


def decisions(logits: Float[Tensor, "examples classes"]) -> Bool[Tensor, "examples classes"]:
    """Which classes are said to hold: those with a logit above 0, which is a probability above one half."""
    return logits > 0


def example_f1(
    logits: Float[Tensor, "examples classes"], targets: Shaped[Tensor, "examples classes"]
) -> Float[np.ndarray, " examples"]:
    r"""How well the classes that are said to hold are those that do, for each example.

    .. math:: F_1 = \frac{2 |S \cap H|}{|S| + |H|}

    with S the classes said and H those that hold. It is the headline because the metric of a test set is the mean of
    these numbers, so that an interval can be drawn over examples; micro and macro F1 are not means over examples.

    Args:
        logits: one score a class, 0 at even odds.
        targets: 1 where a class holds, else 0.

    Returns:
        0..1. 1 where no class holds and none is said; 0 where only one of the two is so.

    Raises:
        DataError: a target is neither 0 nor 1.

    Source: Tsoumakas, Katakis 2007, *Multi-label classification: an overview* (example-based measures).

    >>> import torch
    >>> example_f1(torch.tensor([[1.0, -1.0, 1.0]]), torch.tensor([[1, 1, 0]]))  # one class of two, and one too many
    array([0.5])
    """
    said, held = decisions(logits).numpy(), _held(targets)
    return np.nan_to_num(_f1(said, held, axis=1), nan=1.0)


def multi_label_metrics(
    logits: Float[Tensor, "examples classes"], targets: Shaped[Tensor, "examples classes"]
) -> dict[str, float]:
    """The metrics of a test set, as fractions, the headline first.

    ``example_f1`` is the mean over examples. ``micro_f1`` counts all answers alike. ``macro_f1`` is the mean over
    classes, without those that never hold and are never said. ``mean_average_precision`` is the mean of the area under
    precision over recall, over the classes that hold somewhere: it needs no threshold. ``exact_match`` is the share of
    examples with every class right, ``label_accuracy`` that of single answers, which is 1 less the Hamming loss.

    Raises:
        DataError: a target is neither 0 nor 1, or no class holds in any example.
    """
    said, held = decisions(logits).numpy(), _held(targets)
    if not held.any():
        raise DataError(
            f"no class holds in any of {len(held)} examples; nothing can be found in them. Check the labels"
        )
    scores = logits.double().numpy()
    areas = [average_precision_score(held[:, c], scores[:, c]) for c in range(held.shape[1]) if held[:, c].any()]
    return {
        METRIC: float(example_f1(logits, targets).mean()),
        "micro_f1": float(_f1(said, held, axis=None)),
        "macro_f1": float(np.nanmean(_f1(said, held, axis=0))),
        "mean_average_precision": float(np.mean(areas)),
        "exact_match": float((said == held).all(axis=1).mean()),
        "label_accuracy": float((said == held).mean()),
    }


def _f1(said: np.ndarray, held: np.ndarray, *, axis: int | None) -> np.ndarray:
    """Not a number where nothing is said and nothing holds."""
    total = np.asarray(said.sum(axis=axis) + held.sum(axis=axis))
    return np.divide(2 * (said & held).sum(axis=axis), total, out=np.full(total.shape, np.nan), where=total > 0)


def _held(targets: Tensor) -> np.ndarray:
    odd = targets[(targets != 0) & (targets != 1)]
    if len(odd):
        raise DataError(f"a target of multi-label classification is {odd[0].item()}; each must be 0 or 1")
    return targets.bool().numpy()
