import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from distil.data.bucketed import bucketed_order


@settings(deadline=None, max_examples=50)
@given(
    lengths=st.lists(st.integers(1, 50), min_size=1, max_size=70),
    batch_size=st.integers(1, 9),
    batches=st.integers(2, 5),
    epoch=st.integers(0, 3),
)
def test_every_row_comes_once(lengths: list[int], batch_size: int, batches: int, epoch: int) -> None:
    order = bucketed_order(lengths, batch_size=batch_size, batches=batches, seed=1, epoch=epoch)
    assert sorted(order.tolist()) == list(range(len(lengths)))


def test_31_equal_seed_and_epoch_give_equal_orders_and_others_do_not() -> None:
    lengths = [number % 13 for number in range(200)]

    def order(seed: int, epoch: int) -> list[int]:
        return bucketed_order(lengths, batch_size=8, batches=4, seed=seed, epoch=epoch).tolist()

    assert order(0, 0) == order(0, 0)
    assert len({tuple(order(seed, epoch)) for seed in (0, 1) for epoch in (0, 1)}) == 4


def test_batches_are_padded_less_than_in_random_order() -> None:
    lengths = torch.randint(1, 100, (1000,), generator=torch.Generator().manual_seed(0))

    def padding(order: torch.Tensor) -> int:
        return sum(int((batch.max() - batch).sum()) for batch in lengths[order].split(10))

    ours = padding(bucketed_order(lengths.tolist(), batch_size=10, batches=50, seed=0, epoch=0))
    assert ours < 0.1 * padding(torch.arange(1000))


def test_batches_are_not_in_the_order_of_length() -> None:
    lengths = list(range(400))
    order = bucketed_order(lengths, batch_size=10, batches=40, seed=0, epoch=0)
    longest = [int(batch.max()) for batch in order.split(10)]
    assert longest != sorted(longest)
    assert sorted(longest) == pytest.approx(list(range(9, 400, 10)))
