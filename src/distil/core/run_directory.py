"""The run directory: each stage's output with the hash of its inputs, so that a second run goes on where it stopped."""

import fcntl
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from distil.core.errors import IntegrityError, ResourceError
from distil.core.events import EventLog
from distil.core.files import digest, read_json, sha256_of, write_json

Output = TypeVar("Output")


class RunDirectory:
    """Where a run keeps everything. One process at a time: use it inside ``locked``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._manifest_path = path / "manifest.json"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the directory's lock inside. The system releases it when the process ends, however it ends.

        Raises:
            ResourceError: another process holds it, or the directory cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            file = (self.path / "lock").open("a+", encoding="utf-8")
        except OSError as error:
            raise ResourceError(
                f"{self.path}: cannot be written ({error.strerror}); choose another --run-dir"
            ) from error
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                file.seek(0)
                holder = file.read().strip() or "another process"
                raise ResourceError(
                    f"{self.path} is in use by {holder}. Wait for it, stop it, or choose another --run-dir"
                ) from error
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()} since {time.strftime('%Y-%m-%d %H:%M:%S')}\n")
            file.flush()
            yield

    def once(
        self,
        name: str,
        inputs: Mapping[str, Any],
        produce: Callable[[], Output],
        save: Callable[[Output, Path], Sequence[Path]],
        load: Callable[[Path], Output],
    ) -> Output:
        """The output of a stage: found again where it was made from the same inputs and is intact, else made and saved.

        Args:
            name: FOLDER/STAGE; the stage's files stand in FOLDER.
            inputs: everything the output depends on, as JSON: configurations and ``output_hash`` of earlier stages.
            produce: makes the output.
            save: writes it into the folder it is given and names the files. They count once all are written.
            load: reads it back from that folder.
        """
        folder = self.path / name.rpartition("/")[0]
        identity = digest(dict(inputs))
        found = self._stages().get(name)
        if found is not None and found["inputs"] == identity:
            damage = self._damage(found)
            if not damage:
                return load(folder)
            self.notice(f"{'; '.join(damage)}: {name} is made again")
        output = produce()
        folder.mkdir(parents=True, exist_ok=True)
        files = save(output, folder)
        self._commit(name, identity, files)
        return output

    def notice(self, text: str) -> None:
        """A sentence for whoever watches the run."""
        EventLog(self.path / "events.jsonl").append("notice", step=0, text=text)

    def output_hash(self, name: str) -> str:
        """A hash of the files of a stage that is done: part of the inputs of the stages that use them."""
        return digest(self._stages()[name]["files"])

    def is_done(self, name: str) -> bool:
        return name in self._stages()

    def damage(self) -> list[str]:
        """Files that are missing or are not as they were written, of all stages."""
        return [problem for stage in self._stages().values() for problem in self._damage(stage)]

    def record(self, name: str, value: Any) -> None:
        """Writes a JSON file that no stage owns, such as the environment."""
        write_json(self.path / name, value)

    def _stages(self) -> dict[str, Any]:
        if not self._manifest_path.exists():
            return {}
        try:
            stages = read_json(self._manifest_path)["stages"]
            return {name: {"inputs": stage["inputs"], "files": dict(stage["files"])} for name, stage in stages.items()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise IntegrityError(
                f"{self._manifest_path} is damaged: {error}. Move it away; the run then does all its stages again"
            ) from error

    def _damage(self, stage: Mapping[str, Any]) -> list[str]:
        problems = []
        for relative, expected in stage["files"].items():
            path = self.path / relative
            if not path.is_file():
                problems.append(f"{relative} is missing")
            elif sha256_of(path) != expected:
                problems.append(f"{relative} is not as it was written")
        return problems

    def _commit(self, name: str, identity: str, files: Sequence[Path]) -> None:
        hashes = {str(path.relative_to(self.path)): sha256_of(path) for path in files}
        stages = {**self._stages(), name: {"inputs": identity, "files": hashes}}
        write_json(self._manifest_path, {"format": 1, "stages": stages})
