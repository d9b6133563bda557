"""The hashes of an artefact's files, written when it is made and checked before it is believed. No torch here."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from distil.core.errors import IntegrityError
from distil.core.files import sha256_of, write_json

MODEL_FILE = "model.onnx"
PREPROCESSING_FILE = "labels_and_preprocessing.json"
SAMPLES_FILE = "samples.safetensors"
LOADER_FILE = "predict.py"
RECORD_FILE = "artefact.json"
PARITY_FILE = "parity.json"
LATENCY_FILE = "latency.json"

_REMEDY = "Export again (`distil run` does it when this directory is gone)."


def write_record(directory: Path, names: Iterable[str], *, precision: str) -> dict[str, Any]:
    """Writes ``artefact.json``: the hash of every named file of ``directory``, and of the record itself.

    Returns:
        The record: ``format``, ``precision``, ``model`` (file name), ``sha256`` and ``size_bytes`` of the model,
        ``files`` ({name: sha256}), ``record_sha256``.
    """
    files = {name: sha256_of(directory / name) for name in names}
    record: dict[str, Any] = {
        "format": 1,
        "precision": precision,
        "model": MODEL_FILE,
        "sha256": files[MODEL_FILE],
        "size_bytes": (directory / MODEL_FILE).stat().st_size,
        "files": files,
    }
    record["record_sha256"] = _hash_of_record(record)
    write_json(directory / RECORD_FILE, record)
    return record


def check_artefact(directory: Path) -> dict[str, Any]:
    """The record of an artefact, all of whose files are the ones that were written.

    Raises:
        IntegrityError: names every file that is missing or has changed, or the record when it cannot be believed.
    """
    record = _read_record(directory / RECORD_FILE)
    problems: list[str] = []
    for name, expected in record["files"].items():
        path = directory / name
        if not path.is_file():
            problems.append(f"{path}: the file is missing")
        elif (found := sha256_of(path)) != expected:
            problems.append(f"{path}: the bytes have changed since the export (sha256 {found}, written was {expected})")
    if problems:
        raise IntegrityError("\n".join([*problems, _REMEDY]))
    return record


def _read_record(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise IntegrityError(f"{path}: the file is missing, so {path.parent} is not a finished export. {_REMEDY}")
    try:
        record = json.loads(path.read_bytes())
        intact = record["record_sha256"] == _hash_of_record(record) and MODEL_FILE in record["files"]
    except (ValueError, KeyError, TypeError, AttributeError):
        intact = False
        record = {}
    if not intact:
        raise IntegrityError(f"{path}: the bytes have changed since the export. {_REMEDY}")
    return record


def _hash_of_record(record: dict[str, Any]) -> str:
    content = {key: value for key, value in record.items() if key != "record_sha256"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode("utf-8")).hexdigest()
