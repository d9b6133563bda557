import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sklearn.datasets import load_digits
from torch import Tensor, nn

from distil.core.errors import DataError, IntegrityError
from distil.core.files import read_json
from distil.data.view import View
from distil.evaluate.prediction import load_predictions
from distil.pipeline.run import RunResult, run
from distil.pipeline.shipped import ShippedStudent, load
from distil.recipe.load import parse_recipe
from distil.tasks.choice import make_task
from distil.tasks.config import (
    CausalLanguageModelConfig,
    MultiLabelConfig,
    QuestionAnsweringConfig,
    RankingConfig,
    SentenceEmbeddingConfig,
    TaskConfig,
    TokenClassificationConfig,
)
from tests.pipeline.conftest import SMALL


def digits() -> np.ndarray:
    found: Any = load_digits()
    return np.round(found.images * (255 / 16)).astype(np.uint8)[:, None]


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


# what it decides, by its task


class Says(nn.Module):
    """The same for each of three examples, whatever they are."""

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.tensor([[1.5, -0.1], [0.1, 0.2], [-2.0, -1.0]])


def saying(task: TaskConfig) -> ShippedStudent:
    return ShippedStudent(Says(), ("a", "b"), View(1, 8, 8, (0.0,), (1.0,)), make_task(task))


IMAGES = np.zeros((3, 1, 8, 8), dtype=np.uint8)


def test_of_several_classes_each_that_holds_is_named() -> None:
    assert saying(MultiLabelConfig()).predict(IMAGES) == [("a",), ("a", "b"), ()]
    assert saying(RankingConfig()).predict(IMAGES) == ["a", "b", "b"]


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (TokenClassificationConfig(), r"answers for tokens .* student/huggingface with transformers"),
        (QuestionAnsweringConfig(), r"answers for tokens .* student/huggingface with transformers"),
        (CausalLanguageModelConfig(), r"answers for tokens .* student/huggingface with transformers"),
        (SentenceEmbeddingConfig(), r"gives embeddings and no classes; call logits"),
    ],
)
def test_a_student_that_has_no_class_for_an_example_says_so(task: TaskConfig, message: str) -> None:
    with pytest.raises(DataError, match=message):
        saying(task).predict(IMAGES)


# a student that answers through its teacher's classifier


@pytest.fixture(scope="module")
def reused(tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    """A finished run whose distilled arm has the term simkd. Tests only look at it."""
    overrides = ["objective.simkd={kind: simkd}", "teacher.model.widths=[6, 8]", "controls=[scratch]", "seeds=2"]
    return run(parse_recipe(SMALL, overrides), tmp_path_factory.mktemp("reused") / "run")


def test_18_the_reused_classifier_ships_and_is_the_teacher_s_to_the_last_bit(reused: RunResult) -> None:
    shipped = load_file(reused.directory / "student/model.safetensors")
    teacher = load_file(reused.directory / "teachers/teacher/model.safetensors")
    assert torch.equal(shipped["classifier.classifier.weight"], teacher["classifier.weight"])
    assert torch.equal(shipped["classifier.classifier.bias"], teacher["classifier.bias"])
    assert "classifier.projector.0.weight" in shipped
    described = read_json(reused.directory / "student/model.json")
    assert described["reused_classifier"] == {"teacher_width": 8, "num_classes": 10, "bias": True}
    assert read_json(reused.directory / "arms/scratch/seed-0/evaluation.json")["num_parameters"] == 64 * 16 + 16 + 170


def test_18_its_parameters_are_counted(reused: RunResult) -> None:
    """Body, projector with its normalisations, and the copied classifier, by hand."""
    body, classifier = 64 * 16 + 16, 8 * 10 + 10
    projector = (16 * 4 + 8) + (4 * 4 + 8) + (4 * 8 + 8)
    seed = read_json(reused.directory / "student/model.json")["seed"]
    facts = read_json(reused.directory / f"arms/distilled/seed-{seed}/evaluation.json")
    assert facts["num_parameters"] == body + projector + classifier
    loaded = load(reused.directory).model
    assert sum(parameter.numel() for parameter in loaded.parameters()) == facts["num_parameters"]


def test_18_nothing_else_of_the_objective_ships(reused: RunResult) -> None:
    shipped = load_file(reused.directory / "student/model.safetensors")
    assert set(shipped) == set(load(reused.directory).model.state_dict())


def test_35_it_is_loaded_without_its_teacher_and_says_what_was_measured(reused: RunResult, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(reused.directory, copy)
    shutil.rmtree(copy / "teachers")
    student = load(copy)
    seed = read_json(copy / "student" / "model.json")["seed"]
    said = load_predictions(copy / f"arms/distilled/seed-{seed}/predictions.parquet")
    np.testing.assert_allclose(student.logits(digits()[said.ids]).numpy(), said.logits, rtol=1e-4, atol=1e-5)
    alone = student.logits(digits()[said.ids[:1]]).numpy()
    np.testing.assert_allclose(alone, said.logits[:1], rtol=1e-4, atol=1e-5)  # no statistics of the batch
