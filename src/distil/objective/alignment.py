"""Alignment: which layer of the student is compared with which of the teacher."""

import itertools
import math
from collections.abc import Sequence

from distil.core.errors import ModelError
from distil.models.describe import Layer, ModelDescription, Shape
from distil.models.tap import Tap, can_tap, resolve_tap, tap_shape
from distil.models.tap_config import Take, TapConfig
from distil.objective.term import AlignedPair, Binding
from distil.objective.term_config import LayerTermConfig


def resolve_layers(term: LayerTermConfig, binding: Binding) -> tuple[AlignedPair, ...]:
    """The pairs of layers of a term, as written or, for ``auto``, by depth.

    Auto takes the last layer of every stage (of each resolution of a map, each block of a transformer, each activation
    of a perceptron), gives each stage of the model with fewer of them the stage of the other at the nearest depth, in
    order, and always the last to the last; a term about one layer gets that pair alone. A layer of the student has at
    most one partner. A term that compares positions passes over stages that have one position, such as pooled maps.

    Raises:
        CompatibilityError: a model has no layers to compare, or a written layer is not there.
    """
    student, teacher = binding.student, binding.required_teacher
    try:
        if term.layers == "auto":
            taps = auto_pairs(
                *(student, teacher),
                take=term.takes,
                last_only=term.auto_layers == "last",
                positions=term.compares_positions,
            )
        else:
            taps = [
                (
                    resolve_tap(_taking(pair.student, term.takes), student),
                    resolve_tap(_taking(pair.teacher, term.takes), teacher),
                )
                for pair in term.layers
            ]
        return tuple(AlignedPair(s, t, unit_shape(s, student), unit_shape(t, teacher)) for s, t in taps)
    except ModelError as error:
        raise binding.refuse(str(error)) from error


def is_per_token(tap: Tap, description: ModelDescription) -> bool:
    """Whether a tap has a vector for each token of a text."""
    shape, tokens = tap_shape(tap, description), description.num_tokens
    hidden = tap.take in ("output", "input", "pre-activation")
    return hidden and tokens is not None and len(shape) == 2 and shape[0] == tokens


def unit_shape(tap: Tap, description: ModelDescription) -> Shape:
    """The shape of what is compared at once: of one example, or of one token, as texts have any number of them."""
    shape = tap_shape(tap, description)
    return shape[1:] if is_per_token(tap, description) else shape


def auto_pairs(
    student: ModelDescription, teacher: ModelDescription, *, take: Take, last_only: bool, positions: bool = False
) -> list[tuple[Tap, Tap]]:
    """Pairs of taps by depth, see ``resolve_layers``; ``positions``: of stages with several, where a model has any.

    Raises:
        ModelError: a model has no layer whose ``take`` could be captured.
    """
    ours, theirs = stages(student, take=take), stages(teacher, take=take)
    if positions:
        ours, theirs = _with_positions(ours, student, take), _with_positions(theirs, teacher, take)
    for name, who, found in (("student", student, ours), ("teacher", teacher, theirs)):
        if not found:
            raise ModelError(
                f"the {name} has no layer whose {take} could be compared; write layers by hand, or use another term"
            )
        odd = next((layer for layer in found if _looks_channels_last(tap_shape(Tap(layer.name, take), who))), None)
        if odd is not None:
            raise ModelError(
                f"the {name}'s layer {odd.name} looks like a map with its channels last, which cannot be compared by "
                "itself; write layers by hand, of values with channels first or of tokens"
            )
    if last_only:
        chosen = [(ours[-1], theirs[-1])]
    elif len(ours) <= len(theirs):
        chosen = [(ours[i], theirs[j]) for i, j in _in_order(ours, theirs)]
    else:
        chosen = [(ours[j], theirs[i]) for i, j in _in_order(theirs, ours)]
    return [(Tap(s.name, take), Tap(t.name, take)) for s, t in chosen]


def stages(description: ModelDescription, *, take: Take) -> list[Layer]:
    """The layers that stand for a network's stages, from the first to the last before its classifier."""
    usable = [layer for layer in description.layers if layer.calls == 1 and can_tap(layer, take)]
    if take in ("attention", "queries", "keys", "values"):
        return usable
    body = [layer for layer in usable if 0 < layer.depth < 1]
    shapes = {layer.name: tap_shape(Tap(layer.name, take), description) for layer in body}
    blocks = _repeated(body, shapes)
    if blocks:
        return blocks
    maps = _ends_of_resolutions(body, shapes, description)
    deepest = maps[-1].depth if maps else 0.0
    hidden = [layer for layer in body if len(shapes[layer.name]) == 1 and layer.depth > deepest]
    activated = [layer for layer in hidden if layer.pre_activation_shape is not None and layer.is_leaf]
    return maps + _last_of_each_depth(activated if maps else activated or body)


