"""Correctness, line 36: the metrics are pinned by values computed by other libraries or by hand."""

import numpy as np
import pytest
import torch
from scipy.special import softmax
from scipy.stats import entropy
from sklearn.metrics import accuracy_score, log_loss
from torchmetrics.classification import MulticlassCalibrationError

from distil.evaluate.classification import BINS, confusion, fidelity, per_class, quality, reliability
from distil.evaluate.prediction import Predictions

from .conftest import drawn, from_probabilities, predictions


def probabilities_of(drawn: Predictions) -> np.ndarray:
    return softmax(drawn.logits.astype(np.float64), axis=1)


def torchmetrics_calibration_error(these: Predictions) -> float:
    metric = MulticlassCalibrationError(num_classes=these.logits.shape[1], n_bins=15, norm="l1")
    return float(metric(torch.from_numpy(probabilities_of(these)), torch.from_numpy(these.labels)))


@pytest.mark.parametrize("seed", range(5))
def test_36_quality_against_scikit_learn(seed: int) -> None:
    these = drawn(seed)
    metrics = quality(these)
    probabilities = probabilities_of(these)
    assert metrics["accuracy"] == accuracy_score(these.labels, probabilities.argmax(axis=1))
    assert metrics["errors"] == (these.labels != probabilities.argmax(axis=1)).sum()
    assert metrics["negative_log_likelihood"] == pytest.approx(
        log_loss(these.labels, probabilities, labels=range(7)), rel=1e-12
    )


def test_36_quality_by_hand() -> None:
    """Two examples: 0.7 on the right class, and 0.2 on the right class of three."""
    metrics = quality(from_probabilities([[0.7, 0.2, 0.1], [0.2, 0.5, 0.3]], [0, 0]))
    assert metrics["accuracy"] == 0.5
    assert metrics["errors"] == 1
    assert metrics["negative_log_likelihood"] == pytest.approx(-(np.log(0.7) + np.log(0.2)) / 2, rel=1e-6)
    assert metrics["brier_score"] == pytest.approx(((0.09 + 0.04 + 0.01) + (0.64 + 0.25 + 0.09)) / 2, rel=1e-6)
    # bins (0.6667, 0.7333] and (0.4667, 0.5333]: |0.7 - 1| and |0.5 - 0|, half of the examples each
    assert metrics["expected_calibration_error"] == pytest.approx((0.3 + 0.5) / 2, rel=1e-6)


def test_perfect_and_hopeless_predictions() -> None:
    perfect = quality(predictions([[1e4, 0], [0, 1e4]], [0, 1]))
    assert perfect == {
        "accuracy": 1, "errors": 0, "negative_log_likelihood": 0, "expected_calibration_error": 0, "brier_score": 0,
    }  # fmt: skip
    hopeless = quality(predictions([[1e4, 0], [0, 1e4]], [1, 0]))
    assert hopeless == {
        "accuracy": 0, "errors": 2, "negative_log_likelihood": 1e4, "expected_calibration_error": 1, "brier_score": 2,
    }  # fmt: skip


@pytest.mark.parametrize(("seed", "spread"), [(0, 0.5), (1, 2.0), (2, 5.0), (3, 20.0)])
def test_36_calibration_error_against_torchmetrics(seed: int, spread: float) -> None:
    these = drawn(seed, examples=1000, spread=spread)
    found = quality(these)["expected_calibration_error"]
    assert found == pytest.approx(torchmetrics_calibration_error(these), abs=1e-6)


@pytest.mark.parametrize(("logits", "by_hand"), [([1e4, 0], 0.25), ([0, 0], 0.25), ([0, 1e4], 0.75)])
def test_36_calibration_error_at_the_ends_of_the_scale(logits: list[float], by_hand: float) -> None:
    """All confidences 1, and all 1/2, of two classes; three of four labels are the first class."""
    these = predictions([logits] * 4, [0, 0, 0, 1])
    found = quality(these)["expected_calibration_error"]
    assert found == pytest.approx(by_hand)
    assert found == pytest.approx(torchmetrics_calibration_error(these), abs=1e-6)


@pytest.mark.parametrize("edge", range(6, BINS + 1))
def test_a_confidence_on_an_edge_belongs_to_the_bin_below(edge: int) -> None:
    """Guo et al. 2017, equation 2 and before: the bins are ((m - 1) / M, m / M]."""
    on, above, below = edge / BINS, min((edge + 0.5) / BINS, 1), (edge - 0.5) / BINS
    probabilities = [[p, (1 - p) / 2, (1 - p) / 2] for p in (on, below, above)]
    bins = reliability(from_probabilities(probabilities, [0, 0, 0]))
    assert bins[0]["count"] == (3 if edge == BINS else 2)
    assert sum(each["count"] for each in bins) == 3


