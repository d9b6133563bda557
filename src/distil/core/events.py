"""Event files: one JSON object a line, only ever appended, and cut back to a step when a training resumes from it."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from distil.core.files import saving, write_atomically


class EventLog:
    """The events of one training."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def append(self, event: str, *, step: int, **values: Any) -> None:
        """Adds a line; it is with the operating system when this returns."""
        line = json.dumps({"event": event, "step": step, **values}, allow_nan=False) + "\n"
        with saving(self._path, size=len(line)):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8") as file:
                file.write(line)

    def cut_back(self, step: int) -> None:
        """Removes what was written after this step, and a line that was cut short."""
        if self._path.exists():
            kept = [event for event in read_events(self._path) if event["step"] <= step]
            write_atomically(self._path, "".join(json.dumps(event) + "\n" for event in kept))

    def clear(self) -> None:
        """Removes all events: a training that starts anew."""
        self._path.unlink(missing_ok=True)


def read_events(path: Path) -> Iterator[Mapping[str, Any]]:
    """The events of a file, in order; a last line that is not whole is left out."""
    if not path.exists():
        return
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
        if line.endswith("\n"):
            yield json.loads(line)
