"""Runs parity and latency in a process of their own, where nothing of this one (torch, threads, caches) is left."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from distil.core.errors import ExportError, IntegrityError, MissingExtraError
from distil.export.integrity import LATENCY_FILE, PARITY_FILE

_SOURCE_ROOT = Path(__file__).resolve().parents[2]
_TIMEOUT_SECONDS = 1800


def verify_in_fresh_process(directory: Path, *, min_agreement: float | None = None) -> dict[str, Any]:
    """The content of the ``parity.json`` that ``python -m distil.export.verify`` writes.

    Raises:
        IntegrityError: a file is not the one that was written; the message names it.
        ExportError: the artefact does not behave like the model, or the process died.
        MissingExtraError: onnxruntime is not installed.
    """
    directory = directory.resolve()
    options = [] if min_agreement is None else ["--min-agreement", str(min_agreement)]
    _run_module("distil.export.verify", [str(directory), *options])
    return json.loads((directory / PARITY_FILE).read_bytes())


def measure_latency_in_fresh_process(
    directories: Sequence[Path], reference: Path | None = None, *, tokens: int | None = None
) -> dict[str, dict[str, Any]]:
    """The contents of the ``latency.json`` of every directory and of the reference, measured together.

    Args:
        directories: artefacts.
        reference: the artefact that speed-ups are relative to.
        tokens: of texts, how many each is cut or padded to; by default 32.

    Returns:
        By directory, as it was given.

    Raises:
        IntegrityError, ExportError, MissingExtraError: as :func:`verify_in_fresh_process`.
    """
    options = [] if reference is None else ["--reference", str(reference.resolve())]
    options += [] if tokens is None else ["--tokens", str(tokens)]
    _run_module("distil.export.latency", [*(str(directory.resolve()) for directory in directories), *options])
    measured = [*directories, *([] if reference is None else [reference])]
    return {str(directory): json.loads((directory / LATENCY_FILE).read_bytes()) for directory in measured}


def _run_module(module: str, arguments: Sequence[str]) -> None:
    search_path = [str(_SOURCE_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(search_path), "PYTHONIOENCODING": "utf-8"}
    # -P keeps the working directory off the path: a file json.py there must not replace Python's.
    command = [sys.executable, "-P", "-m", module, *arguments]
    try:
        child = subprocess.run(
            command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, encoding="utf-8", errors="replace",
            timeout=_TIMEOUT_SECONDS, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise ExportError(f"{module} did not end within {_TIMEOUT_SECONDS} seconds and was stopped.") from error
    if child.returncode != 0:
        _raise_error_of(module, child.returncode, child.stderr)


def _raise_error_of(module: str, exit_code: int, stderr: str) -> NoReturn:
    """The child's own error where it had one: its message begins a line with the name of the class."""
    found = re.search(r"^(IntegrityError|ExportError|MissingExtraError): (.*)", stderr, re.MULTILINE | re.DOTALL)
    match found.groups() if found else None, exit_code:
        case ("IntegrityError", message), IntegrityError.exit_code:
            raise IntegrityError(message.strip())
        case ("ExportError", message), ExportError.exit_code:
            raise ExportError(message.strip())
        case ("MissingExtraError", _), MissingExtraError.exit_code:
            raise MissingExtraError("onnxruntime", extra="onnx", purpose="exporting to ONNX")
    ending = f"was ended by signal {-exit_code}" if exit_code < 0 else f"ended with exit code {exit_code}"
    raise ExportError(f"{module} {ending}. Its last words:\n{stderr.strip()[-2000:] or '(none)'}")
