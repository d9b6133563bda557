"""A synthetic but plausible run directory: the digits recipe with numbers drawn from a seeded generator."""

import hashlib
import json
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

HOSTILE = "<img src=x onerror=alert(1)>"
CLASS_NAMES = ("0", "1", "2", HOSTILE, "4", "5", "6", "7", "8", "9")
ARM_ACCURACY = {"scratch": 0.883, "label-smoothing": 0.900, "permuted-knowledge": 0.874, "distilled": 0.959}
TEACHER_ACCURACY = 0.9972
NUM_TEST = 1078
SEEDS = (0, 1, 2, 3, 4)
EPOCHS = 60
TEMPERATURE = 4.0
SHIFT = {"WORSE": -0.03, "EQUIVALENT": 0.0005, "INCONCLUSIVE": 0.004}  # of distilled against label-smoothing
STUDENT = {"model": {"kind": "mlp", "widths": [64, 64], "dropout": 0.0}, "inputs": {"mean": [0.5], "std": [0.5]}}
LOADER = """import json
from pathlib import Path
import numpy as np, onnxruntime
from PIL import Image
here = Path(__file__).parent
labels = json.loads((here / "labels_and_preprocessing.json").read_text())
session = onnxruntime.InferenceSession(here / "model.onnx")
def predict(path):
    return labels["class_names"][0]
"""


def write_run(
    root: Path,
    *,
    class_names: Sequence[str] = CLASS_NAMES,
    verdict: str = "BEATS",
    seeds: Sequence[int] = SEEDS,
    exports: bool = True,
    gallery: bool = True,
    summary: bool = True,
    claimed: bool = True,
) -> Path:
    """Writes a whole run into ``root`` and returns it."""
    generator = np.random.default_rng(7)
    arms = ARM_ACCURACY if verdict != "NOT TESTED" else {"distilled": ARM_ACCURACY["distilled"]}
    write_json(root / "environment.json", environment())
    write_json(root / "data.json", data(class_names))
    write_text(root / "recipe.resolved.yaml", yaml.safe_dump(recipe(arms, seeds), sort_keys=False, allow_unicode=True))
    values = {arm: [float(np.clip(generator.normal(mean, 0.006), 0, 1)) for _ in seeds] for arm, mean in arms.items()}
    if verdict in SHIFT:
        values["distilled"] = [value + SHIFT[verdict] for value in values["label-smoothing"]]
    values = {arm: [round(value * NUM_TEST) / NUM_TEST for value in each] for arm, each in values.items()}
    for arm, each in values.items():
        for seed, accuracy in zip(seeds, each, strict=True):
            write_trained(root / "arms" / arm / f"seed-{seed}", generator, class_names, accuracy, arm=arm)
    write_trained(root / "teachers" / "teacher", generator, class_names, TEACHER_ACCURACY, arm=None)
    write_json(root / "verdict.json", verdict_of(verdict, values, seeds))
    write_json(root / "student" / "model.json", {"format": 1, "arm": "distilled", "seed": seeds[-1]})
    write_json(root / "student" / "labels_and_preprocessing.json", preprocessing(class_names))
    if summary and verdict != "NOT TESTED":
        write_json(root / "evaluation" / "summary.json", summary_of(generator, class_names))
    if gallery:
        write_gallery(root / "evaluation", generator, class_names)
    if exports:
        write_exports(root / "exports", class_names, claimed=claimed)
    write_json(root / "manifest.json", manifest(root))
    return root


def write_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    write_text(path, json.dumps(content, indent=1))


def change_json(path: Path, **changes: Any) -> None:
    """Replaces keys of a file that is there already."""
    write_json(path, json.loads(path.read_text(encoding="utf-8")) | changes)


def environment() -> dict[str, Any]:
    return {
        "distil": "0.1.0",
        "python": "3.11.7",
        "platform": "Linux-6.1-x86_64",
        "cpu": "AMD EPYC 7B13",
        "packages": {"torch": "2.14.1", "numpy": "2.4.6", "onnxruntime": "1.32.0"},
        "placement": {"device": "cpu", "precision": "fp32", "threads": 2},
        "git": None,
    }


def data(class_names: Sequence[str]) -> dict[str, Any]:
    return {
        "fingerprint": hashlib.sha256(b"digits").hexdigest(),
        "source": "scikit-learn digits",
        "splits": {"train": 539, "validation": 180, "test": NUM_TEST},
        "labelled": 100,
        "teacher_labels": {"teacher": 539},
        "class_names": list(class_names),
        "image": {"channels": 1, "height": 8, "width": 8},
    }


