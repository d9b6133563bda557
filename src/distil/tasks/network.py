"""A network ready for a task: built for the data's classes, with its view and a description of both."""

from dataclasses import dataclass

from torch import Tensor, nn

from distil.core.errors import ModelError
from distil.data.config import InputsConfig
from distil.data.example import Examples
from distil.data.feed import evaluation_batches
from distil.data.view import View, make_view
from distil.models.config import ModelConfig, WeightsConfig
from distil.models.describe import ModelDescription, describe_model
from distil.models.load import build_model, own_inputs


@dataclass(frozen=True, eq=False)
class Network:
    """A network, how its input is made, and what it is."""

    model: nn.Module
    view: View
    description: ModelDescription


def build_network(
    config: ModelConfig,
    inputs: InputsConfig,
    *,
    examples: Examples,
    seed: int,
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
        weights: that overwrite them.
        num_classes: it must answer for; None: the classes of the examples.
        who: it is, for messages.

    Raises:
        ModelError: it cannot be built or fed, or answers for another number of classes.
    """
    view = make_view(inputs, image_shape=examples.image_shape, own=own_inputs(config, weights))
    expected = num_classes if num_classes is not None else examples.num_classes
    shape = (view.channels, view.height, view.width)
    model = build_model(config, num_classes=expected, image_shape=shape, seed=seed, weights=weights)
    description = describe_model(model, first_input(examples, view))
    if description.num_classes != expected:
        names = ", ".join(examples.class_names[:12]) + (", ..." if examples.num_classes > 12 else "")
        raise ModelError(
            f"{who}: its output has {description.num_classes} classes, and the data have {examples.num_classes} "
            f"({names}). Use a model of the same classes"
        )
    return Network(model, view, description)


def first_input(examples: Examples, view: View) -> Tensor:
    """The model input of the first example."""
    return next(evaluation_batches(examples, views={"model": view}, batch_size=1)).inputs["model"]
