"""Learning curves."""

from dataclasses import replace
from itertools import pairwise

import pytest

from distil.report.curve import BOTTOM, MOST_POINTS, TOP, loss_panels, validation_panels
from distil.report.record import RunRecord


def test_a_panel_for_each_quantity(record: RunRecord) -> None:
    assert [panel.title for panel in validation_panels(record)] == [
        "Validation accuracy",
        "Validation negative log-likelihood",
        "Teacher: validation accuracy",
    ]
    titles = [panel.title for panel in loss_panels(record)]
    assert titles[0].startswith("Loss (weighted sum)")
    assert titles[1:] == ["Part: true-labels", "Part: soft-targets"]


def test_a_part_shows_only_the_arms_that_have_it_and_the_weights(record: RunRecord) -> None:
    soft = loss_panels(record)[2]
    assert {line.series.name for line in soft.lines} == {"distilled", "permuted-knowledge"}
    assert soft.note == "weight 0.9"
    assert loss_panels(record)[1].note == "weight 1 in scratch, label-smoothing; 0.1 in permuted-knowledge, distilled"


def test_the_distilled_arm_is_drawn_last_so_that_it_lies_on_top(record: RunRecord) -> None:
    assert validation_panels(record)[0].lines[-1].series.name == "distilled"


def test_the_line_is_the_mean_of_the_seeds_and_the_table_says_so(record: RunRecord) -> None:
    panel = validation_panels(record)[0]
    column = [line.series.name for line in panel.lines].index("scratch")
    epoch, cells = panel.table[-1]
    values = [model.epochs[-1].validation or {} for model in record.arms["scratch"].values()]
    accuracies = [value["accuracy"] for value in values]
    assert epoch == 60
    assert cells[column].startswith(f"{100 * sum(accuracies) / 5:.1f}% ({100 * min(accuracies):.1f}–")


def test_one_seed_has_no_area(bare_record: RunRecord) -> None:
    assert all(line.band == "" for panel in validation_panels(bare_record) for line in panel.lines)


def test_only_epochs_that_every_seed_reached_are_averaged(record: RunRecord) -> None:
    arms = dict(record.arms)
    seeds = dict(arms["scratch"])
    seeds[0] = replace(seeds[0], epochs=seeds[0].epochs[:30])
    arms["scratch"] = seeds
    panel = validation_panels(replace(record, arms=arms))[0]
    column = [line.series.name for line in panel.lines].index("scratch")
    assert [cells[column] == "–" for epoch, cells in panel.table] == [epoch > 30 for epoch, _ in panel.table]


def test_without_validation_there_is_no_panel(record: RunRecord) -> None:
    def without(models: dict) -> dict:
        return {
            key: replace(model, epochs=tuple(replace(epoch, validation=None) for epoch in model.epochs))
            for key, model in models.items()
        }

    arms = {name: without(dict(seeds)) for name, seeds in record.arms.items()}
    changed = replace(record, arms=arms, teachers=without(dict(record.teachers)))
    assert validation_panels(changed) == ()
    assert len(loss_panels(changed)) == 3


def test_without_events_there_is_no_panel_at_all(record: RunRecord) -> None:
    arms = {
        name: {seed: replace(model, epochs=()) for seed, model in each.items()} for name, each in record.arms.items()
    }
    assert loss_panels(replace(record, arms=arms)) == ()


def test_long_trainings_are_thinned_and_keep_their_last_epoch(record: RunRecord) -> None:
    first = record.teachers["teacher"].epochs[0]
    epochs = tuple(replace(first, epoch=number) for number in range(1, 2001))
    teacher = replace(record.teachers["teacher"], epochs=epochs)
    panel = validation_panels(replace(record, teachers={"teacher": teacher}))[-1]
    points = panel.lines[0].line.count("L") + 1
    assert points <= MOST_POINTS + 1
    assert panel.lines[0].line.endswith(f"L330 {panel.lines[0].line.split()[-1]}")


def test_a_loss_over_many_decades_is_drawn_on_a_log_scale(record: RunRecord) -> None:
    epochs = record.arms["distilled"][0].epochs
    wide = tuple(replace(epoch, loss=10.0 ** (3 - epoch.epoch / 10)) for epoch in epochs)
    arms = {"distilled": {0: replace(record.arms["distilled"][0], epochs=wide)}}
    verdict = replace(record.verdict, against={}, arms={"distilled": record.verdict.arms["distilled"]})
    panel = loss_panels(replace(record, arms=arms, verdict=verdict, recipe={}))[0]
    assert panel.title.endswith("(log scale)")
    heights = [float(point.split()[1]) for point in panel.lines[0].line[1:].split("L")]
    steps = [after - before for before, after in pairwise(heights)]
    assert steps == pytest.approx([steps[0]] * len(steps), abs=0.2)
    assert min(heights) >= TOP
    assert max(heights) <= BOTTOM


def test_a_single_epoch_is_still_seen(record: RunRecord) -> None:
    teacher = replace(record.teachers["teacher"], epochs=record.teachers["teacher"].epochs[:1])
    panel = validation_panels(replace(record, teachers={"teacher": teacher}))[-1]
    assert "L" in panel.lines[0].line


def test_the_headline_metric_is_drawn_and_a_likelihood_only_where_it_was_measured(language_record: RunRecord) -> None:
    panels = validation_panels(language_record)
    assert [panel.title for panel in panels] == ["Validation bits per byte", "Teacher: validation bits per byte"]
    assert not any("%" in cell for _, cells in panels[0].table for cell in cells)
    assert len(loss_panels(language_record)) == 3


def test_a_headline_metric_that_is_the_likelihood_is_drawn_once(record: RunRecord) -> None:
    changed = replace(record, verdict=replace(record.verdict, metric="negative_log_likelihood"))
    assert [panel.title for panel in validation_panels(changed)] == [
        "Validation negative log-likelihood",
        "Teacher: validation negative log-likelihood",
    ]
