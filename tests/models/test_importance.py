"""Importance against the same numbers computed one text at a time, by calling the model's parts by hand."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from distil.core.errors import DataError, ModelError, NumericError
from distil.models.importance import Importance, measure_importance
from tests.models.tiny_transformers import CLASSIFIERS, answer, build, classifier, texts

pytest.importorskip("transformers", reason="models of transformers are measured")


def assert_same(one: Importance, other: Importance) -> None:
    assert one.num_examples == other.num_examples
    for name in ("hidden", "heads", "neurons", "features"):
        torch.testing.assert_close(getattr(one, name), getattr(other, name), rtol=1e-4, atol=1e-6)


def single_texts(batch: Mapping[str, Tensor]) -> list[Tensor]:
    """The token ids of each text without padding, as batches of one."""
    return [ids[mask.bool()].unsqueeze(0) for ids, mask in zip(*batch.values(), strict=True)]


def root_mean_square(examples: list[Tensor]) -> Tensor:
    return torch.stack(examples).square().mean(dim=0).sqrt()


@torch.no_grad()
def test_the_numbers_for_bert_are_those_of_the_formula() -> None:
    model = classifier("bert", num_hidden_layers=1)
    layer = model.bert.encoder.layer[0]
    norms: list[list[Tensor]] = [[], [], []]
    heads, neurons, features = [], [], []
    for ids in single_texts(texts(model)):
        embedded = model.bert.embeddings(ids)
        mixed = layer.attention.self(embedded)[0]
        attended = layer.attention.output(mixed, embedded)
        activated = layer.intermediate(attended)
        ended = layer.output(activated, attended)
        for seen, value in zip(norms, (embedded, attended, ended), strict=True):
            seen.append(value[0].abs().mean(dim=0))
        heads.append(mixed[0].view(-1, 6, 4).norm(dim=-1).mean(dim=0))
        neurons.append(activated[0].abs().mean(dim=0))
        features.append(torch.tanh(model.bert.pooler.dense(ended[0, 0])).abs())
    expected = Importance(
        hidden=sum((root_mean_square(seen) for seen in norms), torch.zeros(24)),
        heads=root_mean_square(heads).unsqueeze(0),
        neurons=root_mean_square(neurons).unsqueeze(0),
        features=root_mean_square(features),
        num_examples=3,
    )
    assert_same(measure_importance(model, [texts(model)]), expected)


@torch.no_grad()
def test_neurons_behind_a_gate_are_what_the_second_layer_reads() -> None:
    model = build("llama", "LlamaForCausalLM", num_hidden_layers=1)
    layer = model.model.layers[0]
    neurons, normed = [], []
    for ids in single_texts(texts(model)):
        hidden = model.model.embed_tokens(ids)
        first = layer.input_layernorm(hidden)
        rotation = model.model.rotary_emb(hidden, position_ids=torch.arange(ids.shape[1]).unsqueeze(0))
        hidden = hidden + layer.self_attn(first, position_embeddings=rotation)[0]
        second = layer.post_attention_layernorm(hidden)
        gated = F.silu(layer.mlp.gate_proj(second)) * layer.mlp.up_proj(second)
        last = model.model.norm(hidden + layer.mlp.down_proj(gated))
        neurons.append(gated[0].abs().mean(dim=0))
        normed.append(torch.stack([each[0].abs().mean(dim=0) for each in (first, second, last)]))
    importance = measure_importance(model, [texts(model)])
    torch.testing.assert_close(importance.neurons[0], root_mean_square(neurons), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(importance.hidden, root_mean_square(normed).sum(dim=0), rtol=1e-4, atol=1e-6)
    assert importance.features is None
    assert importance.heads.shape == (1, 6)  # of queries, also where they share keys and values


@pytest.mark.parametrize(("family", "name"), CLASSIFIERS)
def test_11_padding_and_a_row_of_nothing_but_padding_change_nothing(family: str, name: str) -> None:
    model = build(family, name)
    batch = texts(model)
    wider = {key: F.pad(value, (0, 4)) for key, value in batch.items()}
    wider["input_ids"][:, 7:] = model.config.pad_token_id
    assert_same(measure_importance(model, [wider]), measure_importance(model, [batch]))
    with_empty = {key: torch.cat([value, value[:1]]) for key, value in batch.items()}
    with_empty["attention_mask"][-1] = 0
    assert_same(measure_importance(model, [with_empty]), measure_importance(model, [batch]))


def test_11_padding_would_count_without_its_mask() -> None:
    model = classifier()
    batch = texts(model)
    everything = {**batch, "attention_mask": torch.ones_like(batch["attention_mask"])}
    assert not torch.allclose(measure_importance(model, [everything]).heads, measure_importance(model, [batch]).heads)


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_13_how_examples_are_divided_into_batches_makes_no_difference(family: str) -> None:
    model = classifier(family)
    batch = texts(model)
    parts = [{name: value[rows] for name, value in batch.items()} for rows in (slice(0, 1), slice(1, 3))]
    assert_same(measure_importance(model, iter(parts)), measure_importance(model, [batch]))


def test_a_dead_head_a_dead_neuron_and_a_dead_feature_have_no_importance() -> None:
    model = classifier()
    layer = model.bert.encoder.layer[1]
    with torch.no_grad():
        for parameter in layer.attention.self.value.parameters():
            parameter[4:8] = 0  # head 1
        for parameter in layer.intermediate.dense.parameters():
            parameter[7] = 0
        for parameter in model.bert.pooler.dense.parameters():
            parameter[3] = 0
    importance = measure_importance(model, [texts(model)])
    assert importance.features is not None
    assert (importance.heads == 0).nonzero().tolist() == [[1, 1]]
    assert (importance.neurons == 0).nonzero().tolist() == [[1, 7]]
    assert (importance.features == 0).nonzero().tolist() == [[3]]


def test_a_feature_that_a_relu_never_lets_through_has_no_importance() -> None:
    model = classifier("distilbert")
    with torch.no_grad():
        model.pre_classifier.bias[5] = -1000.0
    importance = measure_importance(model, [texts(model)])
    assert importance.features is not None
    assert importance.features[5] == 0


def test_a_model_without_classifier_is_measured_where_its_pooler_writes() -> None:
    model = build("bert", "BertModel", num_hidden_layers=1)
    with torch.no_grad():
        first = [model(input_ids=ids).last_hidden_state[0, 0] for ids in single_texts(texts(model))]
        expected = root_mean_square([model.pooler.dense(each).abs() for each in first])
    importance = measure_importance(model, [texts(model)])
    assert importance.features is not None
    torch.testing.assert_close(importance.features, expected, rtol=1e-4, atol=1e-6)


def test_the_model_is_left_as_it_was() -> None:
    model = classifier()
    before, said = {name: value.clone() for name, value in model.state_dict().items()}, answer(model, texts(model))
    measure_importance(model, [texts(model)])
    with pytest.raises(DataError):
        measure_importance(model, [{"input_ids": torch.ones(1, 2, dtype=torch.long)}])
    assert not [1 for module in model.modules() if module._forward_hooks or module._forward_pre_hooks]
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(answer(model, texts(model)), said)


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        ([], "no examples"),
        ([{"input_ids": torch.ones(1, 2, dtype=torch.long)}], "a batch has input_ids and no attention_mask"),
        ([{"input_ids": torch.ones(1, 2).long(), "attention_mask": torch.zeros(1, 2).long()}], "no examples"),
    ],
    ids=["no batch", "no mask", "padding alone"],
)
def test_batches_that_cannot_be_measured_are_refused(batches: list[Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        measure_importance(classifier(), batches)


def test_15_a_model_with_dropout_on_is_refused() -> None:
    model = classifier()
    model.bert.encoder.layer[2].train()
    with pytest.raises(ModelError, match=r"training mode, where dropout is on; call its eval\(\) first"):
        measure_importance(model, [texts(model)])


def test_activations_that_are_not_finite_are_an_error() -> None:
    model = classifier()
    with torch.no_grad():
        model.bert.encoder.layer[2].intermediate.dense.bias[0] = torch.inf
    with pytest.raises(NumericError, match=r"not finite at .*layer\.2"):
        measure_importance(model, [texts(model)])
