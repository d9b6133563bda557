from typing import Any

import torch
from torch import Tensor

from distil.core.inputs import join_rows, move, num_rows, real_tokens, shapes_of, take_rows

IMAGES = torch.arange(24.0).view(4, 1, 2, 3)
TEXTS = {
    "input_ids": torch.tensor([[2, 5, 3], [2, 3, 0], [2, 6, 3]]),
    "attention_mask": torch.tensor([[1, 1, 1], [1, 1, 0], [1, 1, 1]]),
}


def test_the_number_of_examples() -> None:
    assert num_rows(IMAGES) == 4
    assert num_rows(TEXTS) == 3


def test_rows_are_taken_of_every_tensor_alike() -> None:
    images: Any = take_rows(IMAGES, slice(1, 3))
    assert torch.equal(images, IMAGES[1:3])
    for rows in (slice(1, 3), torch.tensor([1, 2]), torch.tensor([False, True, True])):
        taken: Any = take_rows(TEXTS, rows)
        assert list(taken) == list(TEXTS)
        assert {name: taken[name].tolist() for name in TEXTS} == {
            "input_ids": [[2, 3, 0], [2, 6, 3]],
            "attention_mask": [[1, 1, 0], [1, 1, 1]],
        }


def test_what_is_moved_has_the_same_names_and_values() -> None:
    here, images, moved = (move(*each) for each in ((IMAGES, "cpu"), (IMAGES, "meta"), (TEXTS, "meta")))
    assert isinstance(here, Tensor)
    assert torch.equal(here, IMAGES)
    assert isinstance(images, Tensor)
    assert images.device.type == "meta"
    assert not isinstance(moved, Tensor)
    assert {name: (value.device.type, tuple(value.shape)) for name, value in moved.items()} == {
        "input_ids": ("meta", (3, 3)),
        "attention_mask": ("meta", (3, 3)),
    }


def test_shapes_are_those_of_one_example() -> None:
    assert shapes_of(IMAGES) == "[1, 2, 3]"
    assert shapes_of(TEXTS) == "input_ids [3], attention_mask [3]"


def test_pieces_are_joined_in_order_and_shorter_texts_filled_at_the_end() -> None:
    images: Any = join_rows([IMAGES[:3], IMAGES[3:]])
    assert torch.equal(images, IMAGES)
    longer = {
        "input_ids": torch.tensor([[2, 7, 7, 7, 3]]),
        "attention_mask": torch.ones(1, 5, dtype=torch.int64),
    }
    joined: Any = join_rows([TEXTS, longer])
    assert joined["input_ids"].tolist() == [[2, 5, 3, 0, 0], [2, 3, 0, 0, 0], [2, 6, 3, 0, 0], [2, 7, 7, 7, 3]]
    assert joined["attention_mask"].tolist() == [[1, 1, 1, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [1] * 5]


def test_sides_and_windows_are_joined_along_their_tokens() -> None:
    short, long = torch.ones(1, 2, 3, dtype=torch.int64), torch.full((2, 2, 4), 5)
    both: Any = join_rows([{"input_ids": short}, {"input_ids": long}])
    joined = both["input_ids"]
    assert joined.shape == (3, 2, 4)
    assert joined[0].tolist() == [[1, 1, 1, 0], [1, 1, 1, 0]]
    assert torch.equal(joined[1:], long)


def test_11_real_tokens_are_those_of_the_mask() -> None:
    found = real_tokens(TEXTS)
    assert found is not None
    assert found.tolist() == [[True, True, True], [True, True, False], [True, True, True]]


def test_an_input_without_a_mask_of_tokens_says_nothing_of_padding() -> None:
    assert real_tokens(IMAGES) is None
    assert real_tokens({"input_ids": TEXTS["input_ids"]}) is None
    seen = torch.ones(3, 1, 3, 3, dtype=torch.int64)  # which token sees which, of several texts in a row
    assert real_tokens({**TEXTS, "attention_mask": seen}) is None
