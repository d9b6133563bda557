import doctest
import gc
import math
import weakref
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pytest
import torch
from jaxtyping import TypeCheckError
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from distil.core.errors import CompatibilityError
from distil.losses import memory_flat
from distil.losses.divergence import generalised_jensen_shannon, reverse_kl, skew_kl, total_variation
from distil.losses.logit import label_cross_entropy, logit_mse, soft_target_kl
from distil.losses.memory_flat import FlatTerm, TeacherStates, memory_flat_loss, memory_flat_values
from distil.losses.output_head import OutputHead
from distil.losses.smoothing import smoothed_targets, target_cross_entropy
from distil.losses.sparse import LargestClasses, draw_samples, largest_classes, sampled_kl, top_k_kl

DIVERGENCES: dict[str, Callable[..., Tensor]] = {
    "forward": soft_target_kl,
    "reverse": reverse_kl,
    "Jensen-Shannon": partial(generalised_jensen_shannon, teacher_share=0.3),
    "skew forward": partial(skew_kl, skew=0.2, direction="forward"),
    "skew reverse": partial(skew_kl, skew=0.2, direction="reverse"),
    "total variation": total_variation,
}
TEMPERATURES = (0.5, 1.0, 4.0, 20.0)
TOKENS, WIDTH, TEACHER_WIDTH, IDS, ROWS = 11, 6, 5, 9, 12


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def randint(high: int, *shape: int, seed: int = 0) -> Tensor:
    return torch.randint(high, shape, generator=torch.Generator().manual_seed(seed))


@dataclass(frozen=True)
class Variant:
    """What stands around the product of matrices, on both sides."""

    bias: bool = False
    scale: float = 1.0
    softcap: float | None = None
    padded: bool = False
    shared: bool = False


VARIANTS = {
    "plain": Variant(),
    "bias": Variant(bias=True),
    "scale": Variant(scale=0.3),
    "softcap": Variant(softcap=2.0),
    "padded": Variant(padded=True),
    "shared": Variant(shared=True),
    "all": Variant(bias=True, scale=0.7, softcap=3.0, padded=True, shared=True),
}


def dense_logits(hidden: Tensor, weight: Tensor, bias: Tensor | None, variant: Variant) -> Tensor:
    """Written down once more, without OutputHead: what the flat loss must agree with."""
    z = hidden @ weight.T
    if bias is not None:
        z = z + bias
    z = variant.scale * z
    if variant.softcap is not None:
        z = variant.softcap * torch.tanh(z / variant.softcap)
    return z[..., :IDS] if variant.padded else z


class Models:
    """Hidden states and heads of a student and a teacher, as leaves."""

    def __init__(self, variant: Variant, *, dtype: torch.dtype = torch.float64) -> None:
        self.variant = variant
        num_rows = ROWS if variant.padded else IDS
        self.hidden = randn(TOKENS, WIDTH, seed=1).to(dtype).requires_grad_()
        self.weight = randn(num_rows, WIDTH, seed=2).to(dtype).requires_grad_()
        self.bias = randn(num_rows, seed=3).to(dtype).requires_grad_() if variant.bias else None
        self.teacher_hidden = randn(TOKENS, TEACHER_WIDTH, seed=4).to(dtype).requires_grad_()
        self.teacher_weight = randn(num_rows + 2, TEACHER_WIDTH, seed=5).to(dtype).requires_grad_()
        self.teacher_bias = randn(num_rows + 2, seed=6).to(dtype).requires_grad_() if variant.bias else None
        self.labels = randint(IDS, TOKENS, seed=7)
        self.ours = torch.tensor([7, 0, 3, 4, 1]) if variant.shared else torch.arange(IDS)
        self.theirs = torch.tensor([2, 8, 0, 5, 6]) if variant.shared else torch.arange(IDS)

    def student_head(self) -> OutputHead:
        return self._head(self.weight, self.bias, self.ours)

    def teacher(self) -> TeacherStates:
        return TeacherStates(self.teacher_hidden, self._head(self.teacher_weight, self.teacher_bias, self.theirs))

    def _head(self, weight: Tensor, bias: Tensor | None, ids: Tensor) -> OutputHead:
        variant = self.variant
        num_ids = None if len(weight) == IDS else IDS
        shared = ids if variant.shared else None
        return OutputHead(weight, bias, variant.scale, variant.softcap, num_ids, shared)

    def dense(self) -> tuple[Tensor, Tensor, Tensor]:
        """Student logits of all ids and of the shared ones, and the teacher's of the shared ones."""
        full = dense_logits(self.hidden, self.weight, self.bias, self.variant)
        teacher = dense_logits(self.teacher_hidden, self.teacher_weight, self.teacher_bias, self.variant)
        return full, full[:, self.ours], teacher[:, self.theirs]

    def gradients(self, total: Tensor) -> list[Tensor]:
        """Of all that the student trains; the graph stays."""
        leaves = [each for each in (self.hidden, self.weight, self.bias) if each is not None]
        return list(torch.autograd.grad(total, leaves, retain_graph=True))

    def terms(self, divergence: Callable[..., Tensor], temperature: float, smoothing: float) -> dict[str, FlatTerm]:
        return {
            "soft": FlatTerm(partial(divergence, temperature=temperature), self.teacher(), 0.7),
            "true": FlatTerm(partial(label_cross_entropy, smoothing=smoothing), self.labels, 0.4),
        }


