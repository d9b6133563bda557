"""The gallery: which examples are shown and why, what is said about them, and pictures that others can read."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from distil.evaluate.gallery import EXAMPLES_OF_A_KIND, choose_examples, gallery_record, png

from .conftest import drawn, predictions


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 5, 9), (1, 1, 1), (3, 64, 48)])
def test_a_picture_is_read_back_equal(shape: tuple[int, int, int]) -> None:
    image = np.random.default_rng(0).integers(256, size=shape, dtype=np.uint8)
    read = Image.open(io.BytesIO(png(image)))
    read.verify()
    read = Image.open(io.BytesIO(png(image)))
    assert read.mode == ("L" if shape[0] == 1 else "RGB")
    pixels = np.asarray(read)
    np.testing.assert_array_equal(
        pixels if shape[0] == 1 else pixels.transpose(2, 0, 1), image.squeeze(0) if shape[0] == 1 else image
    )


RIGHT, WRONG = [4.0, 0.0], [0.0, 4.0]


def test_examples_of_every_kind_the_least_sure_first() -> None:
    """All labels are 0. The teacher is right everywhere, and surer with every row."""
    teacher = predictions([[0.1 * (row + 1), 0] for row in range(12)], [0] * 12)
    student = predictions([RIGHT] * 4 + [WRONG] * 3 + [RIGHT] * 5, [0] * 12)
    control = predictions([RIGHT] * 2 + [WRONG] * 2 + [RIGHT] * 3 + [WRONG] * 3 + [RIGHT] * 2, [0] * 12)
    assert choose_examples(student, teacher, control) == [
        (0, "the teacher is unsure"),
        (1, "the teacher is unsure"),
        (2, "right only with the teacher"),
        (3, "right only with the teacher"),
        (4, "wrong only with the teacher"),
        (5, "wrong only with the teacher"),
        (10, "all are right"),
        (11, "all are right"),
    ]


def test_no_example_is_chosen_twice_and_the_choice_is_fixed() -> None:
    student, teacher, control = drawn(1), drawn(2), drawn(3)
    chosen = choose_examples(student, teacher, control)
    rows = [row for row, _ in chosen]
    assert len(set(rows)) == len(rows) <= 4 * EXAMPLES_OF_A_KIND
    assert all(type(row) is int for row in rows)
    assert chosen == choose_examples(student, teacher, control)


def test_fewer_examples_than_wanted() -> None:
    one = predictions([RIGHT], [0])
    assert choose_examples(one, one, one) == [(0, "the teacher is unsure")]


def test_the_record_holds_plain_and_softened_probabilities() -> None:
    student, teacher, control = (predictions([[0, 0], logits], [0, 1]) for logits in ([1, 0], [4, 0], [0, 2]))
    record = gallery_record(
        [(1, "because")], student=student, teacher=teacher, control=control, temperature=4.0, class_names=["a", "b"]
    )
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert (record["format"], record["temperature"], record["class_names"]) == (1, 4, ["a", "b"])
    [example] = record["examples"]
    assert (example["id"], example["label"], example["why"]) == ("1", 1, "because")
    sigmoid = {x: 1 / (1 + np.exp(-x)) for x in (1, 2, 4)}
    assert example["teacher"]["plain"] == pytest.approx([sigmoid[4], 1 - sigmoid[4]])
    assert example["teacher"]["softened"] == pytest.approx([sigmoid[1], 1 - sigmoid[1]])
    assert example["student"] == pytest.approx([sigmoid[1], 1 - sigmoid[1]])
    assert example["control"] == pytest.approx([1 - sigmoid[2], sigmoid[2]])
