"""A network ready for a task: built for the data's classes, with its view and a description of both."""

from dataclasses import dataclass

from torch import nn

from distil.core.errors import ModelError
from distil.core.inputs import Inputs
from distil.data.config import InputsConfig
from distil.data.example import Examples, ImageExamples, TextExamples
from distil.data.feed import AnyView, evaluation_batches
from distil.data.text_view import TextView
from distil.data.view import make_view
from distil.models.config import ModelConfig, WeightsConfig
from distil.models.describe import ModelDescription, describe_model
from distil.models.load import build_model, own_inputs
from distil.tasks.classification import ImageClassification
from distil.tasks.task import Task
from distil.tasks.text_network import build_text_model, text_view, with_facts_of


@dataclass(frozen=True, eq=False)
class Network:
    """A network, how its input is made, and what it is."""

    model: nn.Module
    view: AnyView
    description: ModelDescription


def build_network(
    config: ModelConfig,
    inputs: InputsConfig,
    *,
    examples: Examples,
    seed: int,
    task: Task | None = None,
    weights: WeightsConfig | None = None,
    num_classes: int | None = None,
    who: str = "student",
) -> Network:
    """The network of a configuration, tried on one example.

    Args:
        config: which network.
        inputs: how its input is made.
        examples: whose classes it is for.
        seed: of its initial weights.
        task: that it is for; None: image classification.
        weights: that overwrite them.
        num_classes: it must answer for; None: the classes of the examples.
        who: it is, for messages.

    Raises:
        ModelError: it cannot be built or fed, or answers for another number of classes.
    """
    task = task or ImageClassification()
    expected = num_classes if num_classes is not None else task.num_outputs(examples)
    if isinstance(examples, TextExamples):
        view = text_view(config, inputs, examples=examples, task=task)
        model = build_text_model(config, view, num_outputs=expected, task=task, seed=seed, weights=weights)
        return described_network(model, view, examples=examples, task=task, expected=expected, who=who)
    assert isinstance(examples, ImageExamples)
    seen = make_view(inputs, image_shape=examples.image_shape, own=own_inputs(config, weights))
    assert expected is not None
    shape = (seen.channels, seen.height, seen.width)
    model = build_model(config, num_classes=expected, image_shape=shape, seed=seed, weights=weights)
    return described_network(model, seen, examples=examples, task=task, expected=expected, who=who)


def described_network(
    model: nn.Module, view: AnyView, *, examples: Examples, task: Task, expected: int | None, who: str
) -> Network:
    """A network with its description, once it is seen to answer for as many classes as expected.

    Raises:
        ModelError: it cannot be fed, or answers for another number of classes.
    """
    if isinstance(view, TextView):
        view = with_facts_of(view, model)
    description = describe_model(model, first_input(examples, view, task))
    if expected is not None and description.num_classes != expected:
        names = ", ".join(examples.class_names[:12]) + (", ..." if examples.num_classes > 12 else "")
        raise ModelError(
            f"{who}: its output has {description.num_classes} classes, and the data have {examples.num_classes} "
            f"({names}). Use a model of the same classes"
        )
    return Network(model, view, description)


def first_input(examples: Examples, view: AnyView, task: Task | None = None) -> Inputs:
    """The model input of the first example."""
    targets = (task or ImageClassification()).targets
    batch = next(evaluation_batches(examples, views={"model": view}, batch_size=1, targets=targets))
    return batch.inputs["model"]
