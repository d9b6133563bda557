"""Taps: values captured inside a network while it runs, without changing what it computes."""

import difflib
import fnmatch
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from distil.core.errors import ModelError
from distil.core.inputs import Inputs, num_rows
from distil.models.attention import attention_layers, hook_attention
from distil.models.describe import Layer, ModelDescription, Shape, first_tensor, is_activation
from distil.models.tap_config import Take, TapConfig


@dataclass(frozen=True)
class Tap:
    """A named point inside a network whose value is captured.

    Attributes:
        name: of the module.
        take: which of its values.
        call: which of several calls in one pass; None: there is one.
    """

    name: str
    take: Take = "output"
    call: int | None = None


@dataclass(frozen=True, eq=False)
class Outputs:
    """What a network says about a batch: its logits, and the captured values, batch first.

    ``largest`` stands in place of logits where only the likeliest classes of a teacher were kept: class numbers, their
    log-probabilities, and the logarithm of what all others have together.
    """

    logits: Tensor
    taps: Mapping[Tap, Tensor] = field(default_factory=dict)
    largest: tuple[Tensor, Tensor, Tensor] | None = None

    def rows(self, chosen: Tensor) -> "Outputs":
        """The same for some examples, or, chosen by booleans [batch, tokens], for some tokens, without taps."""
        taps = {} if chosen.ndim > 1 else {tap: value[chosen] for tap, value in self.taps.items()}
        return Outputs(self.logits[chosen], taps, self._largest(lambda value: value[chosen]))

    def to(self, device: str) -> "Outputs":
        """The same on a device."""
        taps = {tap: value.to(device) for tap, value in self.taps.items()}
        return Outputs(self.logits.to(device), taps, self._largest(lambda value: value.to(device)))

    def _largest(self, change: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor, Tensor] | None:
        return None if self.largest is None else tuple(change(value) for value in self.largest)  # type: ignore[return-value]


