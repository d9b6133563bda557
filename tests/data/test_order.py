from collections import Counter

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from distil.data.order import batch_bounds, epoch_order


@settings(deadline=None, max_examples=30)
@given(num_examples=st.integers(1, 300), seed=st.integers(0, 2**31), epoch=st.integers(0, 1000))
def test_31_an_order_is_a_permutation_and_replays(num_examples: int, seed: int, epoch: int) -> None:
    order = epoch_order(num_examples, seed=seed, epoch=epoch)
    assert sorted(order.tolist()) == list(range(num_examples))
    assert torch.equal(order, epoch_order(num_examples, seed=seed, epoch=epoch))


def test_31_epochs_and_seeds_differ() -> None:
    orders = {tuple(epoch_order(50, seed=seed, epoch=epoch).tolist()) for seed in range(4) for epoch in range(4)}
    assert len(orders) == 16


def test_31_an_order_does_not_touch_torch_s_generator() -> None:
    before = torch.random.get_rng_state()
    epoch_order(50, seed=0, epoch=0)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_every_place_is_as_likely_for_every_example() -> None:
    firsts = Counter(int(epoch_order(10, seed=1, epoch=epoch)[0]) for epoch in range(5000))
    assert sum((firsts[row] - 500) ** 2 / 500 for row in range(10)) < 27.9  # chi-square, 9 degrees, 0.999


@settings(deadline=None, max_examples=30)
@given(num_examples=st.integers(1, 400), batch_size=st.integers(1, 100))
def test_bounds_cover_each_example_once(num_examples: int, batch_size: int) -> None:
    bounds = batch_bounds(num_examples, batch_size)
    assert [row for start, end in bounds for row in range(start, end)] == list(range(num_examples))
    sizes = [end - start for start, end in bounds]
    assert all(size == batch_size for size in sizes[:-1])
    assert 1 <= sizes[-1] <= batch_size + 1
    if len(sizes) > 1 and batch_size > 1:
        assert sizes[-1] > 1  # batch normalisation cannot be trained on one example


def test_a_single_example_left_over_joins_the_batch_before() -> None:
    assert batch_bounds(9, 4) == [(0, 4), (4, 9)]
    assert batch_bounds(10, 4) == [(0, 4), (4, 8), (8, 10)]
    assert batch_bounds(8, 4) == [(0, 4), (4, 8)]
    assert batch_bounds(1, 4) == [(0, 1)]
