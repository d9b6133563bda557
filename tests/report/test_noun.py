"""The words for a task."""

from typing import get_args

import pytest

from distil.report.noun import IMAGES, TASKS, nouns_of, task_of
from distil.tasks.config import TextTaskConfig


def test_a_run_from_before_there_were_texts_is_of_images() -> None:
    assert task_of({}) == IMAGES
    words = nouns_of({"image": {"channels": 1}})
    assert (words.model, words.units, words.input) == ("image classifier", "test examples", "image")


def test_every_task_of_a_recipe_has_its_words() -> None:
    kinds = {config.model_fields["kind"].default for config in get_args(TextTaskConfig)}
    assert len(kinds) > 5
    assert set(TASKS) == {IMAGES, *kinds}


@pytest.mark.parametrize(
    ("task", "columns", "units"),
    [
        ("text-classification", ["sentence"], "test texts"),
        ("text-classification", ["premise", "hypothesis"], "test pairs"),
        ("ranking", ["question", "sentence"], "test questions"),
        ("causal-lm", ["prompt", "answer"], "test texts"),
        ("a-task-of-tomorrow", ["text"], "test examples"),
    ],
)
def test_the_units_of_the_test_split(task: str, columns: list[str], units: str) -> None:
    assert nouns_of({"task": task, "image": None, "text": {"columns": columns}}).units == units
