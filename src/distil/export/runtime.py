"""ONNX Runtime as parity and latency use it: one thread, the plain CPU, numpy in and out. No torch here."""

from pathlib import Path
from typing import Any

import numpy as np

from distil.core.errors import ExportError, MissingExtraError
from distil.export.samples import Inputs, by_name

OUTPUT_NAME = "logits"
_ERRORS_ONLY = 3


def runtime_name() -> str:
    """Name and version of the runtime, such as ``onnxruntime 1.32.0``."""
    return f"onnxruntime {_onnxruntime().__version__}"


def open_session(path: Path) -> Any:
    """An inference session on one thread of the CPU.

    Raises:
        MissingExtraError: onnxruntime is not installed.
        ExportError: the runtime refuses the file.
    """
    onnxruntime = _onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = _ERRORS_ONLY
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime's own exceptions have no common base
        raise ExportError(f"{path}: {runtime_name()} cannot load this file: {error}") from error


def compute_logits(session: Any, inputs: Inputs, *, output: str = OUTPUT_NAME) -> np.ndarray:
    """The artefact's outputs for one batch.

    Raises:
        ExportError: the runtime refuses the batch, for example its size or its length.
    """
    feed = by_name(inputs)
    try:
        return session.run([output], feed)[0]
    except Exception as error:  # the runtime's own exceptions have no common base
        shape = next(iter(feed.values())).shape
        raise ExportError(f"the artefact cannot run a batch of shape {shape}: {error}") from error


def _onnxruntime() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtraError("onnxruntime", extra="onnx", purpose="exporting to ONNX") from error
    return onnxruntime
