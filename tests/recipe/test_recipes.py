"""The recipes of the project: each is short and read without a network; those of texts run, with a tiny teacher."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from distil.core.events import read_events
from distil.pipeline.run import run
from distil.recipe.load import parse_recipe
from distil.recipe.recipe import ResolvedRecipe
from distil.recipe.resolve import resolve

RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.yaml"))
WORDS = ["red", "blue", "green", "old", "new", "small", "large", "warm", "cold", "dry"]

# MiniLM and SmolLM2 with a sixteenth of their width: layers, heads and the names of both are as they are
TEACHERS: dict[str, dict[str, Any]] = {
    "sst2": {
        "model_type": "bert",
        "hidden_size": 24,
        "num_hidden_layers": 6,
        "num_attention_heads": 12,
        "intermediate_size": 96,
    },
    "tinyshakespeare": {
        "model_type": "llama",
        "hidden_size": 36,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "intermediate_size": 96,
    },
}
NARROWER = {"shakespeare-minitron": ["student.from_teacher.hidden=24", "student.from_teacher.feed_forward=64"]}


def resolved(recipe: Path) -> ResolvedRecipe:
    return resolve(parse_recipe(recipe.read_text(encoding="utf-8")))


def data_of(recipe: Path) -> str | None:
    return getattr(resolved(recipe).data, "path", None)


def name_of(recipe: Path) -> str:
    return recipe.stem


OF_TEXTS = [recipe for recipe in RECIPES if data_of(recipe) in TEACHERS]


@pytest.mark.parametrize("recipe", RECIPES, ids=name_of)
def test_a_recipe_has_the_name_of_its_file_says_what_it_is_is_short_and_resolves(recipe: Path) -> None:
    lines = recipe.read_text(encoding="utf-8").splitlines()
    assert len(lines) < 30
    assert lines[0].startswith("# ")
    found = resolved(recipe)
    assert found.name == recipe.stem
    assert found.distilled is not None
    assert found.controls


@pytest.mark.parametrize("recipe", RECIPES, ids=name_of)
def test_what_the_hub_has_is_looked_for_on_this_machine_first(recipe: Path) -> None:
    found = resolved(recipe)
    models = [teacher.model for teacher in found.teachers.values()]
    models += [arm.student.model for arm in found.arms.values() if arm.student.model is not None]
    for each in (found.data, *models):
        if getattr(each, "hub", None) is not None:
            assert getattr(each, "path", None) or getattr(each, "package", None)


def test_the_recipes_of_papers_are_among_those_that_run() -> None:
    papers = {"sst2-tinybert", "sst2-minilm-relations", "sst2-distilbert", "shakespeare-minitron"}
    assert papers <= {recipe.stem for recipe in OF_TEXTS}


@pytest.mark.parametrize("recipe", OF_TEXTS, ids=name_of)
def test_a_recipe_of_texts_runs_with_a_tiny_teacher_of_the_family_it_names(recipe: Path, tmp_path: Path) -> None:
    """Every term is bound to the layers that the recipe names, and every stage trains for an epoch."""
    changed = parse_recipe(recipe.read_text(encoding="utf-8"), stand_in(recipe, tmp_path / "data"))
    result = run(changed, tmp_path / "run")
    assert set(result.verdict["arms"]) == {"scratch", "distilled"}
    assert math.isfinite(result.verdict["arms"]["distilled"]["mean"])
    folder = result.directory / "arms/distilled/seed-0"
    logs = [*sorted(folder.glob("stage-*/events.jsonl")), folder / "events.jsonl"]
    trained = [[event for event in read_events(log) if event["event"] == "epoch"] for log in logs]
    assert [len(epochs) for epochs in trained] == [1] * len(logs)
    stages = resolved(recipe).arms["distilled"].stages
    assert [set(epochs[0]["parts"]) for epochs in trained] == [set(stage.objective) for stage in stages]


def stand_in(recipe: Path, folder: Path) -> list[str]:
    """What makes a recipe small: its data, its teacher, one epoch a stage, one seed."""
    path = data_of(recipe)
    assert path is not None
    folder.mkdir()
    write_texts(path, folder)
    teacher = {
        "model": {"kind": "huggingface", "config": {**TEACHERS[path], "max_position_embeddings": 64}},
        "inputs": {"tokenizer": {"kind": "wordpiece", "size": 100}, "max_length": 24},
        "training": {"epochs": 1, "batch_size": 16},
    }
    stages = resolved(recipe).arms["distilled"].stages
    trainings = [f"stages.{number}.training" for number in range(len(stages))] if len(stages) > 1 else ["training"]
    return [
        f"data.path={folder}",
        f"teacher={json.dumps(teacher)}",
        *(f"{each}.epochs=1" for each in trainings),
        *("controls=[scratch]", "seeds=1", "export=[]"),
        *(["data.examples=12"] if resolved(recipe).data.examples is not None else []),
        *NARROWER.get(recipe.stem, []),
    ]


def write_texts(data: str, folder: Path) -> None:
    for split, numbers in (("train", range(48)), ("validation", range(48, 64)), ("test", range(64, 88))):
        texts = [
            " ".join([*(WORDS[(number * step + step) % 10] for step in (1, 3, 7, 9)), str(number)])
            for number in numbers
        ]
        if data == "tinyshakespeare":
            (folder / f"{split}.txt").write_text("\n".join(texts * 8), encoding="utf-8")
        else:
            rows = [json.dumps({"sentence": text, "label": number % 2}) for number, text in enumerate(texts)]
            (folder / f"{split}.jsonl").write_text("\n".join(rows), encoding="utf-8")
