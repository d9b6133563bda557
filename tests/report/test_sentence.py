"""The sentences of the first screen."""

from dataclasses import replace
from pathlib import Path

import pytest

from distil.report import sentence
from distil.report.read import VERDICTS, read_run
from distil.report.record import Comparison, RunRecord

from .run_directory_fixture import write_run


@pytest.mark.parametrize(
    ("verdict", "expected"),
    [
        ("BEATS", "Distillation helped: the distilled student is better than each of the 3 controls"),
        ("WORSE", "Distillation hurt: the distilled student is worse than label-smoothing"),
        ("EQUIVALENT", "equal within the recipe's margin"),
        ("INCONCLUSIVE", "cannot tell whether distillation helped. It could have shown a difference of 1.2 percentage"),
        ("NOT TESTED", "no control"),
    ],
)
def test_every_verdict_has_its_sentence(tmp_path: Path, verdict: str, expected: str) -> None:
    record = read_run(write_run(tmp_path / "run", verdict=verdict, exports=False, gallery=False))
    assert expected in sentence.meaning(record.verdict)


def test_the_glossary_has_every_verdict() -> None:
    assert tuple(word for word, _ in sentence.GLOSSARY) == VERDICTS


def test_worse_names_only_the_controls_that_are_better_by_both_intervals(record: RunRecord) -> None:
    against = {
        "scratch": Comparison(-0.02, (-0.03, -0.01), (-0.04, -0.01)),
        "label-smoothing": Comparison(-0.01, (-0.02, -0.001), (-0.03, 0.01)),
    }
    verdict = replace(record.verdict, verdict="WORSE", against=against)
    assert sentence.meaning(verdict).endswith("is worse than scratch.")


def test_the_difference_and_its_intervals(record: RunRecord) -> None:
    verdict = replace(record.verdict, difference=0.0592, interval=(0.048, 0.0712), seed_interval=(0.0391, 0.079))
    assert sentence.difference(verdict) == "+5.9 percentage points"
    assert sentence.intervals(verdict) == (
        "95% interval +4.8 to +7.1 over 1,078 test examples; +3.9 to +7.9 over 5 seeds"
    )


def test_one_seed_says_that_there_is_no_second_interval(record: RunRecord) -> None:
    verdict = replace(record.verdict, interval=(0.04, 0.07), seed_interval=None)
    assert (sentence.intervals(verdict) or "").endswith("one seed, so none over seeds")


def test_without_a_control_there_is_no_difference(bare_record: RunRecord) -> None:
    assert sentence.difference(bare_record.verdict) is None
    assert sentence.intervals(bare_record.verdict) is None
    assert sentence.comparison(bare_record.verdict) is None


def test_37_a_flagged_teacher_is_the_first_warning(record: RunRecord) -> None:
    assert sentence.warnings(record) == ()
    flagged = replace(record, verdict=replace(record.verdict, teacher_flag="The teacher is no better."))
    assert sentence.warnings(flagged)[0] == "The teacher is no better."


def test_a_teacher_that_was_still_improving_is_a_warning(record: RunRecord) -> None:
    teacher = record.teachers["teacher"]
    improving = replace(teacher, evaluation=replace(teacher.evaluation, still_improving=True))
    assert "still improving" in sentence.warnings(replace(record, teachers={"teacher": improving}))[0]


def test_a_failed_export_is_a_warning(record: RunRecord) -> None:
    export = record.exports[0]
    assert export.parity is not None
    failed = replace(export, parity=replace(export.parity, passed=False, problems=("off by 10 logits",)))
    (warning,) = sentence.warnings(replace(record, exports=(failed,)))
    assert "onnx-fp32" in warning
    assert "off by 10 logits" in warning


def test_the_label_budget_is_told_where_it_differs(record: RunRecord) -> None:
    assert (sentence.label_budget(record) or "").startswith("Students had 100 labels, the teacher 539: ")
    same = replace(record, data=dict(record.data) | {"labelled": 539})
    assert sentence.label_budget(same) is None


