"""Synthetic run directories of texts: the image run of ``run_directory_fixture`` with what differs written over it."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from .run_directory_fixture import (
    HOSTILE,
    NUM_TEST,
    TEMPERATURE,
    change_json,
    softmax,
    write_json,
    write_run,
    write_text,
)

REVIEW = f"A quiet film that {HOSTILE} nobody should miss; I have seen it twice and found more in it each time."
DIGESTS = {"student": "5e" * 32, "teacher": "7a" * 32}
TOKENS = 32
NUM_BYTES = 412_305


def write_text_classification_run(
    root: Path, *, columns: Sequence[str] = ("sentence",), huggingface: bool = True, **settings: Any
) -> Path:
    """Sentiment of reviews: two classes, references, slices, and a gallery of texts, one of which is hostile."""
    write_run(root, class_names=("negative", "positive"), gallery=False, **settings)
    _change_to_texts(root, "text-classification", class_names=("negative", "positive"), columns=columns)
    _change_recipe(root, name="reviews", task="text-classification")
    change_json(
        root / "verdict.json",
        baselines={
            "majority class": {"value": 0.509, "note": "Always the most frequent class."},
            "TF-IDF and logistic regression": {
                "value": 0.823,
                "note": "Words and pairs of words of the labelled texts.",
            },
        },
    )
    if (root / "evaluation" / "summary.json").is_file():
        change_json(root / "evaluation" / "summary.json", slices=slices())
    _write_gallery(root / "evaluation", pairs=len(columns) == 2)
    for path in (root / "exports").rglob("latency.json"):
        change_json(path, tokens=TOKENS)
    if huggingface:
        write_json(root / "student" / "huggingface" / "config.json", {"model_type": "bert"})
    return root


def write_language_model_run(root: Path, **settings: Any) -> Path:
    """A causal language model: no classes, and a metric that is to be low."""
    write_run(root, exports=False, gallery=False, **settings)
    _change_to_texts(root, "causal-lm", class_names=(), columns=("text",))
    _change_recipe(root, name="stories", task="causal-lm")
    for path in (*root.glob("arms/*/*/evaluation.json"), *root.glob("teachers/*/evaluation.json")):
        _change_evaluation(path)
    for path in root.rglob("events.jsonl"):
        _change_events(path)
    _change_verdict(root / "verdict.json")
    if (root / "evaluation" / "summary.json").is_file():
        change_json(root / "evaluation" / "summary.json", inherited_errors={}, per_class_change=[])
    return root


def bits_per_byte(accuracy: float) -> float:
    """Any falling function will do: 2.5 where nothing is right, 1.1 where everything is."""
    return 2.5 - 1.4 * accuracy


def slices() -> list[dict[str, Any]]:
    means = {"distilled": 0.91, "scratch": 0.83, "label-smoothing": 0.86, "permuted-knowledge": 0.84}
    return [
        {"name": "negation", "support": 212, "means": means, "difference": 0.05, "interval": [0.014, 0.088]},
        {"name": "contrast", "support": 148, "means": means, "difference": -0.02, "interval": [-0.061, 0.02]},
        {"name": "long", "support": 9, "means": means, "difference": 0.05, "interval": None},
    ]


def _change_to_texts(root: Path, task: str, *, class_names: Sequence[str], columns: Sequence[str]) -> None:
    tokenizers = {name: {"digest": digest, "vocabulary": 30_522, "max_length": 64} for name, digest in DIGESTS.items()}
    text = {"columns": list(columns), "tokenizers": tokenizers, "median_characters": 98}
    change_json(
        root / "data.json", source="reviews of films", image=None, text=text, task=task, class_names=list(class_names)
    )
    described = {
        "format": 1,
        "class_names": list(class_names),
        "input": {
            "kind": "text",
            "names": ["input_ids", "attention_mask"],
            "dtype": "int64",
            "layout": "[batch, tokens]",
            "max_length": 64,
            "pad_id": 0,
        },
        "preprocessing": {
            "tokenizer": "tokenizer.json",
            "max_length": 64,
            "padding": "longest",
            "truncation": True,
            "columns": list(columns),
        },
        "output": {"name": "logits"},
    }
    write_json(root / "student" / "labels_and_preprocessing.json", described)


def _change_recipe(root: Path, *, name: str, task: str) -> None:
    path = root / "recipe.resolved.yaml"
    recipe = yaml.safe_load(path.read_text(encoding="utf-8")) | {"name": name, "tasks": {"main": {"kind": task}}}
    write_text(path, yaml.safe_dump(recipe, sort_keys=False))


def _write_gallery(directory: Path, *, pairs: bool) -> None:
    generator = np.random.default_rng(3)
    examples = []
    for number, (why, text) in enumerate(
        [
            ("the teacher is unsure", REVIEW),
            ("right only with the teacher", "Not bad at all." + ("\nWorth a second look?" if pairs else "")),
            ("wrong only with the teacher", "It begins well, but then " + "it goes on and on, " * 60),
            ("all are right", "unbreakable" * 30),
        ]
    ):
        logits = generator.normal(0, 2, 2)
        examples.append(
            {
                "id": str(17 + number),
                "text": text,
                "label": number % 2,
                "why": why,
                "teacher": {"plain": softmax(logits), "softened": softmax(logits / TEMPERATURE)},
                "student": softmax(logits + generator.normal(0, 1, 2)),
                "control": softmax(generator.normal(0, 2, 2)),
            }
        )
    names = ["negative", "positive"]
    content = {"format": 1, "temperature": TEMPERATURE, "class_names": names, "examples": examples}
    write_json(directory / "gallery.json", content)


def _change_evaluation(path: Path) -> None:
    accuracy = json.loads(path.read_text(encoding="utf-8"))["metrics"]["accuracy"]
    bits = bits_per_byte(accuracy)
    nats = bits * math.log(2)
    metrics = {
        "bits_per_byte": bits,
        "bytes": NUM_BYTES,
        "negative_log_likelihood": 4 * nats,
        "perplexity_per_byte": math.exp(nats),
        "perplexity_per_token": math.exp(4 * nats),
        "tokens": NUM_BYTES // 4,
    }
    change_json(path, metrics=metrics, per_class=[], confusion=[], reliability=[])


def _change_events(path: Path) -> None:
    events = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    for event in events:
        if event["event"] == "epoch":
            event["validation"] = {"bits_per_byte": bits_per_byte(event["validation"]["accuracy"])}
    write_text(path, "".join(json.dumps(event) + "\n" for event in events))


def _change_verdict(path: Path) -> None:
    """Differences keep their sign: 0.1 more accuracy is 0.14 bits per byte less, and positive is better."""
    content = json.loads(path.read_text(encoding="utf-8"))

    def scaled(comparison: dict[str, Any]) -> dict[str, Any]:
        pairs = {key: comparison[key] for key in ("interval", "seed_interval") if comparison[key] is not None}
        found = {key: [1.4 * bound for bound in pair] for key, pair in pairs.items()}
        return comparison | found | {"difference": 1.4 * comparison["difference"]}

    if content["best_control"] is not None:
        content |= scaled(content)
    content["against"] = {name: scaled(each) for name, each in content["against"].items()}
    for arm in content["arms"].values():
        arm["values"] = [bits_per_byte(value) for value in arm["values"]]
        arm["mean"] = sum(arm["values"]) / len(arm["values"])
    content["teachers"] = {name: bits_per_byte(value) for name, value in content["teachers"].items()}
    note = "Frequencies of 3,000,000 training bytes."
    content["baselines"] = {"unigrams of bytes": {"value": 4.6712, "note": note}}
    content |= {"metric": "bits_per_byte", "higher_is_better": False, "smallest_detectable": 0.0168}
    assert content["test_examples"] == NUM_TEST
    write_json(path, content)
