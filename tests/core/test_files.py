import errno
import json
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from safetensors import SafetensorError

from distil.core.errors import ResourceError
from distil.core.files import digest, read_json, saving, sha256_of, sync, write_atomically, write_json


@contextmanager
def full_disk() -> Iterator[None]:
    """No file of this process may grow beyond 100 bytes inside: the system's own error, without a full disk.

    Not a fixture: pytest itself writes to a file where its output goes into one.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_sha256_of_a_file_is_the_published_one(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abc")
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, appendix B.1
    assert sha256_of(tmp_path / "x") == expected


def test_digest_ignores_the_order_of_keys_and_nothing_else() -> None:
    assert digest({"a": 1, "b": [1, 2]}) == digest({"b": [1, 2], "a": 1})
    assert digest({"a": 1, "b": [1, 2]}) != digest({"a": 1, "b": [2, 1]})
    assert digest({"a": 1}) != digest({"a": "1"})
    with pytest.raises(ValueError, match="JSON"):
        digest({"a": float("nan")})


def test_a_file_is_written_with_its_folders_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "x.txt"
    write_atomically(path, "grün")
    assert path.read_bytes() == "grün".encode()
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert [each.name for each in path.parent.iterdir()] == ["x.txt"]


def test_json_is_readable_and_refuses_what_json_cannot_hold(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_json(path, {"b": 1, "a": [0.5, None]})
    assert path.read_text() == '{\n  "a": [\n    0.5,\n    null\n  ],\n  "b": 1\n}\n'
    assert read_json(path) == {"a": [0.5, None], "b": 1}
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, {"a": float("inf")})
    assert read_json(path) == {"a": [0.5, None], "b": 1}


def test_a_failed_save_is_loud_with_numbers_and_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    write_atomically(path, "old")
    with full_disk(), pytest.raises(ResourceError) as caught:
        write_atomically(path, "new" * 1000)
    message = str(caught.value)
    assert str(path) in message
    assert "it needs 3,000 bytes and " in message
    assert " are free" in message
    assert os.strerror(errno.EFBIG) in message
    assert caught.value.exit_code == 5
    assert path.read_text() == "old"
    assert [each.name for each in tmp_path.iterdir()] == ["x.txt"]


def test_the_size_in_the_message_counts_bytes_not_characters(tmp_path: Path) -> None:
    with full_disk(), pytest.raises(ResourceError, match="it needs 400 bytes"):
        write_atomically(tmp_path / "x.txt", "ü" * 200)


@pytest.mark.parametrize("step", ["write_bytes", "replace"])
def test_no_space_at_any_step_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    path = tmp_path / "x.txt"
    write_atomically(path, "old")

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, step, fail)
    with pytest.raises(ResourceError, match=os.strerror(errno.ENOSPC)):
        write_atomically(path, "new")
    monkeypatch.undo()
    assert path.read_text() == "old"
    assert [each.name for each in tmp_path.iterdir()] == ["x.txt"]


def test_a_folder_that_cannot_be_made_is_a_failed_save(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ResourceError, match="could not be saved"):
        write_atomically(tmp_path / "file" / "sub" / "x.txt", "new")


def test_the_error_of_safetensors_is_a_failed_save_too(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "x.safetensors"
    with pytest.raises(ResourceError, match=r"No space left.*it needs 1,234 bytes"), saving(path, size=1234):
        raise SafetensorError("No space left on device (os error 28)")


def test_safetensors_on_a_full_disk_is_a_failed_save(tmp_path: Path) -> None:
    import numpy as np
    from safetensors.numpy import save_file

    with full_disk(), pytest.raises(ResourceError), saving(tmp_path / "x.safetensors", size=4000):
        save_file({"a": np.zeros(1000, dtype=np.float32)}, tmp_path / "x.safetensors")


def test_other_errors_pass_through(tmp_path: Path) -> None:
    with pytest.raises(KeyError), saving(tmp_path / "x", size=1):
        raise KeyError("a bug")


def test_sync_works_on_files_and_folders(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("1")
    before = len(list(Path("/proc/self/fd").iterdir()))
    sync(tmp_path / "x")
    sync(tmp_path)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    with pytest.raises(FileNotFoundError):
        sync(tmp_path / "absent")


def test_json_numbers_survive_exactly(tmp_path: Path) -> None:
    values = [0.1, 1e-300, 2**53 + 1, -0.0]
    write_json(tmp_path / "x.json", values)
    assert json.dumps(read_json(tmp_path / "x.json")) == json.dumps(values)