@pytest.mark.parametrize("chunk_tokens", [1, 4, 11, None])
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", DIVERGENCES)
def test_09_value_and_every_gradient_are_those_of_the_dense_loss(
    name: str, variant: str, chunk_tokens: int | None
) -> None:
    """With mask, weights of tokens, smoothing and temperature at once; 4 does not divide the tokens."""
    divergence, temperature = DIVERGENCES[name], 2.5
    models = Models(VARIANTS[variant])
    mask, weights = torch.arange(TOKENS) % 3 != 1, randn(TOKENS, seed=8).abs()
    full, ours, theirs = models.dense()
    soft = divergence(ours, theirs.detach(), temperature=temperature)
    true = label_cross_entropy(full, models.labels, smoothing=0.1)
    counted = weights * mask
    expected = (counted * (0.7 * soft + 0.4 * true)).sum() / 7
    terms = models.terms(divergence, temperature, 0.1)
    options: dict[str, Any] = {"terms": terms, "mask": mask, "chunk_tokens": chunk_tokens}

    summed = memory_flat_loss(models.hidden, models.student_head(), token_weights=weights, count=7, **options)
    torch.testing.assert_close(summed.total, expected, atol=1e-9, rtol=0)
    torch.testing.assert_close(summed.parts["soft"], (counted * soft).sum().detach() / 7, atol=1e-9, rtol=0)
    torch.testing.assert_close(summed.parts["true"], (counted * true).sum().detach() / 7, atol=1e-9, rtol=0)
    each = memory_flat_values(models.hidden, models.student_head(), **options)
    torch.testing.assert_close(each.total, mask * (0.7 * soft + 0.4 * true), atol=1e-9, rtol=0)
    torch.testing.assert_close(each.parts["soft"], (mask * soft).detach(), atol=1e-9, rtol=0)

    dense = models.gradients(expected)
    torch.testing.assert_close(models.gradients(summed.total), dense, atol=1e-9, rtol=0)
    torch.testing.assert_close(models.gradients((counted * each.total).sum() / 7), dense, atol=1e-9, rtol=0)
    assert all(bool(gradient.abs().sum() > 0) for gradient in dense)


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("name", DIVERGENCES)
def test_09_each_temperature_without_mask_weights_and_smoothing(name: str, temperature: float) -> None:
    models = Models(Variant())
    full, ours, theirs = models.dense()
    soft = DIVERGENCES[name](ours, theirs.detach(), temperature=temperature)
    expected = (0.7 * soft + 0.4 * label_cross_entropy(full, models.labels)).sum()
    terms = models.terms(DIVERGENCES[name], temperature, 0.0)
    found = memory_flat_loss(models.hidden, models.student_head(), terms=terms, chunk_tokens=3).total
    torch.testing.assert_close(found, expected, atol=1e-9, rtol=0)
    torch.testing.assert_close(models.gradients(found), models.gradients(expected), atol=1e-9, rtol=0)


@pytest.mark.parametrize("name", DIVERGENCES)
def test_04_the_teacher_gets_no_gradient(name: str) -> None:
    models = Models(VARIANTS["all"])
    options: dict[str, Any] = {"terms": models.terms(DIVERGENCES[name], 2.0, 0.0)}
    memory_flat_loss(models.hidden, models.student_head(), **options).total.backward()
    memory_flat_values(models.hidden, models.student_head(), **options).total.sum().backward()
    assert models.hidden.grad is not None
    assert models.teacher_hidden.grad is models.teacher_weight.grad is None
    assert models.teacher_bias is not None
    assert models.teacher_bias.grad is None


