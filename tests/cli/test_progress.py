"""Progress: plain lines without a terminal, a bar on one, all of it read from the event files."""

import io
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from distil.cli import progress
from distil.cli.progress import watching
from distil.recipe.load import parse_recipe
from distil.recipe.recipe import ResolvedRecipe
from distil.recipe.resolve import resolve

from .conftest import RECIPE

STAGED = """
name: staged
data: digits
teacher: {model: {kind: mlp, widths: [8]}}
student: {model: {kind: mlp, widths: [4]}}
"""
STUDENT = "arms/distilled/seed-1"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LOOKS", 0.01)


@pytest.fixture
def recipe() -> ResolvedRecipe:
    return resolve(parse_recipe(RECIPE))


def write(directory: Path, folder: str, *events: dict[str, object], end: str = "\n") -> None:
    path = directory / folder / "events.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write("\n".join(json.dumps({"step": 0, **event}) for event in events) + end)


def epoch(number: int, *, accuracy: float | None = 0.5) -> dict[str, object]:
    validation = None if accuracy is None else {"accuracy": accuracy, "negative_log_likelihood": 1.0}
    return {"event": "epoch", "epoch": number, "loss": 0.25, "validation": validation}


def notice(text: str) -> dict[str, object]:
    return {"event": "notice", "text": text}


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    out, err = capsys.readouterr()
    assert out == ""
    return err.splitlines()


def wait_for(condition: Callable[[], bool]) -> None:
    limit = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < limit, "it did not happen"
        time.sleep(0.005)


def test_plain_lines_tell_notices_and_what_is_done(
    tmp_path: Path, recipe: ResolvedRecipe, capsys: pytest.CaptureFixture[str]
) -> None:
    with watching(tmp_path, recipe):
        write(tmp_path, "", notice("data: [digits], fingerprint 1234"))
        write(tmp_path, "teachers/teacher", epoch(1), epoch(2, accuracy=0.75), {"event": "finish"})
        write(tmp_path, STUDENT, epoch(1, accuracy=None), epoch(4, accuracy=None), {"event": "finish"})
    assert lines(capsys) == [
        "data: [digits], fingerprint 1234",
        "teachers/teacher: epoch 2 of 20, validation accuracy 0.7500; done",
        f"{STUDENT}: epoch 4 of 4, loss 0.2500; done",
    ]


def test_the_first_metric_is_told_by_its_name(
    tmp_path: Path, recipe: ResolvedRecipe, capsys: pytest.CaptureFixture[str]
) -> None:
    validation = {"bits_per_byte": 1.25, "perplexity_per_token": 33.3}
    with watching(tmp_path, recipe):
        write(tmp_path, STUDENT, epoch(4) | {"validation": validation}, {"event": "finish"})
    assert lines(capsys) == [f"{STUDENT}: epoch 4 of 4, validation bits per byte 1.2500; done"]


def test_every_stage_is_told_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stages = "stages=[{objective: {soft: soft-targets}, training: {epochs: 3}}, {objective: {soft: soft-targets}}]"
    staged = resolve(parse_recipe(STAGED, [stages, "seeds=[1]", "controls=[]"]))
    assert progress._planned_epochs(staged) == {"teachers/teacher": 20, f"{STUDENT}/stage-1": 3, STUDENT: 20}
    with watching(tmp_path, staged):
        write(tmp_path, f"{STUDENT}/stage-1", epoch(1), epoch(3), {"event": "finish"})
        write(tmp_path, STUDENT, epoch(1, accuracy=0.25))
        write(tmp_path, STUDENT, epoch(2, accuracy=0.25), {"event": "finish"})
    assert lines(capsys) == [
        f"{STUDENT}/stage-1: epoch 3 of 3, validation accuracy 0.5000; done",
        f"{STUDENT}: epoch 2 of 20, validation accuracy 0.2500; done",
    ]


