"""Every language task, whole: tiny networks drawn at random, a small data set on disk, a run with its verdict."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from distil.core.errors import RecipeError
from distil.evaluate.prediction import load_values
from distil.pipeline.run import RunResult, run
from distil.pipeline.shipped import load
from distil.recipe.load import parse_recipe

WORDS = ["red", "blue", "green", "old", "new", "small", "large", "warm", "cold", "dry"]
BERT = {
    "model_type": "bert",
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 64,
}
LLAMA = {
    "model_type": "llama",
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "intermediate_size": 32,
    "max_position_embeddings": 64,
}
T5 = {"model_type": "t5", "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2}


def sentence(number: int) -> str:
    return " ".join(WORDS[(number * step + step) % 10] for step in (1, 3, 7, 9)[: 2 + number % 3])


def rows(kind: str, count: int, first: int) -> list[dict[str, Any]]:
    return [row(kind, number) for number in range(first, first + count)]


def row(kind: str, number: int) -> dict[str, Any]:
    text = f"{sentence(number)} {number}"
    match kind:
        case "text-classification":
            return {"text": text, "label": number % 3}
        case "multi-label":
            return {"text": text, "label": [c for c in range(3) if (number >> c) & 1]}
        case "token-classification":
            words = text.split()
            return {"text": words, "label": ["B-N" if word.isdigit() else "O" for word in words]}
        case "ranking":
            return {
                "question": f"which {number // 4}",
                "candidate": text,
                "label": int(number % 4 == 1),
                "group": number // 4,
            }
        case "question-answering":
            context = f"{sentence(number)} is {number} now. " + "old red cold dry " * (number % 4)
            answer = str(number)
            place = context.index(answer)
            return {
                "question": f"what is {sentence(number)}",
                "context": context,
                "answers": {"text": [answer], "answer_start": [place]},
            }
        case "sequence-to-sequence":
            return {"text": text, "target": " ".join(reversed(text.split()))}
        case "sentence-embedding":
            return {"text": text, "other": " ".join(reversed(text.split()))}
        case _:
            return {"text": f"{text} and {sentence(number + 1)}"}


COLUMNS: dict[str, dict[str, Any]] = {
    "text-classification": {"text": "text", "label": "label"},
    "multi-label": {"text": "text", "label": "label"},
    "token-classification": {"text": "text", "label": "label"},
    "ranking": {"text": ["question", "candidate"], "label": "label", "group": "group"},
    "question-answering": {"text": ["question", "context"], "answers": "answers"},
    "sequence-to-sequence": {"text": "text", "target": "target"},
    "sentence-embedding": {"text": ["text", "other"]},
    "causal-lm": {"text": "text"},
    "masked-lm": {"text": "text"},
}
TERMS: dict[str, dict[str, Any]] = {
    "multi-label": {"labels": "binary-labels", "teacher": "binary-kl"},
    "sentence-embedding": {"teacher": "embedding-mse"},
    "causal-lm": {"labels": "true-labels", "teacher": {"kind": "top-k", "k": 8}},
}
MODELS = {"causal-lm": LLAMA, "sequence-to-sequence": T5}
METRICS = {
    "text-classification": "accuracy",
    "multi-label": "example_f1",
    "token-classification": "sentence_entity_f1",
    "ranking": "hit_at_1",
    "question-answering": "answer_f1",
    "sequence-to-sequence": "sentence_chrf",
    "sentence-embedding": "mean_reciprocal_rank",
    "causal-lm": "document_bits_per_byte",
    "masked-lm": "example_masked_accuracy",
}


def recipe_of(kind: str, folder: Path, **changes: Any) -> dict[str, Any]:
    for split, count, first in (("train", 48, 0), ("validation", 16, 48), ("test", 24, 64)):
        lines = [json.dumps(each) for each in rows(kind, count, first)]
        (folder / f"{split}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    task = {"kind": kind, "stride": 4} if kind == "question-answering" else {"kind": kind}
    if kind == "sequence-to-sequence":
        task["max_target_tokens"] = 12
    training = {"epochs": 1, "batch_size": 16}
    return {
        "name": kind,
        "task": task,
        "data": {"kind": "text", "path": str(folder), **COLUMNS[kind], "validation": {"split": "validation"}},
        "teacher": {
            "model": {"kind": "huggingface", "config": MODELS.get(kind, BERT)},
            "inputs": {"tokenizer": {"kind": "wordpiece", "size": 120}, "max_length": 24},
            "training": training,
        },
        "student": {"from_teacher": {"layers": 1, "keep": "last"}},
        "objective": TERMS.get(kind, {"labels": "true-labels", "teacher": "soft-targets"}),
        "training": training,
        "controls": ["scratch"],
        "seeds": 1,
        "placement": {"threads": 1},
        **changes,
    }


def run_task(kind: str, tmp_path: Path, **changes: Any) -> RunResult:
    (tmp_path / "data").mkdir()
    recipe = recipe_of(kind, tmp_path / "data", **changes)
    return run(parse_recipe(json.dumps(recipe)), tmp_path / "run")


@pytest.mark.parametrize("kind", [kind for kind in COLUMNS if kind != "sequence-to-sequence"])
def test_a_task_runs_from_recipe_to_report(kind: str, tmp_path: Path) -> None:
    result = run_task(kind, tmp_path)
    verdict = result.verdict
    assert verdict["metric"] == METRICS[kind]
    assert verdict["higher_is_better"] == (kind != "causal-lm")
    units = 6 if kind == "ranking" else 24
    assert verdict["test_examples"] == units
    evaluation = json.loads((result.directory / "arms/distilled/seed-0/evaluation.json").read_text())
    assert evaluation["metrics"][METRICS[kind]] == pytest.approx(verdict["arms"]["distilled"]["mean"])
    assert result.report.is_file()
    assert "student before training" in verdict["baselines"]


@pytest.mark.parametrize(("language", "tokenizer"), [("en", "wordpiece"), ("zh", "characters")])
def test_36_spans_of_real_questions_are_taught_and_measured(
    language: str, tokenizer: str, tmp_path: Path, data_folder: Path
) -> None:
    """Shrunken: 826 questions cannot teach spans. All 220 test questions are answered and none is lost by a window."""
    inputs = {"tokenizer": {"kind": tokenizer, "size": 3000}, "max_length": 160}
    training = {"epochs": 1, "batch_size": 16}
    recipe = {
        "name": "spans",
        "task": {"kind": "question-answering", "stride": 40, "language": language},
        "data": {
            "kind": "text",
            "path": str(data_folder / f"xquad-{language}"),
            "text": ["question", "context"],
            "answers": "answers",
            "validation": {"split": "validation"},
            "examples": 64,
        },
        "teacher": {
            "model": {"kind": "huggingface", "config": {**BERT, "max_position_embeddings": 160}},
            "inputs": inputs,
            "training": training,
        },
        "student": {"from_teacher": {"layers": 1, "keep": "last"}},
        "objective": {"labels": "true-labels", "teacher": "soft-targets"},
        "training": training,
        "controls": ["scratch"],
        "seeds": 1,
        "placement": {"threads": 1},
    }
    result = run(parse_recipe(json.dumps(recipe)), tmp_path / "run")
    assert (result.verdict["metric"], result.verdict["test_examples"]) == ("answer_f1", 220)
    for arm in ("distilled", "scratch"):
        folder = result.directory / "arms" / arm / "seed-0"
        metrics = json.loads((folder / "evaluation.json").read_text())["metrics"]
        values = load_values(folder / "values.parquet").values
        assert metrics["answer_f1"] == pytest.approx(values.mean())
        assert 0 <= metrics["exact_match"] <= metrics["answer_f1"] <= 1
        assert metrics["exact_match"] == pytest.approx((values == 1).mean())


def test_a_bi_encoder_ranks_by_embeddings_and_its_student_keeps_its_layers_and_its_scale(tmp_path: Path) -> None:
    result = run_task("ranking", tmp_path, task={"kind": "ranking", "scorer": "bi-encoder"})
    assert result.verdict["metric"] == "hit_at_1"
    assert result.verdict["test_examples"] == 6
    state = load_file(tmp_path / "run/student/model.safetensors")
    shipped = load(tmp_path / "run").model.state_dict()
    assert all(torch.equal(value, shipped[name]) for name, value in state.items())
    assert state["scale"].item() != 20.0
    assert {name.split(".")[0] for name in state} == {"sides", "scale", "bias"}


def test_a_sequence_to_sequence_student_of_its_own_learns_from_a_larger_one(tmp_path: Path) -> None:
    student = {
        "model": {"kind": "huggingface", "config": {**T5, "d_ff": 16}},
        "inputs": {"tokenizer": {"kind": "wordpiece", "size": 120}, "max_length": 24},
    }
    verdict = run_task("sequence-to-sequence", tmp_path, student=student).verdict
    assert verdict["metric"] == "sentence_chrf"
    assert 0 <= verdict["arms"]["distilled"]["mean"] <= 1


def test_a_term_for_another_kind_of_target_is_refused_with_the_task_s_name(tmp_path: Path) -> None:
    written = json.dumps(recipe_of("multi-label", tmp_path, objective={"teacher": "soft-targets"}))
    with pytest.raises(RecipeError, match="soft-targets is for classes, and multi-label has several classes"):
        parse_recipe(written)


def test_nothing_is_exported_of_a_task_that_has_no_exporter(tmp_path: Path) -> None:
    written = json.dumps(recipe_of("causal-lm", tmp_path, export=[{"target": "onnx"}]))
    with pytest.raises(RecipeError, match="of causal-lm nothing is exported yet"):
        parse_recipe(written)