def test_reliability_by_hand() -> None:
    these = from_probabilities([[0.95, 0.05], [0.97, 0.03], [0.6, 0.4], [0.55, 0.45]], [0, 1, 0, 1])
    assert reliability(these) == [
        {"confidence": pytest.approx(0.575), "accuracy": 0.5, "count": 2},
        {"confidence": pytest.approx(0.96), "accuracy": 0.5, "count": 2},
    ]


def test_36_fidelity_by_hand() -> None:
    teacher = from_probabilities([[0.5, 0.25, 0.25], [0.1, 0.8, 0.1], [0.1, 0.8, 0.1], [0.1, 0.1, 0.8]], [0, 0, 0, 1])
    student = from_probabilities([[0.25, 0.5, 0.25], [0.1, 0.8, 0.1], [0.1, 0.1, 0.8], [0.8, 0.1, 0.1]], [0, 0, 0, 1])
    found = fidelity(student, teacher)
    assert found["agreement_with_teacher"] == 1 / 4
    assert found["inherited_errors"] == pytest.approx(1 / 3)  # of the teacher's three mistakes one is repeated
    by_hand = [0.5 * np.log(2) - 0.25 * np.log(2), 0, 0.7 * np.log(8), 0.7 * np.log(8)]
    assert found["kl_to_teacher"] == pytest.approx(np.mean(by_hand), rel=1e-6)


def test_36_divergence_from_the_teacher_against_scipy() -> None:
    student, teacher = drawn(1), drawn(2)
    expected = entropy(probabilities_of(teacher), probabilities_of(student), axis=1).mean()
    assert fidelity(student, teacher)["kl_to_teacher"] == pytest.approx(expected, rel=1e-12)
    reverse = entropy(probabilities_of(student), probabilities_of(teacher), axis=1).mean()
    assert fidelity(teacher, student)["kl_to_teacher"] == pytest.approx(reverse, rel=1e-12)
    assert abs(expected - reverse) > 0.01


def test_1_a_student_equal_to_the_teacher_has_no_divergence() -> None:
    """Correctness, line 1, for the reported divergence."""
    these = drawn(3)
    assert fidelity(these, these) == {
        "agreement_with_teacher": 1, "kl_to_teacher": 0, "inherited_errors": 1,
    }  # fmt: skip


def test_5_impossible_classes_and_large_gaps_give_no_nan() -> None:
    """Correctness, line 5: -inf entries and gaps of 1e4."""
    teacher = predictions([[0, -np.inf, 0], [1e4, 0, -1e4]], [0, 1])
    student = predictions([[0, -np.inf, 0], [1e4, 0, -1e4]], [0, 1])
    assert fidelity(student, teacher)["kl_to_teacher"] == 0
    other = predictions([[0, -np.inf, 0], [0, 1e4, 0]], [0, 1])
    assert fidelity(other, teacher)["kl_to_teacher"] == pytest.approx(1e4 / 2)


def test_a_teacher_without_mistakes_passes_none_on() -> None:
    teacher, student = predictions([[1, 0], [0, 1]], [0, 1]), predictions([[0, 1], [0, 1]], [0, 1])
    assert fidelity(student, teacher)["inherited_errors"] == 0


def test_a_mistake_with_another_wrong_class_is_not_inherited() -> None:
    teacher, student = predictions([[0, 1, 0]], [0]), predictions([[0, 0, 1]], [0])
    assert fidelity(student, teacher)["inherited_errors"] == 0


def test_per_class_and_a_class_without_examples() -> None:
    these = predictions([[1, 0, 0], [0, 1, 0], [0, 1, 0]], [0, 0, 1])
    assert per_class(these, ["a", "b", "c"]) == [
        {"name": "a", "support": 2, "accuracy": 0.5},
        {"name": "b", "support": 1, "accuracy": 1.0},
        {"name": "c", "support": 0, "accuracy": None},
    ]


def test_confusion_has_true_classes_in_rows() -> None:
    these = predictions([[1, 0, 0], [0, 1, 0], [0, 1, 0]], [0, 0, 1])
    assert confusion(these, 3) == [[1, 1, 0], [0, 1, 0], [0, 0, 0]]
