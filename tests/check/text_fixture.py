"""Small data sets of texts for every task, as JSON lines, and recipes with tiny networks that read them."""

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from distil.data.feed import Feed
from distil.data.split import load_splits
from distil.objective.objective import Objective
from distil.recipe.load import parse_recipe
from distil.recipe.recipe import Recipe
from distil.recipe.resolve import label_term, resolve
from distil.tasks.choice import make_task
from distil.tasks.network import build_network

NAMES = ("anna", "bert", "clara", "dora", "emil", "fritz")
PLACES = ("berlin", "oslo", "lima", "paris", "rome", "quito")
GOOD, BAD = ("good", "fine", "great", "lovely"), ("bad", "poor", "awful", "dull")
BERT = {
    "model_type": "bert", "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
    "intermediate_size": 32, "max_position_embeddings": 64,
}  # fmt: skip
LLAMA = {
    "model_type": "llama", "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 2, "intermediate_size": 32, "max_position_embeddings": 64,
}  # fmt: skip
WORDS = {"kind": "wordpiece", "size": 120}

Rows = list[dict[str, Any]]


def sentiments(count: int, *, seed: int = 0) -> Rows:
    """Sentences whose class is that of their last word."""
    generator = random.Random(seed)
    rows = []
    for number in range(count):
        label = number % 2
        word = generator.choice((BAD, GOOD)[label])
        who, where = generator.choice(NAMES), generator.choice(PLACES)
        rows.append({"sentence": f"{who} says number {number} of {where} is {word}", "label": label})
    return rows


def tagged(count: int) -> Rows:
    generator = random.Random(1)
    rows = []
    for number in range(count):
        words = [generator.choice(NAMES), "goes", "to", generator.choice(PLACES), f"{number}"]
        rows.append({"words": words, "tags": ["B-PER", "O", "O", "B-LOC", "O"]})
    return rows


def questions(count: int) -> Rows:
    generator = random.Random(2)
    rows = []
    for number in range(count):
        who, where = generator.choice(NAMES), generator.choice(PLACES)
        context = f"number {number} says that {who} goes to {where} today"
        answers = {"text": [where], "answer_start": [context.index(where)]}
        rows.append({"question": f"where does {who} go", "context": context, "answers": answers})
    return rows


def pairs(count: int) -> Rows:
    generator = random.Random(3)
    rows = []
    for number in range(count):
        who, where = generator.choice(NAMES), generator.choice(PLACES)
        rows.append({"first": f"{who} goes to {where} {number}", "second": f"to {where} goes {who} {number}"})
    return rows


def write(folder: Path, **splits: Rows) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in splits.items():
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
    return str(folder)


def written(folder: Path, rows: Rows) -> str:
    """The rows as three splits of 4 : 1 : 1."""
    most, least = len(rows) * 4 // 6, len(rows) // 6
    return write(
        folder, train=rows[:most], validation=rows[most : most + least], test=rows[most + least : most + 2 * least]
    )


def text_recipe(
    path: str,
    *,
    task: Mapping[str, Any] | str,
    data: Mapping[str, Any],
    config: Mapping[str, Any] = BERT,
    objective: Mapping[str, Any] | None = None,
    overrides: Sequence[str] = (),
) -> Recipe:
    """A tiny teacher that is trained here, and a student with one of its layers."""
    training = {"epochs": 1, "batch_size": 8, "optimizer": {"kind": "adamw", "learning_rate": 0.01}}
    labels, soft = {"kind": "true-labels", "weight": 0.1}, {"kind": "soft-targets", "weight": 0.9, "temperature": 2}
    recipe = {
        "name": "texts",
        "task": task,
        "data": {"kind": "text", "path": path, "validation": {"split": "validation"}, **data},
        "teacher": {
            "model": {"kind": "huggingface", "config": dict(config)},
            "inputs": {"tokenizer": WORDS, "max_length": 24},
            "training": training,
        },
        "student": {"from_teacher": {"layers": 1, "keep": "first"}},
        "objective": objective or {"labels": labels, "soft": soft},
        "training": training,
        "controls": ["scratch"],
        "seeds": 5,
        "placement": {"threads": 1},
    }
    return parse_recipe(json.dumps(recipe), list(overrides))


SENTIMENT = {"text": "sentence", "label": "label"}
EMBEDDING = {
    "pairs": {"kind": "embedding-contrast", "weight": 0.5},
    "vectors": {"kind": "embedding-mse", "weight": 0.5},
}


def sentiment_recipe(folder: Path, *overrides: str, rows: Rows | None = None) -> Recipe:
    path = written(folder, rows if rows is not None else sentiments(60))
    return text_recipe(path, task="text-classification", data=SENTIMENT, overrides=overrides)


def recipe_of(task: str, folder: Path, *overrides: str) -> Recipe:
    """A recipe for a task by its kind."""
    texts = [{"text": row["sentence"]} for row in sentiments(60)]
    match task:
        case "text-classification":
            return sentiment_recipe(folder, *overrides)
        case "causal-lm":
            path, data, config = written(folder, texts), {"text": "text"}, LLAMA
        case "masked-lm":
            path, data, config = written(folder, texts), {"text": "text"}, BERT
        case "token-classification":
            path, data, config = written(folder, tagged(60)), {"text": "words", "label": "tags"}, BERT
        case "question-answering":
            path, config = written(folder, questions(60)), BERT
            data = {"text": ["question", "context"], "answers": "answers"}
            overrides = ("task={kind: question-answering, stride: 4}", *overrides)
        case "sentence-embedding":
            path, data, config = written(folder, pairs(60)), {"text": ["first", "second"]}, BERT
            return text_recipe(path, task=task, data=data, config=config, objective=EMBEDDING, overrides=overrides)
        case "multi-label":
            rows = [{**row, "label": [row["label"], 2]} for row in sentiments(60)]
            path, config = written(folder, rows), BERT
            objective = {"labels": {"kind": "binary-labels", "weight": 0.5}, "soft": {"kind": "binary-kl"}}
            return text_recipe(path, task=task, data=SENTIMENT, config=config, objective=objective, overrides=overrides)
        case _:
            raise ValueError(task)
    return text_recipe(path, task=task, data=data, config=config, overrides=overrides)


def write_trained_teacher(recipe: Recipe, path: Path, *, steps: int = 120) -> str:
    """Weights of the recipe's teacher after some steps on its labels; the override that makes the recipe use them."""
    resolved = resolve(recipe)
    config, task_config = resolved.teachers["teacher"], next(iter(resolved.tasks.values()))
    task, splits = make_task(task_config), load_splits(resolved.data)
    network = build_network(config.model, config.inputs, examples=splits.train, seed=0, task=task)
    objective = Objective({"labels": label_term(task_config)}).bind(network.description)
    feed = Feed(splits.train, views={"student": network.view}, batch_size=16, targets=task.targets, seed=0)
    optimizer = torch.optim.Adam(network.model.parameters(), lr=0.01)
    network.model.train()
    for step in range(steps):
        batch = feed.batch(step)
        optimizer.zero_grad()
        loss = objective(network.model(batch.inputs["student"]), {}, batch, objective.counts(batch)).total
        loss.backward()
        optimizer.step()
    save_file({name: tensor.contiguous().clone() for name, tensor in network.model.state_dict().items()}, path)
    model = config.model.model_dump(mode="json", exclude_defaults=True)
    teacher = {"model": {**model, "kind": "huggingface"}, "inputs": {"tokenizer": WORDS, "max_length": 24}}
    return f"teacher={json.dumps({**teacher, 'weights': str(path)})}"
