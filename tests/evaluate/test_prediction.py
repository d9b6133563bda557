"""Predictions: probabilities and decisions, and the file, which gives back every bit."""

import errno
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distil.core.errors import NumericError, ResourceError
from distil.core.files import read_json, write_json
from distil.evaluate.prediction import Predictions, finite_metrics, load_predictions, save_predictions

from .conftest import drawn, predictions


def test_a_round_trip_is_exact(tmp_path: Path) -> None:
    logits = np.array([[0.1, -np.inf, 3e38], [1e-45, -0.0, np.float32(1) / 3]], dtype=np.float32)
    before = Predictions(ids=np.array([7, 2**40]), labels=np.array([2, 0]), logits=logits)
    after = load_predictions(save_predictions(before, tmp_path / "predictions.parquet"))
    assert after.logits.dtype == np.float32
    assert after.logits.tobytes() == logits.tobytes()
    assert (after.ids.dtype, after.labels.dtype) == (np.int64, np.int64)
    np.testing.assert_array_equal(after.ids, before.ids)
    np.testing.assert_array_equal(after.labels, before.labels)


def test_many_examples_and_a_single_one(tmp_path: Path) -> None:
    for examples in (1, 5000):
        before = drawn(0, examples=examples)
        after = load_predictions(save_predictions(before, tmp_path / f"{examples}.parquet"))
        np.testing.assert_array_equal(after.logits, before.logits)


def test_no_example_at_all(tmp_path: Path) -> None:
    before = predictions(np.zeros((0, 3)), [])
    assert load_predictions(save_predictions(before, tmp_path / "p.parquet")).logits.shape == (0, 3)


def test_equal_predictions_make_equal_files(tmp_path: Path) -> None:
    first, second = (save_predictions(drawn(1), tmp_path / name) for name in ("a.parquet", "b.parquet"))
    assert first.read_bytes() == second.read_bytes()


def test_columns_of_the_run_directory_contract(tmp_path: Path) -> None:
    schema = pq.read_schema(save_predictions(predictions([[1.0, 2.0]], [1]), tmp_path / "p.parquet"))
    assert schema.names == ["id", "label", "logits"]
    assert schema.field("id").type == pa.string()
    assert schema.field("label").type == pa.int64()
    assert schema.field("logits").type.value_type == pa.float32()


def test_a_failed_save_is_loud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object, **settings: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pq, "write_table", full)
    with pytest.raises(ResourceError, match=r"p\.parquet could not be saved \(No space left on device\)"):
        save_predictions(predictions([[1.0, 2.0]], [1]), tmp_path / "p.parquet")


def test_of_equal_logits_the_first_class_is_decided_for() -> None:
    assert predictions([[1, 1], [0, 1], [2, 2]], [0, 0, 1]).decisions.tolist() == [0, 1, 0]
    assert predictions([[1, 1], [0, 1], [2, 2]], [0, 0, 1]).correct.tolist() == [True, False, False]


def test_5_probabilities_are_computed_in_log_space_and_float64() -> None:
    """Correctness, line 5: gaps of 1e4 neither overflow nor give NaN."""
    log_probabilities = predictions([[1e4, 0, -1e4], [0, 0, 0]], [0, 0]).log_probabilities
    assert log_probabilities.dtype == np.float64
    np.testing.assert_allclose(log_probabilities, [[0, -1e4, -2e4], [-np.log(3)] * 3], rtol=1e-15)


def test_metrics_that_are_not_finite_are_null_in_json(tmp_path: Path) -> None:
    found = finite_metrics({"bits": 2.5, "perplexity": np.inf, "odd": np.nan}, headline="bits", where="teachers/big")
    write_json(tmp_path / "evaluation.json", found)
    assert read_json(tmp_path / "evaluation.json") == {"bits": 2.5, "perplexity": None, "odd": None}


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_a_headline_metric_that_is_not_finite_stops_the_run(value: float) -> None:
    with pytest.raises(NumericError, match=r"^teachers/big: bits is -?(inf|nan), so this model cannot be compared"):
        finite_metrics({"bits": value}, headline="bits", where="teachers/big")
