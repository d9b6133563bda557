"""The directory of one artefact: the file, what it needs around it, real samples to prove it by, and their hashes."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Int64
from safetensors.numpy import save
from torch import nn

from distil.core.errors import ExportError
from distil.core.files import write_atomically, write_json
from distil.export.config import Precision
from distil.export.integrity import (
    LATENCY_FILE,
    LOADER_FILE,
    MODEL_FILE,
    PARITY_FILE,
    PREPROCESSING_FILE,
    RECORD_FILE,
    SAMPLES_FILE,
    write_record,
)
from distil.export.onnx import export_onnx, quantize_onnx

_PREPROCESSING_KEYS = ("class_names", "input", "preprocessing", "output")


@dataclass(frozen=True, eq=False)
class Samples:
    """Real examples that an artefact is proved on.

    ``inputs`` are what the model gets (preprocessed), ``reference`` the fp32 logits that the torch model gives for
    them, ``targets`` the true classes.

    Raises:
        ExportError: the three do not belong together, or hold values that are not finite.
    """

    inputs: Float32[np.ndarray, "samples channels height width"]
    reference: Float32[np.ndarray, "samples classes"]
    targets: Int64[np.ndarray, " samples"]

    def __post_init__(self) -> None:
        found = f"inputs {self.inputs.shape}, reference {self.reference.shape}, targets {self.targets.shape}"
        if self.inputs.ndim != 4 or self.reference.ndim != 2 or self.targets.ndim != 1:
            raise ExportError(
                f"samples: expected inputs [N, C, H, W], reference [N, classes] and targets [N]; found {found}."
            )
        if not 0 < len(self.inputs) == len(self.reference) == len(self.targets):
            raise ExportError(f"samples: expected the same number of each, and at least one; found {found}.")
        if not (np.isfinite(self.inputs).all() and np.isfinite(self.reference).all()):
            raise ExportError(
                "samples: inputs or reference outputs hold NaN or infinity; such a model is not exported."
            )
        if self.targets.min() < 0 or self.targets.max() >= self.reference.shape[1]:
            raise ExportError(
                f"samples: targets lie in {self.targets.min()}..{self.targets.max()}, "
                f"but the model has {self.reference.shape[1]} classes."
            )


def write_artefact(
    directory: Path,
    *,
    model: nn.Module,
    samples: Samples,
    calibration: Float32[np.ndarray, "examples channels height width"] | None,
    preprocessing: dict[str, Any],
    precision: Precision,
) -> list[Path]:
    """Writes one artefact and everything its verification reads; an older one in ``directory`` is replaced.

    ``artefact.json`` is written last: without it the directory is not an artefact, however far an interrupted export
    came. Each file is replaced in one step.

    Args:
        directory: made where it is missing.
        model: comes back as it was.
        samples: real examples, for parity.
        calibration: preprocessed training images; needed for int8, not used for fp32.
        preprocessing: the content of ``labels_and_preprocessing.json``.
        precision: of weights and activations in the file.

    Returns:
        The files written, ``artefact.json`` last.

    Raises:
        MissingExtraError: onnx, onnxscript or onnxruntime is not installed.
        ExportError: the model cannot be exported, or samples, classes and preprocessing do not fit together.
    """
    _check_preprocessing(preprocessing, samples)
    directory.mkdir(parents=True, exist_ok=True)
    _remove_previous(directory)
    _write_model(directory / MODEL_FILE, model, samples, calibration, precision)
    write_json(directory / PREPROCESSING_FILE, preprocessing)
    write_atomically(directory / SAMPLES_FILE, _serialise(samples))
    write_atomically(directory / LOADER_FILE, Path(__file__).with_name("predict_template.txt").read_bytes())
    names = [MODEL_FILE, PREPROCESSING_FILE, SAMPLES_FILE, LOADER_FILE]
    write_record(directory, names, precision=precision)
    return [directory / name for name in [*names, RECORD_FILE]]


def _write_model(
    path: Path, model: nn.Module, samples: Samples, calibration: np.ndarray | None, precision: Precision
) -> None:
    parameter = next(model.parameters(), None)
    example = torch.from_numpy(samples.inputs[:1].copy()).to(parameter.device if parameter is not None else "cpu")
    if precision == "fp32":
        export_onnx(model, example, path)
        return
    if calibration is None:
        raise ExportError(f"{path}: int8 needs calibration images, found none. Give a few hundred training images.")
    with tempfile.TemporaryDirectory(prefix="distil-export-") as temporary:
        fp32 = Path(temporary) / MODEL_FILE
        export_onnx(model, example, fp32)
        quantize_onnx(fp32, path, calibration)


def _remove_previous(directory: Path) -> None:
    """The record goes first, so that old and new files never look like one artefact."""
    for name in (RECORD_FILE, PARITY_FILE, LATENCY_FILE):
        (directory / name).unlink(missing_ok=True)
    for leftover in directory.glob(".*.tmp"):
        leftover.unlink(missing_ok=True)


def _serialise(samples: Samples) -> bytes:
    tensors = {"inputs": samples.inputs, "reference": samples.reference, "targets": samples.targets}
    return save({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()})


def _check_preprocessing(preprocessing: dict[str, Any], samples: Samples) -> None:
    missing = [key for key in _PREPROCESSING_KEYS if key not in preprocessing]
    if missing:
        raise ExportError(f"labels_and_preprocessing.json: the keys {', '.join(missing)} are missing.")
    num_classes = samples.reference.shape[1]
    if len(preprocessing["class_names"]) != num_classes:
        raise ExportError(
            f"labels_and_preprocessing.json: {len(preprocessing['class_names'])} class names for a model with "
            f"{num_classes} classes."
        )
    declared = tuple(preprocessing["input"][axis] for axis in ("channels", "height", "width"))
    if declared != samples.inputs.shape[1:]:
        raise ExportError(
            f"labels_and_preprocessing.json: input {declared} (channels, height, width), but the samples have "
            f"{samples.inputs.shape[1:]}."
        )
