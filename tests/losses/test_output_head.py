import doctest
import math

import pytest
import torch
from jaxtyping import TypeCheckError
from torch import Tensor

from distil.core.errors import CompatibilityError
from distil.losses import output_head
from distil.losses.output_head import OutputHead


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_logits_by_hand() -> None:
    head = OutputHead(torch.tensor([[1.0, 2.0], [0.0, -1.0]]), torch.tensor([1.0, 0.5]), scale=0.25, softcap=3.0)
    # W h + b is (1 * 2 + 2 * 4 + 1, -4 + 0.5) = (11, -3.5), a quarter of it (2.75, -0.875)
    expected = torch.tensor([[3 * math.tanh(2.75 / 3), 3 * math.tanh(-0.875 / 3)]])
    torch.testing.assert_close(head.logits(torch.tensor([[2.0, 4.0]])), expected, atol=1e-6, rtol=0)


def test_09_without_softcap_and_scale_it_is_the_linear_layer_itself() -> None:
    linear = torch.nn.Linear(4, 7)
    hidden = randn(2, 3, 4).float()
    assert torch.equal(OutputHead(linear.weight, linear.bias).logits(hidden), linear(hidden))


def test_09_the_softcap_keeps_every_logit_below_it_with_a_finite_gradient() -> None:
    hidden = torch.tensor([[1e4, -1e4], [1e-3, 0.0]], requires_grad=True)
    logits = OutputHead(torch.eye(2), softcap=30.0).logits(hidden)
    assert logits.abs().max() <= 30
    logits.sum().backward()
    assert hidden.grad is not None
    torch.testing.assert_close(hidden.grad, torch.tensor([[0.0, 0.0], [1.0, 1.0]]))


def test_24_rows_of_padding_have_no_logit_and_no_gradient() -> None:
    weight, bias = randn(7, 4).requires_grad_(), randn(7, seed=1).requires_grad_()
    head = OutputHead(weight, bias, num_ids=5)
    hidden = randn(3, 4, seed=2)
    logits = head.logits(hidden)
    torch.testing.assert_close(logits, hidden @ weight[:5].T + bias[:5])
    assert head.size == head.num_compared == 5
    logits.square().sum().backward()
    assert weight.grad is not None
    assert bias.grad is not None
    assert weight.grad[5:].abs().sum() == bias.grad[5:].abs().sum() == 0
    assert bool((bias.grad[:5] != 0).all())


def test_24_shared_ids_are_taken_in_their_order() -> None:
    head = OutputHead(randn(7, 4), shared_ids=torch.tensor([6, 0, 3]))
    logits = head.logits(randn(2, 4, seed=1))
    assert torch.equal(head.compared(logits), torch.stack([logits[:, 6], logits[:, 0], logits[:, 3]], dim=1))
    assert (head.size, head.num_compared) == (7, 3)
    everything = OutputHead(randn(7, 4))
    assert everything.compared(logits) is logits


def test_05_half_precision_is_scaled_and_capped_in_float32() -> None:
    hidden, weight = randn(3, 4).bfloat16(), randn(5, 4, seed=1).bfloat16()
    logits = OutputHead(weight, scale=0.1, softcap=5.0).logits(hidden)
    assert logits.dtype == torch.float32
    assert torch.equal(logits, 5 * torch.tanh((hidden @ weight.T).float() * 0.1 / 5))


def test_lowered_is_the_same_head_in_another_precision_without_gradient() -> None:
    head = OutputHead(randn(7, 4).requires_grad_(), randn(7).requires_grad_(), scale=2.0, softcap=3.0, num_ids=5)
    low = head.lowered(torch.bfloat16)
    assert low.bias is not None
    assert {low.weight.dtype, low.bias.dtype} == {torch.bfloat16}
    assert not low.weight.requires_grad
    assert not low.bias.requires_grad
    assert (low.scale, low.softcap, low.size) == (2.0, 3.0, 5)


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan")])
def test_a_scale_and_a_softcap_that_are_not_above_0_are_refused(value: float) -> None:
    with pytest.raises(ValueError, match=r"scale is .*; it must be above 0"):
        OutputHead(randn(3, 2), scale=value)
    with pytest.raises(ValueError, match=r"softcap is .*; it must be above 0, or None for no limit"):
        OutputHead(randn(3, 2), softcap=value)


def test_24_parts_that_do_not_fit_are_refused_and_never_clamped() -> None:
    with pytest.raises(CompatibilityError, match="the bias has 4 entries and the weight 3 rows"):
        OutputHead(randn(3, 2), randn(4))
    for num_ids in (0, 4):
        with pytest.raises(CompatibilityError, match=f"num_ids is {num_ids}; it must be 1 to 3"):
            OutputHead(randn(3, 2), num_ids=num_ids)
    for ids in ([0, 2], [-1, 0]):  # id 2 is padding
        with pytest.raises(CompatibilityError, match="they must be at least one of 0 to 1"):
            OutputHead(randn(3, 2), num_ids=2, shared_ids=torch.tensor(ids))
    with pytest.raises(CompatibilityError, match="at least one"):
        OutputHead(randn(3, 2), shared_ids=torch.tensor([], dtype=torch.int64))
    with pytest.raises(CompatibilityError, match="twice"):
        OutputHead(randn(3, 2), shared_ids=torch.tensor([1, 1]))
    with pytest.raises((CompatibilityError, TypeCheckError), match=r"have 5 features and the head takes 2|hidden"):
        OutputHead(randn(3, 2)).logits(randn(1, 5))


def test_the_examples_in_the_docstrings_are_true() -> None:
    results = doctest.testmod(output_head)
    assert results.attempted >= 2
    assert results.failed == 0
