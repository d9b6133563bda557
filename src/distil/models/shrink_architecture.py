"""Where each architecture of transformers keeps its layers, heads, feed-forward and embeddings: a table, and readers.

The table says of every parameter what its axes stand for. What can be cut, how, and where importance is measured
follows from that: an attention output, for example, is what goes into the linear layer that reads the axis ``heads``.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, NamedTuple

from torch import nn

from distil.core.errors import MissingExtraError, ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedModel
else:  # optional, so the checks at run time take any network
    PreTrainedModel = nn.Module

Axis = Literal[
    "hidden",  # channels of the stream that runs through all layers
    "heads",  # query heads side by side
    "key-value-heads",  # key-value heads side by side
    "query-key-value",  # all queries, then all keys, then all values
    "neurons",  # of the feed-forward
    "features",  # a space of the classifier's own, as wide as the stream
    "vocabulary",  # tokens
]
Axes = tuple[Axis | None, ...]  # None: an axis that is never cut
Parameters = Mapping[str, Axes]


@dataclass(frozen=True)
class Architecture:
    """One family of models.

    Attributes:
        class_prefix: the names of its classes without what they end in.
        layers: where the list of layers is, in the base model.
        base: the base model's parameters outside its layers.
        layer: the parameters of one layer.
        heads: for what a class ends in, the parameters on top of the base model.
        feed_forward_key: the width of the feed-forward in ``config.json``.
        own_head_size: whether the size of a head is free; otherwise it is the stream's width over the number of heads.
        positions_from_padding: whether positions are counted from the number of the padding token.
    """

    class_prefix: str
    layers: str
    base: Parameters
    layer: Parameters
    heads: Mapping[str, Parameters]
    feed_forward_key: str = "intermediate_size"
    own_head_size: bool = False
    positions_from_padding: bool = False
    refused: Mapping[str, str] = field(default_factory=lambda: {"add_cross_attention": "it attends to a second input"})


class Sizes(NamedTuple):
    """How large a model is."""

    layers: int
    hidden: int
    heads: int
    key_value_heads: int
    head_size: int
    feed_forward: int


class Place(NamedTuple):
    """What a parameter's axes stand for, and the number of its layer; None outside the layers."""

    axes: Axes
    layer: int | None


def _linear(name: str, into: Axis | None, out: Axis | None) -> dict[str, Axes]:
    return {f"{name}.weight": (out, into), f"{name}.bias": (out,)}


def _conv1d(name: str, into: Axis, out: Axis) -> dict[str, Axes]:
    """The linear layer of GPT-2, whose weight is the other way round."""
    return {f"{name}.weight": (into, out), f"{name}.bias": (out,)}


def _norm(name: str) -> dict[str, Axes]:
    return {f"{name}.weight": ("hidden",), f"{name}.bias": ("hidden",)}


