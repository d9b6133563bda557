"""Classification of images and texts: one class an example."""

from distil.data.example import Examples
from distil.data.feed import AnyView, Read, Targets, class_targets
from distil.losses.logit import label_cross_entropy
from distil.tasks.score import Scores
from distil.tasks.task import Measured, Task

METRIC = "accuracy"


class Classification(Task):
    """One class for each example."""

    metric = METRIC
    one_class = True

    def num_outputs(self, examples: Examples) -> int:
        return examples.num_classes

    def targets(self, read: Read) -> Targets:
        return class_targets(read)

    def measure(self, scores: Scores, examples: Examples, view: AnyView) -> Measured:  # noqa: ARG002
        correct = scores.logits.argmax(dim=-1) == scores.labels
        return Measured(correct.numpy(), validation_metrics(scores))


class ImageClassification(Classification):
    """One class for each image."""

    evaluation_batch = 512


def validation_metrics(scores: Scores) -> dict[str, float]:
    """Accuracy (fraction) and negative log-likelihood (nats, mean over examples) of the true labels."""
    correct = scores.logits.argmax(dim=-1) == scores.labels
    likelihood = label_cross_entropy(scores.logits.double(), scores.labels)
    return {METRIC: correct.double().mean().item(), "negative_log_likelihood": likelihood.mean().item()}
