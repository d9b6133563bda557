"""What a network is: its size, its cost, and its layers with the shapes of their values, measured on one real input."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from distil.core.errors import ModelError
from distil.core.inputs import Inputs, shapes_of, take_rows
from distil.models.attention import attention_shapes

Shape = tuple[int, ...]

ACTIVATIONS = (
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Mish, nn.Hardswish),
    *(nn.Tanh, nn.Sigmoid, nn.Hardsigmoid),
)
_NAMES_OF_ACTIVATIONS = {kind.__name__.lower() for kind in ACTIVATIONS} | {
    *("swish", "quickgelu", "gelutanh", "hardmish", "geluactivation", "newgeluactivation", "quickgeluactivation"),
}


@dataclass(frozen=True)
class Layer:
    """A module inside a network, as it was seen to work. Shapes are those of one example.

    Attributes:
        name: as in ``named_modules``.
        type: its class.
        input_shape: of its first tensor; None: it takes none.
        output_shape: of its first tensor.
        pre_activation_shape: of what goes into the last activation inside it; None: there is none.
        num_parameters: of it and everything inside it.
        multiply_accumulates: of all its calls.
        depth: share of the layers with weights that are done when it is done; 1 is the last.
        calls: how often it runs in one pass.
        num_heads: where it is an attention layer.
        is_leaf: nothing is inside it.
        attention_shapes: of an attention layer's probabilities, queries, keys and values, as far as they can be seen.
    """

    name: str
    type: str
    input_shape: Shape | None
    output_shape: Shape | None
    pre_activation_shape: Shape | None
    num_parameters: int
    multiply_accumulates: int
    depth: float
    calls: int
    num_heads: int | None
    is_leaf: bool
    attention_shapes: Mapping[str, Shape] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class ModelDescription:
    """Facts about a network.

    Attributes:
        num_classes: numbers in its output for an example, or for a token.
        num_tokens: of the text it was measured on; None: it takes no texts.
        num_parameters: of all its weights; buffers, such as running means, are not counted.
        size_bytes: of weights and buffers as they are stored.
        multiply_accumulates: for one example.
        layers: its modules in the order in which they finish; empty where only the classes are known.
    """

    num_classes: int
    num_tokens: int | None = None
    num_parameters: int = 0
    size_bytes: int = 0
    multiply_accumulates: int = 0
    layers: tuple[Layer, ...] = field(default=(), repr=False)


def describe_model(model: nn.Module, example: Inputs) -> ModelDescription:
    """Runs one example through the model in evaluation mode; the model is left as it was.

    Raises:
        ModelError: the model cannot take the input, or its output is not one row of scores an example.
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    # torch's fused attention is invisible to the counter, which then reports nothing
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    # the counter follows what requires gradient, and fails where a parameter, such as a class token, goes into a module
    trained = [parameter.requires_grad_(False) for parameter in model.parameters() if parameter.requires_grad]
    try:
        # not inference mode: what a network remembers of a pass, such as a table of positions, it uses in training too
        with (
            torch.no_grad(),
            sdpa_kernel(SDPBackend.MATH),
            _watching(model) as seen,
            FlopCounterMode(display=False) as counter,
        ):
            output = model(take_rows(example, slice(0, 1)))
        attention = attention_shapes(model, example)
    except Exception as error:  # networks raise all kinds about an input, assertions too
        shape = shapes_of(example)
        raise ModelError(f"{type(model).__name__} cannot take an input of shape {shape}: {error}") from error
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
        for parameter in trained:
            parameter.requires_grad_(True)
        for module, mode in modes:
            module.training = mode
    tokens = None if isinstance(example, Tensor) else example["input_ids"].shape[-1]
    apart = not isinstance(example, Tensor) and example["input_ids"].ndim > 2
    if not isinstance(output, Tensor) or output.ndim not in ((2,) if tokens is None else (2, 3)):
        found = f"shape {list(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
        needs = "image classification needs logits of shape [batch, classes]"
        raise ModelError(f"{type(model).__name__} gives {found}; {needs if tokens is None else 'one tensor is needed'}")
    return ModelDescription(
        num_classes=output.shape[-1],
        num_tokens=tokens,
        num_parameters=sum(parameter.numel() for parameter in model.parameters()),
        size_bytes=sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values()),
        multiply_accumulates=counter.get_total_flops() // 2,
        # texts of one example that are read apart are rows of their own inside, which no layer of it can be told from
        layers=() if apart else tuple(_layers(model, seen, _operations(model, counter), attention)),
    )


