"""Is the exported file the student? ``python -m distil.export.verify DIRECTORY`` answers without torch.

It reads that directory only: hashes first, then the file's outputs on real samples against those that torch gave when
it was written. ``parity.json`` is the answer; exit code 0 means that it passed, 3 that it did not.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from distil.core.errors import DistilError, ExportError
from distil.core.files import write_json
from distil.export.integrity import MODEL_FILE, PARITY_FILE, PREPROCESSING_FILE, SAMPLES_FILE, check_artefact
from distil.export.runtime import OUTPUT_NAME, compute_logits, open_session, runtime_name
from distil.export.samples import MASK, Inputs, Samples, at_length, num_rows, read_samples, take, used_columns

# Errors are relative to the largest reference logit. int8 is not the same function, so it is judged by its decisions;
# the sizes of batches may then move a value over a rounding step, hence the wider bound on them.
TOLERANCES: dict[str, dict[str, float]] = {
    "fp32": {"relative_error": 1e-4, "metric_drop": 0.005, "batch_relative_error": 1e-4},
    "int8": {"agreement": 0.98, "metric_drop": 0.02, "batch_relative_error": 0.02},
}
# Where there are no classes, int8 is judged by the direction of its outputs.
TOLERANCES_WITHOUT_CLASSES: dict[str, dict[str, float]] = {
    "fp32": {"relative_error": 1e-4, "batch_relative_error": 1e-4},
    "int8": {"cosine": 0.99, "batch_relative_error": 0.02},
}
_BATCH_SIZES = (1, 2, 7)
_NUM_SINGLES = 64
_MAX_BATCH = 1024
_MAX_VALUES_IN_A_BATCH = 4_000_000
_VALUES_A_TOKEN = 512  # of a text's token, in one layer


def verify(directory: Path, *, min_agreement: float | None = None) -> dict[str, Any]:
    """Compares an artefact with the model it was made from, and writes ``parity.json``.

    Of texts, batches of 1, 2 and 7 are cut to their longest text, the large batch is padded as the samples are, and one
    batch is padded to the longest text the artefact takes: all must say the same.

    Args:
        directory: written by ``write_artefact``; an older ``parity.json`` there is removed first.
        min_agreement: the fraction of decisions that must be equal; by default 0.98 for int8 and not judged for fp32,
            whose logits are.

    Returns:
        The content of ``parity.json``; ``passed`` is whether ``problems`` is empty. ``agreement`` is None where there
        are no classes; ``cosine`` is there instead, the mean over samples, and is the metric.

    Raises:
        IntegrityError: a file is not the one that was written.
        ExportError: the runtime cannot load or run the file.
        MissingExtraError: onnxruntime is not installed.
    """
    (directory / PARITY_FILE).unlink(missing_ok=True)
    record = check_artefact(directory)
    card = json.loads((directory / PREPROCESSING_FILE).read_bytes())
    output: str = card["output"]["name"]
    samples = read_samples(directory / SAMPLES_FILE)
    tolerance = _tolerance(record["precision"], samples, min_agreement)
    session, largest_batch = open_session(directory / MODEL_FILE), _largest_batch(samples.inputs)
    outputs = _compute_in_batches(session, samples.inputs, largest_batch, output=output, cut=False)
    if outputs.shape != samples.reference.shape:
        raise ExportError(
            f"{directory / MODEL_FILE}: outputs of shape {outputs.shape}, expected {samples.reference.shape}."
        )
    scale = max(float(np.abs(samples.counted(samples.reference)).max()), float(np.finfo(np.float32).tiny))
    bound = tolerance["batch_relative_error"] * scale
    batch_problems = _compare_batch_sizes(session, samples.inputs, outputs, bound=bound, output=output)
    length_problems = _compare_lengths(session, samples, outputs, card["input"], bound=bound, output=output)
    first = take(samples.inputs, slice(0, largest_batch))
    second = compute_logits(open_session(directory / MODEL_FILE), first, output=output)
    parity: dict[str, Any] = {
        "format": 1,
        "runtime": runtime_name(),
        "precision": record["precision"],
        "num_samples": len(outputs),
        **_measure(outputs, samples, scale),
        "batch_sizes": [*_BATCH_SIZES, largest_batch],
        "dynamic_batch": not batch_problems,
        **_lengths(samples.inputs, card["input"], length_problems),
        "repeat_bit_equal": second.tobytes() == outputs[:largest_batch].tobytes(),
        "sha256": record["sha256"],
        "size_bytes": record["size_bytes"],
        "tolerance": tolerance,
        "pid": os.getpid(),
    }
    problems = [*_judge(parity, tolerance), *batch_problems, *length_problems]
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
    alike = "agreement" if parity["agreement"] is not None else "cosine"
    print(
        f"{options.directory}: passed on {parity['num_samples']} samples, "
        f"largest error {parity['max_abs_error']:.3g}, {alike} {parity[alike]:.4f}"
    )
    return 0


def _tolerance(precision: str, samples: Samples, min_agreement: float | None) -> dict[str, float]:
    if samples.targets is None:
        if min_agreement is not None:
            raise ExportError("--min-agreement is for classes, and this artefact has none.")
        return dict(TOLERANCES_WITHOUT_CLASSES[precision])
    return TOLERANCES[precision] | ({} if min_agreement is None else {"agreement": min_agreement})


def _measure(outputs: np.ndarray, samples: Samples, scale: float) -> dict[str, Any]:
    outputs, reference = samples.counted(outputs), samples.counted(samples.reference)
    error = np.abs(outputs.astype(np.float64) - reference)
    finite = bool(np.isfinite(outputs).all())
    errors = {
        "finite": finite,
        "max_abs_error": float(error.max()) if finite else None,
        "mean_abs_error": float(error.mean()) if finite else None,
        "max_relative_error": float(error.max()) / scale if finite else None,
    }
    if samples.targets is None:
        cosine = _mean_cosine(outputs, reference)
        metric = {"name": "cosine", "reference": 1.0, "artefact": cosine}
        return {**errors, "agreement": None, "cosine": cosine, "metric": metric}
    targets = samples.counted(samples.targets)
    asked = targets >= 0
    decisions, expected = outputs.argmax(axis=1), reference.argmax(axis=1)
    return {
        **errors,
        "agreement": float((decisions == expected).mean()),
        "metric": {
            "name": "accuracy",
            "reference": float((expected == targets)[asked].mean()) if asked.any() else None,
            "artefact": float((decisions == targets)[asked].mean()) if asked.any() else None,
        },
    }


def _mean_cosine(outputs: np.ndarray, reference: np.ndarray) -> float | None:
    """Of the angle between each output and the model's; None for NaN. Two zeros are equal, one and another are not."""
    first, second = outputs.astype(np.float64), reference.astype(np.float64)
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    both_zero = ~first.any(axis=1) & ~second.any(axis=1)
    cosines = np.where(both_zero, 1.0, (first * second).sum(axis=1) / np.where(lengths > 0, lengths, 1))
    return float(cosines.mean()) if np.isfinite(cosines).all() else None


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
    for name, what in (("agreement", "agreement with the model"), ("cosine", "mean cosine with the model's outputs")):
        if parity.get(name) is not None and parity[name] < tolerance.get(name, -np.inf):
            problems.append(f"{what} {parity[name]:.4f}, at least {tolerance[name]:g} needed")
    metric = parity["metric"]
    allowed = tolerance.get("metric_drop", np.inf)
    if metric["reference"] is not None and metric["reference"] - metric["artefact"] > allowed:
        problems.append(
            f"{metric['name']} fell from {metric['reference']:.4f} to {metric['artefact']:.4f}, "
            f"allowed is a drop of {allowed:g}"
        )
    if not parity["repeat_bit_equal"]:
        problems.append("a second session gives other bits for the same batch")
    return problems


