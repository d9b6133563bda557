"""Attention inside a network: found by structure, read without changing what the network computes.

Three ways of writing attention are known: one projection for all, ``qkv`` with ``attn_drop`` after the softmax as in
timm or ``c_attn`` as in GPT-2; three projections side by side, as in transformers; and ``nn.MultiheadAttention``.
"""

import inspect
import math
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from distil.core.errors import ModelError
from distil.core.inputs import Inputs, take_rows

Capture = Callable[[Tensor], None]
Shape = tuple[int, ...]

TAKES = ("attention", "queries", "keys", "values")
_SEPARATE = (("query", "key", "value"), ("q_lin", "k_lin", "v_lin"), ("q_proj", "k_proj", "v_proj"))
_HEADS = ("num_attention_heads", "n_heads", "num_heads")
_IMPLEMENTATION = "_attn_implementation_internal"


@dataclass(frozen=True)
class AttentionLayer:
    """An attention layer of a network.

    Attributes:
        name: of the module.
        num_heads: of its queries; keys and values may have fewer.
        head_features: width of a head.
        projections: children that make queries, keys and values: one for all, three, or none where the module does it.
        probabilities: where they are seen: going into ``attn_drop``, in the module's answer, computed from its input,
            or nowhere.
    """

    name: str
    num_heads: int
    head_features: int
    projections: tuple[str, ...]
    probabilities: Literal["attn_drop", "answer", "input", "nowhere"]


def attention_layers(model: nn.Module) -> tuple[AttentionLayer, ...]:
    """All attention layers, in the order in which the network has them; a shared one under each of its names."""
    found = (_layer(name, module) for name, module in model.named_modules(remove_duplicate=False))
    return tuple(layer for layer in found if layer is not None)


def hook_attention(model: nn.Module, layer: AttentionLayer, take: str, capture: Capture) -> list[Any]:
    """Opens hooks that give ``capture`` what is taken; removing them leaves the network as it was.

    Attention is [batch, heads, queries, keys]: probabilities after the softmax. While it is taken, the layer computes
    them one by one instead of by a fused kernel. They are taken before dropout. Queries, keys and values are [batch,
    heads, tokens, features] as their projection gives them, before norms and rotary positions, and cost no fused
    kernel. Where queries share keys, these have fewer heads.

    Args:
        model: the whole network.
        layer: one of its ``attention_layers``.
        take: attention, queries, keys or values.
        capture: is called in each pass.

    Raises:
        ModelError: the layer shows no attention, or, in a pass, none of the shape that was expected.
    """
    module = model.get_submodule(layer.name)
    if isinstance(module, nn.MultiheadAttention):
        return _hook_multihead(model, layer, module, take, capture)
    if take == "attention":
        return _hook_probabilities(model, layer, module, capture)
    place = TAKES.index(take) - 1
    together = len(layer.projections) == 1

    def after(_: nn.Module, __: Any, output: Tensor) -> None:
        chosen = output.chunk(3, dim=-1)[place] if together else output
        # a copy: biases and rotary positions may be written into the projection's answer
        capture(_by_head(chosen, layer.head_features).clone())

    projection = module.get_submodule(layer.projections[0 if together else place])
    return [projection.register_forward_hook(after)]


def attention_shapes(model: nn.Module, example: Inputs) -> dict[str, dict[str, Shape]]:
    """For every attention layer, the shape of what can be taken for one example, seen in a pass in evaluation mode.

    Left out is attention within windows, where the first axis is not the batch, among channels, and what is no
    probability any more, as where heads are mixed after the softmax.
    """
    layers = attention_layers(model)
    if not layers:
        return {}
    try:
        seen = _seen(model, example, layers, TAKES)
    except ModelError:  # a layer that was thought to show its attention does not
        seen = _seen(model, example, layers, TAKES[1:])
    return {
        name: {take: shape[1:] for take, shape in shapes.items()} for name, shapes in seen.items() if _is_usual(shapes)
    }


def _seen(
    model: nn.Module, example: Inputs, layers: Iterable[AttentionLayer], takes: Iterable[str]
) -> dict[str, dict[str, Shape]]:
    seen: dict[str, dict[str, Shape]] = {layer.name: {} for layer in layers}

    def note(name: str, take: str) -> Capture:
        def noted(value: Tensor) -> None:
            if take != "attention" or _are_probabilities(value):
                seen[name][take] = tuple(value.shape)

        return noted

    handles: list[Any] = []
    try:
        for layer in layers:
            for take in takes:
                if take != "attention" or layer.probabilities != "nowhere":
                    handles += hook_attention(model, layer, take, note(layer.name, take))
        with torch.no_grad():
            model(take_rows(example, slice(0, 1)))
    finally:
        for handle in handles:
            handle.remove()
    return seen


