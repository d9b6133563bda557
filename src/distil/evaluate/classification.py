"""Quality, calibration and fidelity of one model on one split. Fractions are 0..1, divergences are nats."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.metrics import confusion_matrix

from distil.evaluate.prediction import Predictions

BINS = 15  # of confidence, as in Guo et al. 2017


def quality(predictions: Predictions) -> dict[str, float]:
    """Accuracy, errors, negative log-likelihood, expected calibration error and Brier score.

    The Brier score is the squared distance of the probabilities from the one-hot label, summed over classes (0..2) and
    averaged over examples (Brier 1950). The calibration error has 15 equal bins (Guo et al. 2017, arXiv:1706.04599).
    """
    log_probabilities = predictions.log_probabilities
    rows = np.arange(len(predictions.labels))
    one_hot = np.zeros_like(log_probabilities)
    one_hot[rows, predictions.labels] = 1
    bins = reliability(predictions)
    total = len(predictions.labels)
    return {
        "accuracy": float(predictions.correct.mean()),
        "errors": int((~predictions.correct).sum()),
        "negative_log_likelihood": float(-log_probabilities[rows, predictions.labels].mean()),
        "expected_calibration_error": sum(b["count"] / total * abs(b["confidence"] - b["accuracy"]) for b in bins),
        "brier_score": float(((np.exp(log_probabilities) - one_hot) ** 2).sum(axis=1).mean()),
    }


def reliability(predictions: Predictions) -> list[dict[str, float]]:
    """Mean confidence, accuracy and count of the examples in each bin of confidence; empty bins are left out."""
    confidence = np.exp(predictions.log_probabilities.max(axis=1))
    upper_edge = np.ceil(np.round(confidence * BINS, 5))  # an edge belongs to the bin below it; logits are float32
    bins = np.clip(upper_edge.astype(int) - 1, 0, BINS - 1)
    return [
        {
            "confidence": float(confidence[bins == each].mean()),
            "accuracy": float(predictions.correct[bins == each].mean()),
            "count": int((bins == each).sum()),
        }
        for each in np.unique(bins)
    ]


def fidelity(student: Predictions, teacher: Predictions) -> dict[str, float]:
    """How much of the teacher the student repeats: its decisions, its probabilities, and its mistakes.

    ``inherited_errors`` is the share of the teacher's mistakes that the student repeats with the same wrong class; 0
    where the teacher makes none.
    """
    log_teacher, log_student = teacher.log_probabilities, student.log_probabilities
    probabilities = np.exp(log_teacher)
    ratio = np.subtract(log_teacher, log_student, out=np.zeros_like(log_teacher), where=probabilities > 0)
    divergence = (probabilities * ratio).sum(axis=1)
    mistakes = ~teacher.correct
    repeated = student.decisions[mistakes] == teacher.decisions[mistakes]
    return {
        "agreement_with_teacher": float((student.decisions == teacher.decisions).mean()),
        "kl_to_teacher": float(divergence.mean()),
        "inherited_errors": float(repeated.mean()) if mistakes.any() else 0.0,
    }


def per_class(predictions: Predictions, class_names: Sequence[str]) -> list[dict[str, Any]]:
    """Support and accuracy of each class; the accuracy of a class without examples is None."""
    return [
        {
            "name": name,
            "support": int((predictions.labels == label).sum()),
            "accuracy": float(predictions.correct[predictions.labels == label].mean())
            if (predictions.labels == label).any()
            else None,
        }
        for label, name in enumerate(class_names)
    ]


def confusion(predictions: Predictions, num_classes: int) -> list[list[int]]:
    """Counts; rows are true classes, columns are predicted ones."""
    return confusion_matrix(predictions.labels, predictions.decisions, labels=range(num_classes)).tolist()