_LABELS = _linear("classifier", "hidden", None)
_POOLED_LABELS = _linear("classifier", "features", None)
_SPANS = _linear("qa_outputs", "hidden", None)
_NEXT_SENTENCE = _linear("cls.seq_relationship", "features", None)
_BERT_TOKENS: Parameters = {
    **_linear("cls.predictions.transform.dense", "hidden", "hidden"),
    **_norm("cls.predictions.transform.LayerNorm"),
    **_linear("cls.predictions.decoder", "hidden", "vocabulary"),
    "cls.predictions.bias": ("vocabulary",),
}
_BERT = Architecture(
    class_prefix="Bert",
    layers="encoder.layer",
    base={
        "embeddings.word_embeddings.weight": ("vocabulary", "hidden"),
        "embeddings.position_embeddings.weight": (None, "hidden"),
        "embeddings.token_type_embeddings.weight": (None, "hidden"),
        **_norm("embeddings.LayerNorm"),
        **_linear("pooler.dense", "hidden", "features"),
    },
    layer={
        **_linear("attention.self.query", "hidden", "heads"),
        **_linear("attention.self.key", "hidden", "key-value-heads"),
        **_linear("attention.self.value", "hidden", "key-value-heads"),
        **_linear("attention.output.dense", "heads", "hidden"),
        **_norm("attention.output.LayerNorm"),
        **_linear("intermediate.dense", "hidden", "neurons"),
        **_linear("output.dense", "neurons", "hidden"),
        **_norm("output.LayerNorm"),
    },
    heads={
        "Model": {},
        "ForPreTraining": {**_BERT_TOKENS, **_NEXT_SENTENCE},
        "ForMaskedLM": _BERT_TOKENS,
        "ForNextSentencePrediction": _NEXT_SENTENCE,
        "ForSequenceClassification": _POOLED_LABELS,
        "ForMultipleChoice": _POOLED_LABELS,
        "ForTokenClassification": _LABELS,
        "ForQuestionAnswering": _SPANS,
    },
)
_ROBERTA = replace(
    _BERT,
    class_prefix="Roberta",
    heads={
        "Model": {},
        "ForMaskedLM": {
            **_linear("lm_head.dense", "hidden", "hidden"),
            **_norm("lm_head.layer_norm"),
            **_linear("lm_head.decoder", "hidden", "vocabulary"),
            "lm_head.bias": ("vocabulary",),
        },
        "ForSequenceClassification": {
            **_linear("classifier.dense", "hidden", "features"),
            **_linear("classifier.out_proj", "features", None),
        },
        "ForMultipleChoice": _POOLED_LABELS,
        "ForTokenClassification": _LABELS,
        "ForQuestionAnswering": _SPANS,
    },
    positions_from_padding=True,
)
_DISTILBERT_LABELS: Parameters = {**_linear("pre_classifier", "hidden", "features"), **_POOLED_LABELS}
_DISTILBERT = Architecture(
    class_prefix="DistilBert",
    layers="transformer.layer",
    base={
        "embeddings.word_embeddings.weight": ("vocabulary", "hidden"),
        "embeddings.position_embeddings.weight": (None, "hidden"),
        **_norm("embeddings.LayerNorm"),
    },
    layer={
        **_linear("attention.q_lin", "hidden", "heads"),
        **_linear("attention.k_lin", "hidden", "key-value-heads"),
        **_linear("attention.v_lin", "hidden", "key-value-heads"),
        **_linear("attention.out_lin", "heads", "hidden"),
        **_norm("sa_layer_norm"),
        **_linear("ffn.lin1", "hidden", "neurons"),
        **_linear("ffn.lin2", "neurons", "hidden"),
        **_norm("output_layer_norm"),
    },
    heads={
        "Model": {},
        "ForMaskedLM": {
            **_linear("vocab_transform", "hidden", "hidden"),
            **_norm("vocab_layer_norm"),
            **_linear("vocab_projector", "hidden", "vocabulary"),
        },
        "ForSequenceClassification": _DISTILBERT_LABELS,
        "ForMultipleChoice": _DISTILBERT_LABELS,
        "ForTokenClassification": _LABELS,
        "ForQuestionAnswering": _SPANS,
    },
    feed_forward_key="hidden_dim",
)
_NEXT_TOKEN = _linear("lm_head", "hidden", "vocabulary")
_SCORE = _linear("score", "hidden", None)
_GPT2 = Architecture(
    class_prefix="GPT2",
    layers="h",
    base={"wte.weight": ("vocabulary", "hidden"), "wpe.weight": (None, "hidden"), **_norm("ln_f")},
    layer={
        **_norm("ln_1"),
        **_conv1d("attn.c_attn", "hidden", "query-key-value"),
        **_conv1d("attn.c_proj", "heads", "hidden"),
        **_norm("ln_2"),
        **_conv1d("mlp.c_fc", "hidden", "neurons"),
        **_conv1d("mlp.c_proj", "neurons", "hidden"),
    },
    heads={
        "Model": {},
        "LMHeadModel": _NEXT_TOKEN,
        "ForSequenceClassification": _SCORE,
        "ForTokenClassification": _LABELS,
        "ForQuestionAnswering": _SPANS,
    },
    feed_forward_key="n_inner",
    refused={
        **_BERT.refused,
        "scale_attn_by_inverse_layer_idx": "its attention is scaled by the number of the layer, which a cut changes",
    },
)
_LLAMA = Architecture(
    class_prefix="Llama",
    layers="layers",
    base={"embed_tokens.weight": ("vocabulary", "hidden"), **_norm("norm")},
    layer={
        **_norm("input_layernorm"),
        **_linear("self_attn.q_proj", "hidden", "heads"),
        **_linear("self_attn.k_proj", "hidden", "key-value-heads"),
        **_linear("self_attn.v_proj", "hidden", "key-value-heads"),
        **_linear("self_attn.o_proj", "heads", "hidden"),
        "self_attn.q_norm.weight": (None,),  # of Qwen3: within a head
        "self_attn.k_norm.weight": (None,),
        **_norm("post_attention_layernorm"),
        **_linear("mlp.gate_proj", "hidden", "neurons"),
        **_linear("mlp.up_proj", "hidden", "neurons"),
        **_linear("mlp.down_proj", "neurons", "hidden"),
    },
    heads={
        "Model": {},
        "ForCausalLM": _NEXT_TOKEN,
        "ForSequenceClassification": _SCORE,
        "ForTokenClassification": _SCORE,
        "ForQuestionAnswering": _SPANS,
    },
    own_head_size=True,
)
ARCHITECTURES: Mapping[str, Architecture] = {  # by the model_type of config.json
    "bert": _BERT,
    "roberta": _ROBERTA,
    "xlm-roberta": replace(_ROBERTA, class_prefix="XLMRoberta"),
    "distilbert": _DISTILBERT,
    "gpt2": _GPT2,
    "llama": _LLAMA,
    "mistral": replace(_LLAMA, class_prefix="Mistral"),
    "qwen2": replace(_LLAMA, class_prefix="Qwen2"),
    "qwen3": replace(_LLAMA, class_prefix="Qwen3"),
}