def _looks_channels_last(shape: Shape) -> bool:
    """Height, width, channels: two equal numbers, then another."""
    return len(shape) == 3 and shape[0] == shape[1] != shape[2] and shape[0] > 1


def _with_positions(layers: list[Layer], description: ModelDescription, take: Take) -> list[Layer]:
    """Those with several positions; all of them where none has."""
    shapes = [tap_shape(Tap(layer.name, take), description) for layer in layers]
    places = [math.prod(shape[1:]) if len(shape) == 3 else shape[0] if len(shape) == 2 else 1 for shape in shapes]
    return [layer for layer, number in zip(layers, places, strict=True) if number > 1] or layers


def _repeated(body: Sequence[Layer], shapes: dict[str, Shape]) -> list[Layer]:
    """The blocks of a transformer or mixer: children of one container, alike in class, whose values are tokens."""
    groups: dict[tuple[str, str], list[Layer]] = {}
    for layer in body:
        parent, _, own = layer.name.rpartition(".")
        if own[-1].isdigit() and len(shapes[layer.name]) == 2 and not layer.is_leaf:
            groups.setdefault((parent, layer.type), []).append(layer)
    largest = max(groups.values(), key=len, default=[])
    return largest if sum(layer.num_parameters for layer in largest) > 0 else []


def _ends_of_resolutions(body: Sequence[Layer], shapes: dict[str, Shape], description: ModelDescription) -> list[Layer]:
    """The last layer of each resolution of a map; pooling alone is no stage, nor are squeezed channels in a block."""
    ends: dict[tuple[int, ...], Layer] = {}
    for layer in body:
        if len(shapes[layer.name]) == 3 and not _starts_a_smaller_block(layer, shapes[layer.name], description):
            ends[shapes[layer.name][1:]] = layer
    stages: list[Layer] = []
    for layer in sorted(ends.values(), key=description.layers.index):
        if not stages or layer.depth > stages[-1].depth:
            stages.append(layer)
    sizes = [math.prod(shapes[layer.name][1:]) for layer in stages]
    return [layer for place, layer in enumerate(stages) if sizes[place] >= max(sizes[place:])]


def _starts_a_smaller_block(layer: Layer, shape: Shape, description: ModelDescription) -> bool:
    """Whether the layer is inside a block that goes on to a lower resolution: the stage before ended with its input.

    A trunk, which goes through three resolutions or more, is no block; nor is a plain sequence.
    """
    parts = layer.name.split(".")
    around = {".".join(parts[:length]) for length in range(1, len(parts))}
    for block in description.layers:
        if block.name not in around or block.type in ("Sequential", "ModuleList", "ModuleDict"):
            continue
        before, after = block.input_shape, block.output_shape
        if before is None or after is None or len(before) != 3 or before[1:] == after[1:] or before[1:] != shape[1:]:
            continue
        inside = {
            each.output_shape[1:]
            for each in description.layers
            if each.name.startswith(block.name + ".") and each.output_shape is not None and len(each.output_shape) == 3
        }
        if len({each for each in inside if math.prod(each) > 1} | {before[1:]}) < 3:
            return True
    return False


def _last_of_each_depth(layers: Sequence[Layer]) -> list[Layer]:
    return list({layer.depth: layer for layer in layers}.values())


def _in_order(few: Sequence[Layer], many: Sequence[Layer]) -> list[tuple[int, int]]:
    """For each of the few one of the many, in order, the last for the last, nearest in relative depth."""

    def relative(layers: Sequence[Layer]) -> list[float]:
        return [layer.depth / layers[-1].depth for layer in layers]

    ours, theirs = relative(few), relative(many)
    chosen: list[int] = [len(many) - 1]
    for position in range(len(few) - 2, -1, -1):
        candidates = range(position, chosen[0])
        chosen.insert(0, min(candidates, key=lambda j: abs(theirs[j] - ours[position])))
    return list(zip(itertools.count(), chosen, strict=False))


def _taking(point: TapConfig, take: Take) -> TapConfig:
    """A written point takes what the term takes, unless it says otherwise."""
    return point.model_copy(update={"take": take}) if "take" not in point.model_fields_set else point