class Taps:
    """Open taps on a network, until ``close``.

    Hooks note a value only inside ``observe``: other passes (validation, recomputed activations in the backward pass)
    leave nothing behind, and every observation starts empty. Where the network changes a captured tensor in place
    later on, a copy is captured. Parallel replicas are put together in the order of their devices.

    Args:
        model: the network, or what is wrapped by a compiled or parallel one.
        taps: what to capture; names must exist.

    Raises:
        ModelError: there is no such module, or it does not have what is to be taken.

    >>> model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(inplace=True), nn.Linear(3, 2))
    >>> with Taps(model, [Tap("0")]) as taps:
    ...     outputs = taps.observe(model, torch.ones(4, 2))
    >>> outputs.taps[Tap("0")].shape
    torch.Size([4, 3])
    """

    def __init__(self, model: nn.Module, taps: Iterable[Tap]) -> None:
        self._taps = tuple(dict.fromkeys(taps))
        self._modules = dict(model.named_modules(remove_duplicate=False))  # a shared module by any of its names
        self._captured: dict[Tap, list[Tensor]] = {}
        self._watching = False
        self._handles: list[Any] = []
        try:
            for tap in self._taps:
                self._open(model, tap)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "Taps":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def observe(self, run: Callable[[Any], Any], inputs: Inputs) -> Outputs:
        """Runs the network once.

        Args:
            run: the network, compiled or wrapped as it may be.
            inputs: for it.

        Raises:
            ModelError: a tapped module did not run, or ran several times and the tap does not say which call.
        """
        self._captured, self._watching = {tap: [] for tap in self._taps}, True
        try:
            logits = first_tensor(run(inputs))
        finally:
            self._watching, captured = False, self._captured
            self._captured = {}
        assert logits is not None
        return Outputs(logits, {tap: _one_value(tap, captured[tap], num_rows(inputs)) for tap in self._taps})

    def close(self) -> None:
        """Removes all hooks."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _open(self, model: nn.Module, tap: Tap) -> None:
        module = self._modules.get(tap.name)
        if module is None:
            raise ModelError(f"there is no module {tap.name!r} to tap{_near(tap.name, self._modules)}")
        match tap.take:
            case "output":
                self._handles.append(module.register_forward_hook(lambda _, __, output: self._note(tap, output)))
            case "input":
                hook = module.register_forward_pre_hook(
                    lambda _, args, kwargs: self._note_input(tap, args, kwargs), with_kwargs=True
                )
                self._handles.append(hook)
            case "pre-activation":
                self._open_pre_activation(module, tap)
            case _:
                layer = next((each for each in attention_layers(model) if each.name == tap.name), None)
                if layer is None:
                    raise ModelError(f"{tap.name} is no attention layer, so it has no {tap.take}")
                self._handles += hook_attention(model, layer, tap.take, lambda value: self._add(tap, value))

    def _open_pre_activation(self, module: nn.Module, tap: Tap) -> None:
        """Of all activations inside the module, the input of the one that runs last counts."""
        activations = [each for each in module.modules() if is_activation(each)]
        if not activations:
            raise ModelError(
                f"{tap.name} has no activation module inside, so no pre-activation; tap the output of the layer before"
            )
        latest: dict[torch.device, Tensor] = {}  # parallel replicas run the module side by side

        def before(_: nn.Module, args: Any) -> Any:
            value = first_tensor(args)
            if self._watching and value is not None:
                latest[value.device] = value.clone()

        def after(_: nn.Module, __: Any, output: Any) -> None:
            value = first_tensor(output)
            if self._watching and value is not None and value.device in latest:
                self._add(tap, latest.pop(value.device))

        self._handles += [activation.register_forward_pre_hook(before) for activation in activations]
        self._handles.append(module.register_forward_hook(after))

    def _note(self, tap: Tap, output: Any) -> None:
        value = first_tensor(output)
        if self._watching and value is not None:
            # a copy: what runs next may write into the tensor, as an in-place ReLU does
            self._add(tap, value.clone())

    def _note_input(self, tap: Tap, args: Any, kwargs: Any) -> None:
        self._note(tap, [*args, *kwargs.values()])

    def _add(self, tap: Tap, value: Tensor) -> None:
        if self._watching:
            self._captured[tap].append(value)


def resolve_tap(config: TapConfig, description: ModelDescription) -> Tap:
    """The tap that a recipe means.

    Raises:
        ModelError: nothing fits, or several modules do.
    """
    if not isinstance(config.at, str):
        layer = _at_depth(config.at, config.take, description)
        return Tap(layer.name, config.take, config.call)
    names = [layer.name for layer in description.layers]
    found = [config.at] if config.at in names else fnmatch.filter(names, config.at)
    if not found:
        raise ModelError(f"there is no layer {config.at!r}{_near(config.at, names)}. `distil inspect` lists them")
    if len(found) > 1:
        shown = ", ".join(found[:6]) + (", ..." if len(found) > 6 else "")
        raise ModelError(f"{config.at!r} fits {len(found)} layers ({shown}); a tap is one of them")
    return Tap(found[0], config.take, config.call)


def tap_shape(tap: Tap, description: ModelDescription) -> Shape:
    """The shape of a tap's value for one example.

    Raises:
        ModelError: the layer does not have what is taken.
    """
    layer = next((each for each in description.layers if each.name == tap.name), None)
    if layer is None:
        raise ModelError(f"there is no layer {tap.name!r}{_near(tap.name, [e.name for e in description.layers])}")
    shape = _shape_of(layer, tap.take)
    if shape is None:
        raise ModelError(f"layer {tap.name} ({layer.type}) has no {tap.take} that could be captured")
    return shape


def can_tap(layer: Layer, take: Take) -> bool:
    """Whether a layer has what is to be taken, and more of it than one number an example."""
    return bool(_shape_of(layer, take))


def _shape_of(layer: Layer, take: Take) -> Shape | None:
    match take:
        case "output":
            return layer.output_shape
        case "input":
            return layer.input_shape
        case "pre-activation":
            return layer.pre_activation_shape
        case _:
            return layer.attention_shapes.get(take)


def _at_depth(depth: float, take: Take, description: ModelDescription) -> Layer:
    body = [layer for layer in description.layers if 0 < layer.depth < 1 and layer.calls == 1 and can_tap(layer, take)]
    if not body:
        raise ModelError(f"at depth {depth} there is no layer before the classifier whose {take} could be captured")
    deepest = max(layer.depth for layer in body)
    return min(reversed(body), key=lambda layer: abs(layer.depth / deepest - depth))


def _one_value(tap: Tap, values: list[Tensor], num_examples: int) -> Tensor:
    if not values:
        raise ModelError(f"the module {tap.name} did not run, so its {tap.take} cannot be captured")
    if len(values) > 1 and sum(len(value) for value in values) == num_examples:
        ordered = sorted(values, key=lambda value: value.device.index or 0)  # replicas, each with a share of the batch
        return torch.cat([value.to(values[0].device) for value in ordered])
    if tap.call is None and len(values) > 1:
        raise ModelError(
            f"the module {tap.name} ran {len(values)} times in one pass; say which call is meant, such as call: -1"
        )
    try:
        return values[tap.call if tap.call is not None else 0]
    except IndexError:
        raise ModelError(
            f"the module {tap.name} ran {len(values)} times in one pass; there is no call {tap.call}"
        ) from None


def _near(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, [each for each in known if each], n=3)
    return f"; did you mean {', '.join(close)}?" if close else ""
