"""A task: what should be said about an example, what is kept of what a network says, and how good that is."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias

import numpy as np
from torch import Tensor, nn

from distil.core.inputs import Inputs
from distil.data.batch import Batch
from distil.data.example import Examples
from distil.data.feed import AnyView, Read, Targets, evaluation_batches
from distil.tasks.score import Scores

Head: TypeAlias = Literal["classes", "token-classes", "spans", "causal-lm", "masked-lm", "seq2seq", "embedding"]


@dataclass(frozen=True, eq=False)
class Measured:
    """How good answers are.

    Attributes:
        values: one number for each unit of the test (an example, or a group), in the unit of the headline metric; their
            mean is what the verdict compares.
        metrics: by name, the headline metric first.
    """

    values: np.ndarray
    metrics: Mapping[str, float]


class Task(ABC):
    """What a run needs to know of its task.

    Attributes:
        metric: the headline metric, by which epochs are chosen and verdicts given.
        higher_is_better: of the metric.
        head: what networks for texts end in.
        target: the kind of target, which terms must be made for.
        evaluation_batch: examples that are asked about at once.
        answers_for_tokens: outputs are [batch, tokens, classes].
        one_class: each example has one class, so that there are confusions and a calibration.
        values_of_groups: what is measured are groups of examples.
        fixed_length: texts are padded to the view's length and not to the longest of a batch.
        overlap: tokens that two windows of a long text share; None: a long text is cut.
    """

    metric: str
    higher_is_better: ClassVar[bool] = True
    head: Head = "classes"
    target: ClassVar[str] = "classes"
    evaluation_batch: ClassVar[int] = 64
    answers_for_tokens: ClassVar[bool] = False
    one_class: ClassVar[bool] = False
    values_of_groups: ClassVar[bool] = False
    fixed_length: ClassVar[bool] = False
    overlap: int | None = None

    @abstractmethod
    def num_outputs(self, examples: Examples) -> int | None:
        """Numbers in the output for an example or a token; None: the network has its own."""

    @abstractmethod
    def targets(self, read: Read) -> Targets:
        """What should be said about a batch."""

    @abstractmethod
    def measure(self, scores: Scores, examples: Examples, view: AnyView) -> Measured:
        """How good the answers are; ``view`` is that of the network that gave them."""

    def ask(self, model: nn.Module, inputs: Inputs, batch: Batch) -> Tensor:  # noqa: ARG002
        """What is kept of the network's answer, batch first."""
        return model(inputs)

    def validation(self, scores: Scores, examples: Examples, view: AnyView) -> dict[str, float]:
        """The metrics that training watches: the headline metric, and a negative log-likelihood if there is one."""
        return dict(self.measure(scores, examples, view).metrics)

    def test_view(self, view: AnyView, examples: Examples) -> AnyView:  # noqa: ARG002
        """How a network reads what it is measured on; ``view`` is how it reads what it is taught or teaches by."""
        return view

    def describe(self, view: AnyView, class_names: Sequence[str]) -> dict[str, object]:
        """The content of ``labels_and_preprocessing.json`` of a network that reads by this view."""
        return view.describe(class_names)

    def signed(self, value: float) -> float:
        """The metric such that higher is better."""
        return value if self.higher_is_better else -value

    def batches(self, examples: Examples, views: Mapping[str, AnyView]) -> Iterator[Batch]:
        """All examples once, in their own order."""
        return evaluation_batches(examples, views=views, batch_size=self.evaluation_batch, targets=self.targets)
