from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from distil.core.errors import ExportError
from distil.export.samples import Samples, at_length, by_name, num_rows, read_samples, serialise, take, used_columns

IDS = np.array([[0, 0, 5, 6], [0, 7, 8, 0]])
MASK = np.array([[0, 0, 1, 1], [0, 1, 1, 0]])
TEXTS = {"input_ids": IDS, "attention_mask": MASK, "token_type_ids": np.array([[0, 0, 0, 1], [0, 0, 0, 0]])}
IMAGES = np.arange(24, dtype=np.float32).reshape(2, 1, 3, 4)


def test_columns_outside_which_there_is_only_padding_on_either_side() -> None:
    assert used_columns(TEXTS) == slice(1, 4)
    assert used_columns(take(TEXTS, slice(1, 2))) == slice(1, 3)
    assert used_columns({"attention_mask": np.array([[1, 0, 1]])}) == slice(0, 3), "a hole is not an end"


def test_a_text_is_cut_at_its_end_or_padded_on_the_right() -> None:
    longer = at_length(TEXTS, 5, pad_id=9)
    np.testing.assert_array_equal(longer["input_ids"], [[0, 5, 6, 9, 9], [7, 8, 0, 9, 9]])
    np.testing.assert_array_equal(longer["attention_mask"], [[0, 1, 1, 0, 0], [1, 1, 0, 0, 0]])
    np.testing.assert_array_equal(longer["token_type_ids"], [[0, 0, 1, 0, 0], [0, 0, 0, 0, 0]])
    shorter = at_length(take(TEXTS, slice(0, 1)), 1, pad_id=9)
    assert {name: value.tolist() for name, value in shorter.items()} == {
        "input_ids": [[5]],
        "attention_mask": [[1]],
        "token_type_ids": [[0]],
    }


def test_rows_of_images_and_of_texts() -> None:
    assert num_rows(TEXTS) == num_rows(IMAGES) == 2
    np.testing.assert_array_equal(by_name(take(IMAGES, np.array([1])))["images"], IMAGES[1:])
    second = by_name(take(TEXTS, np.array([1])))
    assert list(second) == list(TEXTS)
    np.testing.assert_array_equal(second["input_ids"], [[0, 7, 8, 0]])


@pytest.mark.untyped
@pytest.mark.parametrize(
    ("inputs", "reference", "targets", "keys"),
    [
        (IMAGES, np.ones((2, 3)), np.array([0, 2]), {"inputs", "reference", "targets"}),
        (TEXTS, np.ones((2, 3)), None, {*(f"inputs.{name}" for name in TEXTS), "reference"}),
        (TEXTS, np.ones((2, 4, 3)), np.array([[-1, -1, 0, 2], [-1, 1, 1, -1]]), None),
    ],
)
def test_what_is_read_is_what_was_written(
    inputs: Any, reference: np.ndarray, targets: np.ndarray | None, keys: set[str] | None, tmp_path: Path
) -> None:
    path = tmp_path / "samples.safetensors"
    path.write_bytes(serialise(Samples(inputs, reference.astype(np.float32), targets)))
    if keys is not None:
        assert load_file(path).keys() == keys
    read = read_samples(path)
    for name, value in by_name(inputs).items():
        np.testing.assert_array_equal(by_name(read.inputs)[name], value)
    np.testing.assert_array_equal(read.reference, reference)
    if targets is None:
        assert read.targets is None
    else:
        np.testing.assert_array_equal(read.targets, targets)


@pytest.mark.untyped
def test_11_what_is_said_of_padding_does_not_count() -> None:
    reference = np.arange(24, dtype=np.float32).reshape(2, 4, 3)
    samples = Samples(TEXTS, reference, np.zeros((2, 4), np.int64))
    assert samples.of_tokens
    np.testing.assert_array_equal(samples.counted(reference)[:, 0], [6, 9, 15, 18])
    whole = Samples(TEXTS, reference[:, 0])
    assert not whole.of_tokens
    assert whole.counted(reference[:, 0]) is not None
    np.testing.assert_array_equal(whole.counted(reference[:, 0]), reference[:, 0])


@pytest.mark.untyped
@pytest.mark.parametrize(
    ("changes", "shape", "targets", "message"),
    [
        (
            {"attention_mask": None},
            (2, 3),
            None,
            "texts need input_ids and attention_mask; found inputs input_ids int64",
        ),
        ({"input_ids": None}, (2, 3), None, "texts need input_ids"),
        (
            {"input_ids": IDS[:, :3]},
            (2, 3),
            None,
            r"int64 of one shape \[N, tokens\]; found inputs input_ids int64 \(2, 3",
        ),
        ({"input_ids": IDS.astype(np.int32)}, (2, 3), None, "found inputs input_ids int32"),
        ({"attention_mask": 2 * MASK}, (2, 3), None, "1 for a token and 0 for padding"),
        ({"attention_mask": MASK * [[1], [0]]}, (2, 3), None, "every text has a token"),
        ({}, (2, 3, 3), None, r"reference \[N, outputs\] or \[N, tokens, classes\]; found .* reference \(2, 3, 3\)"),
        ({}, (3, 3), None, "same number of each"),
        ({}, (2, 3), np.array([0, 3]), r"lie in 0\.\.3, but the model has 3 classes"),
        ({}, (2, 3), np.array([-1, 0]), r"lie in -1\.\.0"),
        ({}, (2, 3), np.array([[0], [1]]), "same number of each"),
        ({}, (2, 4, 3), np.full((2, 4), -2), r"lie in -2\.\.-2"),
    ],
)
def test_texts_that_do_not_belong_together_are_refused(
    changes: dict[str, Any], shape: tuple[int, ...], targets: np.ndarray | None, message: str
) -> None:
    inputs = {name: value for name, value in (TEXTS | changes).items() if value is not None}
    with pytest.raises(ExportError, match=message):
        Samples(inputs, np.ones(shape, np.float32), targets)


@pytest.mark.untyped
def test_images_have_classes() -> None:
    with pytest.raises(ExportError, match=r"targets \[N\]; found .* targets None"):
        Samples(IMAGES, np.ones((2, 3), np.float32))
