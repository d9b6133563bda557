"""Is the exported file the student? ``python -m distil.export.verify DIRECTORY`` answers without torch.

It reads that directory only: hashes first, then the file's outputs on real samples against those that torch gave when
it was written. ``parity.json`` is the answer; exit code 0 means that it passed, 3 that it did not.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from distil.core.errors import DistilError, ExportError
from distil.core.files import write_json
from distil.export.integrity import MODEL_FILE, PARITY_FILE, SAMPLES_FILE, check_artefact
from distil.export.runtime import compute_logits, open_session, runtime_name

# Errors are relative to the largest reference logit. int8 is not the same function, so it is judged by its decisions;
# the sizes of batches may then move a value over a rounding step, hence the wider bound on them.
TOLERANCES: dict[str, dict[str, float]] = {
    "fp32": {"relative_error": 1e-4, "metric_drop": 0.005, "batch_relative_error": 1e-4},
    "int8": {"agreement": 0.98, "metric_drop": 0.02, "batch_relative_error": 0.02},
}
_BATCH_SIZES = (1, 2, 7)
_NUM_SINGLES = 64
_MAX_BATCH = 1024
_MAX_VALUES_IN_A_BATCH = 4_000_000


def verify(directory: Path, *, min_agreement: float | None = None) -> dict[str, Any]:
    """Compares an artefact with the model it was made from, and writes ``parity.json``.

    Args:
        directory: written by ``write_artefact``; an older ``parity.json`` there is removed first.
        min_agreement: the fraction of decisions that must be equal; by default 0.98 for int8 and not judged for fp32,
            whose logits are.

    Returns:
        The content of ``parity.json``; ``passed`` is whether ``problems`` is empty.

    Raises:
        IntegrityError: a file is not the one that was written.
        ExportError: the runtime cannot load or run the file.
        MissingExtraError: onnxruntime is not installed.
    """
    (directory / PARITY_FILE).unlink(missing_ok=True)
    record = check_artefact(directory)
    samples = load_file(directory / SAMPLES_FILE)
    tolerance = dict(TOLERANCES[record["precision"]])
    if min_agreement is not None:
        tolerance["agreement"] = min_agreement
    session, largest_batch = open_session(directory / MODEL_FILE), _largest_batch(samples["inputs"])
    outputs = _compute_in_batches(session, samples["inputs"], largest_batch)
    if outputs.shape != samples["reference"].shape:
        raise ExportError(
            f"{directory / MODEL_FILE}: outputs of shape {outputs.shape}, expected {samples['reference'].shape}."
        )
    scale = max(float(np.abs(samples["reference"]).max()), float(np.finfo(np.float32).tiny))
    batch_problems = _compare_batch_sizes(
        session, samples["inputs"], outputs, bound=tolerance["batch_relative_error"] * scale
    )
    second = compute_logits(open_session(directory / MODEL_FILE), samples["inputs"][:largest_batch])
    parity: dict[str, Any] = {
        "format": 1,
        "runtime": runtime_name(),
        "precision": record["precision"],
        "num_samples": len(outputs),
        **_measure(outputs, samples, scale),
        "batch_sizes": [*_BATCH_SIZES, largest_batch],
        "dynamic_batch": not batch_problems,
        "repeat_bit_equal": second.tobytes() == outputs[:largest_batch].tobytes(),
        "sha256": record["sha256"],
        "size_bytes": record["size_bytes"],
        "tolerance": tolerance,
        "pid": os.getpid(),
    }
    problems = [*_judge(parity, tolerance), *batch_problems]
    parity |= {"passed": not problems, "problems": problems}
    write_json(directory / PARITY_FILE, parity)
    return parity


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m distil.export.verify", description=__doc__)
    parser.add_argument("directory", type=Path, help="an artefact, such as runs/NAME/exports/onnx-fp32")
    parser.add_argument("--min-agreement", type=float, help="fraction of decisions that must be equal")
    options = parser.parse_args(arguments)
    try:
        parity = verify(options.directory, min_agreement=options.min_agreement)
        if not parity["passed"]:
            raise ExportError(
                "\n".join([f"{options.directory / MODEL_FILE} is not the model it was made from:", *parity["problems"]])
            )
    except DistilError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return error.exit_code
    print(
        f"{options.directory}: passed on {parity['num_samples']} samples, "
        f"largest error {parity['max_abs_error']:.3g}, agreement {parity['agreement']:.4f}"
    )
    return 0


def _measure(outputs: np.ndarray, samples: dict[str, np.ndarray], scale: float) -> dict[str, Any]:
    reference, targets = samples["reference"], samples["targets"]
    error = np.abs(outputs.astype(np.float64) - reference)
    finite = bool(np.isfinite(outputs).all())
    decisions, expected = outputs.argmax(axis=1), reference.argmax(axis=1)
    return {
        "finite": finite,
        "max_abs_error": float(error.max()) if finite else None,
        "mean_abs_error": float(error.mean()) if finite else None,
        "max_relative_error": float(error.max()) / scale if finite else None,
        "agreement": float((decisions == expected).mean()),
        "metric": {
            "name": "accuracy",
            "reference": float((expected == targets).mean()),
            "artefact": float((decisions == targets).mean()),
        },
    }


def _judge(parity: dict[str, Any], tolerance: dict[str, float]) -> list[str]:
    """Everything outside the tolerance, one sentence each."""
    problems: list[str] = []
    if not parity["finite"]:
        problems.append("the artefact gives NaN or infinity on real samples")
    elif parity["max_relative_error"] > tolerance.get("relative_error", np.inf):
        problems.append(
            f"largest error {parity['max_abs_error']:.3g} is {parity['max_relative_error']:.3g} of the largest "
            f"reference logit, allowed is {tolerance['relative_error']:g}"
        )
    if parity["agreement"] < tolerance.get("agreement", 0.0):
        problems.append(
            f"agreement with the model {parity['agreement']:.4f}, at least {tolerance['agreement']:g} needed"
        )
    metric = parity["metric"]
    if metric["reference"] - metric["artefact"] > tolerance["metric_drop"]:
        problems.append(
            f"{metric['name']} fell from {metric['reference']:.4f} to {metric['artefact']:.4f}, "
            f"allowed is a drop of {tolerance['metric_drop']:g}"
        )
    if not parity["repeat_bit_equal"]:
        problems.append("a second session gives other bits for the same batch")
    return problems


def _compare_batch_sizes(session: Any, inputs: np.ndarray, outputs: np.ndarray, *, bound: float) -> list[str]:
    """Batches of 1, 2 and 7 against each other and against the large batch that gave ``outputs``."""
    chosen = np.arange(max(_BATCH_SIZES[-1], min(len(inputs), _NUM_SINGLES))) % len(inputs)
    by_size: dict[int | str, np.ndarray] = {"all": outputs[chosen]}
    problems: list[str] = []
    for size in _BATCH_SIZES:
        try:
            by_size[size] = _compute_in_batches(session, inputs[chosen], size)
        except ExportError as error:
            problems.append(str(error))
    singles = by_size.pop(1, None)
    if singles is None:
        return problems
    for size, logits in by_size.items():
        difference = float(np.abs(logits - singles).max())
        if not difference <= bound:  # also true for NaN
            problems.append(f"batches of {size} differ from single samples by {difference:.3g}, allowed {bound:.3g}")
    return problems


def _compute_in_batches(session: Any, inputs: np.ndarray, size: int) -> np.ndarray:
    starts = range(0, len(inputs), size)
    return np.concatenate([compute_logits(session, inputs[start : start + size]) for start in starts])


def _largest_batch(inputs: np.ndarray) -> int:
    """All samples at once, where memory allows it."""
    fits = max(_BATCH_SIZES[-1], _MAX_VALUES_IN_A_BATCH // max(1, inputs[0].size))
    return min(len(inputs), fits, _MAX_BATCH)


if __name__ == "__main__":
    sys.exit(main())