def architecture_of(model: nn.Module) -> Architecture:
    """The row of the table for a model.

    Raises:
        ModelError: it is not a model of transformers, of another family, of a class that is not in the table, or has a
            setting under which a cut would not be what it seems.
        MissingExtraError: transformers is not installed.
    """
    transformers_model = _require_transformers_model(model)
    config = transformers_model.config
    name = type(model).__name__
    if config.model_type not in ARCHITECTURES:
        raise ModelError(
            f"{name} is of the family {config.model_type!r}, of which it is not known where its layers and heads are. "
            f"Students are cut from: {', '.join(ARCHITECTURES)}"
        )
    architecture = ARCHITECTURES[config.model_type]
    if name.removeprefix(architecture.class_prefix) not in architecture.heads:
        known = ", ".join(architecture.class_prefix + ending for ending in architecture.heads)
        raise ModelError(f"{name} has a head that is not known. Of {config.model_type}, students are cut from: {known}")
    for setting, why in architecture.refused.items():
        if getattr(config, setting, False):
            raise ModelError(f"{name} has {setting}: {why}. Students are cut from models without it")
    return architecture


def sizes_of(model: nn.Module) -> Sizes:
    """Layers, heads and widths of a model.

    Raises:
        ModelError: the model is none that a student can be cut from.
    """
    architecture, config = architecture_of(model), _require_transformers_model(model).config
    hidden, heads = config.hidden_size, config.num_attention_heads
    return Sizes(
        layers=config.num_hidden_layers,
        hidden=hidden,
        heads=heads,
        key_value_heads=getattr(config, "num_key_value_heads", None) or heads,
        head_size=getattr(config, "head_dim", None) or hidden // heads,
        feed_forward=getattr(config, architecture.feed_forward_key) or 4 * hidden,  # the rule of GPT-2
    )


def places_of(model: nn.Module) -> dict[str, Place]:
    """What the axes of every parameter stand for.

    Raises:
        ModelError: a parameter is not in the table, such as that of an adapter.
    """
    architecture = architecture_of(model)
    head = architecture.heads[type(model).__name__.removeprefix(architecture.class_prefix)]
    in_layer = re.compile(rf"{re.escape(architecture.layers)}\.(\d+)\.(.+)")
    places, unknown = {}, []
    for name in model.state_dict():
        short = name.removeprefix(f"{model.base_model_prefix}.")
        found = in_layer.fullmatch(short)
        table = architecture.layer if found else {**architecture.base, **head}
        axes = table.get(found[2] if found else short)
        if axes is None:
            unknown.append(name)
        else:
            places[name] = Place(axes, int(found[1]) if found else None)
    if unknown:
        raise ModelError(
            f"{type(model).__name__} has parameters that its architecture does not have: {', '.join(unknown[:5])}"
            f"{' and more' if len(unknown) > 5 else ''}. Merge adapters into the model before cutting it"
        )
    return places


def linear_layers(model: nn.Module, axis: Axis, *, end: Literal["input", "output"]) -> list[str]:
    """The names of the linear layers that have an axis as their input or output, from the first layer to the last."""
    found = []
    for name, (axes, _) in places_of(model).items():
        module = name.removesuffix(".weight")
        if name != module and len(axes) == 2:
            is_linear = isinstance(model.get_submodule(module), nn.Linear)  # weight [output, input]; others transposed
            output, into = axes if is_linear else reversed(axes)
            if axis == (into if end == "input" else output):
                found.append(module)
    return found


def norms_of(model: nn.Module) -> list[str]:
    """The names of the normalisation layers of the stream: in the base model, not in the head."""
    base = _require_transformers_model(model).base_model
    inside = "" if base is model else f"{model.base_model_prefix}."
    return [
        name.removesuffix(".weight")
        for name, (axes, _) in places_of(model).items()
        if name.startswith(inside) and name.endswith(".weight") and axes == ("hidden",)
    ]


def _require_transformers_model(model: nn.Module) -> PreTrainedModel:
    try:
        from transformers import PreTrainedModel as AnyModel
    except ImportError:
        raise MissingExtraError("transformers", extra="text", purpose="cutting a student from a teacher") from None
    if not isinstance(model, AnyModel) or not type(model).__module__.startswith("transformers.models."):
        raise ModelError(
            f"{type(model).__module__}.{type(model).__name__} is not a model of the transformers package; students are "
            "cut from those. Hand over the model itself, not a network that holds it"
        )
    return model
