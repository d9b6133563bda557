"""Terms on attention, bound to real networks: each gives what its formula gives on the captured values."""

from dataclasses import replace
from typing import Any

import pytest
import timm
import torch
from torch import nn

from distil.core.errors import CompatibilityError
from distil.losses.attention import (
    attention_kl,
    attention_map_mse,
    attention_scores,
    qkv_relation_kl,
    value_relation_kl,
)
from distil.models.builtin import ConvNet
from distil.models.describe import describe_model
from distil.models.tap import Outputs, Tap, Taps
from distil.models.tap_config import LayerPair
from distil.objective.attention import bind_attention
from distil.objective.attention_config import AttentionDistributions, AttentionMaps, QkvRelations
from distil.objective.term import Binding, BoundTerm, TermInput

IMAGES = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))
TERMS = [AttentionMaps(), AttentionMaps(scores=True), AttentionDistributions(), QkvRelations(relation_heads=6)]


def vit(*, width: int = 24, depth: int = 2, heads: int = 3, patch: int = 2, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    settings = {"img_size": 8, "patch_size": patch, "in_chans": 1, "num_classes": 10}
    sizes = {"embed_dim": width, "depth": depth, "num_heads": heads}
    return timm.create_model("vit_tiny_patch16_224", **settings, **sizes).eval()


class Logits(nn.Module):
    """A classifier of transformers, as a network that answers with logits."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.network(images).logits


def vit_of_transformers(*, seed: int = 0) -> nn.Module:
    library = pytest.importorskip("transformers")
    torch.manual_seed(seed)
    sizes = {"hidden_size": 36, "num_hidden_layers": 3, "num_attention_heads": 3, "intermediate_size": 32}
    config = library.ViTConfig(**sizes, image_size=8, patch_size=2, num_channels=1, num_labels=10)
    return Logits(library.ViTForImageClassification(config)).eval()


def bound(term: Any, student: nn.Module, teacher: nn.Module) -> BoundTerm:
    return bind_attention(term, Binding("term", describe_model(student, IMAGES), describe_model(teacher, IMAGES)))


def said(term: BoundTerm, student: nn.Module, teacher: nn.Module) -> TermInput:
    def observe(model: nn.Module, taps: tuple[Tap, ...]) -> Outputs:
        with Taps(model, taps) as opened:
            return opened.observe(model, IMAGES)

    ours, theirs = observe(student, term.student_taps), observe(teacher, term.teacher_taps)
    return TermInput(ours, theirs, torch.zeros(6, dtype=torch.int64), torch.arange(6))


def values(given: TermInput, student: Tap, teacher: Tap) -> tuple[torch.Tensor, torch.Tensor]:
    assert given.teacher is not None
    return given.student.taps[student], given.teacher.taps[teacher]


def test_maps_are_the_mean_over_pairs_of_layers_by_depth_up_to_the_last() -> None:
    student, teacher = vit(), vit(width=36, depth=4, seed=1)
    term = bound(AttentionMaps(), student, teacher)
    pairs = [
        (Tap("blocks.0.attn", "attention"), Tap("blocks.1.attn", "attention")),
        (Tap("blocks.1.attn", "attention"), Tap("blocks.3.attn", "attention")),
    ]
    assert list(zip(term.student_taps, term.teacher_taps, strict=True)) == pairs
    given = said(term, student, teacher)
    expected = torch.stack([attention_map_mse(*values(given, *pair)) for pair in pairs]).mean(dim=0)
    torch.testing.assert_close(term(given), expected)
    assert not list(term.parameters())


def test_maps_of_scores_are_those_of_the_products_of_queries_and_keys() -> None:
    student, teacher = vit(), vit(width=36, depth=4, seed=1)
    term = bound(AttentionMaps(scores=True), student, teacher)
    given = said(term, student, teacher)
    assert given.teacher is not None
    expected = []
    for ours, theirs in (("blocks.0.attn", "blocks.1.attn"), ("blocks.1.attn", "blocks.3.attn")):
        sides = ((given.student.taps, ours), (given.teacher.taps, theirs))
        scores = [attention_scores(taps[Tap(name, "queries")], taps[Tap(name, "keys")]) for taps, name in sides]
        expected.append(attention_map_mse(*scores))
    assert len(term.student_taps) == len(term.teacher_taps) == 4
    torch.testing.assert_close(term(given), torch.stack(expected).mean(dim=0))


def test_distributions_and_value_relations_of_the_last_layer_are_added() -> None:
    student, teacher = vit(), vit(width=36, depth=3, seed=1)
    term = bound(AttentionDistributions(), student, teacher)
    given = said(term, student, teacher)
    assert term.student_taps == (Tap("blocks.1.attn", "attention"), Tap("blocks.1.attn", "values"))
    assert term.teacher_taps == (Tap("blocks.2.attn", "attention"), Tap("blocks.2.attn", "values"))
    attention, vectors = (values(given, *taps) for taps in zip(term.student_taps, term.teacher_taps, strict=True))
    torch.testing.assert_close(term(given), attention_kl(*attention) + value_relation_kl(*vectors))


def test_relations_are_the_mean_over_queries_keys_and_values_whatever_the_heads() -> None:
    student, teacher = vit(heads=2), vit(width=36, depth=3, heads=3, seed=1)
    term = bound(QkvRelations(relation_heads=6), student, teacher)
    given = said(term, student, teacher)
    assert [tap.take for tap in term.student_taps] == ["queries", "keys", "values"]
    expected = [
        qkv_relation_kl(*values(given, *taps), relation_heads=6)
        for taps in zip(term.student_taps, term.teacher_taps, strict=True)
    ]
    torch.testing.assert_close(term(given), torch.stack(expected).mean(dim=0))


@pytest.mark.parametrize("config", [AttentionDistributions(), QkvRelations(relation_heads=6)])
def test_the_value_does_not_grow_with_the_number_of_pairs(config: Any) -> None:
    student, teacher = vit(), vit(seed=1)
    layer = {"student": "blocks.0.attn", "teacher": "blocks.1.attn"}
    once, twice = (
        bound(config.model_copy(update={"layers": (LayerPair.model_validate(layer),) * count}), student, teacher)
        for count in (1, 2)
    )
    given = said(once, student, teacher)
    torch.testing.assert_close(once(given), twice(given))


@pytest.mark.parametrize("config", TERMS)
def test_a_network_of_transformers_teaches_one_of_timm(config: Any) -> None:
    student, teacher = vit(), vit_of_transformers()
    term = bound(config, student, teacher)
    given = said(term, student, teacher)
    value = term(given)
    assert value.shape == (6,)
    assert bool((value > 0).all())
    (gradient,) = torch.autograd.grad(value.sum(), student.get_submodule("blocks.1.attn.qkv").weight)
    assert gradient.any()


@pytest.mark.parametrize("config", TERMS)
def test_1_a_student_that_is_its_teacher_has_value_zero(config: Any) -> None:
    for model in (vit(), vit_of_transformers()):
        term = bound(config, model, model)
        assert term(said(term, model, model)).abs().max().item() < 1e-6


@pytest.mark.parametrize("config", TERMS)
def test_23_a_network_without_attention_is_refused(config: Any) -> None:
    convnet = ConvNet(channels=1, widths=(4, 8), num_classes=10, dropout=0.0)
    with pytest.raises(
        CompatibilityError, match=r"term 'term': the student has no attention .* such as feature-cosine"
    ):
        bound(config, convnet, vit())
    with pytest.raises(CompatibilityError, match="the teacher has no attention that could be read; use a transformer"):
        bound(config, vit(), convnet)


@pytest.mark.parametrize("config", TERMS[:3])
def test_23_other_heads_are_refused_with_advice(config: Any) -> None:
    with pytest.raises(CompatibilityError, match=r"attn are of 2 heads and .* of 3, .* use qkv-relations"):
        bound(config, vit(heads=2), vit(heads=3))


@pytest.mark.parametrize("config", TERMS)
def test_23_other_tokens_are_refused_with_advice(config: Any) -> None:
    with pytest.raises(CompatibilityError, match=r"has 5 tokens and the teacher's blocks.\d.attn 17; .* patches"):
        bound(config, vit(patch=4), vit())


def test_23_relation_heads_that_do_not_divide_are_refused_with_those_that_do() -> None:
    with pytest.raises(
        CompatibilityError, match=r"relation_heads is 48, .* \(24 and 36\); all are divided by 1, 2, 3, 4, 6 and 12"
    ):
        bound(QkvRelations(), vit(), vit(width=36))


def test_a_written_layer_is_an_attention_layer_and_its_attention_is_meant() -> None:
    def pair(at: Any) -> tuple[LayerPair, ...]:
        return (LayerPair.model_validate({"student": at, "teacher": "blocks.0.attn"}),)

    with pytest.raises(CompatibilityError, match=r"layer blocks.0 \(Block\) has no attention that could be captured"):
        bound(AttentionMaps(layers=pair("blocks.0")), vit(), vit())
    with pytest.raises(CompatibilityError, match="it compares attention, and layers take 'output' of"):
        bound(AttentionMaps(layers=pair({"at": "blocks.0.attn", "take": "output"})), vit(), vit())
    term = bound(QkvRelations(layers=pair(0.0), relation_heads=3), vit(), vit())
    assert term.student_taps[0].name == "blocks.0.attn"


def disturbed(outputs: Outputs, mask: torch.Tensor, by: float) -> Outputs:
    """Other values at tokens that are not real: as queries and as keys."""
    taps = {}
    for tap, value in outputs.taps.items():
        beyond = (~mask)[:, None, :, None].expand_as(value)
        if tap.take == "attention":
            beyond = beyond | (~mask)[:, None, None, :]
        taps[tap] = torch.where(beyond, by * (value + 1), value)
    return Outputs(outputs.logits, taps)


@pytest.mark.parametrize("config", TERMS)
def test_11_the_mask_reaches_the_formula_and_padding_changes_neither_value_nor_gradient(config: Any) -> None:
    student, teacher = vit(), vit(width=36, depth=4, seed=1)
    term = bound(config, student, teacher)
    whole = said(term, student, teacher)
    assert whole.teacher is not None
    mask = torch.arange(17) < torch.tensor([17, 9, 3, 1, 16, 5])[:, None]
    found = []
    for by in (1.0, 0.3, 7.0):
        ours = disturbed(whole.student, mask, by)
        leaves = {tap: value.detach().requires_grad_() for tap, value in ours.taps.items()}
        heard = disturbed(whole.teacher, mask, by)
        value = term(replace(whole, student=Outputs(ours.logits, leaves), teacher=heard, mask=mask))
        gradients = torch.autograd.grad(value.sum(), list(leaves.values()))
        found.append((value.detach(), gradients))
        for tap, gradient in zip(leaves, gradients, strict=True):
            keys = tap.take == "attention"
            beyond = (~mask)[:, None, :, None] | ((~mask)[:, None, None, :] if keys else torch.tensor(False))
            assert float(gradient.masked_fill(~beyond, 0.0).abs().max()) == 0
    for value, gradients in found[1:]:
        torch.testing.assert_close(value, found[0][0])
        for gradient, expected in zip(gradients, found[0][1], strict=True):
            torch.testing.assert_close(gradient, expected)
    unmasked = term(replace(whole, mask=None))
    assert not torch.allclose(unmasked[1:], found[0][0][1:], rtol=1e-3)
    torch.testing.assert_close(found[0][0][0], unmasked[0])  # of the first all tokens are real
