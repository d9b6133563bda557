import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

from distil.data.config import (
    AffineConfig,
    ArraysConfig,
    AugmentationConfig,
    DataConfig,
    DigitsConfig,
    HuggingFaceConfig,
    InputsConfig,
    ShiftConfig,
    ValidationConfig,
)

DATA: TypeAdapter[DataConfig] = TypeAdapter(DataConfig)
AUGMENTATION: TypeAdapter[AugmentationConfig] = TypeAdapter(AugmentationConfig)
SHARED = {"kind": "huggingface", "path": "mnist"}


def arrays(images: np.ndarray, labels: np.ndarray) -> ArraysConfig:
    return ArraysConfig(images=images, labels_of_images=labels, class_names=("a", "b"))


def test_a_word_stands_for_its_kind() -> None:
    assert DATA.validate_python("digits") == DigitsConfig()
    assert DigitsConfig().validation == ValidationConfig(fraction=0.1)


@pytest.mark.parametrize("none", [None, "none"])
def test_no_validation_can_be_written_in_two_ways(none: object) -> None:
    assert DATA.validate_python({"kind": "digits", "validation": none}).validation == "none"


@pytest.mark.parametrize("validation", [{}, {"fraction": 0.1, "last": 5}, {"fraction": 1.0}, {"last": 0}, "some"])
def test_validation_is_exactly_one_thing(validation: object) -> None:
    with pytest.raises(ValidationError):
        DATA.validate_python({"kind": "digits", "validation": validation})


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"kind": "huggingface"}, "give path"),
        ({"kind": "huggingface", "path": "mnist", "revision": "main"}, "only together with hub"),
        ({**SHARED, "validation": {"split": "test"}}, "must be different splits"),
        ({**SHARED, "validation": {"split": "train"}}, "must be different splits"),
        ({**SHARED, "test": "train"}, "must be different splits"),
        ({"kind": "digits", "validation": {"split": "dev"}}, "has no split 'dev'; give fraction or last"),
        ({"kind": "digits", "labels": 0}, "labels"),
        ({"kind": "digits", "test": 1.5}, "test"),
        ({"kind": "arrays", "images": "x.npy", "labels_of_images": "y.npy", "class_names": ["a"]}, "from Python"),
        ({"kind": "csv"}, "csv"),
    ],
)
def test_data_that_cannot_be_meant_are_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        DATA.validate_python(wrong)


def test_32_a_run_cannot_choose_on_its_test_split() -> None:
    assert isinstance(DATA.validate_python({**SHARED, "validation": {"split": "validation"}}), HuggingFaceConfig)
    with pytest.raises(ValidationError, match="must be different splits"):
        DATA.validate_python({**SHARED, "test": "held-out", "validation": {"split": "held-out"}})


def test_arrays_are_written_down_as_a_hash_of_all_they_hold() -> None:
    images, labels = np.zeros((4, 1, 2, 3), np.uint8), np.array([0, 1, 0, 1])
    written = arrays(images, labels).model_dump(mode="json")
    assert written == arrays(images.copy(), labels.copy()).model_dump(mode="json")
    changed = images.copy()
    changed[3, 0, 1, 2] = 1
    others = [arrays(changed, labels), arrays(images.reshape(4, 1, 3, 2), labels), arrays(images, 1 - labels)]
    assert all(other.model_dump(mode="json") != written for other in others)
    transposed = arrays(np.asfortranarray(images), labels)
    assert transposed.model_dump(mode="json") == written


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"kind": "shift", "pixels": 0}, "greater than or equal to 1"),
        ({"kind": "shift"}, "pixels"),
        ({"kind": "flip", "probability": 0}, "greater than 0"),
        ({"kind": "flip", "probability": 1.1}, "less than or equal to 1"),
        ({"kind": "affine"}, "changes nothing; leave it out"),
        ({"kind": "affine", "scale": [1.2, 0.8]}, "the smaller number comes first"),
        ({"kind": "affine", "degrees": -1}, "degrees"),
        ({"kind": "torchvision", "name": "Resize"}, "name"),
        ({"kind": "torchvision", "name": "__class__"}, "name"),
    ],
)
def test_a_change_that_cannot_be_meant_is_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        AUGMENTATION.validate_python(wrong)


def test_20_settings_of_one_transform_are_not_those_of_another() -> None:
    first, second = (AUGMENTATION.validate_python({"kind": "torchvision", "name": "RandomInvert"}) for _ in range(2))
    first.settings["p"] = 1.0  # type: ignore[union-attr]
    assert second.settings == {}  # type: ignore[union-attr]


def test_changes_that_do_something_are_accepted() -> None:
    assert AUGMENTATION.validate_python("flip").probability == 0.5  # type: ignore[union-attr]
    assert ShiftConfig(pixels=2).pixels == 2
    assert AffineConfig(scale=(0.9, 0.9)).scale == (0.9, 0.9)


@pytest.mark.parametrize(
    "wrong", [{"channels": 2}, {"size": 0}, {"std": 0.0}, {"std": [0.5, 0.0]}, {"size": [1, 2, 3]}]
)
def test_inputs_have_their_domains(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        InputsConfig.model_validate(wrong)
