"""A run that is killed anywhere and started again ends with the same bits as one that was left alone (lines 30, 31)."""

import hashlib
import random
import signal
import time
from pathlib import Path

import pytest

from distil.core.files import read_json
from tests.faults.child import FAULT_POINTS, finish, start

RECIPE = Path(__file__).parent / "small.yaml"
EXPORTS = "export=[{target: onnx, precision: [int8]}]"
PREEMPTED = 75
OUTCOMES = ("**/model.safetensors", "**/predictions.parquet", "verdict.json", "**/model.onnx")


def arguments(directory: Path, *overrides: str) -> list[str]:
    settings = [part for override in overrides for part in ("--set", override)]
    return ["run", str(RECIPE), "--run-dir", str(directory), *settings]


def outcome(directory: Path) -> dict[str, str]:
    """The hash of everything that must not depend on where a run was interrupted."""
    found = [path for pattern in OUTCOMES for path in directory.glob(pattern)]
    files = [path for path in found if "checkpoints" not in path.parts]
    return {str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    directory = tmp_path_factory.mktemp("unbroken") / "run"
    assert finish(arguments(directory, EXPORTS)) == 0
    result = outcome(directory)
    assert len(result) == 14, sorted(result)
    return result


def without_exports(result: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in result.items() if not name.startswith("exports/")}


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULT_POINTS)
def test_31_killed_at_a_fault_point_and_resumed_is_equal_in_every_bit(
    fault: str, unbroken: dict[str, str], tmp_path: Path
) -> None:
    in_export = "export" in fault or "parity" in fault
    directory = tmp_path / "run"
    command = arguments(directory, EXPORTS if in_export else "export=[]")
    occurrence = 1 if in_export or "report" in fault else 3
    assert finish(command, fault=fault, occurrence=occurrence) == -signal.SIGKILL
    assert finish(command) == 0
    expected = unbroken if in_export else without_exports(unbroken)
    assert outcome(directory) == expected


@pytest.mark.slow
def test_31_ten_random_kills_leave_the_same_bits(tmp_path: Path) -> None:
    longer = ("export=[]", "training.epochs=25")
    assert finish(arguments(tmp_path / "unbroken", *longer)) == 0
    command = arguments(tmp_path / "run", *longer)
    moments = random.Random(20261124)
    killed_at = []
    while len(killed_at) < 10:
        process = start(command)
        process.join(moments.uniform(0.3, 1.2))
        assert process.is_alive(), f"the run was over after {len(killed_at)} kills; give it more epochs"
        process.kill()
        process.join()
        killed_at.append(len(list(tmp_path.glob("run/arms/*/seed-*/events.jsonl"))))
    assert len(set(killed_at)) >= 3, f"the kills fell into {len(set(killed_at))} places only"
    assert finish(command) == 0
    assert outcome(tmp_path / "run") == outcome(tmp_path / "unbroken")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_31_a_signal_saves_exits_75_and_resumes_to_the_same_bits(
    number: signal.Signals, unbroken: dict[str, str], tmp_path: Path
) -> None:
    import os

    directory = tmp_path / "run"
    command = arguments(directory, "export=[]", "training.checkpoint_seconds=1000")
    process = start(command)
    events = directory / "arms" / "scratch" / "seed-0" / "events.jsonl"
    deadline = time.monotonic() + 60
    while not (events.exists() and '"epoch"' in events.read_text()) and time.monotonic() < deadline:
        time.sleep(0.005)
    os.kill(process.pid, number)
    process.join(60)
    assert process.exitcode == PREEMPTED
    saved = list((directory / "arms").glob("*/seed-*/checkpoints/step-*"))
    finished = list((directory / "arms").glob("*/seed-*/model.safetensors"))
    assert saved or finished, "nothing was saved"
    assert finish(command) == 0
    changed = {name for name, value in outcome(directory).items() if without_exports(unbroken).get(name) != value}
    assert changed == set()


@pytest.mark.slow
def test_30_a_flipped_byte_in_a_result_is_found_and_only_that_stage_is_redone(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    command = arguments(directory, "export=[]")
    assert finish(command) == 0
    before = outcome(directory)
    victim = directory / "arms" / "distilled" / "seed-1" / "model.safetensors"
    untouched = directory / "arms" / "distilled" / "seed-0" / "model.safetensors"
    written = untouched.stat().st_mtime_ns
    flip_a_byte(victim)
    assert finish(command) == 0
    assert outcome(directory) == before
    assert untouched.stat().st_mtime_ns == written
    notices = (directory / "events.jsonl").read_text()
    assert "arms/distilled/seed-1/model.safetensors is not as it was written" in notices


@pytest.mark.slow
def test_30_a_flipped_byte_in_a_checkpoint_is_named_and_an_older_one_used(
    unbroken: dict[str, str], tmp_path: Path
) -> None:
    directory = tmp_path / "run"
    command = arguments(directory, "export=[]")
    assert finish(command, fault="after a save", occurrence=60) == -signal.SIGKILL
    newest = max(directory.glob("**/checkpoints/step-*"), key=lambda path: path.stat().st_mtime_ns)
    flip_a_byte(newest / "model.safetensors")
    assert finish(command) == 0
    assert outcome(directory) == without_exports(unbroken)
    events = newest.parent.parent / "events.jsonl"
    assert f"{newest.name}: model.safetensors is not as it was written" in events.read_text()


@pytest.mark.slow
def test_30_a_flipped_byte_in_an_export_is_found_and_the_artefact_made_again(
    unbroken: dict[str, str], tmp_path: Path
) -> None:
    directory = tmp_path / "run"
    command = arguments(directory, EXPORTS)
    assert finish(command) == 0
    flip_a_byte(directory / "exports" / "onnx-int8" / "model.onnx")
    assert finish(command) == 0
    assert outcome(directory) == unbroken
    assert read_json(directory / "exports" / "onnx-int8" / "parity.json")["passed"]


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