def _are_probabilities(attention: Tensor) -> bool:
    """Not so where heads are mixed after the softmax."""
    sums = attention.float().sum(dim=-1)
    return bool((attention >= 0).all()) and torch.allclose(sums, torch.ones_like(sums), atol=0.01)


def _is_usual(shapes: Mapping[str, Shape]) -> bool:
    """Whether the first axis is the one example and tokens attend to tokens."""
    if any(len(shape) != 4 or shape[0] != 1 for shape in shapes.values()) or not {*TAKES[1:]} <= {*shapes}:
        return False
    return "attention" not in shapes or shapes["attention"][2:] == (shapes["queries"][2], shapes["keys"][2])


def _layer(name: str, module: nn.Module) -> AttentionLayer | None:
    if isinstance(module, nn.MultiheadAttention):
        extended = module.bias_k is not None or module.add_zero_attn  # with keys of no token
        return None if extended else AttentionLayer(name, module.num_heads, module.head_dim, (), "input")
    children = dict(module.named_children())
    heads = _num_heads(module)
    if heads is None:
        return None
    drop, together = "attn_drop" in children, children.get("qkv")
    answer = "answer" if hasattr(getattr(module, "config", None), _IMPLEMENTATION) else "nowhere"
    if isinstance(together, nn.Linear) and drop and not getattr(module, "head_first", False):
        width = together.out_features // 3
        usual = together.out_features == 3 * width and width % heads == 0
        return AttentionLayer(name, heads, width // heads, ("qkv",), "attn_drop") if usual else None
    conv = getattr(children.get("c_attn"), "nf", None)  # a Conv1D of transformers, which is a linear map
    if isinstance(conv, int):
        features = _head_features(module) or conv // 3 // heads
        return AttentionLayer(name, heads, features, ("c_attn",), answer) if conv == 3 * heads * features else None
    for names in _SEPARATE:
        widths = [each.out_features for each in map(children.get, names) if isinstance(each, nn.Linear)]
        if len(widths) == 3 and widths[0] % heads == 0:
            features = _head_features(module) or widths[0] // heads
            usual = widths[0] == heads * features and not any(width % features for width in widths)
            where = "attn_drop" if drop else answer
            return AttentionLayer(name, heads, features, names, where) if usual else None
    return None


def _num_heads(module: nn.Module) -> int | None:
    config = getattr(module, "config", None)
    said = [getattr(module, name, None) for name in _HEADS] + [getattr(config, name, None) for name in _HEADS]
    return next((heads for heads in said if isinstance(heads, int) and heads > 0), None)


def _head_features(module: nn.Module) -> int | None:
    said = (getattr(module, name, None) for name in ("attention_head_size", "head_dim"))
    return next((width for width in said if isinstance(width, int) and width > 0), None)


def _by_head(vectors: Float[Tensor, "batch *tokens width"], features: int) -> Float[Tensor, "batch heads n features"]:
    return vectors.reshape(len(vectors), -1, vectors.shape[-1] // features, features).transpose(1, 2)


def _hook_probabilities(model: nn.Module, layer: AttentionLayer, module: nn.Module, capture: Capture) -> list[Any]:
    if layer.probabilities == "attn_drop":
        drop = module.get_submodule("attn_drop")
        switch = _Switch("fused_attn", False, [module] if hasattr(module, "fused_attn") else [])
        return [drop.register_forward_pre_hook(lambda _, args: capture(args[0])), switch]
    if layer.probabilities == "nowhere":
        raise ModelError(
            f"{layer.name} ({type(module).__name__}) does not show its attention; its queries, keys and values can be "
            "taken, which qkv-relations does"
        )

    running: dict[int, _BeforeDropout] = {}  # by thread: parallel replicas run side by side

    def before(module: nn.Module, _: Any) -> None:
        if module.training:
            running[threading.get_ident()] = _BeforeDropout().__enter__()

    def after(_: nn.Module, __: Any, answer: Any) -> None:
        watched = running.pop(threading.get_ident(), None)
        if watched is not None:
            watched.__exit__(None, None, None)
        if answer is None:  # the pass has failed, and its own error is the one to show
            return
        probabilities = answer[1] if isinstance(answer, tuple) and len(answer) > 1 else None
        if not isinstance(probabilities, Tensor) or probabilities.ndim != 4:
            raise ModelError(
                f"{layer.name} ({type(module).__name__}) gives no attention with attn_implementation 'eager'; take its "
                "queries, keys and values, which qkv-relations does"
            )
        kept = watched.seen if watched is not None else None
        capture(kept if kept is not None and kept.shape == probabilities.shape else probabilities)

    # masks are made by the whole network and are not the same for every implementation, so all of it is switched
    configs = {id(each.config): each.config for each in model.modules() if hasattr(each, "config")}
    known = [config for config in configs.values() if hasattr(config, _IMPLEMENTATION)]
    hooks = [module.register_forward_pre_hook(before), module.register_forward_hook(after, always_call=True)]
    return [*hooks, _Switch(_IMPLEMENTATION, "eager", known)]


def _hook_multihead(
    model: nn.Module, layer: AttentionLayer, module: nn.MultiheadAttention, take: str, capture: Capture
) -> list[Any]:
    signature = inspect.signature(module.forward)

    def before(module: nn.MultiheadAttention, args: Any, kwargs: Any) -> None:
        given = signature.bind(*args, **kwargs).arguments
        if given["query"].ndim != 3 or given["query"].is_nested:
            raise ModelError(f"{layer.name} ran on something else than a batch of tokens; its {take} cannot be taken")
        if take == "attention":
            return capture(_multihead_probabilities(module, given))
        return capture(_multihead_vectors(module, given, TAKES.index(take) - 1))

    # hooks keep torch from its fast path through the layer; the encoder around it must not pack padded tokens for it
    around = [each for name, each in model.named_modules() if isinstance(each, nn.TransformerEncoder)]
    switch = _Switch("use_nested_tensor", False, [each for each in around if hasattr(each, "use_nested_tensor")])
    return [module.register_forward_pre_hook(before, with_kwargs=True), switch]


def _multihead_vectors(
    module: nn.MultiheadAttention, given: Mapping[str, Any], place: int
) -> Float[Tensor, "batch heads tokens features"]:
    """Queries, keys or values, as the module projects them."""
    if module.in_proj_weight is not None:
        weight = module.in_proj_weight.chunk(3)[place]
    else:
        weight = (module.q_proj_weight, module.k_proj_weight, module.v_proj_weight)[place]
    bias = module.in_proj_bias.chunk(3)[place] if module.in_proj_bias is not None else None
    tokens = given[("query", "key", "value")[place]]
    return _by_head(F.linear(tokens if module.batch_first else tokens.transpose(0, 1), weight, bias), module.head_dim)


def _multihead_probabilities(
    module: nn.MultiheadAttention, given: Mapping[str, Any]
) -> Float[Tensor, "batch heads queries keys"]:
    queries, keys = (_multihead_vectors(module, given, place) for place in (0, 1))
    scores = queries @ keys.transpose(2, 3) / math.sqrt(module.head_dim)
    padding, mask = given.get("key_padding_mask"), given.get("attn_mask")
    if padding is not None:
        scores = scores + _additive(padding, scores)[:, None, None, :]
    if mask is not None:
        mask = _additive(mask, scores)
        scores = scores + (mask.view(scores.shape) if mask.ndim == 3 else mask)
    return scores.softmax(dim=-1)


def _additive(mask: Tensor, scores: Tensor) -> Tensor:
    """What is added to scores: -inf where a mask of booleans says that there is nothing to attend to."""
    if mask.dtype == torch.bool:
        return torch.zeros_like(mask, dtype=scores.dtype).masked_fill(mask, -torch.inf)
    return mask.to(scores.dtype)


class _BeforeDropout(TorchFunctionMode):
    """Notes the last tensor of the shape of attention that goes into dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Tensor | None = None

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is F.dropout and args[0].ndim == 4:
            self.seen = args[0]
        return func(*args, **(kwargs or {}))


class _Switch:
    """Sets an attribute of some objects until ``remove``. Where several do, the last to go restores it."""

    _open: dict[tuple[int, str], tuple[Any, Any, int]] = {}  # noqa: RUF012  object, what it had, how many hold it

    def __init__(self, attribute: str, value: Any, owners: Iterable[Any]) -> None:
        self._attribute, self._owners = attribute, list(owners)
        for owner in self._owners:
            key = id(owner), attribute
            _, before, holders = self._open.get(key, (owner, getattr(owner, attribute), 0))
            self._open[key] = owner, before, holders + 1
            setattr(owner, attribute, value)

    def remove(self) -> None:
        """Lets go; a second time does nothing."""
        owners, self._owners = self._owners, []
        for owner in owners:
            key = id(owner), self._attribute
            _, before, holders = self._open.pop(key)
            if holders > 1:
                self._open[key] = owner, before, holders - 1
            else:
                setattr(owner, self._attribute, before)
