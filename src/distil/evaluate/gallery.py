"""Gallery: a few real examples on which the report shows what the temperature did, with their pictures."""

import struct
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8
from scipy.special import softmax

from distil.evaluate.prediction import Predictions

EXAMPLES_OF_A_KIND = 2


def choose_examples(student: Predictions, teacher: Predictions, control: Predictions) -> list[tuple[int, str]]:
    """Rows worth looking at, each with the reason; of each kind those on which the teacher is least sure."""
    by_confidence = [int(row) for row in np.argsort(teacher.log_probabilities.max(axis=1), kind="stable")]
    kinds: list[tuple[str, np.ndarray]] = [
        ("the teacher is unsure", np.ones(len(by_confidence), dtype=bool)),
        ("right only with the teacher", student.correct & ~control.correct),
        ("wrong only with the teacher", ~student.correct & control.correct),
        ("all are right", student.correct & control.correct & teacher.correct),
    ]
    chosen: dict[int, str] = {}
    for why, mask in kinds:
        rows = [row for row in by_confidence if mask[row] and row not in chosen]
        chosen |= dict.fromkeys(rows[:EXAMPLES_OF_A_KIND], why)
    return list(chosen.items())


def gallery_record(
    rows: Sequence[tuple[int, str]],
    *,
    student: Predictions,
    teacher: Predictions,
    control: Predictions,
    temperature: float,
    class_names: Sequence[str],
) -> dict[str, Any]:
    """The content of ``evaluation/gallery.json``."""
    return {
        "format": 1,
        "temperature": temperature,
        "class_names": list(class_names),
        "examples": [
            {
                "id": str(student.ids[row]),
                "label": int(student.labels[row]),
                "why": why,
                "teacher": {
                    "plain": _probabilities(teacher.logits[row]),
                    "softened": _probabilities(teacher.logits[row] / temperature),
                },
                "student": _probabilities(student.logits[row]),
                "control": _probabilities(control.logits[row]),
            }
            for row, why in rows
        ],
    }


def _probabilities(logits: np.ndarray) -> list[float]:
    return [float(p) for p in softmax(logits.astype(np.float64))]


def png(image: UInt8[np.ndarray, "channels height width"]) -> bytes:
    """A PNG file of a grey or RGB image (RFC 2083: each row is preceded by filter 0)."""
    channels, height, width = image.shape
    rows = np.ascontiguousarray(image.transpose(1, 2, 0)).reshape(height, width * channels)
    filtered = np.concatenate([np.zeros((height, 1), dtype=np.uint8), rows], axis=1)
    header = struct.pack(">IIBBBBB", width, height, 8, 0 if channels == 1 else 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(filtered.tobytes())), (b"IEND", b"")]
    body = b"".join(struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks)
    return b"\x89PNG\r\n\x1a\n" + body
