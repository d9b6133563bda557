from pathlib import Path

import pytest

from distil.core.errors import Preempted
from distil.core.events import read_events
from distil.core.interruption import Interruption
from distil.core.placement import place
from distil.core.run_directory import RunDirectory
from distil.data.split import load_splits
from distil.pipeline.context import Context
from distil.recipe.load import parse_recipe
from distil.recipe.resolve import resolve
from tests.pipeline.conftest import SMALL


def context(tmp_path: Path, interruption: Interruption) -> Context:
    recipe = resolve(parse_recipe(SMALL))
    with place(recipe.placement) as placement:
        return Context(recipe, load_splits(recipe.data), RunDirectory(tmp_path), placement, interruption)


def test_a_stop_is_heeded_between_stages(tmp_path: Path) -> None:
    asked = Interruption()
    asked.requested = True
    with pytest.raises(Preempted, match="Run the same command again to go on"):
        context(tmp_path, asked).once("a/b", {}, lambda: 1, lambda value, folder: [], lambda folder: 1)


def test_a_notice_is_an_event_of_the_run(tmp_path: Path) -> None:
    context(tmp_path, Interruption()).notice("look here")
    assert [event["text"] for event in read_events(tmp_path / "events.jsonl")] == ["look here"]
