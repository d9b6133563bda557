"""Which parts stay, and that a model whose other parts do nothing answers as before without them.

A head, a neuron or a feature does nothing where the layer that reads it has zeros for it: then the cut is exact. A
channel of the stream has one more reader, the normalisation, which divides by a mean over all channels. Without dead
channels that mean is another. So a cut of channels is exact where the removed ones have the statistics of the kept
ones, which copies of them have, and is not exact for channels that are zero.
"""

import doctest
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from distil.core.errors import CompatibilityError, ModelError
from distil.models import shrink_width
from distil.models.importance import Importance, measure_importance
from distil.models.shrink import shrink
from distil.models.shrink_architecture import Sizes, places_of
from distil.models.shrink_config import ShrinkConfig
from distil.models.shrink_width import Kept, choose_heads, choose_kept, cut_weights, largest
from tests.models.tiny_transformers import CLASSES, CLASSIFIERS, answer, build, classifier, texts

pytest.importorskip("transformers", reason="models of transformers are cut")

KEPT_CHANNELS = [1, 2, 3, 6, 8, 11, 12, 15, 17, 20, 22, 23]
COPIES = [channel for channel in range(24) if channel not in KEPT_CHANNELS]
KEPT_FEATURES = [0, 1, 4, 5, 7, 9, 10, 13, 17, 18, 21, 22]
KEPT_NEURONS = [0, 3, 4, 9, 13, 14, 19]
KEPT_HEADS = [2, 3, 5]  # where every head has its keys and values
KEPT_GROUPED_HEADS = [2, 3, 4, 5]  # where two heads share them: the second and the third pair


def ones_at(length: int, places: list[int]) -> Tensor:
    return torch.zeros(length).index_fill(0, torch.tensor(places), 1.0)


def by_hand(heads: list[int]) -> Importance:
    return Importance(
        hidden=ones_at(24, KEPT_CHANNELS),
        heads=ones_at(6, heads).expand(4, 6),
        neurons=ones_at(20, KEPT_NEURONS).expand(4, 20),
        features=ones_at(24, KEPT_FEATURES),
        num_examples=1,
    )


def read_axis(model: nn.Module, name: str) -> int | None:
    """Which axis of a weight is its layer's input; None: it has none. Of GPT-2, linear layers are transposed."""
    module = model.get_submodule(name.rpartition(".")[0])
    if isinstance(module, nn.Embedding) or model.get_parameter(name).ndim != 2:
        return None
    return 1 if isinstance(module, nn.Linear) else 0


@torch.no_grad()
def silence(model: nn.Module, axis: str, places: list[int]) -> None:
    """Zeros in every linear layer that reads these places of an axis."""
    for name, (axes, _) in places_of(model).items():
        reads = read_axis(model, name)
        if reads is not None and axes[reads] == axis:
            model.get_parameter(name).index_fill_(reads, torch.tensor(places), 0.0)


@torch.no_grad()
def copy_channels(model: nn.Module) -> None:
    """The removed channels of the stream become copies of the kept ones, and nothing but norms reads them."""
    for name, (axes, _) in places_of(model).items():
        for dim, axis in enumerate(axes):
            if axis == "hidden" and dim != read_axis(model, name):
                value = model.get_parameter(name)
                value.index_copy_(dim, torch.tensor(COPIES), value.index_select(dim, torch.tensor(KEPT_CHANNELS)))
    silence(model, "hidden", COPIES)


def others(length: int, places: list[int]) -> list[int]:
    return [place for place in range(length) if place not in places]


def features_of(heads: list[int]) -> list[int]:
    return [4 * head + feature for head in heads for feature in range(4)]


UNTIED = [(family, name) for family, name in CLASSES if not name.endswith(("Model", "ForPreTraining"))]


@pytest.mark.parametrize(("family", "name"), UNTIED)
def test_without_neurons_that_nothing_reads_a_model_answers_as_before(family: str, name: str) -> None:
    model = build(family, name)
    silence(model, "neurons", others(20, KEPT_NEURONS))
    student = shrink(model, ShrinkConfig(feed_forward=7), importance=by_hand(KEPT_HEADS))
    torch.testing.assert_close(answer(student, texts(model)), answer(model, texts(model)), rtol=1e-5, atol=1e-5)
    assert sum(p.numel() for p in student.parameters()) < sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(("family", "name"), UNTIED)
def test_without_heads_and_copied_channels_that_nothing_reads_a_model_answers_as_before(family: str, name: str) -> None:
    model = build(family, name, tie_word_embeddings=False)  # a tied output would read the copies, too
    grouped = hasattr(model.config, "num_key_value_heads")
    heads = KEPT_GROUPED_HEADS if grouped else KEPT_HEADS
    copy_channels(model)
    silence(model, "heads", features_of(others(6, heads)))
    silence(model, "neurons", others(20, KEPT_NEURONS))
    silence(model, "features", others(24, KEPT_FEATURES))
    config = ShrinkConfig(hidden=12, heads=len(heads), feed_forward=7)
    student = shrink(model, config, importance=by_hand(heads))
    torch.testing.assert_close(answer(student, texts(model)), answer(model, texts(model)), rtol=1e-5, atol=1e-5)
    assert student.config.hidden_size == 12
    assert student.config.num_attention_heads == len(heads)