def recipe(arms: dict[str, float], seeds: Sequence[int]) -> dict[str, Any]:
    training = {"epochs": EPOCHS, "batch_size": 64, "optimizer": {"kind": "adamw", "learning_rate": 0.003}}
    objectives = {
        "scratch": {"true-labels": {"kind": "true-labels", "weight": 1.0, "smoothing": 0.0}},
        "label-smoothing": {"true-labels": {"kind": "true-labels", "weight": 1.0, "smoothing": 0.1}},
        "permuted-knowledge": soft_objective(permuted=True),
        "distilled": soft_objective(permuted=False),
    }
    return {
        "name": "digits",
        "tasks": {"main": {"kind": "image-classification"}},
        "data": {"kind": "digits", "split_seed": 0, "labels": 100},
        "teachers": {"teacher": {"model": {"kind": "mlp", "widths": [512, 512]}, "labels": "all"}},
        "arms": {
            arm: {
                "control": arm != "distilled",
                "student": STUDENT,
                "stages": [{"kind": "train", "objective": objectives[arm], "training": training}],
            }
            for arm in arms
        },
        "seeds": list(seeds),
        "margin": 0.005,
        "export": [{"target": "onnx", "precision": ["fp32", "int8"]}],
        "placement": {"device": "cpu", "precision": "fp32", "threads": 2},
    }


def soft_objective(*, permuted: bool) -> dict[str, Any]:
    soft = {"kind": "soft-targets", "weight": 0.9, "temperature": TEMPERATURE}
    return {
        "true-labels": {"kind": "true-labels", "weight": 0.1, "smoothing": 0.0},
        "soft-targets": soft | ({"permuted": True} if permuted else {}),
    }


def write_trained(
    directory: Path, generator: np.random.Generator, class_names: Sequence[str], accuracy: float, *, arm: str | None
) -> None:
    write_json(directory / "evaluation.json", evaluation(generator, class_names, accuracy, arm=arm))
    terms = ["true-labels"] + (["soft-targets"] if arm in ("distilled", "permuted-knowledge") else [])
    events: list[dict[str, Any]] = [{"event": "start", "step": 0, "total_steps": 9 * EPOCHS, "steps_per_epoch": 9}]
    events += [epoch_event(generator, epoch, accuracy, terms) for epoch in range(1, EPOCHS + 1)]
    events.append({"event": "finish", "step": 9 * EPOCHS, "kept_epoch": EPOCHS - 3})
    write_text(directory / "events.jsonl", "".join(json.dumps(event) + "\n" for event in events))


def epoch_event(generator: np.random.Generator, epoch: int, accuracy: float, terms: list[str]) -> dict[str, Any]:
    reached = 1 - np.exp(-epoch / 7)
    validation = float(np.clip(0.1 + (accuracy - 0.1) * reached + generator.normal(0, 0.006), 0, 1))
    weights = {"true-labels": 1.0} if len(terms) == 1 else {"true-labels": 0.1, "soft-targets": 0.9}
    scale = {"true-labels": 2.3, "soft-targets": 9.0}
    parts = {term: float(scale[term] * (1 - 0.97 * reached) * generator.uniform(0.95, 1.05)) for term in terms}
    return {
        "event": "epoch",
        "epoch": epoch,
        "step": 9 * epoch,
        "loss": sum(weights[term] * parts[term] for term in terms),
        "parts": parts,
        "weights": {term: weights[term] for term in terms},
        "learning_rate": 0.003,
        "validation": {"accuracy": validation, "negative_log_likelihood": float(2.3 - 2.25 * validation)},
        "seconds": 0.12,
    }


def evaluation(
    generator: np.random.Generator, class_names: Sequence[str], accuracy: float, *, arm: str | None
) -> dict[str, Any]:
    matrix = confusion(generator, len(class_names), accuracy)
    right = int(np.trace(matrix))
    support = matrix.sum(axis=1)
    bins = np.linspace(0.35, 0.985, 10)
    metrics: dict[str, float | None] = {
        "accuracy": right / NUM_TEST,
        "errors": NUM_TEST - right,
        "negative_log_likelihood": 2.1 * (1 - accuracy) + 0.02,
        "expected_calibration_error": 0.35 * (1 - accuracy) + 0.004,
        "brier_score": 1.6 * (1 - accuracy),
    }
    if arm is not None:
        metrics |= {
            "agreement_with_teacher": accuracy + 0.002,
            "kl_to_teacher": 1.9 * (1 - accuracy),
            "inherited_errors": 0.33 if arm == "distilled" else 0.1,
        }
    return {
        "format": 1,
        "split": "test",
        "num_examples": NUM_TEST,
        "metrics": metrics,
        "num_parameters": 300_554 if arm is None else 8_970,
        "size_bytes": 1_203_400 if arm is None else 36_400,
        "multiply_accumulates": 299_000 if arm is None else 8_800,
        "per_class": [
            {"name": name, "support": int(support[index]), "accuracy": float(matrix[index, index] / support[index])}
            for index, name in enumerate(class_names)
        ],
        "confusion": matrix.tolist(),
        "reliability": [
            {
                "confidence": float(each),
                "accuracy": float(np.clip(each - 0.6 * (1 - accuracy) + generator.normal(0, 0.02), 0, 1)),
                "count": int(8 + 60 * index**1.5),
            }
            for index, each in enumerate(bins)
        ],
        "validation": {"accuracy": accuracy, "negative_log_likelihood": 0.2},
        "still_improving": False if arm is None else None,
        "labelled_examples": 539 if arm is None else 100,
    }