def test_between_plain_lines_there_is_some_time(
    tmp_path: Path, recipe: ResolvedRecipe, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with watching(tmp_path, recipe):
        write(tmp_path, STUDENT, epoch(1), epoch(2))
    assert lines(capsys) == []
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_PLAIN_LINES", 0.0)
    with watching(tmp_path, recipe):
        write(tmp_path, STUDENT, epoch(3))
        time.sleep(0.05)
    told = lines(capsys)
    assert told == [f"{STUDENT}: epoch 3 of 4, validation accuracy 0.5000"], "each line once, however long it holds"


def test_each_event_is_told_once(tmp_path: Path, recipe: ResolvedRecipe, capsys: pytest.CaptureFixture[str]) -> None:
    told: list[str] = []
    with watching(tmp_path, recipe):
        for number in range(5):
            write(tmp_path, "", notice(f"number {number}"))
            wait_for(lambda number=number: told.extend(lines(capsys)) is None and f"number {number}" in told)
    assert told + lines(capsys) == [f"number {number}" for number in range(5)]


def test_notices_of_an_earlier_run_neither_return_nor_hide_those_of_this_one(
    tmp_path: Path, recipe: ResolvedRecipe, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run begins by removing the notices that are there, some time after the watching begins."""
    write(tmp_path, "", notice("old"), notice("data"))
    with watching(tmp_path, recipe):
        time.sleep(0.05)
        assert lines(capsys) == []
        (tmp_path / "events.jsonl").unlink()
        write(tmp_path, "", notice("resumed in another environment"), notice("data"))
    assert lines(capsys) == ["resumed in another environment", "data"]


def test_a_training_that_is_cut_back_goes_on_from_there(
    tmp_path: Path, recipe: ResolvedRecipe, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, STUDENT, epoch(1), epoch(2), epoch(3))
    with watching(tmp_path, recipe):
        (tmp_path / STUDENT / "events.jsonl").unlink()
        write(tmp_path, STUDENT, epoch(1), epoch(2))
        time.sleep(0.05)
        write(tmp_path, STUDENT, epoch(3), epoch(4), {"event": "finish"})
    assert lines(capsys) == [f"{STUDENT}: epoch 4 of 4, validation accuracy 0.5000; done"]


def test_a_line_that_is_being_written_is_told_once_it_is_whole(
    tmp_path: Path, recipe: ResolvedRecipe, capsys: pytest.CaptureFixture[str]
) -> None:
    with watching(tmp_path, recipe):
        write(tmp_path, "", notice("whole"))
        write(tmp_path, "", notice("half"), end="")
        time.sleep(0.1)
        assert lines(capsys) == ["whole"]
        with (tmp_path / "events.jsonl").open("a", encoding="utf-8") as file:
            file.write("\n")
    assert lines(capsys) == ["half"]


def test_what_an_earlier_run_did_is_not_told_again(
    tmp_path: Path, recipe: ResolvedRecipe, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, "arms/scratch/seed-0", epoch(4), {"event": "finish"})
    with watching(tmp_path, recipe):
        write(tmp_path, STUDENT, {"event": "finish"})
    assert lines(capsys) == [f"{STUDENT}: done"]


def test_folders_that_the_recipe_does_not_plan_are_not_read(
    tmp_path: Path, recipe: ResolvedRecipe, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, "arms/distilled/seed-9", epoch(1), {"event": "finish"})
    with watching(tmp_path, recipe):
        pass
    assert lines(capsys) == []


def test_a_failing_run_ends_the_watching_and_is_not_swallowed(tmp_path: Path, recipe: ResolvedRecipe) -> None:
    import threading

    before = threading.active_count()
    with pytest.raises(ZeroDivisionError), watching(tmp_path / "none", recipe):
        raise ZeroDivisionError
    assert threading.active_count() == before


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_on_a_terminal_there_is_a_bar_over_all_epochs(
    tmp_path: Path, recipe: ResolvedRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """20 epochs of the teacher, and 4 for each of three arms and two seeds, one of which was finished before."""
    write(tmp_path, "arms/scratch/seed-0", epoch(4), {"event": "finish"})
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "160")
    with watching(tmp_path, recipe):
        write(tmp_path, "", notice("data: digits"))
        write(tmp_path, "teachers/teacher", epoch(7), epoch(8))
        wait_for(lambda: "12/44" in terminal.getvalue())
        write(tmp_path, "teachers/teacher", {"event": "finish"})  # a plateau: the other epochs are not needed
        wait_for(lambda: "24/44" in terminal.getvalue())
    assert "data: digits" in terminal.getvalue()
    assert "teachers/teacher: epoch 8 of 20, validation accuracy 0.5000" in terminal.getvalue()
    assert "; done" not in terminal.getvalue()


def test_a_teacher_with_weights_has_no_epochs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    resolved = resolve(parse_recipe(RECIPE, ["teacher.weights=a.safetensors"]))
    assert set(progress._planned_epochs(resolved)) == {
        f"arms/{arm}/seed-{seed}" for arm in ("scratch", "label-smoothing", "distilled") for seed in (0, 1)
    }
