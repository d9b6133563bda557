import shutil
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from distil.core.errors import DataError, IntegrityError
from distil.core.files import read_json
from distil.evaluate.prediction import load_predictions
from distil.pipeline.run import RunResult
from distil.pipeline.shipped import load


def digits() -> np.ndarray:
    return np.round(load_digits().images * (255 / 16)).astype(np.uint8)[:, None]


def test_35_the_loaded_student_says_what_was_measured(finished: RunResult) -> None:
    student = load(finished.directory)
    seed = read_json(finished.directory / "student" / "model.json")["seed"]
    said = load_predictions(finished.directory / f"arms/distilled/seed-{seed}/predictions.parquet")
    logits = student.logits(digits()[said.ids]).numpy()
    np.testing.assert_allclose(logits, said.logits, rtol=1e-5, atol=1e-5)
    assert student.predict(digits()[said.ids[:3]]) == [str(label) for label in said.decisions[:3]]
    assert student.class_names == tuple("0123456789")
    assert not student.model.training


def test_30_a_flipped_byte_in_the_shipped_student_is_named(finished: RunResult, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(finished.directory, copy)
    path = copy / "student" / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(IntegrityError, match=r"student/model\.safetensors is not as it was written"):
        load(copy)


def test_a_folder_that_is_no_finished_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match=r"no finished run there\. Start it with: distil run RECIPE"):
        load(tmp_path)


def test_images_of_another_shape_are_refused(finished: RunResult) -> None:
    with pytest.raises(DataError, match=r"images have shape \[8, 8\]"):
        load(finished.directory).logits(np.zeros((8, 8), dtype=np.uint8))
