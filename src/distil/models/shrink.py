"""A student cut from its teacher: fewer layers, heads, neurons and channels, with the teacher's weights in the rest."""

import copy
from typing import TYPE_CHECKING, Any

from torch import nn

from distil.core.errors import ModelError
from distil.models.importance import Importance
from distil.models.shrink_architecture import Sizes, architecture_of, sizes_of
from distil.models.shrink_config import ShrinkConfig
from distil.models.shrink_width import choose_kept, rebuild

if TYPE_CHECKING:
    from transformers import PreTrainedModel
else:  # optional, so the checks at run time take any network
    PreTrainedModel = nn.Module


def shrink(model: PreTrainedModel, config: ShrinkConfig, *, importance: Importance | None = None) -> PreTrainedModel:
    """A smaller model of the same class, head included, that starts from the teacher's own weights.

    Layers are copied whole. Of widths, what is most important on real data stays. Norms keep their weights as they are:
    the statistics of fewer channels are others, so a cut of ``hidden`` changes what every layer sees, and only training
    mends that. The student saves to an ordinary folder of transformers that knows nothing of this library.

    Args:
        model: the teacher, a model of transformers. It is not changed.
        config: how many layers and how wide. A ``vocabulary`` is cut by ``shrink_vocabulary`` before; here it is
            checked to have been.
        importance: of the teacher's parts; needed for ``hidden``, ``heads`` and ``feed_forward``, not for ``layers``.

    Returns:
        The student, all of it trainable, with copies of weights.

    Raises:
        ModelError: the teacher is not of a family that can be cut, or the sizes do not fit it; or a width is to be cut
            and no importance given.
        CompatibilityError: the importance is of another model.

    Source: depth as Sanh et al. 2019, arXiv:1910.01108, section 3 (a student of every other layer); widths as
    Muralidharan et al. 2024, arXiv:2407.14679, section 2.
    """
    layers, sizes = kept_layers(model, config), student_sizes(model, config)
    kept = choose_kept(model, layers, sizes, importance)
    return rebuild(model, _student_config(model, layers, sizes), kept)


def describe_cut(model: PreTrainedModel, config: ShrinkConfig) -> str:
    """What a cut keeps, in one line for a log; the numbers of the layers are the teacher's, from 0.

    Raises:
        ModelError: as ``shrink``.
    """
    before, after, layers = sizes_of(model), student_sizes(model, config), kept_layers(model, config)
    said = [f"layers {', '.join(map(str, layers))} of {before.layers}"]
    names = {"hidden": "hidden channels", "heads": "heads", "key_value_heads": "key-value heads"}
    for key, name in {**names, "feed_forward": "feed-forward neurons"}.items():
        old, new = getattr(before, key), getattr(after, key)
        if key != "key_value_heads" or before.key_value_heads != before.heads:
            said.append(f"{new} of {old} {name}" if new != old else f"all {old} {name}")
    return "; ".join(said)


def kept_layers(model: PreTrainedModel, config: ShrinkConfig) -> tuple[int, ...]:
    """The numbers of the teacher's layers that stay, from 0.

    ``spaced`` takes layer round(i (N - 1) / (n - 1)) for i from 0 to n - 1 of n out of N, halves to the even number:
    always the first and the last, for example 0, 2, 5 of 6.

    Raises:
        ModelError: the teacher has fewer layers.
    """
    there = sizes_of(model).layers
    if isinstance(config.keep, tuple):
        if config.keep[-1] >= there:
            raise ModelError(f"keep names layer {config.keep[-1]} and the model has layers 0 to {there - 1}")
        return config.keep
    num = there if config.layers is None else config.layers
    if num > there:
        raise ModelError(f"layers is {num} and the model has {there}; a student has at most as many")
    if config.keep == "spaced":
        return tuple(round(i * (there - 1) / max(num - 1, 1)) for i in range(num))
    return tuple(range(num)) if config.keep == "first" else tuple(range(there - num, there))


