"""Which measures are shown, in which order, and what the table says of them."""

from dataclasses import replace

import pytest

from distil.report.measure import LAST, direction, measure_table, measures_of, reached
from distil.report.record import RunRecord, TrainedModel


def with_metrics(model: TrainedModel, **metrics: float | None) -> TrainedModel:
    return replace(model, evaluation=replace(model.evaluation, metrics=metrics))


def test_classification_has_probabilities_then_fidelity(record: RunRecord, text_record: RunRecord) -> None:
    assert measures_of(record) == measures_of(text_record) == LAST


def test_the_table_has_a_value_for_each_measure(record: RunRecord) -> None:
    found = {each.name: each.values for each in measure_table(record)}
    assert all(len(values) == len(LAST) for values in found.values())
    assert found["teacher"][3:] == ("–", "–")
    mean = sum(model.evaluation.metrics["kl_to_teacher"] or 0 for model in record.arms["distilled"].values()) / 5
    assert float(found["distilled"][4]) == pytest.approx(mean, rel=0.01)


def test_a_language_model_has_its_own_measures(language_record: RunRecord) -> None:
    names = ("perplexity_per_byte", "perplexity_per_token", "negative_log_likelihood")
    assert measures_of(language_record) == names
    assert {len(each.values) for each in measure_table(language_record)} == {3}


def test_what_no_model_has_is_no_column_and_numbers_are_in_their_order(record: RunRecord) -> None:
    metrics = {"accuracy": 0.5, "hit_at_10": 0.9, "hit_at_5": 0.8, "brier_score": None, "errors": 3}
    arms = {"distilled": {0: with_metrics(record.student, **metrics)}}
    assert measures_of(replace(record, arms=arms, teachers={})) == ("hit_at_5", "hit_at_10")


def test_what_the_student_reached_begins_with_the_headline_metric(
    record: RunRecord, language_record: RunRecord
) -> None:
    assert [name for name, _ in reached(record)] == ["accuracy", *LAST]
    names, values = zip(*reached(language_record), strict=True)
    assert names[0] == "bits_per_byte"
    assert names[-2:] == ("tokens", "bytes")
    assert values[-1] == 412_305


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (LAST, "Lower is better, except agreement."),
        (("perplexity_per_byte", "negative_log_likelihood"), "Lower is better."),
        (("hit_at_5", "hit_at_10"), "Higher is better."),
        (("hit_at_5", "entity_f1", "negative_log_likelihood"), "Higher is better, except negative log-likelihood."),
    ],
)
def test_the_sentence_says_which_way_is_better(names: tuple[str, ...], expected: str) -> None:
    assert direction(names) == expected