def is_activation(module: nn.Module) -> bool:
    """Whether a module is a nonlinearity: one of torch's, or one of another package that is called the same."""
    return isinstance(module, ACTIVATIONS) or type(module).__name__.lower() in _NAMES_OF_ACTIVATIONS


def first_tensor(value: Any) -> Tensor | None:
    """The tensor in a module's output: itself, the first of a tuple, or the logits or hidden state by name."""
    if isinstance(value, Tensor):
        return value
    if isinstance(value, Mapping):
        value = [value[name] for name in ("logits", "last_hidden_state") if name in value] or list(value.values())
    if isinstance(value, (tuple, list)):
        return next((each for each in value if isinstance(each, Tensor)), None)
    return None


@dataclass
class _Seen:
    """What was seen of one module."""

    calls: int = 0
    order: int = 0
    done_before: int = 0
    input_shape: Shape | None = None
    output_shape: Shape | None = None
    pre_activation_shape: Shape | None = None


@contextmanager
def _watching(model: nn.Module) -> Iterator[dict[str, _Seen]]:
    """Notes for every module the shapes of its call, and how many layers with weights are done when it is done."""
    seen: dict[str, _Seen] = {}
    open_modules: list[_Seen] = []
    done: dict[str, None] = {}
    handles = []

    def watch(name: str, module: nn.Module) -> None:
        weighted = next(module.children(), None) is None and any(True for _ in module.parameters(recurse=False))

        def before(module: nn.Module, args: Any, kwargs: Any) -> None:
            entry = seen.setdefault(name, _Seen())
            shape = _shape(first_tensor([*args, *kwargs.values()]))
            entry.input_shape = entry.input_shape or shape
            open_modules.append(entry)
            if is_activation(module):
                for each in open_modules:
                    each.pre_activation_shape = shape

        def after(module: nn.Module, args: Any, output: Any) -> None:  # noqa: ARG001
            entry = open_modules.pop()
            if weighted:
                done[name] = None
            entry.calls += 1
            entry.order, entry.done_before = len(seen) + sum(each.calls for each in seen.values()), len(done)
            entry.output_shape = _shape(first_tensor(output))

        handles.append(module.register_forward_pre_hook(before, with_kwargs=True))
        handles.append(module.register_forward_hook(after))

    for name, module in model.named_modules():
        watch(name, module)
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _layers(
    model: nn.Module,
    seen: Mapping[str, _Seen],
    operations: Mapping[str, int],
    attention: Mapping[str, Mapping[str, Shape]],
) -> Iterator[Layer]:
    modules = dict(model.named_modules())
    total = max((entry.done_before for entry in seen.values()), default=0)
    for name, entry in sorted(seen.items(), key=lambda item: item[1].order):
        if not name or not entry.calls:
            continue
        module = modules[name]
        yield Layer(
            name=name,
            type=type(module).__name__,
            input_shape=entry.input_shape,
            output_shape=entry.output_shape,
            pre_activation_shape=entry.pre_activation_shape,
            num_parameters=sum(parameter.numel() for parameter in module.parameters()),
            multiply_accumulates=operations.get(name, 0),
            depth=entry.done_before / max(total, 1),
            calls=entry.calls,
            num_heads=attention[name]["queries"][0] if name in attention else None,
            is_leaf=next(module.children(), None) is None,
            attention_shapes=attention.get(name, {}),
        )


def _operations(model: nn.Module, counter: FlopCounterMode) -> dict[str, int]:
    """Multiply-accumulates by module name; the counter puts the root's class before each name."""
    root = type(model).__name__ + "."
    counts = {name: sum(kinds.values()) // 2 for name, kinds in counter.get_flop_counts().items()}
    return {name.removeprefix(root): count for name, count in counts.items() if name.startswith(root)}


def _shape(value: Tensor | None) -> Shape | None:
    return tuple(value.shape[1:]) if value is not None and value.ndim > 0 else None