@pytest.mark.parametrize("family", ["bert", "gpt2", "llama"])
def test_what_was_measured_finds_the_neurons_that_are_dead(family: str) -> None:
    """Dead where they are written, and so silent for the measure: no importance by hand."""
    model = classifier(family)
    dead = torch.tensor(others(20, KEPT_NEURONS))
    with torch.no_grad():
        for name, (axes, _) in places_of(model).items():
            for dim, axis in enumerate(axes):
                if axis == "neurons" and dim != read_axis(model, name):
                    model.get_parameter(name).index_fill_(dim, dead, 0.0)
    student = shrink(model, ShrinkConfig(feed_forward=7), importance=measure_importance(model, [texts(model)]))
    torch.testing.assert_close(answer(student, texts(model)), answer(model, texts(model)), rtol=1e-5, atol=1e-5)
    too_few = shrink(model, ShrinkConfig(feed_forward=6), importance=measure_importance(model, [texts(model)]))
    assert not torch.allclose(answer(too_few, texts(model)), answer(model, texts(model)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("family", "exact_after_scaling"), [("llama", True), ("bert", False)])
def test_channels_that_are_zero_are_counted_by_norms_so_a_cut_changes_the_answer(
    family: str, exact_after_scaling: bool
) -> None:
    """With half of the channels zero, the mean of squares is half that of the others: the root of 2 in a norm.

    For RMSNorm that is the whole difference. LayerNorm subtracts the mean first, and zeros change that as well.
    """
    eps = "rms_norm_eps" if family == "llama" else "layer_norm_eps"
    model = classifier(family, **{eps: 1e-12})
    with torch.no_grad():
        for name, (axes, _) in places_of(model).items():
            for dim, axis in enumerate(axes):
                if axis == "hidden":
                    model.get_parameter(name).index_fill_(dim, torch.tensor(COPIES), 0.0)
    silence(model, "heads", features_of(others(6, KEPT_HEADS)))
    silence(model, "features", others(24, KEPT_FEATURES))
    config = ShrinkConfig(hidden=12, heads=3 if family == "bert" else None)
    student = shrink(model, config, importance=by_hand(KEPT_HEADS))
    expected = answer(model, texts(model))
    assert not torch.allclose(answer(student, texts(model)), expected, rtol=1e-2, atol=1e-2)
    with torch.no_grad():
        for name, parameter in student.named_parameters():
            if "norm" in name.lower() and name.endswith("weight"):
                parameter.mul_(2**0.5)
    assert torch.allclose(answer(student, texts(model)), expected, rtol=1e-4, atol=1e-4) == exact_after_scaling


def sizes(heads: int, key_value_heads: int) -> Sizes:
    return Sizes(1, 24, heads, key_value_heads, 4, 20)


@pytest.mark.parametrize(
    ("heads", "key_value_heads", "queries", "groups"),
    [
        (6, 3, [0, 1, 2, 3, 4, 5], [0, 1, 2]),
        (4, 2, [0, 1, 4, 5], [0, 2]),  # the groups have 9, 7 and 8 in sum
        (2, 1, [0, 1], [0]),
        (3, 3, [1, 3, 4], [0, 1, 2]),  # the best of each group
        (2, 2, [1, 4], [0, 2]),
        (1, 1, [1], [0]),
    ],
)
def test_heads_of_a_group_stay_with_their_keys_and_values(
    heads: int, key_value_heads: int, queries: list[int], groups: list[int]
) -> None:
    importance = torch.tensor([[1.0, 8.0, 0.0, 7.0, 5.0, 3.0]])
    chosen = choose_heads(importance, before=sizes(6, 3), after=sizes(heads, key_value_heads))
    assert [each.tolist() for each in chosen] == [[queries], [groups]]


def test_heads_without_groups_are_chosen_one_by_one_in_each_layer() -> None:
    importance = torch.tensor([[1.0, 8.0, 0.0, 7.0], [3.0, 1.0, 2.0, 0.0]])
    queries, groups = choose_heads(importance, before=sizes(4, 4), after=sizes(2, 2))
    assert queries.tolist() == groups.tolist() == [[1, 3], [0, 2]]


def test_of_grouped_heads_keys_and_values_are_cut_in_step_with_their_queries() -> None:
    """Two queries a group, six heads; the middle group goes, and of the others the second query of each."""
    model = build("llama", "LlamaModel")
    importance = by_hand(KEPT_HEADS)
    heads = torch.tensor([[9.0, 1.0, 0.0, 0.0, 8.0, 2.0]]).expand(4, 6)
    importance = Importance(importance.hidden, heads, importance.neurons, None, 1)
    student = shrink(model, ShrinkConfig(heads=2, key_value_heads=2), importance=importance)
    old, new = model.layers[1].self_attn, student.layers[1].self_attn
    assert torch.equal(new.q_proj.weight, old.q_proj.weight[features_of([0, 4])])
    assert torch.equal(new.k_proj.weight, old.k_proj.weight[features_of([0, 2])])
    assert torch.equal(new.v_proj.weight, old.v_proj.weight[features_of([0, 2])])
    assert torch.equal(new.o_proj.weight, old.o_proj.weight[:, features_of([0, 4])])


def test_queries_keys_and_values_in_one_layer_are_cut_each() -> None:
    model = build("gpt2", "GPT2Model")
    student = shrink(model, ShrinkConfig(hidden=12, heads=3), importance=by_hand(KEPT_HEADS))
    queries, keys, values = model.h[2].attn.c_attn.weight[KEPT_CHANNELS].split(24, dim=1)
    columns = features_of(KEPT_HEADS)
    expected = torch.cat([queries[:, columns], keys[:, columns], values[:, columns]], dim=1)
    assert torch.equal(student.h[2].attn.c_attn.weight, expected)


def test_a_width_that_becomes_smaller_needs_importance_and_a_depth_does_not() -> None:
    model = classifier()
    with pytest.raises(ModelError, match=r"give importance=measure_importance\(model, batches\)"):
        shrink(model, ShrinkConfig(layers=2, feed_forward=10))
    assert shrink(model, ShrinkConfig(layers=2, feed_forward=20)).config.num_hidden_layers == 2


@pytest.mark.parametrize(("field", "shape"), [("hidden", (23,)), ("heads", (3, 6)), ("neurons", (4, 24))])
def test_importance_of_another_model_is_refused(field: str, shape: tuple[int, ...]) -> None:
    values: dict[str, Any] = {**vars(by_hand(KEPT_HEADS)), field: torch.ones(shape)}
    if field == "heads":
        values["neurons"] = torch.ones(3, 20)
    if field == "hidden":
        values["features"] = None
    with pytest.raises(CompatibilityError, match=f"the importance of {field} has the shape .* another model"):
        shrink(classifier(), ShrinkConfig(feed_forward=10), importance=Importance(**values))


def test_importance_without_features_is_refused_where_a_classifier_has_some() -> None:
    """Measured on the teacher without its head, which does not know what the head reads."""
    importance = Importance(**{**vars(by_hand(KEPT_HEADS)), "features": None})
    with pytest.raises(CompatibilityError, match="was not measured on a BertForSequenceClassification: no features"):
        shrink(classifier(), ShrinkConfig(hidden=12), importance=importance)
    student = shrink(build("bert", "BertForTokenClassification"), ShrinkConfig(hidden=12), importance=importance)
    assert student.classifier.in_features == 12


def test_neurons_of_a_dropped_layer_do_not_decide_for_a_kept_one() -> None:
    model = classifier()
    importance = by_hand(KEPT_HEADS)
    neurons = torch.stack([ones_at(20, [layer]) for layer in range(4)])
    importance = Importance(importance.hidden, importance.heads, neurons, importance.features, 1)
    student = shrink(model, ShrinkConfig(keep=(1, 3), feed_forward=1), importance=importance)
    for new, old in enumerate((1, 3)):
        expected = model.bert.encoder.layer[old].intermediate.dense.weight[[old]]
        assert torch.equal(student.bert.encoder.layer[new].intermediate.dense.weight, expected)


def test_of_equal_values_the_first_stay_and_the_order_is_kept() -> None:
    assert largest(torch.tensor([[0.0, 3.0, 3.0, 3.0], [2.0, 2.0, 9.0, 2.0]]), 2).tolist() == [[1, 2], [0, 2]]


def test_nothing_is_chosen_where_nothing_becomes_smaller() -> None:
    model = classifier()
    kept = choose_kept(model, (0, 2), Sizes(2, 24, 6, 6, 4, 20), None)
    assert kept.everywhere == {}
    assert kept.by_layer == {}
    assert kept.layers == (0, 2)


@pytest.mark.parametrize(("family", "name"), CLASSIFIERS)
def test_what_is_cut_is_a_copy(family: str, name: str) -> None:
    model = build(family, name)
    weights = cut_weights(model, Kept((0, 1, 2, 3)))
    shared = {value.data_ptr() for value in model.state_dict().values()}
    assert not shared & {value.data_ptr() for value in weights.values()}
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in weights.items())


def test_the_examples_in_the_docstrings_are_true() -> None:
    results = doctest.testmod(shrink_width)
    assert results.attempted >= 4
    assert results.failed == 0