def _compare_batch_sizes(
    session: Any, inputs: Inputs, outputs: np.ndarray, *, bound: float, output: str = OUTPUT_NAME
) -> list[str]:
    """Batches of 1, 2 and 7 against each other and against the large batch that gave ``outputs``."""
    count = num_rows(inputs)
    chosen = np.arange(max(_BATCH_SIZES[-1], min(count, _NUM_SINGLES))) % count
    by_size: dict[int | str, np.ndarray] = {"all": outputs[chosen]}
    problems: list[str] = []
    for size in _BATCH_SIZES:
        try:
            by_size[size] = _compute_in_batches(session, take(inputs, chosen), size, output=output)
        except ExportError as error:
            problems.append(str(error))
    singles = by_size.pop(1, None)
    if singles is None:
        return problems
    for size, logits in by_size.items():
        difference = _largest_difference(logits, singles, take(inputs, chosen))
        if not difference <= bound:  # also true for NaN
            problems.append(f"batches of {size} differ from single samples by {difference:.3g}, allowed {bound:.3g}")
    return problems


def _compare_lengths(
    session: Any, samples: Samples, outputs: np.ndarray, declared: dict[str, Any], *, bound: float, output: str
) -> list[str]:
    """Some texts, padded to the longest that the artefact takes, against the same as they are."""
    if isinstance(samples.inputs, np.ndarray):
        return []
    length = declared["max_length"]
    texts, outputs = take(samples.inputs, slice(0, _BATCH_SIZES[-1])), outputs[: _BATCH_SIZES[-1]]
    assert not isinstance(texts, np.ndarray)
    try:
        found = compute_logits(session, at_length(texts, length, pad_id=declared.get("pad_id", 0)), output=output)
    except ExportError as error:
        return [str(error)]
    if samples.of_tokens:
        columns = used_columns(texts)
        found, outputs = found[:, : columns.stop - columns.start], outputs[:, columns]
        texts = {MASK: texts[MASK][:, columns]}
    difference = _largest_difference(found, outputs, texts)
    if difference <= bound:
        return []
    return [f"texts padded to {length} tokens differ from the same by {difference:.3g}, allowed {bound:.3g}"]


