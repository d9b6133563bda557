"""Image classification: the two numbers that training watches."""

from distil.losses.logit import label_cross_entropy
from distil.tasks.score import Scores

METRIC = "accuracy"


def validation_metrics(scores: Scores) -> dict[str, float]:
    """Accuracy (fraction) and negative log-likelihood (nats, mean over examples) of the true labels."""
    correct = scores.logits.argmax(dim=-1) == scores.labels
    likelihood = label_cross_entropy(scores.logits.double(), scores.labels)
    return {METRIC: correct.double().mean().item(), "negative_log_likelihood": likelihood.mean().item()}
