import numpy as np

from distil.check.data import check_data
from distil.check.finding import Finding
from distil.data.config import ArraysConfig
from distil.data.split import load_splits
from tests.check.conftest import Checker, about


def test_sizes_and_labels_are_said(sound: list[Finding]) -> None:
    (finding,) = about(sound, "training examples")
    assert "(100 labelled for students)" in finding.what
    assert "10 classes" in finding.what
    assert about(sound, "no image stands in two splits")


def test_copies_across_splits_are_found() -> None:
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (40, 1, 4, 4), dtype=np.uint8)
    images[1::2] = images[0]  # every second image is the same
    config = ArraysConfig(images=images, labels_of_images=np.arange(40) // 20, class_names=("a", "b"))
    (finding,) = about(list(check_data(load_splits(config))), "the same pixels stand in two splits")
    assert finding.level == "suspicious"
    assert "training and test" in finding.what


def test_rare_classes_and_a_missing_validation_split_are_found(check: Checker) -> None:
    overrides = ["data.labels=20", "data.validation=none", "training.keep=last", "teacher.training.keep=last"]
    findings = check(*overrides)
    assert about(findings, "fewer than 5 labelled training examples of: 0, 1")[0].level == "suspicious"
    assert about(findings, "there is no validation split")[0].level == "suspicious"
