"""Baselines as a stage: what stands beside the arms of a task on texts without a network, or before its training."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from distil.core.files import read_json, write_json
from distil.data.example import Examples, TextExamples
from distil.evaluate.baseline import (
    Baseline,
    LabelledTexts,
    majority_class,
    tfidf_logistic_regression,
    unigram_language_model,
)
from distil.pipeline.context import Context
from distil.pipeline.student import VIEW, student_network
from distil.pipeline.teacher import Faculty
from distil.tasks.language import Ranking
from distil.tasks.ranking import bm25_pair_scores, chance_hit, rank_groups
from distil.tasks.score import score
from distil.tasks.tokens import CausalLanguageModel

FILE = "baselines.json"


def measure_baselines(context: Context, faculty: Faculty, test: Examples) -> dict[str, dict[str, Any]]:
    """For each baseline its value of the headline metric on the test split, and a note on what it is."""
    splits = context.splits
    if not isinstance(test, TextExamples):
        return {}
    return context.once(
        "evaluation/baselines",
        {
            "data": splits.fingerprint(),
            "task": next(iter(context.recipe.tasks.values())).model_dump(mode="json"),
            "teachers": {name: context.directory.output_hash(f"teachers/{name}/model") for name in faculty.teachers},
            "arms": {name: arm.model_dump(mode="json") for name, arm in context.recipe.arms.items()},
        },
        lambda: {each.name: _record(each) for each in _baselines(context, faculty, test)},
        _save,
        lambda folder: read_json(folder / FILE),
    )


def _baselines(context: Context, faculty: Faculty, test: TextExamples) -> list[Baseline]:
    found: list[Baseline] = []
    if context.task.one_class:
        train, validation = (_labelled(each) for each in (context.splits.students, context.splits.validation))
        assert train is not None
        found = [majority_class(train, _every(test)), tfidf_logistic_regression(train, validation, _every(test))]
    if isinstance(context.task, Ranking):
        found = _of_ranking(test)
    if isinstance(context.task, CausalLanguageModel):
        assert isinstance(context.splits.train, TextExamples)
        (column,) = test.columns
        found = [unigram_language_model(context.splits.train.columns[column], test.columns[column])]
    return [*found, *_before_training(context, faculty, test)]


def _of_ranking(test: TextExamples) -> list[Baseline]:
    assert test.groups is not None
    first, second = test.columns.values()
    right = test.labels.numpy() == 1
    ranked = rank_groups(bm25_pair_scores(first, second), right, test.groups)
    chance = chance_hit(right, test.groups)
    return [
        Baseline("chance", np.full(len(ranked.names), chance), "A candidate drawn at random."),
        Baseline("BM25", ranked.hit_at_1, "The candidate that shares most rare words with the first text."),
    ]


def _before_training(context: Context, faculty: Faculty, test: Examples) -> list[Baseline]:
    """Of students that are cut from a teacher, what they know when they start."""
    name = context.recipe.distilled
    if name is None or context.recipe.arms[name].student.from_teacher is None:
        return []
    task, device = context.task, context.placement.device
    network = student_network(context, context.recipe.arms[name], seed=context.recipe.seeds[0], faculty=faculty)
    batches = task.batches(test, {VIEW: network.view})
    scores = score(network.model.to(device), batches, view=VIEW, device=device, ask=task.ask)
    measured = task.measure(scores, test, network.view)
    note = "The student as it was cut from its teacher, before any training."
    return [Baseline("student before training", np.asarray(measured.values, dtype=np.float64), note)]


def _labelled(examples: Examples | None) -> LabelledTexts | None:
    if examples is None:
        return None
    assert isinstance(examples, TextExamples)
    return _every(examples.select(examples.labelled.nonzero().flatten()))


def _every(examples: TextExamples) -> LabelledTexts:
    texts = ["\n".join(row) for row in zip(*examples.columns.values(), strict=True)]
    return LabelledTexts(texts, examples.labels.numpy())


def _record(baseline: Baseline) -> dict[str, Any]:
    return {"value": float(baseline.values.mean()), "note": baseline.note}


def _save(found: Mapping[str, Any], folder: Path) -> list[Path]:
    write_json(folder / FILE, dict(found))
    return [folder / FILE]
