import doctest

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, average_precision_score, f1_score, hamming_loss
from torchmetrics.functional.classification import multilabel_average_precision, multilabel_f1_score

from distil.core.errors import DataError
from distil.tasks import multi_label
from distil.tasks.multi_label import METRIC, decisions, example_f1, multi_label_metrics


def drawn(examples: int, classes: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(examples, classes, generator=generator)
    targets = (torch.rand(examples, classes, generator=generator) < 0.3).long()
    targets[0, 0] = 1  # one class holds somewhere
    return logits, targets


def test_the_threshold_is_at_even_odds_and_even_odds_are_no() -> None:
    assert decisions(torch.tensor([[-0.1, 0.0, 0.1]])).tolist() == [[False, False, True]]


def test_36_each_example_by_hand() -> None:
    logits = torch.tensor(
        [[1.0, 1.0, -1.0], [1.0, 1.0, 1.0], [-1.0, -1.0, -1.0], [-1.0, -1.0, -1.0], [1.0, -1.0, -1.0]]
    )
    targets = torch.tensor([[1, 1, 0], [1, 0, 0], [0, 0, 0], [0, 1, 0], [0, 0, 0]])
    # both right; one of three said; nothing to say and nothing said; one missed; one said where none holds
    assert example_f1(logits, targets).tolist() == [1.0, 0.5, 1.0, 0.0, 0.0]


def test_36_the_metrics_by_hand() -> None:
    logits = torch.tensor([[3.0, -1.0, -1.0, -1.0], [2.0, 1.0, -1.0, -1.0], [-1.0, 2.0, 1.0, -1.0]])
    targets = torch.tensor([[1.0, 0.0, 1.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]])
    found = multi_label_metrics(logits, targets)
    assert next(iter(found)) == METRIC
    # said and held, right: 1 and 2, 1; 2 and 1, 1; 2 and 1, 1
    assert found["example_f1"] == pytest.approx(2 / 3)
    assert found["micro_f1"] == pytest.approx(2 * 3 / (5 + 4))
    # by class: 2 / (2 + 1), 4 / (2 + 2), 0 / (1 + 1); the last is never said, never holds, and is left out
    assert found["macro_f1"] == pytest.approx((2 / 3 + 1 + 0) / 3)
    # first class: its example is first, 1; second: both first, 1; third: first of 3 is wrong, two are equal behind it
    assert found["mean_average_precision"] == pytest.approx((1 + 1 + 1 / 3) / 3)
    assert found["exact_match"] == 0.0
    assert found["label_accuracy"] == pytest.approx(9 / 12)


@settings(deadline=None, max_examples=30)
@given(examples=st.integers(2, 15), classes=st.integers(2, 5), seed=st.integers(0, 1000))
def test_36_the_metrics_are_scikit_learn_s(examples: int, classes: int, seed: int) -> None:
    logits, targets = drawn(examples, classes, seed)
    held, said = targets.numpy(), (logits > 0).long().numpy()
    found = multi_label_metrics(logits, targets)
    assert found["example_f1"] == pytest.approx(f1_score(held, said, average="samples", zero_division=1.0))
    assert found["micro_f1"] == pytest.approx(f1_score(held, said, average="micro", zero_division=0.0))
    assert found["macro_f1"] == pytest.approx(f1_score(held, said, average="macro", zero_division=np.nan))
    some = held.any(axis=0)
    expected = average_precision_score(held[:, some], logits.double().numpy()[:, some], average="macro")
    assert found["mean_average_precision"] == pytest.approx(expected)
    assert found["exact_match"] == pytest.approx(accuracy_score(held, said))
    assert found["label_accuracy"] == pytest.approx(1 - hamming_loss(held, said))
    assert example_f1(logits, targets).mean() == found[METRIC]


def test_36_the_metrics_are_torchmetrics_s() -> None:
    logits, targets = drawn(60, 4, 0)
    found = multi_label_metrics(logits, targets)
    for average in ("micro", "macro"):
        expected = multilabel_f1_score(logits, targets, num_labels=4, average=average)
        assert found[f"{average}_f1"] == pytest.approx(expected.item())
    expected = multilabel_average_precision(logits, targets, num_labels=4, average="macro")
    assert found["mean_average_precision"] == pytest.approx(expected.item(), abs=1e-6)


def test_07_a_class_does_not_compete_with_another() -> None:
    """A constant added to one class's logits changes the answers for that class alone."""
    logits, _ = drawn(40, 3, 1)
    raised = logits + torch.tensor([0.0, 0.0, 50.0])
    assert torch.equal(decisions(raised)[:, :2], decisions(logits)[:, :2])
    assert decisions(raised)[:, 2].all()


def test_one_class_alone_is_no_special_case() -> None:
    found = multi_label_metrics(torch.tensor([[1.0], [1.0], [-1.0]]), torch.tensor([[1], [0], [0]]))
    assert found["micro_f1"] == found["macro_f1"] == pytest.approx(2 / 3)


def test_labels_that_cannot_be_scored_are_refused() -> None:
    with pytest.raises(DataError, match=r"is 0\.5; each must be 0 or 1"):
        example_f1(torch.zeros(1, 2), torch.tensor([[1.0, 0.5]]))
    with pytest.raises(DataError, match="no class holds in any of 3 examples"):
        multi_label_metrics(torch.ones(3, 2), torch.zeros(3, 2))


def test_the_examples_in_the_docstrings_are_true() -> None:
    results = doctest.testmod(multi_label)
    assert results.attempted >= 1
    assert results.failed == 0