@pytest.mark.parametrize("function", [memory_flat_loss, memory_flat_values])
@pytest.mark.parametrize("variant", ["plain", "all"])
def test_09_gradcheck(function: Callable[..., Any], variant: str) -> None:
    models = Models(VARIANTS[variant])
    teacher, labels = models.teacher(), models.labels

    def total(hidden: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        head = replace(models.student_head(), weight=weight, bias=bias)
        terms = {
            "soft": FlatTerm(partial(soft_target_kl, temperature=2.0), teacher, 0.7),
            "true": FlatTerm(label_cross_entropy, labels, 0.4),
        }
        return function(hidden, head, terms=terms, mask=torch.arange(TOKENS) > 2, chunk_tokens=3).total

    given = [each for each in (models.hidden, models.weight, models.bias) if each is not None]
    assert torch.autograd.gradcheck(total, given)


@pytest.mark.parametrize("function", [memory_flat_loss, memory_flat_values])
def test_09_tied_embeddings_get_both_gradients(function: Callable[..., Any]) -> None:
    table, mix, tokens = randn(IDS, WIDTH).requires_grad_(), randn(WIDTH, WIDTH, seed=1), randint(IDS, 2, 4)
    labels = randint(IDS, 2, 4, seed=2)
    hidden = torch.tanh(table[tokens] @ mix)
    expected = label_cross_entropy(hidden @ table.T, labels).sum()
    (dense,) = torch.autograd.grad(expected, table, retain_graph=True)
    terms = {"true": FlatTerm(label_cross_entropy, labels)}
    found = function(hidden, OutputHead(table), terms=terms, chunk_tokens=3).total.sum()
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(torch.autograd.grad(found, table)[0], dense, atol=1e-9, rtol=0)


@pytest.mark.parametrize("function", [memory_flat_loss, memory_flat_values])
@pytest.mark.parametrize("trained", ["hidden", "weight", "bias"])
def test_09_what_is_frozen_gets_no_gradient_and_the_rest_the_same(function: Callable[..., Any], trained: str) -> None:
    models = Models(VARIANTS["all"])
    terms = models.terms(soft_target_kl, 2.0, 0.0)
    function(models.hidden, models.student_head(), terms=terms).total.sum().backward()
    leaves = {"hidden": models.hidden, "weight": models.weight, "bias": models.bias}
    expected = {name: leaf.grad.clone() for name, leaf in leaves.items() if leaf is not None and leaf.grad is not None}
    for name, leaf in leaves.items():
        assert leaf is not None
        leaf.requires_grad_(name == trained).grad = None
    function(models.hidden, models.student_head(), terms=terms).total.sum().backward()
    for name, leaf in leaves.items():
        assert leaf is not None
        if name == trained:
            assert leaf.grad is not None
            torch.testing.assert_close(leaf.grad, expected[name], atol=1e-12, rtol=0)
        else:
            assert leaf.grad is None


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", DIVERGENCES)
def test_01_a_student_equal_to_its_teacher_has_no_divergence(name: str, dtype: torch.dtype, temperature: float) -> None:
    hidden, weight = (5 * randn(TOKENS, WIDTH)).to(dtype), randn(ROWS, WIDTH, seed=1).to(dtype)
    for head in (OutputHead(weight), OutputHead(weight, softcap=5.0, num_ids=IDS)):
        terms = {"soft": FlatTerm(partial(DIVERGENCES[name], temperature=temperature), TeacherStates(hidden, head))}
        found = memory_flat_values(hidden, head, terms=terms, chunk_tokens=4).total
        assert found.tolist() == [0.0] * TOKENS
    head = OutputHead(weight)
    kept = largest_classes(head.logits(hidden), k=3, temperature=temperature)
    terms = {"soft": FlatTerm(partial(top_k_kl, temperature=temperature), kept)}
    found = memory_flat_loss(hidden, head, terms=terms, chunk_tokens=TOKENS).total
    assert found.item() == 0


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_24_identical_models_with_a_padded_vocabulary_have_no_divergence_where_filling_with_0_has(
    temperature: float,
) -> None:
    hidden, weight = randn(TOKENS, WIDTH), randn(IDS, WIDTH, seed=1)
    padded = torch.cat([weight, torch.zeros(3, WIDTH, dtype=torch.float64)])
    loss = partial(soft_target_kl, temperature=temperature)

    def divergence(student: OutputHead, teacher: OutputHead) -> float:
        terms = {"soft": FlatTerm(loss, TeacherStates(hidden, teacher))}
        return memory_flat_loss(hidden, student, terms=terms, count=TOKENS).total.item()

    assert divergence(OutputHead(weight), OutputHead(padded, num_ids=IDS)) == 0
    assert divergence(OutputHead(padded, num_ids=IDS), OutputHead(padded, num_ids=IDS)) == 0
    narrow = hidden @ weight.T
    filled = torch.cat([narrow, torch.zeros(TOKENS, 3, dtype=torch.float64)], dim=1)
    masked = torch.cat([narrow, torch.full((TOKENS, 3), -math.inf, dtype=torch.float64)], dim=1)
    assert loss(masked, masked).tolist() == [0.0] * TOKENS  # -inf is the same as leaving out
    assert loss(masked[:, :IDS], filled[:, :IDS]).abs().max() == 0
    assert loss(filled, masked).mean() > 1e-3  # what a pad at 0 would say of equal models


def test_24_151936_against_152064_ids_equals_slicing_both() -> None:
    real, rows, teacher_rows, width = 151_936, 151_936, 152_064, 2
    hidden, weight = randn(3, width), randn(rows, width, seed=1).requires_grad_()
    teacher_hidden, teacher_weight = randn(3, width, seed=2), randn(teacher_rows, width, seed=3)
    labels = torch.tensor([0, real - 1, 77])
    sliced = soft_target_kl(hidden @ weight.T, (teacher_hidden @ teacher_weight.T)[:, :real], temperature=2.0)
    expected = (sliced + label_cross_entropy(hidden @ weight.T, labels)).sum()
    (dense,) = torch.autograd.grad(expected, weight)
    terms = {
        "soft": FlatTerm(
            partial(soft_target_kl, temperature=2.0),
            TeacherStates(teacher_hidden, OutputHead(teacher_weight, num_ids=real)),
        ),
        "true": FlatTerm(label_cross_entropy, labels),
    }
    found = memory_flat_loss(hidden, OutputHead(weight), terms=terms, chunk_tokens=2).total
    torch.testing.assert_close(found, expected, atol=1e-9, rtol=0)
    torch.testing.assert_close(torch.autograd.grad(found, weight)[0], dense, atol=1e-9, rtol=0)
    unsaid = TeacherStates(teacher_hidden, OutputHead(teacher_weight))
    with pytest.raises(
        CompatibilityError, match="compares 151,936 token ids and the teacher's 152,064; say with num_ids"
    ):
        memory_flat_loss(hidden, OutputHead(weight), terms={"soft": replace(terms["soft"], target=unsaid)})


def test_29_stored_classes_are_a_teacher_too() -> None:
    models = Models(VARIANTS["softcap"])
    full, _, theirs = models.dense()
    kept = largest_classes(theirs, k=3, temperature=2.0)
    samples = draw_samples(theirs, uniforms=torch.rand(TOKENS, 4, dtype=torch.float64), temperature=2.0)
    forms: dict[str, tuple[Callable[..., Tensor], Any]] = {
        "bucket": (partial(top_k_kl, temperature=2.0), kept),
        "bucket, rest not kept": (partial(top_k_kl, temperature=2.0), kept._replace(log_rest=None)),
        "renormalised": (partial(top_k_kl, temperature=2.0, tail="renormalised"), kept),
        "sampled": (partial(sampled_kl, temperature=2.0), samples),
    }
    for loss, target in forms.values():
        expected = (loss(full, target) + 0.4 * label_cross_entropy(full, models.labels)).sum()
        terms = {"soft": FlatTerm(loss, target), "true": FlatTerm(label_cross_entropy, models.labels, 0.4)}
        found = memory_flat_loss(models.hidden, models.student_head(), terms=terms, chunk_tokens=4).total
        torch.testing.assert_close(found, expected, atol=1e-9, rtol=0)
        dense = torch.autograd.grad(expected, [models.hidden, models.weight], retain_graph=True)
        torch.testing.assert_close(models.gradients(found), list(dense), atol=1e-9, rtol=0)


def test_29_all_classes_kept_is_the_dense_divergence() -> None:
    models = Models(Variant())
    _, ours, theirs = models.dense()
    kept = largest_classes(theirs, k=IDS, temperature=3.0)
    terms = {"soft": FlatTerm(partial(top_k_kl, temperature=3.0), kept)}
    found = memory_flat_loss(models.hidden, models.student_head(), terms=terms, chunk_tokens=4).total
    expected = soft_target_kl(ours, theirs.detach(), temperature=3.0).sum()
    torch.testing.assert_close(found, expected, atol=1e-9, rtol=0)
    torch.testing.assert_close(models.gradients(found), models.gradients(expected), atol=1e-9, rtol=0)


def test_any_loss_on_logits_and_any_target_by_token_will_do() -> None:
    models = Models(Variant())
    full, ours, theirs = models.dense()
    wanted = smoothed_targets(models.labels, num_classes=IDS, smoothing=0.2)
    expected = (2 * logit_mse(ours, theirs.detach()) + target_cross_entropy(full, wanted) + full.sum(dim=-1)).sum()
    terms = {
        "sum": FlatTerm(lambda logits, _: logits.sum(dim=-1), models.labels),  # its gradient is a view of one number
        "mse": FlatTerm(logit_mse, models.teacher(), 2),
        "targets": FlatTerm(target_cross_entropy, wanted),
    }
    found = memory_flat_loss(models.hidden, models.student_head(), terms=terms, chunk_tokens=4).total
    torch.testing.assert_close(found, expected, atol=1e-9, rtol=0)
    torch.testing.assert_close(models.gradients(found), models.gradients(expected), atol=1e-9, rtol=0)


def test_03_the_square_of_the_temperature_is_there_once() -> None:
    """For a large temperature the gradient is (z_student - z_teacher) / classes on logits of mean 0."""
    student, teacher = (each - each.mean(dim=1, keepdim=True) for each in (randn(4, IDS), randn(4, IDS, seed=1)))
    student.requires_grad_()
    identity = OutputHead(torch.eye(IDS, dtype=torch.float64))
    terms = {"soft": FlatTerm(partial(soft_target_kl, temperature=1e4), TeacherStates(teacher, identity))}
    memory_flat_loss(student, identity, terms=terms, chunk_tokens=3).total.backward()
    assert student.grad is not None
    torch.testing.assert_close(student.grad, (student.detach() - teacher) / IDS, atol=1e-4, rtol=0)


def test_13_the_loss_does_not_depend_on_chunks_pieces_or_padding() -> None:
    models = Models(VARIANTS["bias"])
    head, mask, count = models.student_head(), torch.arange(TOKENS) % 4 != 2, 8.0
    weights = randn(TOKENS, seed=9).abs()

    def share(rows: Tensor, chunk_tokens: int) -> Tensor:
        teacher = replace(models.teacher(), hidden=models.teacher_hidden[rows])
        terms = {
            "soft": FlatTerm(partial(soft_target_kl, temperature=2.0), teacher, 0.7),
            "true": FlatTerm(label_cross_entropy, models.labels[rows], 0.4),
        }
        options: dict[str, Any] = {"mask": mask[rows], "token_weights": weights[rows], "chunk_tokens": chunk_tokens}
        return memory_flat_loss(models.hidden[rows], head, terms=terms, count=count, **options).total

    everything = torch.arange(TOKENS)
    whole = share(everything, TOKENS)
    expected = models.gradients(whole)
    for chunk_tokens in (1, 2, 3, 7):
        found = share(everything, chunk_tokens)
        torch.testing.assert_close(found, whole, atol=1e-12, rtol=0)
        torch.testing.assert_close(models.gradients(found), expected, atol=1e-12, rtol=0)
    for sizes in ([4, 4, 3], [1, 10], [2, 9]):
        pieces = sum((share(rows, 3) for rows in everything.split(sizes)), start=torch.zeros(()).double())
        torch.testing.assert_close(pieces, whole, atol=1e-12, rtol=0)
        torch.testing.assert_close(models.gradients(pieces), expected, atol=1e-12, rtol=0)


def test_11_tokens_that_do_not_count_change_nothing_whatever_they_hold() -> None:
    models = Models(VARIANTS["bias"])
    mask = torch.arange(TOKENS) % 3 != 1
    terms = models.terms(soft_target_kl, 2.0, 0.1)
    clean = memory_flat_loss(models.hidden, models.student_head(), terms=terms, mask=mask, chunk_tokens=4)
    expected = models.gradients(clean.total)
    garbage = torch.full((TOKENS, WIDTH), math.nan, dtype=torch.float64)
    hidden = torch.where(mask.unsqueeze(1), models.hidden.detach(), garbage).requires_grad_()
    true = replace(terms["true"], target=models.labels.masked_fill(~mask, -100))
    for function in (memory_flat_loss, memory_flat_values):
        options: dict[str, Any] = {"terms": {**terms, "true": true}, "mask": mask, "chunk_tokens": 4}
        found = function(hidden, models.student_head(), **options).total.sum()
        torch.testing.assert_close(found, clean.total, atol=1e-12, rtol=0)
        gradient, of_weight = torch.autograd.grad(found, [hidden, models.weight])
        torch.testing.assert_close([gradient, of_weight], expected[:2], atol=1e-12, rtol=0)
        assert gradient[~mask].abs().max() == 0
    weights = torch.where(mask, 1.0, 0.0).double()
    found = memory_flat_loss(hidden, models.student_head(), terms={**terms, "true": true}, token_weights=weights)
    torch.testing.assert_close(found.total, clean.total, atol=1e-12, rtol=0)


@pytest.mark.parametrize("count", [0, 5])
@pytest.mark.parametrize("batch", [(3,), (2, 4)])
def test_11_a_batch_where_no_token_counts_gives_0_with_a_live_graph(batch: tuple[int, ...], count: int) -> None:
    hidden, weight = randn(*batch, WIDTH).requires_grad_(), randn(IDS, WIDTH, seed=1).requires_grad_()
    teacher = TeacherStates(randn(*batch, WIDTH, seed=2), OutputHead(randn(IDS, WIDTH, seed=3)))
    terms = {
        "soft": FlatTerm(partial(reverse_kl, temperature=2.0), teacher),
        "true": FlatTerm(label_cross_entropy, torch.full(batch, -100)),
    }
    mask = torch.zeros(batch, dtype=torch.bool)
    loss = memory_flat_loss(hidden, OutputHead(weight), terms=terms, mask=mask, count=count)
    assert loss.total.item() == loss.parts["soft"].item() == loss.parts["true"].item() == 0
    values = memory_flat_values(hidden, OutputHead(weight), terms=terms, mask=mask).total
    assert values.shape == batch
    for total in (loss.total, values.sum()):
        gradients = torch.autograd.grad(total, [hidden, weight])
        assert all(gradient.abs().max() == 0 for gradient in gradients)


def test_10_only_the_state_before_a_supervised_position_gets_gradient() -> None:
    hidden, labels = randn(1, 6, WIDTH).requires_grad_(), randint(IDS, 1, 6)
    supervised = torch.tensor([[False, False, False, True, False, False]])
    terms = {"true": FlatTerm(label_cross_entropy, labels[:, 1:])}
    head = OutputHead(randn(IDS, WIDTH, seed=1))
    memory_flat_loss(hidden[:, :-1], head, terms=terms, mask=supervised[:, 1:]).total.backward()
    assert hidden.grad is not None
    assert (hidden.grad[0].abs().sum(dim=1) > 0).tolist() == [False, False, True, False, False, False]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("temperature", [0.05, 1.0, 20.0])
@pytest.mark.parametrize("name", DIVERGENCES)
def test_05_extremes_are_never_nan(name: str, temperature: float, dtype: torch.dtype) -> None:
    """Gaps of 1e4 on both sides, in both directions, and ids that both rule out by a bias of -inf."""
    student = torch.tensor([[1e4, 0.0, -1e4, 3.0], [0.0, 1e4, 0.0, 0.0], [1e4, 1e4, -1e4, 0.0]], dtype=dtype)
    teacher = torch.tensor([[-1e4, 0.0, 1e4, 2.0], [1e4, 0.0, -1e4, 1.0], [1e4, -1e4, -1e4, 0.0]], dtype=dtype)
    weight = torch.eye(4, dtype=dtype).requires_grad_()
    bias = torch.tensor([0.0, 0.0, 0.0, -math.inf], dtype=dtype).requires_grad_()
    student.requires_grad_()
    target = TeacherStates(teacher, OutputHead(weight, bias))
    terms = {
        "soft": FlatTerm(partial(DIVERGENCES[name], temperature=temperature), target),
        "true": FlatTerm(label_cross_entropy, torch.tensor([2, 0, 1])),
    }
    for function in (memory_flat_loss, memory_flat_values):
        total = function(student, OutputHead(weight, bias), terms=terms, chunk_tokens=2).total.sum()
        assert bool(torch.isfinite(total))
        for gradient in torch.autograd.grad(total, [student, weight, bias]):
            assert bool(torch.isfinite(gradient).all())
            assert gradient.dtype == dtype


class Held:
    """A tensor that is kept for the backward pass, as long as it is."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


def retained_bytes(function: Callable[..., Any], num_tokens: int, num_ids: int) -> int:
    """What is kept between the passes beside what was given: by autograd, or by any object of Python."""
    hidden, weight = torch.randn(num_tokens, 4, requires_grad=True), torch.randn(num_ids, 4, requires_grad=True)
    mask = torch.arange(num_tokens) % 2 == 0
    terms = {
        "soft": FlatTerm(partial(soft_target_kl, temperature=2.0), TeacherStates(hidden, OutputHead(weight))),
        "true": FlatTerm(label_cross_entropy, randint(num_ids, num_tokens)),
    }
    held: weakref.WeakSet[Held] = weakref.WeakSet()

    def keep(tensor: Tensor) -> Held:
        held.add(one := Held(tensor))
        return one

    gc.collect()
    before = {storage_of(each) for each in gc.get_objects() if issubclass(type(each), Tensor)}
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda one: one.tensor):
        total = function(hidden, OutputHead(weight), terms=terms, mask=mask, chunk_tokens=32).total.sum()
    gc.collect()
    kept = [one.tensor for one in held] + [each for each in gc.get_objects() if issubclass(type(each), Tensor)]
    sizes = {storage_of(each): each.untyped_storage().nbytes() for each in kept}
    total.backward()
    return sum(size for storage, size in sizes.items() if storage not in before)


def storage_of(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def test_09_what_is_kept_for_the_backward_pass_does_not_grow_with_tokens_times_ids() -> None:
    scalar = 4  # the total
    for tokens, ids in ((512, 4096), (1024, 4096), (512, 8192)):
        assert retained_bytes(memory_flat_values, tokens, ids) == scalar
        # the gradients themselves, and a weight for each token
        assert retained_bytes(memory_flat_loss, tokens, ids) == scalar + 4 * (4 * tokens + 4 * ids) + 4 * tokens


class Largest(TorchDispatchMode):
    """Remembers the number of elements of the largest tensor that any operation made."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for each in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(each, Tensor):
                self.elements = max(self.elements, each.numel())
        return out


@pytest.mark.parametrize("function", [memory_flat_loss, memory_flat_values])
def test_09_no_tensor_has_the_logits_of_all_tokens(function: Callable[..., Any]) -> None:
    hidden, weight = torch.randn(64, 4, requires_grad=True), torch.randn(1000, 4, requires_grad=True)
    teacher = TeacherStates(torch.randn(64, 6), OutputHead(torch.randn(1000, 6)))
    terms = {
        "soft": FlatTerm(partial(soft_target_kl, temperature=2.0), teacher),
        "true": FlatTerm(label_cross_entropy, randint(1000, 64)),
    }
    with Largest() as largest:
        function(hidden, OutputHead(weight), terms=terms, chunk_tokens=8).total.sum().backward()
    assert 8 * 1000 <= largest.elements < 2 * 8 * 1000
    with Largest() as largest:  # the measure sees the dense loss
        label_cross_entropy(hidden @ weight.T, randint(1000, 64)).sum().backward()
    assert largest.elements == 64 * 1000


def test_09_the_chunk_that_is_chosen_keeps_logits_small(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[torch.Size] = []

    def watched(logits: Tensor, labels: Tensor) -> Tensor:
        sizes.append(logits.shape)
        return label_cross_entropy(logits, labels)

    monkeypatch.setattr(memory_flat, "LOGITS_OF_A_CHUNK_ON_CPU", 30)
    monkeypatch.setattr(memory_flat, "FEWEST_TOKENS_OF_A_CHUNK", 1)
    head, terms = OutputHead(randn(IDS, WIDTH)), {"true": FlatTerm(watched, randint(IDS, 2, 4))}
    memory_flat_loss(randn(2, 4, WIDTH), head, terms=terms)
    assert [tuple(size) for size in sizes] == [(3, IDS), (3, IDS), (2, IDS)]  # 3 * 9 <= 30
    monkeypatch.setattr(memory_flat, "FEWEST_TOKENS_OF_A_CHUNK", 6)
    sizes.clear()
    memory_flat_loss(randn(2, 4, WIDTH), head, terms=terms)
    assert [size[0] for size in sizes] == [6, 2]


def test_without_gradient_only_values_are_computed() -> None:
    models = Models(VARIANTS["bias"])
    terms = models.terms(soft_target_kl, 2.0, 0.0)
    expected = memory_flat_loss(models.hidden, models.student_head(), terms=terms)
    graphs: list[bool] = []

    def watched(logits: Tensor, labels: Tensor) -> Tensor:
        graphs.append(logits.requires_grad)
        return label_cross_entropy(logits, labels)

    with torch.no_grad():
        found = memory_flat_loss(
            models.hidden, models.student_head(), terms={**terms, "true": replace(terms["true"], loss=watched)}
        )
    assert graphs == [False]
    assert not found.total.requires_grad
    torch.testing.assert_close(found.total, expected.total.detach())
    assert expected.total.requires_grad
    assert not any(part.requires_grad for part in expected.parts.values())


@pytest.mark.parametrize("function", [memory_flat_loss, memory_flat_values])
def test_the_graph_can_be_used_twice_and_what_follows_is_respected(function: Callable[..., Any]) -> None:
    models = Models(VARIANTS["bias"])
    total = function(models.hidden, models.student_head(), terms=models.terms(soft_target_kl, 2.0, 0.0)).total.sum()
    first = torch.autograd.grad(total, models.weight, retain_graph=True)[0]
    again = torch.autograd.grad(3 * total, models.weight)[0]
    torch.testing.assert_close(again, 3 * first)


def test_any_function_may_follow_the_values_of_tokens() -> None:
    models = Models(VARIANTS["bias"])
    _, ours, theirs = models.dense()
    terms = {"soft": FlatTerm(partial(soft_target_kl, temperature=2.0), models.teacher())}
    found = memory_flat_values(models.hidden, models.student_head(), terms=terms, chunk_tokens=4).total
    expected = soft_target_kl(ours, theirs.detach(), temperature=2.0)
    for follow in (torch.Tensor.amax, lambda values: values.square().sum(), lambda values: values[2].exp()):
        torch.testing.assert_close(models.gradients(follow(found)), models.gradients(follow(expected)))


def test_a_second_derivative_is_refused_and_not_wrong() -> None:
    models = Models(Variant())
    total = memory_flat_loss(models.hidden, models.student_head(), terms=models.terms(soft_target_kl, 2.0, 0.0)).total
    each = memory_flat_values(models.hidden, models.student_head(), terms=models.terms(soft_target_kl, 2.0, 0.0)).total
    for value in (total, each.sum()):
        with pytest.raises(RuntimeError, match="first derivatives only"):
            torch.autograd.grad(value, models.hidden, create_graph=True)


@pytest.mark.parametrize("function", [memory_flat_loss, memory_flat_values])
@pytest.mark.parametrize("variant", ["bias", "all"])
def test_05_a_model_in_bfloat16_agrees_with_the_dense_loss(variant: str, function: Callable[..., Any]) -> None:
    models = Models(VARIANTS[variant], dtype=torch.bfloat16)
    terms = models.terms(soft_target_kl, 2.0, 0.1)
    head, teacher = models.student_head(), models.teacher()
    logits = head.logits(models.hidden)
    theirs = teacher.head.compared(teacher.head.logits(teacher.hidden)).detach()
    soft = soft_target_kl(head.compared(logits), theirs, temperature=2.0)
    expected = (0.7 * soft + 0.4 * label_cross_entropy(logits, models.labels, smoothing=0.1)).sum()
    found = function(models.hidden, head, terms=terms, chunk_tokens=4).total.sum()
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    for ours, dense in zip(models.gradients(found), models.gradients(expected), strict=True):
        assert ours.dtype == torch.bfloat16
        torch.testing.assert_close(ours, dense, rtol=2e-2, atol=2e-2)


def test_05_the_gradient_of_a_head_in_bfloat16_is_added_up_in_float32() -> None:
    """4,096 equal shares: added up in bfloat16 they would stop growing at 256 of them."""
    hidden, weight = torch.ones(4096, 1).bfloat16(), torch.zeros(2, 1).bfloat16().requires_grad_()
    terms = {"true": FlatTerm(label_cross_entropy, torch.zeros(4096, dtype=torch.int64))}
    memory_flat_loss(hidden, OutputHead(weight), terms=terms, chunk_tokens=1).total.backward()
    assert weight.grad is not None
    assert weight.grad.flatten().tolist() == [-2048.0, 2048.0]


@pytest.mark.parametrize("function", [memory_flat_loss, memory_flat_values])
def test_09_under_autocast_products_are_in_its_precision_and_gradients_in_that_of_the_parameters(
    function: Callable[..., Any],
) -> None:
    models = Models(VARIANTS["bias"], dtype=torch.float32)
    terms = models.terms(soft_target_kl, 2.0, 0.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = nn.functional.linear(models.hidden, models.weight, models.bias)
        theirs = nn.functional.linear(models.teacher_hidden, models.teacher_weight[:IDS], models.teacher_bias[:IDS])  # type: ignore[index]
        assert logits.dtype == torch.bfloat16
        soft = soft_target_kl(logits, theirs, temperature=2.0)
        expected = (0.7 * soft + 0.4 * label_cross_entropy(logits, models.labels)).sum()
        found = function(models.hidden, models.student_head(), terms=terms, chunk_tokens=4).total.sum()
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    for ours, dense in zip(models.gradients(found), models.gradients(expected), strict=True):
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours, dense, rtol=2e-2, atol=2e-2)
    exact = function(models.hidden, models.student_head(), terms=terms).total.sum()
    assert found.item() != exact.item()


def test_08_a_term_of_weight_0_is_not_computed_and_the_total_is_the_weighted_parts() -> None:
    models = Models(Variant())

    def never(*_: Tensor) -> Tensor:
        raise AssertionError("computed")

    terms = {**models.terms(soft_target_kl, 2.0, 0.0), "off": FlatTerm(never, models.labels, 0)}
    loss = memory_flat_loss(models.hidden, models.student_head(), terms=terms, count=3)
    assert list(loss.parts) == ["soft", "true"]
    torch.testing.assert_close(loss.total.detach(), 0.7 * loss.parts["soft"] + 0.4 * loss.parts["true"])


def test_what_does_not_fit_is_refused() -> None:
    models = Models(Variant())
    hidden, head, labels = models.hidden, models.student_head(), models.labels
    true = FlatTerm(label_cross_entropy, labels)

    def refused(error: type[Exception], match: str, term: FlatTerm = true, **options: Any) -> None:
        with pytest.raises((error, TypeCheckError), match=f"{match}|Type-check"):
            memory_flat_loss(hidden, head, terms={"term": term}, **options)

    refused(
        CompatibilityError,
        r"'term': .* tokens \(11,\) and the target has shape \(3,\)",
        replace(true, target=labels[:3]),
    )
    narrow = TeacherStates(models.teacher_hidden[:3], models.teacher().head)
    refused(CompatibilityError, r"the target has shape \(3, 5\)", replace(true, target=narrow))
    crossed = TeacherStates(hidden, models.teacher().head)
    refused(CompatibilityError, "states have 6 features and the head takes 5", replace(true, target=crossed))
    refused(CompatibilityError, "mask has shape", mask=torch.ones(3, dtype=torch.bool))
    refused(CompatibilityError, "token_weights has shape", token_weights=torch.ones(3))
    refused(ValueError, "weight is -1; it must be at least 0", replace(true, weight=-1))
    refused(ValueError, "weight is nan", replace(true, weight=math.nan))
    refused(ValueError, "no term with a weight above 0", replace(true, weight=0))
    refused(ValueError, "chunk_tokens is 0; it must be at least 1", chunk_tokens=0)
    refused(ValueError, "count is 0; it must be above 0", count=0)
    refused(ValueError, "count is -2", count=-2)
    with pytest.raises(CompatibilityError, match="states have 5 features and the head takes 6"):
        memory_flat_loss(models.teacher_hidden, head, terms={"true": true})


@pytest.mark.parametrize("wrong", [-100, -1, IDS])
def test_24_a_token_id_that_the_student_does_not_have_is_refused_and_never_clamped(wrong: int) -> None:
    models = Models(VARIANTS["padded"])  # id 9 is a row of padding
    labels = models.labels.clone()
    labels[4] = wrong
    indices = labels.unsqueeze(1)
    kept = LargestClasses(indices, torch.full((TOKENS, 1), -0.1, dtype=torch.float64))
    for term in (FlatTerm(label_cross_entropy, labels), FlatTerm(partial(top_k_kl, temperature=1.0), kept)):
        with pytest.raises(CompatibilityError, match=f"token id {wrong} is not among the student's 9"):
            memory_flat_loss(models.hidden, models.student_head(), terms={"term": term})
        memory_flat_loss(models.hidden, models.student_head(), terms={"term": term}, mask=torch.arange(TOKENS) != 4)


@pytest.mark.untyped
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # the compiler looks at what breaks its graph
def test_09_around_a_compiled_model_and_inside_a_compiled_step_the_results_are_equal() -> None:
    torch.manual_seed(0)
    body, head = nn.Sequential(nn.Linear(5, WIDTH), nn.Tanh()), nn.Linear(WIDTH, IDS)
    inputs, labels = torch.randn(TOKENS, 5), randint(IDS, TOKENS)
    teacher = TeacherStates(torch.randn(TOKENS, 4), OutputHead(torch.randn(IDS, 4)))

    def step(body: Callable[[Tensor], Tensor]) -> Tensor:
        terms = {
            "soft": FlatTerm(partial(soft_target_kl, temperature=2.0), teacher),
            "true": FlatTerm(label_cross_entropy, labels),
        }
        return memory_flat_loss(body(inputs), OutputHead(head.weight, head.bias), terms=terms, chunk_tokens=4).total

    parameters = [*body.parameters(), *head.parameters()]
    plain = step(body)
    expected = torch.autograd.grad(plain, parameters)
    compiled_step = torch.compile(partial(step, body), backend="aot_eager")
    for found in (step(torch.compile(body, backend="aot_eager")), compiled_step()):
        torch.testing.assert_close(found, plain)
        torch.testing.assert_close(torch.autograd.grad(found, parameters), expected)


def test_the_examples_in_the_docstrings_are_true() -> None:
    results = doctest.testmod(memory_flat)
    assert results.attempted >= 6
    assert results.failed == 0
