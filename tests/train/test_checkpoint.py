import errno
import json
import os
from pathlib import Path

import pytest
import torch

import distil.train.checkpoint as checkpoint_module
from distil.core.errors import NumericError, ResourceError
from distil.train.checkpoint import Checkpoint, newest_checkpoint, save_checkpoint


def make(step: int, value: float = 1.0, identity: str = "this") -> Checkpoint:
    tensors = {"model": {"weight": torch.full((3, 2), value)}, "optimizer": {"0.step": torch.tensor(float(step))}}
    return Checkpoint(step=step, tensors=tensors, state={"identity": identity, "progress": {"sums": {"a": 0.1}}})


def test_what_is_saved_is_read_back_to_the_last_bit(tmp_path: Path) -> None:
    saved = make(7, value=1 / 3)
    save_checkpoint(tmp_path, saved)
    found, skipped = newest_checkpoint(tmp_path, identity="this")
    assert found is not None
    assert skipped == []
    assert found.step == 7
    assert found.state["progress"] == {"sums": {"a": 0.1}}
    assert torch.equal(found.tensors["model"]["weight"], saved.tensors["model"]["weight"])
    assert torch.equal(found.tensors["optimizer"]["0.step"], saved.tensors["optimizer"]["0.step"])


def test_two_are_kept_and_the_newest_is_used(tmp_path: Path) -> None:
    for step in (1, 2, 10):
        save_checkpoint(tmp_path, make(step))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000000002", "step-000000010"]
    found, _ = newest_checkpoint(tmp_path, identity="this")
    assert found is not None
    assert found.step == 10


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "state.json"])
def test_30_a_flipped_byte_is_named_and_the_older_checkpoint_is_used(name: str, tmp_path: Path) -> None:
    save_checkpoint(tmp_path, make(1))
    newest = save_checkpoint(tmp_path, make(2))
    content = bytearray((newest / name).read_bytes())
    content[-3] ^= 1
    (newest / name).write_bytes(bytes(content))
    found, skipped = newest_checkpoint(tmp_path, identity="this")
    assert found is not None
    assert found.step == 1
    assert skipped == [f"step-000000002: {name} is not as it was written"]


@pytest.mark.parametrize("name", ["model.safetensors", "manifest.json"])
def test_30_a_missing_file_is_passed_over(name: str, tmp_path: Path) -> None:
    save_checkpoint(tmp_path, make(1))
    (save_checkpoint(tmp_path, make(2)) / name).unlink()
    found, skipped = newest_checkpoint(tmp_path, identity="this")
    assert found is not None
    assert found.step == 1
    assert "cannot be read" in skipped[0]


def test_a_checkpoint_of_another_training_is_passed_over(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, make(1, identity="other"))
    found, skipped = newest_checkpoint(tmp_path, identity="this")
    assert found is None
    assert skipped == ["step-000000001: it belongs to another training"]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_never_saved(value: float, tmp_path: Path) -> None:
    save_checkpoint(tmp_path, make(1))
    with pytest.raises(NumericError, match="model weight is not finite; nothing is saved"):
        save_checkpoint(tmp_path, make(2, value=value))
    assert [path.name for path in tmp_path.iterdir()] == ["step-000000001"]


def test_34_a_save_that_fails_is_loud_and_the_old_checkpoint_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_checkpoint(tmp_path, make(1))

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(checkpoint_module, "save_file", full)
    with pytest.raises(ResourceError, match=r"No space left on device.*it needs 28 bytes and [\d,]+ are free"):
        save_checkpoint(tmp_path, make(2))
    found, _ = newest_checkpoint(tmp_path, identity="this")
    assert found is not None
    assert found.step == 1


def test_a_checkpoint_that_does_not_read_back_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_checkpoint(tmp_path, make(1))
    rename = os.replace

    def failing_disk(source: Path, target: Path) -> None:
        rename(source, target)
        if Path(target).name == "step-000000002":
            (Path(target) / "model.safetensors").write_bytes(b"garbage")

    monkeypatch.setattr(checkpoint_module.os, "replace", failing_disk)
    with pytest.raises(ResourceError, match=r"does not read back: model\.safetensors is not as it was written"):
        save_checkpoint(tmp_path, make(2))
    assert (tmp_path / "step-000000001").is_dir()


def test_nothing_in_a_checkpoint_is_a_pickle(tmp_path: Path) -> None:
    folder = save_checkpoint(tmp_path, make(3))
    assert {path.suffix for path in folder.iterdir()} == {".safetensors", ".json"}
    assert json.loads((folder / "state.json").read_text())["step"] == 3


def test_leftovers_of_a_killed_save_are_not_taken_for_checkpoints_and_are_swept(tmp_path: Path) -> None:
    torn = tmp_path / ".step-000000009.tmp"
    torn.mkdir()
    (torn / "model.safetensors").write_bytes(b"half")
    assert newest_checkpoint(tmp_path, identity="this") == (None, [])
    save_checkpoint(tmp_path, make(1))
    assert not torn.exists()


def test_tensors_that_share_memory_can_be_saved(tmp_path: Path) -> None:
    weight = torch.randn(3, 3)
    tied = Checkpoint(step=1, tensors={"model": {"a": weight, "b": weight}}, state={"identity": "this"})
    save_checkpoint(tmp_path, tied)
    found, _ = newest_checkpoint(tmp_path, identity="this")
    assert found is not None
    assert torch.equal(found.tensors["model"]["b"], weight)
