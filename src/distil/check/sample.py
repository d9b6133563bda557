"""Which examples the pre-flight looks at: as many as a few seconds allow, from all over the data."""

from collections.abc import Iterable

import torch

from distil.data.batch import Batch
from distil.data.example import Examples, TextExamples
from distil.models.describe import ModelDescription
from distil.tasks.task import Task

OPERATIONS = 10**11  # multiply-accumulates of a pass over a sample: a few seconds on one core
LEAST, MOST = 16, 2_000
FEW = 4  # examples of a batch, however expensive
GRADIENTS = 4  # forward and backward passes for each term, as passes of the model


def sample_for(model: ModelDescription, examples: Examples, task: Task) -> Examples:
    """As many examples as the model can be asked about in a few seconds; whole groups, where groups are measured."""
    count = max(LEAST, min(MOST, OPERATIONS // max(model.multiply_accumulates, 1)))
    return whole_groups(examples, count) if task.values_of_groups else spread(examples, count)


def affordable(batch: Batch, models: Iterable[ModelDescription]) -> Batch:
    """As many examples of a batch as models can be asked about, and gradients taken, in a few seconds."""
    operations = sum(model.multiply_accumulates for model in models)
    return next(batch.split(max(FEW, OPERATIONS // max(GRADIENTS * operations, 1))))


def spread(examples: Examples, count: int) -> Examples:
    """As many examples, at equal distances: sources are often sorted by class."""
    if count >= len(examples):
        return examples
    return examples.select(torch.arange(count) * len(examples) // count)


def whole_groups(examples: Examples, count: int) -> Examples:
    """All examples of groups at equal distances, about as many as asked for; at least one group."""
    groups = examples.groups if isinstance(examples, TextExamples) else None
    if groups is None or count >= len(examples):
        return spread(examples, count)
    names = list(dict.fromkeys(groups))
    number = max(1, min(len(names), count * len(names) // len(groups)))
    chosen = {names[place * len(names) // number] for place in range(number)}
    rows = [row for row, name in enumerate(groups) if name in chosen]
    return examples.select(torch.tensor(rows))