def test_how_much_smaller(record: RunRecord) -> None:
    assert sentence.smaller(record) == "The student has 8,970 parameters, 34 times fewer than the teacher."
    student = record.teachers["teacher"]
    assert sentence.smaller(replace(record, arms={"distilled": {4: student}})) is None


def test_a_speed_up_is_named_only_where_it_is_claimed(record: RunRecord, tmp_path: Path) -> None:
    assert sentence.faster(record) == "It answers 4.12 times (3.80 to 4.40) faster than the teacher."
    assert sentence.faster(read_run(write_run(tmp_path / "run", claimed=False))) is None
    assert sentence.faster(replace(record, exports=())) is None


def test_a_note_whose_fact_has_its_own_place_is_not_said_twice(record: RunRecord) -> None:
    notes = ("One seed only.", "The teacher 'teacher' had 539 labels, the students 100.")
    assert sentence.notes(replace(record, verdict=replace(record.verdict, notes=notes))) == ("One seed only.",)
    same = replace(record, data=dict(record.data) | {"labelled": 539}, verdict=replace(record.verdict, notes=notes))
    assert sentence.notes(same) == notes


def test_the_teachers_mistakes_are_counted(record: RunRecord) -> None:
    assert sentence.teacher_mistakes(record) == 3
    assert sentence.teacher_mistakes(replace(record, teachers={})) is None


def test_a_metric_that_is_to_be_low_is_lower_or_higher(language_record: RunRecord) -> None:
    better = replace(
        language_record.verdict, difference=0.12, interval=(0.1, 0.14), seed_interval=(-0.01, 0.25), test_examples=500
    )
    assert sentence.difference(better) == "0.1200 bits per byte lower"
    assert sentence.intervals(better, "test texts") == (
        "95% interval 0.1000 to 0.1400 lower over 500 test texts; 0.0100 higher to 0.2500 lower over 5 seeds"
    )
    worse = replace(better, difference=-0.12, interval=(-0.14, -0.1), seed_interval=None)
    assert sentence.difference(worse) == "0.1200 bits per byte higher"
    assert (sentence.intervals(worse) or "").startswith("95% interval 0.1000 to 0.1400 higher over 500 test examples;")


def test_an_interval_may_end_at_zero(language_record: RunRecord) -> None:
    verdict = replace(language_record.verdict, interval=(-0.1, 0.0), seed_interval=None)
    assert (sentence.intervals(verdict) or "").startswith("95% interval 0.0000 to 0.1000 higher over")


def test_signs_are_explained_the_way_they_were_subtracted(record: RunRecord, language_record: RunRecord) -> None:
    assert sentence.subtraction(record.verdict).startswith("Distilled minus control in percentage points, positive")
    assert sentence.subtraction(language_record.verdict).startswith(
        "Control minus distilled in bits per byte, positive"
    )


def test_the_comparison_says_that_lower_is_better(record: RunRecord, language_record: RunRecord) -> None:
    assert (sentence.comparison(language_record.verdict) or "").endswith("the best control; lower is better.")
    assert "lower" not in (sentence.comparison(record.verdict) or "")


def test_a_language_model_counts_texts_and_not_labels(language_record: RunRecord) -> None:
    assert sentence.label_budget(language_record) == (
        "Students had 100 texts, the teacher 539: part of any gain is what the teacher learned from texts that the "
        "students never saw."
    )


def test_what_could_have_been_shown_has_no_sign(language_record: RunRecord) -> None:
    verdict = replace(language_record.verdict, verdict="INCONCLUSIVE")
    assert sentence.meaning(verdict).endswith("It could have shown a difference of 0.0168 bits per byte or more.")


def test_the_speed_up_on_texts_names_their_length(text_record: RunRecord) -> None:
    assert sentence.faster(text_record) == (
        "It answers 4.12 times (3.80 to 4.40) faster than the teacher on texts of 32 tokens."
    )
