"""What a smaller model keeps of a larger one's weights, chosen by importance, and the model that is built of it."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from distil.core.errors import CompatibilityError, ModelError
from distil.models.importance import Importance
from distil.models.shrink_architecture import Axis, Sizes, architecture_of, linear_layers, places_of, sizes_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel
else:  # optional, so the checks at run time take any network
    PreTrainedModel = nn.Module


@dataclass(frozen=True, eq=False)
class Kept:
    """What of each axis stays, as ascending indices; an axis that is not named stays whole.

    Attributes:
        layers: numbers of the teacher's layers, in the student's order.
        everywhere: for an axis that is one for the whole model, its indices.
        by_layer: for an axis that each layer has for itself, a row of indices for each of the teacher's layers.
    """

    layers: tuple[int, ...]
    everywhere: Mapping[Axis, Tensor] = field(default_factory=dict)
    by_layer: Mapping[Axis, Tensor] = field(default_factory=dict)

    def indices(self, axis: Axis, layer: int | None) -> Tensor | None:
        """What stays of an axis in a layer of the teacher, None outside the layers; None: all of it."""
        if layer is not None and axis in self.by_layer:
            return self.by_layer[axis][layer]
        return self.everywhere.get(axis)


def choose_kept(model: nn.Module, layers: tuple[int, ...], sizes: Sizes, importance: Importance | None) -> Kept:
    """The most important of what there is, for every width that becomes smaller.

    Heads and neurons are chosen in each layer for itself, channels of the stream once for all layers. Of key-value
    heads those stay whose query heads are the most important in sum, and in each of them the most important queries.

    Args:
        model: the teacher.
        layers: which of its layers stay.
        sizes: of the student, none larger than the teacher's.
        importance: measured on the teacher; needed where a width becomes smaller.

    Raises:
        ModelError: a width becomes smaller and no importance is given.
        CompatibilityError: the importance is of another model.
    """
    before = sizes_of(model)
    if sizes[1:] == before[1:]:
        return Kept(layers)
    if importance is None:
        raise ModelError(
            "a width becomes smaller, and which channels, heads and neurons stay is decided by their size on real "
            "data: give importance=measure_importance(model, batches), with batches of the training texts"
        )
    _require_measured_on(before, importance)
    everywhere: dict[Axis, Tensor] = {}
    by_layer: dict[Axis, Tensor] = {}
    if sizes.hidden < before.hidden:
        everywhere["hidden"] = largest(importance.hidden, sizes.hidden)
        if linear_layers(model, "features", end="output"):
            if importance.features is None:
                raise CompatibilityError(f"the importance was not measured on a {type(model).__name__}: no features")
            everywhere["features"] = largest(importance.features, sizes.hidden)
    if sizes.heads < before.heads:
        queries, groups = choose_heads(importance.heads, before=before, after=sizes)
        queries, groups = (_features_of(heads, before.head_size) for heads in (queries, groups))
        by_layer["heads"], by_layer["key-value-heads"] = queries, groups
        width = before.heads * before.head_size
        by_layer["query-key-value"] = torch.cat([queries, queries + width, queries + 2 * width], dim=-1)
    if sizes.feed_forward < before.feed_forward:
        by_layer["neurons"] = largest(importance.neurons, sizes.feed_forward)
    return Kept(layers, everywhere, by_layer)


def choose_heads(
    importance: Float[Tensor, "layers heads"], *, before: Sizes, after: Sizes
) -> tuple[Int[Tensor, "layers queries"], Int[Tensor, "layers groups"]]:
    """Which query heads and which key-value heads stay, so that each query keeps the keys and values it has.

    >>> importance = torch.tensor([[1.0, 9.0, 5.0, 6.0]])  # two key-value heads, with two queries each
    >>> before, after = Sizes(1, 8, 4, 2, 2, 8), Sizes(1, 8, 2, 1, 2, 8)
    >>> choose_heads(importance, before=before, after=after)
    (tensor([[2, 3]]), tensor([[1]]))
    """
    in_groups = importance.unflatten(-1, (before.key_value_heads, -1))  # [layers, groups, queries of a group]
    groups = largest(in_groups.sum(dim=-1), after.key_value_heads)
    group_size = in_groups.shape[-1]
    kept = torch.take_along_dim(in_groups, groups.unsqueeze(-1), dim=1)
    within = largest(kept, after.heads // after.key_value_heads)
    return (groups.unsqueeze(-1) * group_size + within).flatten(start_dim=1), groups


def largest(values: Float[Tensor, "*rows all"], num: int) -> Int[Tensor, "*rows kept"]:
    """Indices of the largest values in ascending order; of equal ones the first.

    >>> largest(torch.tensor([2.0, 5.0, 2.0, 7.0]), 3)
    tensor([0, 1, 3])
    """
    order = values.argsort(dim=-1, descending=True, stable=True)
    return order[..., :num].sort(dim=-1).values


def rebuild(model: PreTrainedModel, config: Any, kept: Kept) -> PreTrainedModel:
    """A new model of the same class with what is kept of the weights, each a copy.

    All its parameters can be trained, also those of a frozen teacher. It is on the teacher's device, in the teacher's
    types of numbers and in its mode, training or evaluation.

    Args:
        model: the teacher, which is not changed.
        config: of the student.
        kept: which layers, and of each axis what.

    Raises:
        ModelError: weights that are one by the configuration are not one in the teacher.
    """
    weights = cut_weights(model, kept)
    with torch.random.fork_rng(devices=[]):  # the random initial weights are overwritten
        student = type(model)(config)
    _build_alike(student, model)
    student.load_state_dict(weights, strict=True, assign=True)
    student.tie_weights()
    lost = [name for name, value in student.state_dict().items() if not torch.equal(value, weights[name])]
    if lost:
        raise ModelError(
            f"in the teacher {', '.join(lost)} differ from the weights that they are tied to by its configuration; set "
            "tie_word_embeddings of the configuration to what the weights are"
        )
    if getattr(model, "generation_config", None) is not None:
        student.generation_config = copy.deepcopy(model.generation_config)
    nn.Module.to(student, model.device)
    return student.train(model.training)


def cut_weights(model: nn.Module, kept: Kept) -> dict[str, Tensor]:
    """The weights that stay, under the student's names; copies, none shared with the model."""
    layers = architecture_of(model).layers
    places, weights = places_of(model), {}
    for name, value in model.state_dict().items():
        axes, layer = places[name]
        if layer is not None and layer not in kept.layers:
            continue
        value = value.clone()
        for dim, axis in enumerate(axes):
            indices = None if axis is None else kept.indices(axis, layer)
            if indices is not None:
                value = value.index_select(dim, indices.to(value.device))
        if layer is not None:
            name = name.replace(f"{layers}.{layer}.", f"{layers}.{kept.layers.index(layer)}.", 1)
        weights[name] = value
    return weights


def _build_alike(student: nn.Module, model: nn.Module) -> None:
    """What the configuration does not say: no pooler, and whether the padding token's embedding is trained."""
    if hasattr(model, "pooler") and model.pooler is None:
        student.register_module("pooler", None)
    for name, module in student.named_modules():
        if isinstance(module, nn.Embedding) and getattr(model.get_submodule(name), "padding_idx", None) is None:
            module.padding_idx = None


def _features_of(heads: Int[Tensor, "layers heads"], head_size: int) -> Int[Tensor, "layers features"]:
    return (heads.unsqueeze(-1) * head_size + torch.arange(head_size)).flatten(start_dim=1)


def _require_measured_on(sizes: Sizes, importance: Importance) -> None:
    expected = {
        "hidden": (sizes.hidden,),
        "heads": (sizes.layers, sizes.heads),
        "neurons": (sizes.layers, sizes.feed_forward),
        "features": (sizes.hidden,),
    }
    for name, shape in expected.items():
        found = getattr(importance, name)
        if found is not None and (found := tuple(found.shape)) != shape:
            raise CompatibilityError(
                f"the importance of {name} has the shape {found} and the model needs {shape}; it was measured on "
                "another model. Measure it on the one that is cut"
            )