def student_sizes(model: PreTrainedModel, config: ShrinkConfig) -> Sizes:
    """The sizes of the student, all checked against the teacher's.

    Raises:
        ModelError: everything that does not fit, in one message.
    """
    before = sizes_of(model)
    hidden, heads = config.hidden or before.hidden, config.heads or before.heads
    problems = [
        f"{key} is {wanted} and the model has {there}; a student has at most as many"
        for key, there in before._asdict().items()
        if (wanted := getattr(config, key, None)) is not None and wanted > there and key != "layers"
    ]
    if config.vocabulary is not None and config.vocabulary != model.config.vocab_size:
        problems.append(
            f"vocabulary is {config.vocabulary} and the model has {model.config.vocab_size} tokens; cut it first, "
            "together with its tokenizer, by shrink_vocabulary, and then the rest with the same settings"
        )
    if architecture_of(model).own_head_size:
        key_value_heads = _key_value_heads(config, before, problems)
    else:
        heads = _heads_of_fixed_size(config, before, problems)
        key_value_heads = heads
    if problems:
        raise ModelError(f"{type(model).__name__} cannot be cut to these sizes: " + "; ".join(problems))
    return Sizes(
        layers=len(kept_layers(model, config)),
        hidden=hidden,
        heads=heads,
        key_value_heads=key_value_heads,
        head_size=before.head_size,
        feed_forward=config.feed_forward or before.feed_forward,
    )


def _heads_of_fixed_size(config: ShrinkConfig, before: Sizes, problems: list[str]) -> int:
    """Where the size of a head is the stream's width over the number of heads, one decides the other."""
    hidden, size = config.hidden or before.hidden, before.head_size
    if config.key_value_heads is not None:
        problems.append("key_value_heads is given and every head of this model has its own keys and values")
    if config.heads is not None and config.heads * size != hidden:
        problems.append(
            f"heads is {config.heads} and hidden {hidden}; in this family all heads together are as wide as the "
            f"stream, and a head has {size} features: give heads {config.heads} together with hidden "
            f"{config.heads * size}"
        )
    elif hidden % size != 0:
        problems.append(f"hidden is {hidden}; in this family it must be a multiple of a head's {size} features")
    return hidden // size


def _key_value_heads(config: ShrinkConfig, before: Sizes, problems: list[str]) -> int:
    """How many stay: as many as are asked for, otherwise those of whole groups."""
    group = before.heads // before.key_value_heads
    if config.heads is None or config.heads > before.heads:
        return before.key_value_heads
    if config.key_value_heads is None:
        if config.heads % group != 0:
            problems.append(
                f"heads is {config.heads} and {group} heads share one key-value head; give a multiple of {group}, or "
                "say by key_value_heads how many of those stay"
            )
        return config.heads // group
    if config.heads > config.key_value_heads * group:
        problems.append(
            f"heads is {config.heads} with key_value_heads {config.key_value_heads}, and a key-value head of the model "
            f"serves {group}; that many have at most {config.key_value_heads * group}"
        )
    return config.key_value_heads


def _student_config(model: PreTrainedModel, layers: tuple[int, ...], sizes: Sizes) -> Any:
    """The teacher's configuration with the student's sizes, seen to be one that can be loaded."""
    architecture, before = architecture_of(model), sizes_of(model)
    config = copy.deepcopy(model.config)
    config.num_hidden_layers, config.hidden_size, config.num_attention_heads = sizes.layers, sizes.hidden, sizes.heads
    if sizes.hidden != before.hidden or sizes.feed_forward != before.feed_forward:
        setattr(config, architecture.feed_forward_key, sizes.feed_forward)
    if getattr(config, "num_key_value_heads", None) is not None:
        config.num_key_value_heads = sizes.key_value_heads
    if architecture.own_head_size and sizes.head_size != sizes.hidden // sizes.heads:
        config.head_dim = sizes.head_size  # kept by those that have it, needed by those that do not
    if getattr(config, "layer_types", None) is not None:
        config.layer_types = [config.layer_types[layer] for layer in layers]
    try:
        type(config).from_dict(config.to_dict())
    except Exception as error:  # of a kind that differs between versions
        raise ModelError(f"{type(model).__name__} cannot be loaded with these sizes: {error}") from error
    return config
