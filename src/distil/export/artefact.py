"""The directory of one artefact: the file, what it needs around it, real samples to prove it by, and their hashes."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
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
from distil.export.row_quantisation import quantize_rows
from distil.export.samples import MASK, Inputs, Samples, Tokens, take
from distil.export.samples import serialise as _serialise

_PREPROCESSING_KEYS = ("class_names", "input", "preprocessing", "output")
_HASHED_FILES = (MODEL_FILE, PREPROCESSING_FILE, SAMPLES_FILE, LOADER_FILE)
_OWN_FILES = (*_HASHED_FILES, RECORD_FILE, PARITY_FILE, LATENCY_FILE)


def write_artefact(
    directory: Path,
    *,
    model: nn.Module,
    samples: Samples,
    calibration: Inputs | None,
    preprocessing: dict[str, Any],
    precision: Precision,
    extra_files: Mapping[str, bytes] | None = None,
) -> list[Path]:
    """Writes one artefact and everything its verification reads; an older one in ``directory`` is replaced.

    ``artefact.json`` is written last: without it the directory is not an artefact, however far an interrupted export
    came. Each file is replaced in one step.

    Args:
        directory: made where it is missing.
        model: comes back as it was.
        samples: real examples, for parity.
        calibration: preprocessed training images; needed for int8, not used for fp32, nor for texts, whose int8 takes
            its ranges from each token.
        preprocessing: the content of ``labels_and_preprocessing.json``. Where several classes may hold for a text, its
            ``output`` has ``"activation": "sigmoid"``.
        precision: of weights and activations in the file.
        extra_files: by name, what else the loader needs: the tokenizer of a text model.

    Returns:
        The files written, ``artefact.json`` last.

    Raises:
        MissingExtraError: onnx, onnxscript or onnxruntime is not installed.
        ExportError: the model cannot be exported, or samples, classes, files and preprocessing do not fit together.
    """
    extra_files = dict(extra_files or {})
    _check_preprocessing(preprocessing, samples)
    _check_extra_files(extra_files, preprocessing)
    directory.mkdir(parents=True, exist_ok=True)
    _remove_previous(directory)
    _write_model(directory / MODEL_FILE, model, samples, calibration, precision, preprocessing["output"]["name"])
    write_json(directory / PREPROCESSING_FILE, preprocessing)
    write_atomically(directory / SAMPLES_FILE, _serialise(samples))
    template = "predict_template.txt" if isinstance(samples.inputs, np.ndarray) else "predict_text_template.txt"
    write_atomically(directory / LOADER_FILE, Path(__file__).with_name(template).read_bytes())
    for name, content in extra_files.items():
        write_atomically(directory / name, content)
    names = [*_HASHED_FILES, *extra_files]
    write_record(directory, names, precision=precision)
    return [directory / name for name in [*names, RECORD_FILE]]


def _write_model(
    path: Path, model: nn.Module, samples: Samples, calibration: Inputs | None, precision: Precision, output: str
) -> None:
    if precision == "fp32":
        export_onnx(model, _example(model, samples), path, output=output)
        return
    of_images = isinstance(samples.inputs, np.ndarray)
    if of_images and not isinstance(calibration, np.ndarray):
        raise ExportError(f"{path}: int8 needs calibration images, found none. Give a few hundred training images.")
    with tempfile.TemporaryDirectory(prefix="distil-export-") as temporary:
        fp32 = Path(temporary) / MODEL_FILE
        export_onnx(model, _example(model, samples), fp32, output=output)
        if isinstance(calibration, np.ndarray) and of_images:
            quantize_onnx(fp32, path, calibration)
        else:
            quantize_rows(fp32, path)


def _example(model: nn.Module, samples: Samples) -> Any:
    parameter = next(model.parameters(), None)
    device = parameter.device if parameter is not None else "cpu"
    first = take(samples.inputs, slice(0, 1))
    if isinstance(first, np.ndarray):
        return torch.from_numpy(first.copy()).to(device)
    return {name: torch.from_numpy(value.copy()).to(device) for name, value in first.items()}


def _remove_previous(directory: Path) -> None:
    """The record goes first, so that old and new files never look like one artefact."""
    for name in (RECORD_FILE, PARITY_FILE, LATENCY_FILE):
        (directory / name).unlink(missing_ok=True)
    for leftover in directory.glob(".*.tmp"):
        leftover.unlink(missing_ok=True)


def _check_preprocessing(preprocessing: dict[str, Any], samples: Samples) -> None:
    missing = [key for key in _PREPROCESSING_KEYS if key not in preprocessing]
    if missing:
        raise ExportError(f"{PREPROCESSING_FILE}: the keys {', '.join(missing)} are missing.")
    names = preprocessing["class_names"]
    if samples.of_tokens and not names:
        raise ExportError(
            f"{PREPROCESSING_FILE}: logits of tokens without class names, as a language model gives, are not exported; "
            "the student's Hugging Face folder is in student/huggingface."
        )
    num_classes = samples.reference.shape[-1]
    if len(names) != num_classes and (names or samples.targets is not None):
        raise ExportError(f"{PREPROCESSING_FILE}: {len(names)} class names for a model with {num_classes} classes.")
    if isinstance(samples.inputs, np.ndarray):
        _check_images(preprocessing["input"], samples.inputs)
    else:
        _check_tokens(preprocessing["input"], samples.inputs)


def _check_images(declared: Mapping[str, Any], inputs: np.ndarray) -> None:
    shape = tuple(declared[axis] for axis in ("channels", "height", "width"))
    if shape != inputs.shape[1:]:
        raise ExportError(
            f"{PREPROCESSING_FILE}: input {shape} (channels, height, width), but the samples have {inputs.shape[1:]}."
        )


def _check_tokens(declared: Mapping[str, Any], inputs: Tokens) -> None:
    if declared["names"] != list(inputs):
        raise ExportError(
            f"{PREPROCESSING_FILE}: input names {declared['names']}, but the samples have {list(inputs)}."
        )
    tokens = inputs[MASK].shape[1]
    if tokens > declared["max_length"]:
        raise ExportError(
            f"{PREPROCESSING_FILE}: texts of {declared['max_length']} tokens at most, but the samples have {tokens}."
        )


def _check_extra_files(files: Mapping[str, bytes], preprocessing: dict[str, Any]) -> None:
    refused = [name for name in files if Path(name).name != name or name in _OWN_FILES]
    if refused:
        raise ExportError(f"extra files: {', '.join(refused)} is no name of a file beside ours in one directory.")
    tokenizer = preprocessing["preprocessing"].get("tokenizer")
    if tokenizer is not None and tokenizer not in files:
        raise ExportError(
            f"{PREPROCESSING_FILE}: the tokenizer {tokenizer} is not among the extra files {list(files)}."
        )
