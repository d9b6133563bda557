"""Twelve kinds of bad input: each gives a clear message with place and remedy, and the right exit code."""

import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import save_file

from distil.cli.main import main
from distil.core.errors import DataError
from distil.data.config import ArraysConfig
from distil.data.source import make_examples
from distil.data.split import load_splits

RECIPE = """\
name: bad
data: {kind: digits, labels: 100}
teacher:
  model: {kind: mlp, widths: [16]}
  training: {epochs: 1}
student:
  model: {kind: mlp, widths: [8]}
objective:
  true-labels: {kind: true-labels, weight: 0.1}
  soft-targets: {kind: soft-targets, weight: 0.9, temperature: 4}
training: {epochs: 1}
seeds: 1
"""


class Distil:
    """The command line on a recipe text."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self._monkeypatch, self._capsys = folder, monkeypatch, capsys

    def __call__(self, recipe: str, *arguments: str, command: str = "run") -> tuple[int, str]:
        path = self.folder / "recipe.yaml"
        path.write_text(recipe)
        directory = ["--run-dir", str(self.folder / "run")] if command == "run" else []
        self._monkeypatch.setattr(sys, "argv", ["distil", command, str(path), *directory, *arguments])
        try:
            main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0
        else:
            code = 0
        captured = self._capsys.readouterr()
        return code, captured.err + captured.out


@pytest.fixture
def distil(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Distil:
    monkeypatch.chdir(tmp_path)
    return Distil(tmp_path, monkeypatch, capsys)


def expect(answer: tuple[int, str], code: int, *parts: str) -> None:
    assert answer[0] == code, answer[1]
    for part in parts:
        assert part in answer[1]
    assert "Traceback" not in answer[1]


def test_a_misspelt_key(distil: Distil) -> None:
    answer = distil(RECIPE.replace("temperature: 4", "temprature: 4"))
    expect(answer, 2, "objective.soft-targets.temprature", "line 10", "did you mean 'temperature'?")


def test_a_wrong_type(distil: Distil) -> None:
    answer = distil(RECIPE.replace("training: {epochs: 1}\nseeds", "training: {epochs: five}\nseeds"))
    expect(answer, 2, "training.epochs", "line 11", "'five'", "whole number")


def test_a_negative_temperature(distil: Distil) -> None:
    answer = distil(RECIPE.replace("temperature: 4", "temperature: -4"))
    expect(answer, 2, "objective.soft-targets.temperature", "line 10", "-4", "above 0")


def test_a_missing_file(distil: Distil) -> None:
    answer = distil(RECIPE.replace("  training: {epochs: 1}\nstudent", "  weights: nowhere.safetensors\nstudent"))
    expect(answer, 3, "nowhere.safetensors", "no such file of weights")


def test_a_missing_data_folder(distil: Distil, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISTIL_DATA", raising=False)
    answer = distil(RECIPE.replace("{kind: digits, labels: 100}", "{kind: huggingface, path: nowhere}"))
    expect(answer, 3, "data.path", "nowhere", "set DISTIL_DATA")


def test_an_empty_split(distil: Distil) -> None:
    answer = distil(RECIPE.replace("labels: 100", "validation: {fraction: 0.0001}"))
    expect(answer, 3, "data.validation", "leaves a split empty")


def test_one_class_only(distil: Distil, tmp_path: Path) -> None:
    for split, count in (("train", 12), ("test", 4)):
        folder = tmp_path / "images" / split / "cat"
        folder.mkdir(parents=True)
        for number in range(count):
            Image.fromarray(np.full((8, 8), number, dtype=np.uint8)).save(folder / f"{number}.png")
    answer = distil(RECIPE.replace("{kind: digits, labels: 100}", f"{{kind: huggingface, path: {tmp_path}/images}}"))
    expect(answer, 3, "no column 'label'", "a folder for each of two or more classes")


def test_one_class_only_in_a_column() -> None:
    images, labels = np.zeros((20, 1, 4, 4), dtype=np.uint8), np.ones(20, dtype=np.int64)
    config = ArraysConfig(images=images, labels_of_images=labels, class_names=("a", "b"))
    with pytest.raises(DataError, match="have the class 'b'; two or more are needed"):
        load_splits(config)


def test_a_pixel_that_is_not_a_number(distil: Distil, tmp_path: Path) -> None:
    for label in ("cat", "dog"):
        folder = tmp_path / "images" / "train" / label
        folder.mkdir(parents=True)
        for number in range(6):
            pixels = np.full((8, 8), 0.5, dtype=np.float32)
            if (label, number) == ("dog", 3):
                pixels[2, 5] = np.nan
            Image.fromarray(pixels).save(folder / f"{number}.tiff")
    data = f"{{kind: huggingface, path: {tmp_path}/images, test: 0.3}}"
    answer = distil(RECIPE.replace("{kind: digits, labels: 100}", data))
    expect(answer, 3, "split train, row 9", "pixel (2, 5) is nan", "Repair or remove the image")


def test_the_wrong_number_of_classes(distil: Distil, tmp_path: Path) -> None:
    from distil.models.builtin import Mlp

    teacher = Mlp(num_inputs=64, widths=[16], num_classes=5, dropout=0.0, input_dropout=0.0)
    save_file(teacher.state_dict(), tmp_path / "five.safetensors")
    weights = f"  weights: {tmp_path}/five.safetensors\nstudent"
    answer = distil(RECIPE.replace("  training: {epochs: 1}\nstudent", weights))
    expect(answer, 3, "five.safetensors: the weights do not fit", "classifier.weight has shape [5, 16]", "[10, 16]")


def test_a_label_that_is_no_class() -> None:
    with pytest.raises(DataError, match="example 2 has label 7, and there are 2 classes"):
        make_examples(np.zeros((3, 1, 4, 4), np.uint8), np.array([0, 1, 7]), class_names=["a", "b"])


def test_06_probabilities_for_logits() -> None:
    """From Python, where a teacher can be any module: the check finds it, with exit code 3 on the command line."""
    from torch import nn

    from distil.check.check import check_recipe
    from distil.recipe.recipe import Recipe

    def with_softmax() -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.Softmax(dim=-1))

    recipe = Recipe.model_validate(
        {
            "name": "probabilities",
            "data": "digits",
            "teacher": {"model": {"kind": "module", "make": with_softmax}, "weights": "included"},
            "student": {"model": {"kind": "mlp", "widths": [8]}},
            "objective": {"soft": "soft-targets"},
        }
    )
    (finding,) = [each for each in check_recipe(recipe) if "probabilities" in each.what]
    assert finding.level == "wrong"
    assert "teacher" in finding.what
    assert "remove the softmax" in finding.remedy


def test_a_duplicate_key(distil: Distil) -> None:
    answer = distil(RECIPE + "seeds: 2\n")
    expect(answer, 2, "seeds", "line 13", "stands here twice", "first on line 12")


def test_a_changed_recipe_in_an_old_directory(distil: Distil, tmp_path: Path) -> None:
    expect(distil(RECIPE), 0, "Report:")
    before = (tmp_path / "run" / "manifest.json").read_bytes()
    answer = distil(RECIPE, "--set", "training.epochs=2")
    expect(answer, 2, "arms.distilled.stages.0.training.epochs: 1 -> 2", "Choose another --run-dir")
    assert (tmp_path / "run" / "manifest.json").read_bytes() == before


class _Malicious:
    def __init__(self, canary: Path) -> None:
        self._canary = canary

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return _touch, (str(self._canary),)


def _touch(path: str) -> None:
    Path(path).touch()


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin", ".pkl", ".ckpt", ".joblib"])
def test_a_malicious_pickle_as_weights_does_not_run(suffix: str, distil: Distil, tmp_path: Path) -> None:
    canary, weights = tmp_path / "canary", tmp_path / f"weights{suffix}"
    weights.write_bytes(pickle.dumps(_Malicious(canary)))
    recipe = RECIPE.replace("  training: {epochs: 1}\nstudent", f"  weights: {weights}\nstudent")
    for command in ("run", "check"):
        answer = distil(recipe, command=command)
        expect(answer, 3, weights.name, "can run code when it is opened", "safetensors.torch.save_file")
    assert not canary.exists()
    pickle.loads(weights.read_bytes())  # noqa: S301 - the trap itself works
    assert canary.exists()


def test_a_pickle_that_calls_itself_safetensors_does_not_run(distil: Distil, tmp_path: Path) -> None:
    canary, weights = tmp_path / "canary", tmp_path / "weights.safetensors"
    weights.write_bytes(pickle.dumps(_Malicious(canary)))
    recipe = RECIPE.replace("  training: {epochs: 1}\nstudent", f"  weights: {weights}\nstudent")
    expect(distil(recipe), 3, "not a readable safetensors file")
    assert not canary.exists()


def test_arrays_with_a_pixel_that_is_not_a_number() -> None:
    images = np.zeros((20, 1, 4, 4), dtype=np.float32)
    images[7, 0, 1, 2] = np.inf
    config = ArraysConfig(images=images, labels_of_images=np.arange(20) % 2, class_names=("a", "b"))
    with pytest.raises(DataError, match=r"pixel \(7, 0, 1, 2\) is inf"):
        load_splits(config)
