"""Linear CKA against its formula in NumPy and its invariances; pairs of layers against a search through all."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from distil.compare.select import SelectionResult
from distil.compare.similarity import Similarity, _joined, best_pairs, linear_cka, mean_of_tokens, pooled
from distil.core.errors import CompatibilityError
from distil.data.example import TextExamples
from tests.check.test_text import examples
from tests.compare import selection_fixture

selected = selection_fixture.selected


def unbiased_hsic(k: np.ndarray, ell: np.ndarray) -> float:
    """Song et al. 2012, equation 4, as it stands."""
    n = len(k)
    k, ell = k - np.diag(np.diag(k)), ell - np.diag(np.diag(ell))
    ones = np.ones(n)
    middle = (ones @ k @ ones) * (ones @ ell @ ones) / ((n - 1) * (n - 2))
    return (np.trace(k @ ell) + middle - 2 / (n - 2) * (ones @ k @ ell @ ones)) / (n * (n - 3))


def plain_hsic(k: np.ndarray, ell: np.ndarray) -> float:
    n = len(k)
    centre = np.eye(n) - np.ones((n, n)) / n
    return float(np.trace(k @ centre @ ell @ centre)) / (n - 1) ** 2


def reference(x: np.ndarray, y: np.ndarray, *, unbiased: bool) -> float:
    hsic = unbiased_hsic if unbiased else plain_hsic
    k, ell = x @ x.T, y @ y.T
    return hsic(k, ell) / np.sqrt(hsic(k, k) * hsic(ell, ell))


def features(seed: int, examples: int, width: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(examples, width, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def related(seed: int, examples: int, width: int, other: int) -> tuple[torch.Tensor, torch.Tensor]:
    ours = features(seed, examples, width) + 3.0
    theirs = ours @ features(seed + 1, width, other) + features(seed + 2, examples, other)
    return ours, theirs


@pytest.mark.parametrize("unbiased", [True, False])
@pytest.mark.parametrize(("examples", "width", "other"), [(20, 3, 5), (7, 40, 30), (12, 2, 60), (4, 1, 1)])
@pytest.mark.parametrize("seed", range(3))
def test_it_is_the_formula_in_either_form(seed: int, examples: int, width: int, other: int, unbiased: bool) -> None:
    ours, theirs = related(10 * seed, examples, width, other)
    expected = reference(ours.numpy(), theirs.numpy(), unbiased=unbiased)
    assert linear_cka(ours, theirs, unbiased=unbiased).item() == pytest.approx(expected, abs=1e-10)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), width=st.integers(1, 12), scale=st.floats(1e-3, 1e3), unbiased=st.booleans())
def test_rotations_scales_and_shifts_change_nothing(seed: int, width: int, scale: float, unbiased: bool) -> None:
    ours, theirs = related(seed, 9, width, 4)
    rotation, _ = torch.linalg.qr(features(seed + 5, width, width))
    moved = scale * ours @ rotation + features(seed + 6, 1, width)
    before = linear_cka(ours, theirs, unbiased=unbiased).item()
    assert linear_cka(moved, theirs, unbiased=unbiased).item() == pytest.approx(before, abs=1e-8)
    assert linear_cka(theirs, moved, unbiased=unbiased).item() == pytest.approx(before, abs=1e-8)
    assert -1 - 1e-9 <= before <= 1 + 1e-9


@pytest.mark.parametrize("unbiased", [True, False])
def test_equal_features_are_1(unbiased: bool) -> None:
    ours = features(0, 8, 30)
    assert linear_cka(ours, ours, unbiased=unbiased).item() == pytest.approx(1.0, abs=1e-12)


def test_wide_noise_looks_alike_to_the_plain_estimate_and_not_to_the_unbiased_one() -> None:
    pairs = [(features(seed, 40, 2000), features(100 + seed, 40, 2000)) for seed in range(10)]
    plain = np.mean([linear_cka(x, y, unbiased=False).item() for x, y in pairs])
    unbiased = np.mean([linear_cka(x, y).item() for x, y in pairs])
    assert plain > 0.9
    assert abs(unbiased) < 0.02


@pytest.mark.parametrize("unbiased", [True, False])
def test_features_that_do_not_vary_are_0(unbiased: bool) -> None:
    constant = torch.full((6, 3), 7.3, dtype=torch.float64)
    assert linear_cka(constant, features(0, 6, 3), unbiased=unbiased).item() == 0
    assert linear_cka(constant, constant, unbiased=unbiased).item() == 0


def test_examples_that_are_equally_far_apart_are_0_and_not_noise() -> None:
    assert linear_cka(torch.eye(6), features(0, 6, 3, torch.float32)).item() == 0


def test_half_precision_is_computed_in_float64() -> None:
    ours = features(0, 20, 5)
    value = linear_cka(ours.half(), ours.half())
    assert value.dtype == torch.float64
    assert value.item() == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize(("ours", "theirs", "unbiased"), [(3, 3, True), (1, 1, False), (5, 6, True)])
def test_too_few_or_other_examples_are_refused(ours: int, theirs: int, unbiased: bool) -> None:
    # called as users do, without the checks of shapes that tests have
    call: Any = getattr(linear_cka, "__wrapped__", linear_cka)
    if ours != theirs and call is not linear_cka:
        return
    with pytest.raises((CompatibilityError, TypeError)):
        call(features(0, ours, 2), features(1, theirs, 2), unbiased=unbiased)


def test_maps_and_tokens_are_pooled_to_few_positions() -> None:
    assert pooled(torch.rand(2, 3, 8, 12)).shape == (2, 3 * 16)
    assert pooled(torch.rand(2, 3, 2, 12)).shape == (2, 3 * 8)
    assert pooled(torch.rand(2, 50, 7)).shape == (2, 16 * 7)
    assert pooled(torch.rand(2, 5, 7)).shape == (2, 5 * 7)
    vector = torch.rand(2, 9)
    assert torch.equal(pooled(vector), vector)


def similarity(values: np.ndarray) -> Similarity:
    rows, columns = values.shape
    return Similarity(
        tuple(f"s{row}" for row in range(rows)),
        tuple(f"t{column}" for column in range(columns)),
        tuple(tuple(map(float, row)) for row in values),
        examples=10,
    )


@pytest.mark.parametrize("shape", [(1, 1), (1, 4), (3, 3), (2, 5), (3, 6), (5, 2), (4, 1)])
@pytest.mark.parametrize("seed", range(4))
def test_pairs_have_the_largest_sum_in_order_and_cover_the_last_layers(shape: tuple[int, int], seed: int) -> None:
    values = np.random.default_rng(seed).uniform(-0.2, 1, shape)
    table = values if shape[0] <= shape[1] else values.T
    few, many = table.shape
    allowed = [(*places, many - 1) for places in itertools.combinations(range(many - 1), few - 1)]
    best = max(allowed, key=lambda places: sum(table[row, column] for row, column in enumerate(places)))
    pairs = [(row, column) if shape[0] <= shape[1] else (column, row) for row, column in enumerate(best)]
    assert best_pairs(similarity(values)) == [(f"s{row}", f"t{column}") for row, column in pairs]


def test_without_layers_there_are_no_pairs() -> None:
    assert best_pairs(Similarity((), ("t0",), (), 10)) == []
    assert best_pairs(Similarity(("s0",), (), ((),), 10)) == []


def test_a_selection_has_every_stage_of_both_networks(selected: SelectionResult) -> None:
    found = selected.record["similarities"]["teacher"]
    assert found["student"] == ["body.2", "body.4"]
    assert found["teacher"] == ["body.2", "body.6"]
    assert found["examples"] == 512
    assert all(-1 <= value <= 1 for row in found["values"] for value in row)
    assert np.array(found["values"]).max() > 0.3  # both see the same digits


# texts


def test_11_a_text_is_the_mean_of_its_real_tokens_whatever_stands_in_the_padding() -> None:
    value, real = torch.tensor([[[1.0, 2.0], [3.0, 4.0], [9.0, 9.0]]]), torch.tensor([[True, True, False]])
    assert mean_of_tokens(value, real, tokens_first=True).tolist() == [[2.0, 3.0]]
    assert mean_of_tokens(value.transpose(1, 2), real, tokens_first=False).tolist() == [[2.0, 3.0]]
    vector = torch.rand(1, 5)
    assert torch.equal(mean_of_tokens(vector, real, tokens_first=False), vector)


def test_layers_with_other_places_than_tokens_are_averaged_over_all_of_them() -> None:
    value, real = torch.tensor([[[1.0], [2.0], [6.0]]]), torch.tensor([[True, True]])
    assert mean_of_tokens(value, real, tokens_first=True).tolist() == [[3.0]]


def test_validation_examples_are_filled_up_with_training_examples_of_texts_too() -> None:
    first, second = examples({"text": ["a"]}, labels=[[0]]), examples({"text": ["b", "c"]}, labels=[[1], [0]])
    joined = _joined(first, second)
    assert isinstance(joined, TextExamples)
    assert joined.columns == {"text": ("a", "b", "c")}
    assert (len(joined), len(joined.labels)) == (3, 3)