def confusion(generator: np.random.Generator, num_classes: int, accuracy: float) -> np.ndarray:
    """A matrix with exactly the number of errors that the accuracy says, more of them between some classes."""
    support = np.full(num_classes, NUM_TEST // num_classes) + (np.arange(num_classes) < NUM_TEST % num_classes)
    matrix = np.diag(support)
    pairs = [(true, predicted) for true in range(num_classes) for predicted in range(num_classes) if true != predicted]
    weights = generator.gamma(0.4, size=len(pairs))
    for index in generator.choice(len(pairs), size=NUM_TEST - round(accuracy * NUM_TEST), p=weights / weights.sum()):
        true, predicted = pairs[index]
        if matrix[true, true] > 0:
            matrix[true, true] -= 1
            matrix[true, predicted] += 1
    return matrix


def verdict_of(verdict: str, values: dict[str, list[float]], seeds: Sequence[int]) -> dict[str, Any]:
    means = {arm: float(np.mean(each)) for arm, each in values.items()}
    controls = [arm for arm in values if arm != "distilled"]
    half = 0.0035 if verdict == "EQUIVALENT" else 0.011
    against: dict[str, Any] = {}
    for control in controls:
        difference = means["distilled"] - means[control]
        seed_interval = [difference - 1.4 * half, difference + 1.4 * half] if len(seeds) > 1 else None
        against[control] = {
            "difference": difference,
            "interval": [difference - half, difference + half],
            "seed_interval": seed_interval,
        }
    best = max(controls, key=lambda arm: means[arm]) if controls else None
    empty = {"difference": None, "interval": None, "seed_interval": None}
    return {
        "format": 1,
        "verdict": verdict,
        "metric": "accuracy",
        "higher_is_better": True,
        "confidence": 0.95,
        **(against[best] if best else empty),
        "best_control": best,
        "distilled": "distilled",
        "seeds": list(seeds),
        "test_examples": NUM_TEST,
        "arms": {arm: {"mean": means[arm], "values": each} for arm, each in values.items()},
        "teachers": {"teacher": round(TEACHER_ACCURACY * NUM_TEST) / NUM_TEST},
        "against": against,
        "parts": {},
        "notes": [] if len(seeds) >= 5 else [f"Only {len(seeds)} seed(s): fewer than five."],
        "smallest_detectable": 0.012,
        "teacher_flag": None,
    }


def summary_of(generator: np.random.Generator, class_names: Sequence[str]) -> dict[str, Any]:
    controls = np.clip(generator.normal(0.9, 0.04, len(class_names)), 0, 1)
    distilled = np.clip(controls + generator.normal(0.055, 0.04, len(class_names)), 0, 1)
    return {
        "format": 1,
        "inherited_errors": {"distilled": 0.33, "scratch": 0.0667, "label-smoothing": 0.1333},
        "per_class_change": [
            {
                "name": name,
                "support": NUM_TEST // len(class_names),
                "control": float(controls[index]),
                "distilled": float(distilled[index]),
                "change": float(distilled[index] - controls[index]),
            }
            for index, name in enumerate(class_names)
        ],
        "best_control": "label-smoothing",
    }


def write_gallery(directory: Path, generator: np.random.Generator, class_names: Sequence[str]) -> None:
    reasons = ("teacher is unsure", "student and control differ", "teacher is wrong", "teacher is sure")
    examples = []
    for index, why in enumerate(reasons):
        label = 3 if index == 0 else int(generator.integers(len(class_names)))
        logits = generator.normal(0, 2.5, len(class_names))
        logits[label] += -3.0 if why == "teacher is wrong" else 5.0 + index
        picture = directory / "gallery" / f"{index}.png"
        picture.parent.mkdir(parents=True, exist_ok=True)
        picture.write_bytes(png(digit_like(generator)))
        examples.append(
            {
                "id": str(17 + index),
                "image": f"gallery/{index}.png",
                "label": label,
                "why": why,
                "teacher": {"plain": softmax(logits), "softened": softmax(logits / TEMPERATURE)},
                "student": softmax(logits + generator.normal(0, 1, len(class_names))),
                "control": softmax(generator.normal(0, 2.5, len(class_names))),
            }
        )
    content = {"format": 1, "temperature": TEMPERATURE, "class_names": list(class_names), "examples": examples}
    write_json(directory / "gallery.json", content)


def softmax(logits: np.ndarray) -> list[float]:
    weights = np.exp(logits - logits.max())
    return (weights / weights.sum()).tolist()


def digit_like(generator: np.random.Generator) -> np.ndarray:
    """An 8 x 8 ring with a gap: close enough to a digit."""
    rows, columns = np.mgrid[0:8, 0:8]
    distance = np.hypot(rows - 3.5, 1.4 * (columns - 3.5))
    ring = np.clip(1.6 - np.abs(distance - 2.6), 0, 1)
    ring[:, int(generator.integers(2, 6))] *= 0.4
    return (255 * ring).astype(np.uint8)


def png(pixels: np.ndarray) -> bytes:
    """A grey PNG, written by hand so that the fixture needs no image package."""
    height, width = pixels.shape
    raw = b"".join(b"\x00" + row.tobytes() for row in pixels)

    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")


def preprocessing(class_names: Sequence[str]) -> dict[str, Any]:
    return {
        "format": 1,
        "class_names": list(class_names),
        "input": {"name": "images", "layout": "NCHW", "dtype": "float32", "channels": 1, "height": 8, "width": 8},
        "preprocessing": {"mode": "L", "scale": 1 / 255, "mean": [0.5], "std": [0.5]},
        "output": {"name": "logits"},
    }


def write_exports(root: Path, class_names: Sequence[str], *, claimed: bool) -> None:
    speed_up = {"ratio": 4.1234, "interval": [3.8, 4.4], "claimed": claimed, "why": "the intervals do not overlap"}
    if not claimed:
        speed_up["why"] = "the intervals of the two medians overlap"
    write_export(root / "onnx-fp32", 37_800, 0.0123, error=2.1e-6, agreement=1.0, speed_up=speed_up)
    write_export(root / "onnx-int8", 21_300, 0.0151, error=0.42, agreement=0.9963, speed_up=speed_up)
    write_export(root / "teachers" / "teacher" / "onnx-fp32", 1_204_000, 0.0507, error=4e-6, agreement=1.0)
    for directory in (root / "onnx-fp32", root / "onnx-int8"):
        write_json(directory / "labels_and_preprocessing.json", preprocessing(class_names))
        write_text(directory / "predict.py", LOADER)


def write_export(
    directory: Path, size_bytes: int, p50_ms: float, *, error: float, agreement: float, speed_up: Any = None
) -> None:
    parity = {
        "format": 1,
        "runtime": "onnxruntime 1.32.0",
        "num_samples": NUM_TEST,
        "max_abs_error": error,
        "mean_abs_error": error / 8,
        "agreement": agreement,
        "metric": {"name": "accuracy", "reference": 0.9592, "artefact": 0.9592 - (1 - agreement) / 3},
        "dynamic_batch": True,
        "repeat_bit_equal": True,
        "sha256": hashlib.sha256(str(directory.name).encode()).hexdigest(),
        "size_bytes": size_bytes,
        "tolerance": {"agreement": 0.98},
        "passed": True,
        "pid": 4242,
        "problems": [],
    }
    latency = {
        "format": 1,
        "threads": 1,
        "batch_size": 1,
        "rounds": 40,
        "p50_ms": p50_ms,
        "p95_ms": 1.2 * p50_ms,
        "p50_interval": [0.98 * p50_ms, 1.03 * p50_ms],
        "load_ms": 11.2,
        "cpu": "AMD EPYC 7B13",
        "reference": "teachers/teacher/onnx-fp32" if speed_up else None,
        "speed_up": speed_up,
        "pid": 4243,
    }
    write_json(directory / "parity.json", parity)
    write_json(directory / "latency.json", latency)


def manifest(root: Path) -> dict[str, Any]:
    files = {
        each.relative_to(root).as_posix(): hashlib.sha256(each.read_bytes()).hexdigest()
        for each in sorted(root.rglob("*.json"))
        if each.name != "manifest.json"
    }
    return {"format": 1, "stages": {"evaluation": {"inputs": hashlib.sha256(b"inputs").hexdigest(), "files": files}}}
