"""Terms on the labels of the data that change them."""

from typing import Literal

from pydantic import model_validator

from distil.core.config import NonNegative, Probability
from distil.objective.term_config import TermConfig


class SmoothedLabels(TermConfig):
    """Cross-entropy against labels that give a share to the wrong classes, evenly or at random (label distillation)."""

    needs_labels = True
    knowledge = "labels"
    source = "Szegedy and others 2016, arXiv:1512.00567; the survey's label distillation"
    summary = "labels with a share of the wrong classes"

    kind: Literal["smoothed-labels"] = "smoothed-labels"
    smoothing: Probability = 0.1  # at the start, where it adapts
    noise: Literal["constant", "sampled"] = "constant"
    adapt: NonNegative = 0.0  # the amount of one change after each validation; 0: it stays
    most: Probability = 0.3  # the upper limit of a smoothing that adapts

    @model_validator(mode="after")
    def _within(self) -> "SmoothedLabels":
        if self.adapt > 0 and self.smoothing > self.most:
            raise ValueError(f"smoothing {self.smoothing} is above most, {self.most}")
        if self.adapt == 0 and "most" in self.model_fields_set and self.most != type(self).model_fields["most"].default:
            raise ValueError("most has an effect only where adapt is above 0")
        return self


class BinaryLabels(TermConfig):
    """Cross-entropy of a yes or no to each class, where several may be right at once."""

    needs_labels = True
    knowledge = "labels"
    targets = frozenset({"multi-label"})
    source = "Bishop 2006, Pattern Recognition and Machine Learning, section 4.3.2, for each class"
    summary = "the labels of the data, each a yes or no"

    kind: Literal["binary-labels"] = "binary-labels"


LabelTerm = SmoothedLabels | BinaryLabels
