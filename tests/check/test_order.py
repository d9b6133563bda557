"""The same tokens in another order: what moves, what stays, and who notices."""

from pathlib import Path
from typing import Any

import pytest
import torch

import distil.check.order as order_module
from distil.check.finding import Finding
from distil.check.order import Said, check_order, shuffled, token_order
from distil.check.teacher import build_candidate
from distil.data.example import TextExamples
from distil.data.feed import TASK
from distil.data.split import load_splits
from distil.recipe.resolve import resolve
from distil.tasks.choice import make_task
from distil.tasks.classification import Classification
from distil.tasks.config import CausalLanguageModelConfig, TokenClassificationConfig

from .test_text import examples, view_of
from .text_fixture import recipe_of, write_trained_teacher


def order_of(texts: TextExamples, view: Any) -> list[list[int]]:
    shape = view(texts.columns)["input_ids"].shape
    return token_order(view, texts, (shape[:-1].numel(), shape[-1])).tolist()


def test_special_tokens_and_padding_stay_and_nothing_is_lost() -> None:
    (long, short) = order_of(examples({"text": ["abcdefgh", "ab"]}), view_of(16))
    assert (long[0], long[-1]) == (0, 9)
    assert sorted(long) == list(range(10))
    assert long != list(range(10))
    assert short[3:] == list(range(3, 10))  # [SEP] and padding
    assert sorted(short) == list(range(10))


def test_tokens_of_a_pair_stay_in_their_text() -> None:
    (order,) = order_of(examples({"first": ["abcdef"], "second": ["cdefgh"]}), view_of(20, ("first", "second")))
    assert sorted(order[1:7]) == list(range(1, 7))
    assert sorted(order[8:14]) == list(range(8, 14))
    assert (order[0], order[7], order[14]) == (0, 7, 14)
    assert order != list(range(15))


def test_texts_read_apart_have_an_order_each_and_an_order_is_the_example_s_own() -> None:
    texts = examples({"first": ["abcdef", "abcdef"], "second": ["abcdef", "abcdef"]})
    view = view_of(16, ("first", "second"), apart=True)
    orders = order_of(texts, view)
    assert len(orders) == 4
    assert orders[2:] == order_of(texts.select(torch.tensor([1])), view)


def batch_of(texts: TextExamples, view: Any, task: Any) -> Any:
    return next(task.batches(texts, {"model": view}))


def test_the_next_token_is_that_of_the_new_order() -> None:
    texts, view, task = examples({"text": ["abcdef"]}), view_of(12, fixed=True), make_task(CausalLanguageModelConfig())
    before = batch_of(texts, view, task)
    after = shuffled(before, texts, view, task)
    ids = after.inputs["model"]["input_ids"]
    assert not torch.equal(ids, before.inputs["model"]["input_ids"])
    mask = after.positions[TASK]
    assert torch.equal(mask, before.positions[TASK])
    assert torch.equal(after.targets[TASK][mask], ids[:, 1:][mask[:, :-1]])


def test_a_tag_goes_with_its_token() -> None:
    texts = examples({"words": [["a", "b", "c", "d", "e"]]}, labels=[[0, 1, 0, 1, 1]])
    view, task = view_of(12, ("words",)), make_task(TokenClassificationConfig())
    before = batch_of(texts, view, task)
    after = shuffled(before, texts, view, task)

    def pairs(batch: Any) -> list[tuple[int, int]]:
        mask = batch.positions[TASK]
        ids, tags = (each[mask].tolist() for each in (batch.inputs["model"]["input_ids"], batch.targets[TASK]))
        return list(zip(ids, tags, strict=True))

    assert sorted(pairs(before)) == sorted(pairs(after))
    assert pairs(before) != pairs(after)


def test_the_class_of_a_text_stays() -> None:
    texts, view = examples({"text": ["abcdef"]}), view_of(12)
    before = batch_of(texts, view, Classification())
    after = shuffled(before, texts, view, Classification())
    assert after.targets is before.targets
    assert set(after.inputs["model"]) == set(before.inputs["model"])


def found_in(kind: str, folder: Path, *overrides: str) -> list[Finding]:
    resolved = resolve(recipe_of(kind, folder, *overrides))
    task, splits = make_task(resolved.tasks["main"]), load_splits(resolved.data)
    candidate = build_candidate("teacher", resolved.teachers["teacher"], splits, task)
    return list(check_order(candidate, splits.train, task, resolved.tasks["main"]))


def losses(finding: Finding) -> tuple[float, float]:
    before, _, after = finding.what.split("goes from ")[1].partition(" to ")
    return float(before), float(after.split(",")[0].split(":")[0])


@pytest.mark.parametrize("kind", ["causal-lm", "masked-lm"])
def test_a_language_model_loses_by_disorder(kind: str, tmp_path: Path) -> None:
    weights = write_trained_teacher(recipe_of(kind, tmp_path), tmp_path / "w.safetensors")
    (finding,) = found_in(kind, tmp_path, weights)
    before, after = losses(finding)
    assert (finding.level, after > before + 1) == ("fine", True)


def test_a_language_model_that_gains_by_disorder_is_suspicious(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = write_trained_teacher(recipe_of("causal-lm", tmp_path), tmp_path / "w.safetensors")
    ask, asked = order_module._ask, []

    def in_turn(*given: Any) -> Any:
        asked.append(ask(*given))
        return Said(loss=-asked[-1].loss, accuracy=None, outputs=None)

    monkeypatch.setattr(order_module, "_ask", in_turn)
    (finding,) = found_in("causal-lm", tmp_path, weights)
    assert (finding.level, len(asked)) == ("suspicious", 2)
    assert "disorder is easier for it" in finding.what


def test_a_classifier_s_accuracy_before_and_after_is_said(tmp_path: Path) -> None:
    weights = write_trained_teacher(recipe_of("text-classification", tmp_path), tmp_path / "w.safetensors")
    (finding,) = found_in("text-classification", tmp_path, weights)
    assert finding.level == "fine"
    assert ", its accuracy from " in finding.what


def bag_of_words(*kernels: int) -> str:
    model = f"{{kind: text-cnn, embedding: 4, widths: 4, kernels: {list(kernels)}}}"
    return f"teacher={{model: {model}, inputs: {{tokenizer: {{kind: wordpiece, size: 120}}}}, training: {{epochs: 1}}}}"


def test_a_bag_of_words_is_suspicious_also_before_it_is_trained(tmp_path: Path) -> None:
    own = "student={model: {kind: text-cnn}, inputs: {tokenizer: {kind: wordpiece, size: 120}}}"
    (finding,) = found_in("text-classification", tmp_path, bag_of_words(1), own)
    assert finding.level == "suspicious"
    assert "it does not change at all" in finding.what
    assert "bag of words" in finding.why
    assert found_in("text-classification", tmp_path, bag_of_words(1, 2), own) == []


@pytest.mark.parametrize("kind", ["text-classification", "causal-lm", "sentence-embedding", "multi-label"])
def test_of_an_untrained_teacher_that_reads_in_order_nothing_is_said(kind: str, tmp_path: Path) -> None:
    assert found_in(kind, tmp_path) == []


def test_spans_have_no_place_in_a_shuffled_text(tmp_path: Path) -> None:
    assert found_in("question-answering", tmp_path) == []
