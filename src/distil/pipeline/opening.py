"""A run directory opened for a recipe: locked, with the recipe, the data and the circumstances on record."""

import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from distil.core.environment import describe_environment
from distil.core.errors import RecipeError
from distil.core.events import EventLog
from distil.core.files import read_json, write_atomically
from distil.core.interruption import interruption
from distil.core.placement import place
from distil.core.run_directory import RunDirectory
from distil.data.example import Examples, ImageExamples, Splits, TextExamples
from distil.data.split import load_splits
from distil.pipeline.context import Context
from distil.recipe.recipe import ResolvedRecipe
from distil.recipe.resolve import changed_keys, to_yaml


@contextmanager
def opened(recipe: ResolvedRecipe, path: Path) -> Iterator[Context]:
    """What every stage works with; the directory is this process's alone inside.

    Raises:
        RecipeError: the directory was made with another recipe.
        ResourceError: another process has it, or the device is not there.
        DataError: the data cannot be used.
    """
    directory = RunDirectory(path)
    with directory.locked(), interruption() as stop, place(recipe.placement) as placement:
        _open(directory, recipe)
        context = Context(recipe, load_splits(recipe.data), directory, placement, stop)
        _record_circumstances(context)
        yield context


def _open(directory: RunDirectory, recipe: ResolvedRecipe) -> None:
    """A new directory gets the recipe; an old one must have been made with the same.

    Raises:
        RecipeError: the recipe has changed; the keys that differ are named.
    """
    path = directory.path / "recipe.resolved.yaml"
    if not path.exists():
        write_atomically(path, to_yaml(recipe))
        return
    changes = changed_keys(yaml.safe_load(path.read_text(encoding="utf-8")), yaml.safe_load(to_yaml(recipe)))
    if changes:
        listed = "\n  ".join(changes)
        raise RecipeError(
            f"{directory.path} was made with another recipe. These keys differ:\n  {listed}\n"
            "Choose another --run-dir, change them back, or remove the directory"
        )
    EventLog(directory.path / "events.jsonl").clear()


def _record_circumstances(context: Context) -> None:
    directory, splits = context.directory, context.splits
    environment = describe_environment() | {"placement": context.placement.describe()}
    path = directory.path / "environment.json"
    if path.exists() and (changes := changed_keys(read_json(path), environment)):
        context.notice("resumed in another environment, so bits may differ from an unbroken run: " + "; ".join(changes))
    directory.record("environment.json", environment)
    directory.record("data.json", describe_data(context.recipe, splits))
    context.notice(f"data: {splits.source}, fingerprint {splits.fingerprint()[:12]}")


def describe_data(recipe: ResolvedRecipe, splits: Splits) -> dict[str, Any]:
    """The content of ``data.json``."""
    labelled = int(splits.students.labelled.sum())
    return {
        "fingerprint": splits.fingerprint(),
        "source": splits.source,
        "splits": {
            "train": len(splits.train),
            "validation": len(splits.validation) if splits.validation is not None else 0,
            "test": len(splits.test),
        },
        "labelled": labelled,
        "teacher_labels": {
            name: len(splits.train) if teacher.labels == "all" else labelled
            for name, teacher in recipe.teachers.items()
            if teacher.stages is not None
        },
        "class_names": list(splits.train.class_names),
        "task": next(iter(recipe.tasks.values())).kind,
        "image": _describe_images(splits.train),
        "text": _describe_texts(splits.train),
    }


def _describe_images(examples: Examples) -> dict[str, int] | None:
    if not isinstance(examples, ImageExamples):
        return None
    return dict(zip(("channels", "height", "width"), examples.image_shape, strict=True))


def _describe_texts(examples: Examples) -> dict[str, Any] | None:
    if not isinstance(examples, TextExamples):
        return None
    lengths = [sum(len(text) for text in row) for row in zip(*examples.columns.values(), strict=True)]
    return {"columns": list(examples.columns), "median_characters": statistics.median(lengths)}
