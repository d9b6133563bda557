"""Predictions: what a model said about each example of the test split, as numpy arrays and as a Parquet file."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float, Int
from scipy.special import log_softmax

from distil.core.errors import NumericError
from distil.core.files import saving


@dataclass(frozen=True, eq=False)
class Predictions:
    """Logits with the labels they should give."""

    ids: Int[np.ndarray, " examples"]
    labels: Int[np.ndarray, " examples"]
    logits: Float[np.ndarray, "examples classes"]

    @property
    def log_probabilities(self) -> np.ndarray:
        return log_softmax(self.logits.astype(np.float64), axis=1)

    @property
    def decisions(self) -> np.ndarray:
        """The class of the highest logit; of equal ones the first."""
        return self.logits.argmax(axis=1)

    @property
    def correct(self) -> np.ndarray:
        return self.decisions == self.labels


def save_predictions(predictions: Predictions, path: Path) -> Path:
    """Writes the columns id (text), label and logits (float32)."""
    logits = pa.FixedSizeListArray.from_arrays(
        pa.array(predictions.logits.astype(np.float32).ravel()), predictions.logits.shape[1]
    )
    ids = pa.array(predictions.ids).cast(pa.string())
    table = pa.table({"id": ids, "label": pa.array(predictions.labels), "logits": logits})
    with saving(path, size=table.nbytes):
        pq.write_table(table, path)
    return path


def load_predictions(path: Path) -> Predictions:
    """What ``save_predictions`` wrote."""
    table = pq.read_table(path)
    logits = table["logits"].combine_chunks()
    classes = table.schema.field("logits").type.list_size
    return Predictions(
        ids=table["id"].cast(pa.int64()).to_numpy(),
        labels=table["label"].to_numpy(),
        logits=logits.flatten().to_numpy().reshape(-1, classes),
    )


@dataclass(frozen=True, eq=False)
class Assessment:
    """How good a model is on the test split.

    Attributes:
        values: the headline metric of each unit, such as an example, a question or a piece of text.
        metrics: by name, the headline metric first.
        predictions: of tasks with one class an example.
    """

    values: Float[np.ndarray, " units"]
    metrics: Mapping[str, float]
    predictions: Predictions | None = None


def finite_metrics(metrics: Mapping[str, float], *, headline: str, where: str) -> dict[str, float | None]:
    """Metrics as JSON can hold them: null for one that is not a finite number, as the perplexity of a poor model.

    Raises:
        NumericError: the headline metric is not finite, so that nothing could be compared.
    """
    if not math.isfinite(metrics[headline]):
        raise NumericError(
            f"{where}: {headline} is {metrics[headline]}, so this model cannot be compared with another. Its outputs "
            "are not finite or far too large; look at its weights, or train it with a lower learning rate"
        )
    return {name: value if math.isfinite(value) else None for name, value in metrics.items()}


def save_values(assessment: Assessment, path: Path) -> Path:
    """Writes the columns unit and value; the metrics are in the file's own description."""
    table = pa.table({"unit": pa.array(range(len(assessment.values))), "value": pa.array(assessment.values)})
    table = table.replace_schema_metadata({"metrics": json.dumps(dict(assessment.metrics))})
    with saving(path, size=table.nbytes):
        pq.write_table(table, path)
    return path


def load_values(path: Path) -> Assessment:
    """What ``save_values`` wrote."""
    table = pq.read_table(path)
    metrics = json.loads((table.schema.metadata or {})[b"metrics"])
    return Assessment(table["value"].to_numpy(), metrics)
