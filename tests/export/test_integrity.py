import json
from pathlib import Path

import pytest

from distil.core.errors import IntegrityError
from distil.export.integrity import MODEL_FILE, RECORD_FILE, check_artefact, write_record


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / MODEL_FILE).write_bytes(b"the model")
    (tmp_path / "labels.json").write_bytes(b"{}")
    write_record(tmp_path, [MODEL_FILE, "labels.json"], precision="fp32")
    return tmp_path


def test_the_record_holds_the_hashes(directory: Path) -> None:
    record = check_artefact(directory)
    # `printf 'the model' | sha256sum`
    assert record["sha256"] == "36cc7e3d6f6200756c81e18470827e9dac1c602fcd87761cbb0b8f015611c098"
    assert record["files"].keys() == {MODEL_FILE, "labels.json"}
    assert (record["precision"], record["size_bytes"]) == ("fp32", 9)


@pytest.mark.parametrize("name", [MODEL_FILE, "labels.json", RECORD_FILE])
def test_30_every_flipped_bit_of_every_byte_is_found_and_named(directory: Path, name: str) -> None:
    path = directory / name
    content = path.read_bytes()
    for position in range(len(content)):
        changed = bytearray(content)
        changed[position] ^= 1 << (position % 7)
        if name == RECORD_FILE and _same_json(content, bytes(changed)):
            continue  # white space
        path.write_bytes(changed)
        with pytest.raises(IntegrityError) as caught:
            check_artefact(directory)
        assert str(caught.value).startswith(f"{path}: the bytes have changed")
        assert "Export again" in str(caught.value)
    path.write_bytes(content)
    check_artefact(directory)


def _same_json(left: bytes, right: bytes) -> bool:
    try:
        return json.loads(left) == json.loads(right)
    except ValueError:
        return False


def test_all_changed_files_are_named_at_once(directory: Path) -> None:
    (directory / MODEL_FILE).unlink()
    (directory / "labels.json").write_bytes(b"[]")
    with pytest.raises(IntegrityError) as caught:
        check_artefact(directory)
    assert f"{directory / MODEL_FILE}: the file is missing" in str(caught.value)
    assert f"{directory / 'labels.json'}: the bytes have changed" in str(caught.value)


@pytest.mark.parametrize("content", [b"[]", b"3", b"", b"\xff", b"{}", b'{"record_sha256": 1, "files": 2}'])
def test_a_record_that_is_not_one_is_named(directory: Path, content: bytes) -> None:
    (directory / RECORD_FILE).write_bytes(content)
    with pytest.raises(IntegrityError, match=RECORD_FILE):
        check_artefact(directory)


def test_a_directory_without_a_record_is_not_a_finished_export(tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match="not a finished export"):
        check_artefact(tmp_path)
