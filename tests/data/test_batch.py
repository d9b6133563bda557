import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from distil.data.batch import Batch


def batch(size: int) -> Batch:
    return Batch(
        ids=torch.arange(size) + 100,
        inputs={"student": torch.arange(size * 2.0).view(size, 2), "teacher": torch.arange(size * 3.0).view(size, 3)},
        targets={"main": torch.arange(size) % 3},
        present={"main": torch.arange(size) % 2 == 0},
    )


@settings(deadline=None, max_examples=30)
@given(size=st.integers(1, 20), piece=st.integers(1, 25))
def test_pieces_in_order_are_the_batch(size: int, piece: int) -> None:
    whole = batch(size)
    pieces = list(whole.split(piece))
    assert all(len(part) == piece for part in pieces[:-1])
    assert 1 <= len(pieces[-1]) <= piece + int(piece > 1)  # a single one left over joins the piece before it
    assert torch.equal(torch.cat([part.ids for part in pieces]), whole.ids)
    for view, value in whole.inputs.items():
        assert torch.equal(torch.cat([part.inputs[view] for part in pieces]), value)
    assert torch.equal(torch.cat([part.targets["main"] for part in pieces]), whole.targets["main"])
    assert torch.equal(torch.cat([part.present["main"] for part in pieces]), whole.present["main"])


@pytest.mark.parametrize("size", [None, 5, 6])
def test_a_batch_that_fits_is_not_split(size: int | None) -> None:
    whole = batch(5)
    assert list(whole.split(size)) == [whole]


def test_on_the_cpu_nothing_moves() -> None:
    whole = batch(3)
    assert whole.to("cpu") is whole


def test_moving_takes_all_but_the_ids() -> None:
    moved = batch(3).to("meta")
    assert moved.ids.device.type == "cpu"
    tensors = [*moved.inputs.values(), *moved.targets.values(), *moved.present.values()]
    assert {tensor.device.type for tensor in tensors} == {"meta"}


def test_a_single_example_left_over_joins_the_piece_before_it() -> None:
    assert [len(piece) for piece in batch(9).split(4)] == [4, 5]
    assert [len(piece) for piece in batch(10).split(4)] == [4, 4, 2]
