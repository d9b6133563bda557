"""What stands beside the arms: baselines without a network, and what a cut student knows before its training."""

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from distil.core.files import read_json
from distil.core.run_directory import RunDirectory
from distil.data.example import TextExamples
from distil.pipeline import baseline as module
from distil.pipeline.baseline import FILE, measure_baselines
from distil.pipeline.opening import opened
from distil.pipeline.run import RunResult
from distil.pipeline.teacher import prepare_teachers
from distil.recipe.load import parse_recipe
from distil.recipe.resolve import resolve
from distil.tasks.score import Scores
from tests.suites.test_text_tasks import recipe_of, rows

pytest.importorskip("transformers")

CNN = {"kind": "text-cnn", "embedding": 4, "widths": 4, "kernels": [2]}
READ = {"tokenizer": {"kind": "wordpiece", "size": 120}, "max_length": 24}
Found = dict[str, dict[str, Any]]


def measured(kind: str, tmp_path: Path, **changes: Any) -> tuple[Found, Path]:
    """The baselines of a recipe, with its teacher trained and no student."""
    (tmp_path / "data").mkdir(exist_ok=True)
    written = recipe_of(kind, tmp_path / "data", **changes)
    with opened(resolve(parse_recipe(json.dumps(written))), tmp_path / "run") as context:
        test = context.splits.test.open_for_final_evaluation()
        return measure_baselines(context, prepare_teachers(context), test), tmp_path / "run"


def small(**changes: Any) -> dict[str, Any]:
    """Networks that take no time, where no student is cut."""
    own = {"model": CNN, "inputs": READ}
    return {"teacher": {**own, "training": {"epochs": 1, "batch_size": 16}}, "student": own, **changes}


def test_classes_have_the_most_frequent_one_and_a_linear_model(tmp_path: Path) -> None:
    found, run_directory = measured("text-classification", tmp_path, **small())
    assert list(found) == ["majority class", "TF-IDF and logistic regression"]
    assert found["majority class"]["value"] == pytest.approx(8 / 24)  # three classes in turn
    assert 0 <= found["TF-IDF and logistic regression"]["value"] <= 1
    assert "C is" in found["TF-IDF and logistic regression"]["note"]
    assert read_json(run_directory / "evaluation" / FILE) == found


def test_11_baselines_see_the_labels_that_students_may_see_and_no_others(tmp_path: Path) -> None:
    found, _ = measured("text-classification", tmp_path, **small(data=with_few_labels(tmp_path, 6)))
    assert "from 6 labelled texts" in found["TF-IDF and logistic regression"]["note"]


def with_few_labels(tmp_path: Path, count: int) -> dict[str, Any]:
    (tmp_path / "data").mkdir(exist_ok=True)
    return {**recipe_of("text-classification", tmp_path / "data")["data"], "labels": count}


def test_ranking_has_chance_and_shared_words(tmp_path: Path) -> None:
    """No question shares a word with a candidate, so BM25 finds no more than chance: one of four."""
    found, _ = measured("ranking", tmp_path, **small())
    assert list(found) == ["chance", "BM25"]
    assert found["chance"]["value"] == pytest.approx(1 / 4)
    assert found["BM25"]["value"] == pytest.approx(1 / 4)


def test_36_shared_words_rank_by_hand(tmp_path: Path) -> None:
    candidates = ["red old", "blue new", "green dry", "warm cold", "small large"]
    examples = TextExamples(
        ids=torch.arange(5),
        labels=torch.tensor([1, 0, 0, 0, 1]),
        class_names=("other", "answer"),
        columns={"question": ("old thing",) * 3 + ("warm?",) * 2, "candidate": tuple(candidates)},
        groups=("a",) * 3 + ("b",) * 2,
    )
    chance, words = module._of_ranking(examples)
    assert chance.values.tolist() == pytest.approx([(1 / 3 + 1 / 2) / 2] * 2)
    assert words.values.tolist() == [1, 0]


def test_36_a_language_model_must_beat_the_frequencies_of_bytes(tmp_path: Path) -> None:
    model = {"kind": "huggingface", "config": {**recipe_of("causal-lm", tmp_path)["teacher"]["model"]["config"]}}
    own = {"model": model, "inputs": READ}
    found, _ = measured("causal-lm", tmp_path, student=own)
    train, test = ([row["text"] for row in rows("causal-lm", *span)] for span in ((48, 0), (24, 64)))
    counts = Counter("".join(train).encode())
    total = sum(counts.values()) + 256
    bits = [-sum(math.log2((counts[byte] + 1) / total) for byte in text.encode()) / len(text.encode()) for text in test]
    assert list(found) == ["unigrams of bytes"]
    assert found["unigrams of bytes"]["value"] == pytest.approx(sum(bits) / len(bits))


def test_a_cut_student_is_measured_before_its_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Scores] = []
    original = module.score

    def watched(*args: Any, **settings: Any) -> Scores:
        asked.append(original(*args, **settings))
        return asked[-1]

    monkeypatch.setattr(module, "score", watched)
    found, _ = measured("text-classification", tmp_path)
    assert list(found) == ["majority class", "TF-IDF and logistic regression", "student before training"]
    (said,) = asked
    right = (said.logits.argmax(dim=1) == said.labels).float().mean().item()
    assert found["student before training"]["value"] == pytest.approx(right)
    assert len(said.ids) == 24
    assert "before any training" in found["student before training"]["note"]


def test_they_are_measured_once_and_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, run_directory = measured("text-classification", tmp_path, **small())
    assert RunDirectory(run_directory).is_done("evaluation/baselines")

    def fail(*_: Any) -> None:
        raise AssertionError("measured again")

    monkeypatch.setattr(module, "majority_class", fail)
    assert measured("text-classification", tmp_path, **small())[0] == first


def test_images_have_none(finished: RunResult) -> None:
    assert finished.verdict["baselines"] == {}
    assert not (finished.directory / "evaluation" / FILE).exists()
