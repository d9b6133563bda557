import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from distil.core.errors import IntegrityError, ResourceError
from distil.core.events import read_events
from distil.core.run_directory import RunDirectory

HOLDER = """
import sys, time
from pathlib import Path
from distil.core.run_directory import RunDirectory
with RunDirectory(Path(sys.argv[1])).locked():
    print("locked", flush=True)
    time.sleep(60)
"""


class Stage:
    """A stage that writes a number into a file, and counts how often it is made and read."""

    def __init__(self, directory: RunDirectory) -> None:
        self._directory = directory
        self.made, self.loaded = 0, 0

    def __call__(self, inputs: dict[str, object], output: int = 7, name: str = "teachers/big/model") -> int:
        def produce() -> int:
            self.made += 1
            return output

        return self._directory.once(name, inputs, produce, self._save, self._load)

    def _save(self, output: int, folder: Path) -> Sequence[Path]:
        (folder / "model.txt").write_text(str(output))
        return [folder / "model.txt"]

    def _load(self, folder: Path) -> int:
        self.loaded += 1
        return int((folder / "model.txt").read_text())


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(RunDirectory(tmp_path))


def test_a_stage_is_made_once(stage: Stage, tmp_path: Path) -> None:
    assert stage({"width": 3}) == 7
    assert stage({"width": 3}, output=8) == 7
    assert (stage.made, stage.loaded) == (1, 1)
    again = Stage(RunDirectory(tmp_path))  # another process later
    assert again({"width": 3}) == 7
    assert (again.made, again.loaded) == (0, 1)


def test_the_files_stand_in_the_stage_s_folder_with_their_hashes(stage: Stage, tmp_path: Path) -> None:
    stage({})
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["format"] == 1
    assert list(manifest["stages"]["teachers/big/model"]["files"]) == ["teachers/big/model.txt"]
    assert RunDirectory(tmp_path).is_done("teachers/big/model")
    assert not RunDirectory(tmp_path).is_done("teachers/big")


def test_other_inputs_make_it_again(stage: Stage) -> None:
    stage({"width": 3})
    assert stage({"width": 4}, output=9) == 9
    assert stage({"width": 4}) == 9
    assert stage.made == 2


@pytest.mark.parametrize("where", [0, -1])
def test_30_a_flipped_bit_is_found_and_only_that_stage_is_made_again(stage: Stage, tmp_path: Path, where: int) -> None:
    directory = RunDirectory(tmp_path)
    other = Stage(directory)
    stage({}, output=1234)
    other({}, name="arms/scratch/model")
    path = tmp_path / "teachers/big/model.txt"
    content = bytearray(path.read_bytes())
    content[where] ^= 1
    path.write_bytes(content)
    assert directory.damage() == ["teachers/big/model.txt is not as it was written"]
    assert stage({}, output=1234) == 1234
    other({}, name="arms/scratch/model")
    assert (stage.made, other.made) == (2, 1)
    assert directory.damage() == []
    said = [event["text"] for event in read_events(tmp_path / "events.jsonl")]
    assert said == ["teachers/big/model.txt is not as it was written: teachers/big/model is made again"]


def test_a_missing_file_is_found_and_made_again(stage: Stage, tmp_path: Path) -> None:
    stage({})
    (tmp_path / "teachers/big/model.txt").unlink()
    assert RunDirectory(tmp_path).damage() == ["teachers/big/model.txt is missing"]
    stage({})
    assert stage.made == 2


def test_the_hash_of_an_output_follows_its_files(stage: Stage, tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path)
    stage({"a": 1}, output=1)
    first = directory.output_hash("teachers/big/model")
    stage({"a": 2}, output=1)
    assert directory.output_hash("teachers/big/model") == first
    stage({"a": 3}, output=2)
    assert directory.output_hash("teachers/big/model") != first


def test_a_stage_that_fails_is_not_done(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path)

    def fail(output: int, folder: Path) -> Sequence[Path]:
        (folder / "half.txt").write_text("half")
        raise ResourceError("disk is full")

    with pytest.raises(ResourceError, match="disk is full"):
        directory.once("arms/a/model", {}, lambda: 1, fail, lambda folder: 2)
    assert not directory.is_done("arms/a/model")


def flip(content: str) -> bytes:
    changed = bytearray(content.encode())
    changed[content.index("stages")] ^= 0x80  # no longer UTF-8
    return bytes(changed)


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[: len(content) // 2].encode(),
        flip,
        lambda content: content.replace('"inputs"', '"jnputs"').encode(),
        lambda content: content.replace('"stages"', '"staget"').encode(),
        lambda content: b"[]",
        lambda content: b'{"stages": 3}',
        lambda content: b"",
    ],
)
def test_30_a_damaged_manifest_is_named(stage: Stage, tmp_path: Path, damage: Callable[[str], bytes]) -> None:
    stage({})
    path = tmp_path / "manifest.json"
    path.write_bytes(damage(path.read_text()))
    with pytest.raises(IntegrityError, match=r"manifest\.json is damaged.*Move it away"):
        stage({})


def test_record_writes_a_file_that_no_stage_owns(tmp_path: Path) -> None:
    RunDirectory(tmp_path).record("environment.json", {"python": "3.11"})
    assert json.loads((tmp_path / "environment.json").read_text()) == {"python": "3.11"}


@contextmanager
def holder(path: Path) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        try:
            yield process
        finally:
            process.kill()


def test_a_second_process_is_refused_until_the_first_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "run"
    with holder(path) as process:
        message = rf"is in use by process {process.pid} on .*--run-dir"
        with pytest.raises(ResourceError, match=message), RunDirectory(path).locked():
            pass
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=10)
        with RunDirectory(path).locked():
            pass


def test_the_lock_is_free_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="inside"), RunDirectory(tmp_path).locked():
        raise RuntimeError("inside")
    with RunDirectory(tmp_path).locked():
        pass


def test_a_directory_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ResourceError, match="cannot be written"), RunDirectory(tmp_path / "file" / "run").locked():
        pass
