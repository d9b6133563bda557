"""Progress: a thread that reads the event files of a run while it goes on. The run knows nothing of it."""

import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from distil.core.events import read_events
from distil.recipe.recipe import ResolvedRecipe, TrainStage
from distil.report.number import metric_name

FileState = tuple[int, int, int]

SECONDS_BETWEEN_LOOKS = 0.5
SECONDS_BETWEEN_PLAIN_LINES = 15.0


@contextmanager
def watching(directory: Path, recipe: ResolvedRecipe) -> Iterator[None]:
    """Shows on standard error how far the run is: a bar with the time left on a terminal, plain lines elsewhere."""
    watcher = _Watcher(directory, recipe, Console(stderr=True, soft_wrap=True))
    watcher.start()
    try:
        yield
    finally:
        watcher.stop()


class _Watcher(threading.Thread):
    def __init__(self, directory: Path, recipe: ResolvedRecipe, console: Console) -> None:
        super().__init__(daemon=True)
        self._directory, self._console = directory, console
        self._epochs = _planned_epochs(recipe)
        self._states: dict[Path, FileState | None] = {}  # of each file at the last look
        self._seen: dict[Path, list[Mapping[str, Any]]] = {}
        self._done: dict[str, int] = {}
        self._stopped = threading.Event()
        self._plain_since, self._now, self._line_before = time.monotonic(), "", ""
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("epochs"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            disable=not sys.stderr.isatty(),
            transient=True,
        )
        self._task = self._bar.add_task("starting", total=sum(self._epochs.values()))
        self._take_up()

    def run(self) -> None:
        with self._bar:
            while not self._stopped.wait(SECONDS_BETWEEN_LOOKS):
                self._look()
            self._look()

    def stop(self) -> None:
        self._stopped.set()
        self.join()

    def _take_up(self) -> None:
        """What an earlier run of the directory did is done, and is not told again; its notices are not of this run."""
        notices = self._directory / "events.jsonl"
        self._states[notices] = _state(notices)
        for name in self._epochs:
            for event in self._new_events(self._directory / name / "events.jsonl"):
                self._count(name, event)

    def _look(self) -> None:
        for name in (".", *self._epochs):
            for event in self._new_events(self._directory / name / "events.jsonl"):
                self._count(name, event)
                self._tell(name, event)
        self._bar.update(self._task, completed=sum(self._done.values()), description=self._now or "starting")
        is_news = self._now not in ("", self._line_before)
        if self._bar.disable and is_news and time.monotonic() - self._plain_since > SECONDS_BETWEEN_PLAIN_LINES:
            self._line(self._now)

    def _new_events(self, path: Path) -> list[Mapping[str, Any]]:
        try:
            state = _state(path)
            if state == self._states.get(path):
                return []
            events = list(read_events(path))
        except (OSError, ValueError):
            return []  # being written at this moment; the next look reads it
        before, self._states[path], self._seen[path] = self._seen.get(path, []), state, events
        return events[len(before) :] if events[: len(before)] == before else events  # begun again, or cut back

    def _count(self, name: str, event: Mapping[str, Any]) -> None:
        match event["event"]:
            case "epoch":
                self._done[name] = event["epoch"]
            case "finish":
                self._done[name] = self._epochs[name]

    def _tell(self, name: str, event: Mapping[str, Any]) -> None:
        match event["event"]:
            case "notice":
                self._console.print(event["text"], markup=False, highlight=False)
            case "epoch":
                self._now = f"{name}: epoch {event['epoch']} of {self._epochs[name]}, {_quality(event)}"
            case "finish":
                if self._bar.disable:
                    self._line(f"{self._now}; done" if self._now.startswith(f"{name}:") else f"{name}: done")
                self._now = ""

    def _line(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False)
        self._plain_since, self._line_before = time.monotonic(), text


def _state(path: Path) -> FileState | None:
    """What changes when a file is written or replaced; None where there is none."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def _planned_epochs(recipe: ResolvedRecipe) -> dict[str, int]:
    """The most epochs of every training, by its folder."""
    planned: dict[str, int] = {}
    for name, teacher in recipe.teachers.items():
        planned |= _of_stages(f"teachers/{name}", teacher.stages or ())
    for name, arm in recipe.arms.items():
        for seed in recipe.seeds:
            planned |= _of_stages(f"arms/{name}/seed-{seed}", arm.stages)
    return planned


def _of_stages(folder: str, stages: Sequence[TrainStage]) -> dict[str, int]:
    """Every stage before the last has a folder of its own inside."""
    names = [f"{folder}/stage-{position}" for position in range(1, len(stages))] + [folder]
    return {name: stage.training.epochs for name, stage in zip(names, stages, strict=False)}


def _quality(event: Mapping[str, Any]) -> str:
    """The headline metric on validation, which is the first one; the loss where there is no such split."""
    if event["validation"]:
        metric, value = next(iter(event["validation"].items()))
        return f"validation {metric_name(metric)} {value:.4f}"
    return f"loss {event['loss']:.4f}"