def _lengths(inputs: Inputs, declared: dict[str, Any], problems: list[str]) -> dict[str, Any]:
    """Of texts, the shortest and longest that were run, and whether padding changes nothing."""
    if isinstance(inputs, np.ndarray):
        return {}
    lengths = inputs[MASK].sum(axis=1)
    return {
        "token_lengths": [int(lengths.min()), int(lengths.max()), declared["max_length"]],
        "dynamic_length": not problems,
    }


def _largest_difference(first: np.ndarray, second: np.ndarray, inputs: Inputs) -> float:
    """Over all outputs; those of padding do not count."""
    difference = np.abs(first - second)
    if difference.ndim == 3:
        assert not isinstance(inputs, np.ndarray)
        difference = difference[inputs[MASK] == 1]
    return float(difference.max())


def _compute_in_batches(
    session: Any, inputs: Inputs, size: int, *, output: str = OUTPUT_NAME, cut: bool = True
) -> np.ndarray:
    """``cut``: each batch of texts is cut to its longest text; what is said of tokens is 0 for those cut off."""
    pieces = [take(inputs, slice(start, start + size)) for start in range(0, num_rows(inputs), size)]
    return np.concatenate([_compute(session, piece, output, cut=cut) for piece in pieces])


def _compute(session: Any, inputs: Inputs, output: str, *, cut: bool) -> np.ndarray:
    if isinstance(inputs, np.ndarray) or not cut:
        return compute_logits(session, inputs, output=output)
    columns = used_columns(inputs)
    found = compute_logits(session, {name: value[:, columns] for name, value in inputs.items()}, output=output)
    if found.ndim < 3:
        return found
    whole = np.zeros((*inputs[MASK].shape, found.shape[-1]), found.dtype)
    whole[:, columns] = found
    return whole


def _largest_batch(inputs: Inputs) -> int:
    """All samples at once, where memory allows it."""
    of_one = inputs[0].size if isinstance(inputs, np.ndarray) else inputs[MASK].shape[1] * _VALUES_A_TOKEN
    fits = max(_BATCH_SIZES[-1], _MAX_VALUES_IN_A_BATCH // max(1, of_one))
    return min(num_rows(inputs), fits, _MAX_BATCH)


if __name__ == "__main__":
    sys.exit(main())
