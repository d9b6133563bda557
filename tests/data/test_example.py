from dataclasses import replace

import pytest
import torch

from distil.data.example import NO_LABEL, Examples, Sealed, Splits

from .examples import make


def test_rows_are_selected_in_the_order_given() -> None:
    examples = make(6)
    chosen = examples.select(torch.tensor([4, 1]))
    assert chosen.ids.tolist() == [4, 1]
    assert torch.equal(chosen.images, examples.images[[4, 1]])
    assert chosen.labels.tolist() == [0, 1]
    assert chosen.class_names == examples.class_names


def test_11_hidden_labels_are_gone_and_the_original_keeps_them() -> None:
    examples = make(4)
    hidden = examples.hide_labels(keep=torch.tensor([True, False, False, True]))
    assert hidden.labels.tolist() == [0, NO_LABEL, NO_LABEL, 3]
    assert hidden.labelled.tolist() == [True, False, False, True]
    assert examples.labels.tolist() == [0, 1, 2, 3]
    assert torch.equal(hidden.images, examples.images)


def test_shape_and_classes() -> None:
    assert make(3, num_classes=2, shape=(3, 4, 5)).image_shape == (3, 4, 5)
    assert make(3, num_classes=2).num_classes == 2
    assert len(make(3)) == 3


def changed(name: str) -> Examples:
    examples = make(4)
    match name:
        case "class_names":
            return replace(examples, class_names=("a", "b", "c", "z"))
        case "images":
            images = examples.images.clone()
            images[3, 0, 4, 5] ^= 1
            return replace(examples, images=images)
        case _:
            values = getattr(examples, name).clone()
            values[3] += 1
            return replace(examples, **{name: values})


@pytest.mark.parametrize("name", ["ids", "images", "labels", "class_names"])
def test_the_fingerprint_sees_every_change(name: str) -> None:
    assert changed(name).fingerprint() != make(4).fingerprint()


def test_the_fingerprint_sees_the_shape_and_not_the_memory() -> None:
    examples = make(4, shape=(1, 6, 6))
    reshaped = replace(examples, images=examples.images.reshape(4, 1, 4, 9))
    assert reshaped.fingerprint() != examples.fingerprint()
    strided = replace(examples, images=examples.images.permute(0, 1, 3, 2).contiguous().permute(0, 1, 3, 2))
    assert not strided.images.is_contiguous()
    assert strided.fingerprint() == examples.fingerprint()


def test_images_that_stand_in_two_splits_are_counted() -> None:
    examples = make(10)
    assert examples.select(torch.arange(5)).count_shared(examples.select(torch.arange(3, 10))) == 2
    assert Sealed(examples.select(torch.arange(5))).count_shared(examples.select(torch.arange(5, 10))) == 0


def test_32_the_test_split_opens_only_by_name() -> None:
    examples = make(10)
    sealed = Sealed(examples)
    public = [name for name in dir(sealed) if not name.startswith("_")]
    assert sorted(public) == ["count_shared", "fingerprint", "open_for_final_evaluation", "open_for_parity"]
    for name in ("images", "labels", "ids", "select"):
        assert not hasattr(sealed, name)
    with pytest.raises(TypeError):
        iter(sealed)  # type: ignore[call-overload]
    assert "tensor" not in repr(sealed)
    assert len(sealed) == 10
    assert sealed.open_for_final_evaluation() is examples
    assert sealed.open_for_parity(3).ids.tolist() == [0, 1, 2]
    assert len(sealed.open_for_parity(99)) == 10


def test_the_fingerprint_of_splits_sees_each_split() -> None:
    parts = {"train": make(8), "students": make(7), "validation": make(6), "test": Sealed(make(5))}
    splits = Splits(source="made up", **parts)  # type: ignore[arg-type]
    seen = {splits.fingerprint()}
    for name in parts:
        other = Sealed(make(4)) if name == "test" else make(4)
        seen.add(replace(splits, **{name: other}).fingerprint())
    seen.add(replace(splits, validation=None).fingerprint())
    assert len(seen) == 6
