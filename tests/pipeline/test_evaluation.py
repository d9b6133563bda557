import math

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, log_loss

from distil.core.events import read_events
from distil.core.files import read_json
from distil.data.config import DigitsConfig
from distil.data.split import load_splits
from distil.evaluate.prediction import load_predictions
from distil.models.config import MlpConfig
from distil.pipeline import evaluation
from distil.pipeline.evaluation import choose_student
from distil.pipeline.run import RunResult
from distil.pipeline.student import TrainedStudent
from distil.pipeline.training import TrainedModel
from distil.recipe.recipe import Student
from distil.tasks.classification import ImageClassification
from distil.tasks.network import build_network
from tests.pipeline.conftest import Runner


def test_36_the_metrics_are_those_of_the_stored_predictions(finished: RunResult) -> None:
    for folder in ("teachers/teacher", "arms/distilled/seed-1"):
        said = load_predictions(finished.directory / folder / "predictions.parquet")
        metrics = read_json(finished.directory / folder / "evaluation.json")["metrics"]
        probabilities = np.exp(said.log_probabilities)
        assert metrics["accuracy"] == pytest.approx(accuracy_score(said.labels, said.decisions))
        assert metrics["negative_log_likelihood"] == pytest.approx(
            log_loss(said.labels, probabilities, labels=range(10))
        )
        assert metrics["errors"] == int((said.labels != said.decisions).sum())


def test_the_verdict_holds_the_accuracies_of_the_predictions(finished: RunResult) -> None:
    for arm, values in finished.verdict["arms"].items():
        for seed, value in zip(finished.verdict["seeds"], values["values"], strict=True):
            said = load_predictions(finished.directory / f"arms/{arm}/seed-{seed}/predictions.parquet")
            assert value == pytest.approx(said.correct.mean())


def test_students_are_measured_against_the_teacher(finished: RunResult) -> None:
    metrics = read_json(finished.directory / "arms/scratch/seed-0/evaluation.json")["metrics"]
    assert {"agreement_with_teacher", "kl_to_teacher", "inherited_errors"} <= metrics.keys()
    summary = read_json(finished.directory / "evaluation/summary.json")
    assert set(summary["inherited_errors"]) == {"scratch", "label-smoothing", "distilled"}
    for change in summary["per_class_change"]:
        assert change["change"] == pytest.approx(change["distilled"] - change["control"])


def test_the_gallery_shows_pictures_of_the_test_split(finished: RunResult) -> None:
    gallery = read_json(finished.directory / "evaluation/gallery.json")
    assert gallery["temperature"] == 4
    for example in gallery["examples"]:
        assert (finished.directory / "evaluation" / example["image"]).read_bytes().startswith(b"\x89PNG")
        for probabilities in (example["teacher"]["plain"], example["teacher"]["softened"], example["student"]):
            assert sum(probabilities) == pytest.approx(1)
        assert max(example["teacher"]["softened"]) <= max(example["teacher"]["plain"]) + 1e-9


@pytest.mark.parametrize(
    ("validations", "expected"),
    [
        ([(0.8, 0.5), (0.9, 0.6), (0.7, 0.1)], 1),
        ([(0.9, 0.5), (0.9, 0.4), (0.9, 0.6)], 1),
        ([None, None, None], 0),
    ],
)
def test_32_the_shipped_student_is_the_best_on_validation(validations: list, expected: int) -> None:
    def student(seed: int, validation: tuple[float, float] | None) -> TrainedStudent:
        metrics = None
        if validation is not None:
            metrics = {"accuracy": validation[0], "negative_log_likelihood": validation[1]}
        trained = TrainedModel(weights={}, epochs=1, kept_epoch=1, still_improving=None, validation=metrics)
        examples = load_splits(DigitsConfig()).train
        config = Student(model=MlpConfig(widths=(4,)))
        network = build_network(config.model, config.inputs, examples=examples, seed=0)
        return TrainedStudent("distilled", seed, config, network, trained)

    students = [student(seed, validation) for seed, validation in enumerate(validations)]
    assert choose_student(students, ImageClassification()).seed == expected


def test_a_metric_that_is_not_finite_is_null_and_noticed(run_small: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    real = evaluation.quality
    monkeypatch.setattr(evaluation, "quality", lambda said: real(said) | {"perplexity": math.inf})
    result = run_small("seeds=1", "controls=[scratch]")
    folder = "arms/distilled/seed-0"
    assert read_json(result.directory / folder / "evaluation.json")["metrics"]["perplexity"] is None
    notices = [each["text"] for each in read_events(result.directory / "events.jsonl") if "text" in each]
    assert f"{folder}, test: not a finite number and written as null: perplexity" in notices
    assert result.report.is_file()
