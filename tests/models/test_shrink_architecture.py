"""The table of architectures, against the models themselves."""

import pytest
from torch import nn

from distil.core.errors import ModelError
from distil.models.shrink_architecture import (
    ARCHITECTURES,
    Sizes,
    architecture_of,
    linear_layers,
    norms_of,
    places_of,
    sizes_of,
)
from tests.models.tiny_transformers import CLASSES, DECODER, TOKENS, build, classifier

pytest.importorskip("transformers", reason="models of transformers are cut")


@pytest.mark.parametrize("family", ARCHITECTURES)
def test_the_sizes_of_a_model_are_read_from_its_configuration(family: str) -> None:
    key_value_heads = 3 if ARCHITECTURES[family].own_head_size else 6
    assert sizes_of(classifier(family)) == Sizes(4, 24, 6, key_value_heads, 4, 20)


def test_a_feed_forward_that_is_not_given_is_four_times_as_wide_in_gpt2() -> None:
    assert sizes_of(classifier("gpt2", n_inner=None)).feed_forward == 96


@pytest.mark.parametrize(("family", "name"), CLASSES)
def test_every_parameter_stands_in_the_table_with_the_widths_it_has(family: str, name: str) -> None:
    model = build(family, name)
    sizes = sizes_of(model)
    widths = {
        **{"hidden": sizes.hidden, "features": sizes.hidden, "neurons": sizes.feed_forward, "vocabulary": TOKENS},
        **{"heads": sizes.heads * sizes.head_size, "key-value-heads": sizes.key_value_heads * sizes.head_size},
        "query-key-value": 3 * sizes.heads * sizes.head_size,
    }
    places = places_of(model)
    assert set(places) == set(model.state_dict())
    assert {layer for _, layer in places.values()} == {None, 0, 1, 2, 3}
    for parameter, value in model.state_dict().items():
        axes = places[parameter].axes
        expected = tuple(value.shape[dim] if axis is None else widths[axis] for dim, axis in enumerate(axes))
        assert tuple(value.shape) == expected, parameter


@pytest.mark.parametrize(
    ("family", "attention", "feed_forward", "norms"),
    [
        (
            "bert",
            "bert.encoder.layer.1.attention.output.dense",
            "bert.encoder.layer.1.output.dense",
            ["bert.embeddings.LayerNorm", "bert.encoder.layer.0.attention.output.LayerNorm"],
        ),
        ("gpt2", "transformer.h.1.attn.c_proj", "transformer.h.1.mlp.c_proj", ["transformer.h.0.ln_1"]),
        (
            "llama",
            "model.layers.1.self_attn.o_proj",
            "model.layers.1.mlp.down_proj",
            ["model.layers.0.input_layernorm"],
        ),
    ],
)
def test_where_heads_and_neurons_are_read_follows_from_the_table(
    family: str, attention: str, feed_forward: str, norms: list[str]
) -> None:
    model = classifier(family)
    assert linear_layers(model, "heads", end="input")[1] == attention
    assert linear_layers(model, "neurons", end="input")[1] == feed_forward
    assert norms_of(model)[: len(norms)] == norms
    assert len(norms_of(model)) == 2 * 4 + 1  # two a layer, and one before or after them all


@pytest.mark.parametrize(
    ("name", "writer", "readers"),
    [
        ("BertForSequenceClassification", ["bert.pooler.dense"], ["classifier"]),
        ("BertForTokenClassification", [], []),
        ("RobertaForSequenceClassification", ["classifier.dense"], ["classifier.out_proj"]),
        ("DistilBertForSequenceClassification", ["pre_classifier"], ["classifier"]),
        ("BertModel", ["pooler.dense"], []),
    ],
)
def test_a_space_of_the_classifiers_own_is_told_from_the_stream(
    name: str, writer: list[str], readers: list[str]
) -> None:
    family = next(family for family, known in CLASSES if known == name)
    model = build(family, name)
    assert linear_layers(model, "features", end="output") == writer
    assert linear_layers(model, "features", end="input") == readers


def test_norms_of_a_head_are_not_of_the_stream() -> None:
    assert not [name for name in norms_of(build("bert", "BertForMaskedLM")) if not name.startswith("bert.")]
    assert len(norms_of(build("bert", "BertModel"))) == 9


def test_another_family_is_refused_with_the_names_of_those_that_are_known() -> None:
    import transformers

    config = transformers.AlbertConfig(
        **{"vocab_size": 9, "hidden_size": 8, "embedding_size": 8, "intermediate_size": 8, "num_attention_heads": 2}
    )
    with pytest.raises(ModelError, match=r"family 'albert'.*bert, roberta, xlm-roberta, distilbert, gpt2, llama"):
        architecture_of(transformers.AlbertModel(config))


def test_a_head_that_is_not_in_the_table_is_refused() -> None:
    with pytest.raises(ModelError, match=r"BertLMHeadModel has a head that is not known.*BertForTokenClassification"):
        architecture_of(build("bert", "BertLMHeadModel", is_decoder=True))


def test_a_network_that_is_no_model_of_transformers_is_refused() -> None:
    import transformers

    class Own(transformers.LlamaForCausalLM):
        """Would load as a plain LlamaForCausalLM, without what is its own."""

    for model in (nn.Linear(2, 2), Own(transformers.LlamaConfig(**DECODER))):
        with pytest.raises(ModelError, match="not a model of the transformers package"):
            architecture_of(model)


def test_settings_under_which_a_cut_would_be_another_model_are_refused() -> None:
    with pytest.raises(ModelError, match="scale_attn_by_inverse_layer_idx: its attention is scaled by the number"):
        architecture_of(classifier("gpt2", scale_attn_by_inverse_layer_idx=True))
    with pytest.raises(ModelError, match="add_cross_attention: it attends to a second input"):
        architecture_of(build("bert", "BertForMaskedLM", add_cross_attention=True, is_decoder=True))


def test_parameters_that_were_added_to_a_model_are_refused_and_not_dropped() -> None:
    model = classifier()
    model.bert.encoder.layer[2].adapter = nn.Linear(2, 2)
    with pytest.raises(ModelError, match=r"does not have: bert\.encoder\.layer\.2\.adapter\.weight.*Merge adapters"):
        places_of(model)
