"""Quality against size: places are right, and nothing covers anything."""

from dataclasses import replace
from itertools import combinations, pairwise
from pathlib import Path

import pytest

from distil.report.quality import BOTTOM, LABEL_GAP, LEFT, RIGHT, TOP, QualityChart, quality_chart
from distil.report.read import read_run
from distil.report.record import RunRecord

from .run_directory_fixture import write_run


@pytest.fixture(scope="module")
def crowded(tmp_path_factory: pytest.TempPathFactory) -> QualityChart:
    """All students about as good as each other."""
    return quality_chart(read_run(write_run(tmp_path_factory.mktemp("runs") / "equal", verdict="EQUIVALENT")))


def test_better_is_higher_and_larger_is_further_right(record: RunRecord) -> None:
    marks = {mark.series.name: mark for mark in quality_chart(record).marks}
    assert marks["teacher"].y < marks["distilled"].y < marks["label-smoothing"].y < marks["scratch"].y
    assert marks["teacher"].x > marks["distilled"].x


def test_everything_lies_inside_of_the_axes(record: RunRecord, crowded: QualityChart, bare_record: RunRecord) -> None:
    for chart in (quality_chart(record), crowded, quality_chart(bare_record)):
        for mark in chart.marks:
            assert LEFT <= mark.x <= RIGHT
            assert all(TOP <= y <= BOTTOM for y in (mark.y, mark.label_y, *mark.seeds, *(mark.whisker or ())))


def test_labels_do_not_overlap(record: RunRecord, crowded: QualityChart) -> None:
    for chart in (quality_chart(record), crowded):
        for one, other in combinations(chart.marks, 2):
            if one.anchor == other.anchor:
                assert abs(one.label_y - other.label_y) >= LABEL_GAP - 0.2


def test_models_of_one_size_stand_at_their_size_unless_they_would_cover_each_other(record: RunRecord) -> None:
    marks = {mark.series.name: mark for mark in quality_chart(record).marks}
    assert marks["distilled"].x == marks["label-smoothing"].x
    assert marks["scratch"].x != marks["permuted-knowledge"].x


def test_every_seed_is_a_dot_and_a_single_model_has_an_interval(record: RunRecord) -> None:
    marks = {mark.series.name: mark for mark in quality_chart(record).marks}
    assert len(marks["distilled"].seeds) == 5
    assert marks["teacher"].seeds == ()
    assert marks["teacher"].whisker is not None


def test_equal_sizes_are_drawn_in_one_column(record: RunRecord) -> None:
    teacher = record.teachers["teacher"]
    small = replace(teacher, evaluation=replace(teacher.evaluation, size_bytes=36_400))
    chart = quality_chart(replace(record, teachers={"teacher": small}))
    assert {mark.anchor for mark in chart.marks} in ({"start"}, {"end"})


def test_a_long_name_is_shortened_in_the_picture(tmp_path: Path, record: RunRecord) -> None:
    name = "a-very-long-name-of-a-teacher"
    verdict = replace(record.verdict, teachers={name: 0.99})
    chart = quality_chart(replace(record, verdict=verdict, teachers={name: record.teachers["teacher"]}))
    mark = next(mark for mark in chart.marks if mark.series.name == name)
    assert mark.text == "a-very-long-name-…"


def test_labels_of_two_groups_share_places_where_they_would_meet(record: RunRecord) -> None:
    name = "a-teacher-with-a-name"
    verdict = replace(record.verdict, teachers={name: record.verdict.arms["distilled"].mean})
    teacher = record.teachers["teacher"]
    near = replace(teacher, evaluation=replace(teacher.evaluation, size_bytes=60_000))
    marks = quality_chart(replace(record, verdict=verdict, teachers={name: near})).marks
    heights = sorted(mark.label_y for mark in marks)
    assert all(after - before >= LABEL_GAP - 0.2 for before, after in pairwise(heights))


def test_of_a_metric_that_is_to_be_low_the_better_is_lower(record: RunRecord, language_record: RunRecord) -> None:
    chart = quality_chart(language_record)
    marks = {mark.series.name: mark for mark in chart.marks}
    assert marks["teacher"].y > marks["distilled"].y > marks["label-smoothing"].y
    assert marks["teacher"].whisker is None
    assert (chart.y_label, chart.good) == ("Bits per byte, lower is better", "small and low")
    assert (quality_chart(record).y_label, quality_chart(record).good) == ("Accuracy", "small and high")
