"""Predictions made by hand or drawn from a seed."""

import numpy as np

from distil.evaluate.prediction import Predictions


def predictions(logits: object, labels: object) -> Predictions:
    """Predictions with ids 0, 1, ..."""
    array = np.asarray(logits, dtype=np.float32)
    return Predictions(ids=np.arange(len(array)), labels=np.asarray(labels, dtype=np.int64), logits=array)


def from_probabilities(probabilities: object, labels: object) -> Predictions:
    """Predictions that give exactly these probabilities, as far as float32 can."""
    with np.errstate(divide="ignore"):
        return predictions(np.log(np.asarray(probabilities, dtype=np.float64)), labels)


def drawn(seed: int, *, examples: int = 200, classes: int = 7, spread: float = 2.0) -> Predictions:
    """Random logits with labels that they meet about half of the time."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(scale=spread, size=(examples, classes))
    labels = np.where(rng.random(examples) < 0.5, logits.argmax(axis=1), rng.integers(classes, size=examples))
    return predictions(logits, labels)
