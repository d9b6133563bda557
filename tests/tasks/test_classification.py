import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, log_loss

from distil.tasks.classification import METRIC, validation_metrics
from distil.tasks.score import Scores


def scores(logits: torch.Tensor, labels: list[int]) -> Scores:
    return Scores(ids=torch.arange(len(labels)), logits=logits, labels=torch.tensor(labels))


@settings(deadline=None, max_examples=30)
@given(labels=st.lists(st.integers(0, 3), min_size=1, max_size=20), seed=st.integers(0, 100))
def test_36_the_metrics_are_scikit_learn_s(labels: list[int], seed: int) -> None:
    logits = torch.randn(len(labels), 4, generator=torch.Generator().manual_seed(seed)) * 3
    found = validation_metrics(scores(logits, labels))
    probabilities = logits.double().softmax(dim=-1).numpy()
    assert found["accuracy"] == pytest.approx(accuracy_score(labels, probabilities.argmax(axis=1)))
    assert found["negative_log_likelihood"] == pytest.approx(log_loss(labels, probabilities, labels=[0, 1, 2, 3]))


def test_36_the_metrics_by_hand() -> None:
    logits = torch.tensor([[0.75, 0.25], [0.5, 0.5], [0.25, 0.75], [0.125, 0.875]]).log()
    found = validation_metrics(scores(logits, [0, 1, 1, 0]))
    assert found[METRIC] == 0.5  # right, a tie that the first class wins, right, wrong
    # (-ln 0.75 - ln 0.5 - ln 0.75 - ln 0.125) / 4
    assert found["negative_log_likelihood"] == pytest.approx(0.836988, abs=1e-5)


def test_a_certain_mistake_is_finite() -> None:
    found = validation_metrics(scores(torch.tensor([[1e4, -1e4]]), [1]))
    assert found == {"accuracy": 0.0, "negative_log_likelihood": pytest.approx(2e4)}
