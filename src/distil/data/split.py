"""Splits: which examples train, which choose, which are sealed until the end, and whose labels students may see."""

from collections import Counter

import numpy as np
import torch
from torch import Tensor

from distil.core.errors import DataError
from distil.core.seeds import derive
from distil.data.config import DataConfig, ValidationConfig
from distil.data.example import Examples, Sealed, Splits, TextExamples
from distil.data.source import Source, read_source


def load_splits(config: DataConfig) -> Splits:
    """Reads the source and splits it: equal configurations give equal splits.

    Raises:
        DataError: a split would be empty, a class would be missing, or more labels are asked for than there are.
    """
    return split_source(read_source(config), config)


def split_source(source: Source, config: DataConfig) -> Splits:
    """The splits of a source that has been read."""
    available = _chosen(source.train, config)
    train, test = available, source.test
    if test is None:
        share = config.test
        assert isinstance(share, float), "a source without a test split has a share"
        train, test = _split_off(train, share, seed=config.split_seed, name="test")
    validation = source.validation
    match config.validation:
        case ValidationConfig(fraction=float(share)):
            train, validation = _split_off(train, share, seed=config.split_seed, name="validation")
        case ValidationConfig(last=int(count)):
            train, validation = _take_last(train, count)
        case _:
            pass
    _check_classes(train)
    _check_none_lost(available, train)
    for name, split in (("validation", validation), ("test", test)):
        if split is not None and len(split) == 0:
            raise DataError(f"data: the {name} split is empty; a split needs at least one example")
    students = train if config.labels == "all" else _with_few_labels(train, config.labels, seed=config.split_seed)
    return Splits(source=source.name, train=train, students=students, validation=validation, test=Sealed(test))


def _chosen(examples: Examples, config: DataConfig) -> Examples:
    if config.examples is None:
        return examples
    if config.examples > len(examples):
        raise DataError(
            f"data.examples: {config.examples} are asked for, and the source has {len(examples)} to train on"
        )
    chosen = _choice(examples, config.examples, seed=derive("examples", config.split_seed))
    return examples.select(torch.nonzero(chosen).flatten())


def _split_off(examples: Examples, share: float, *, seed: int, name: str) -> tuple[Examples, Examples]:
    count = round(share * len(examples))
    if count == 0 or count == len(examples):
        raise DataError(f"data.{name}: a share of {share} of {len(examples)} examples leaves a split empty")
    _check_classes(examples)
    chosen = _choice(examples, count, seed=derive("split", name, seed))
    return examples.select(torch.nonzero(~chosen).flatten()), examples.select(torch.nonzero(chosen).flatten())


def _take_last(examples: Examples, count: int) -> tuple[Examples, Examples]:
    if count >= len(examples):
        raise DataError(f"data.validation: the last {count} of {len(examples)} examples leave none to train on")
    rows = torch.arange(len(examples))
    return examples.select(rows[:-count]), examples.select(rows[-count:])


def _with_few_labels(examples: Examples, count: int, *, seed: int) -> Examples:
    if count > len(examples):
        raise DataError(
            f"data.labels: {count} labels are asked for, and the training split has {len(examples)} examples"
        )
    if count < examples.num_classes:
        raise DataError(f"data.labels: {count} labels are fewer than the {examples.num_classes} classes; give each one")
    if count == len(examples):
        return examples
    return examples.hide_labels(keep=_choice(examples, count, seed=derive("labels", seed)))


def _choice(examples: Examples, count: int, *, seed: int) -> Tensor:
    """A mask of ``count`` examples, stratified by class. Groups stay whole, and then the number is met only about."""
    groups = examples.groups if isinstance(examples, TextExamples) else None
    if groups is None:
        return _stratified_choice(examples.labels, count, seed=seed)
    names = list(dict.fromkeys(groups))
    order = np.random.Generator(np.random.Philox(key=seed)).permutation(len(names))
    wanted = max(1, round(count / len(examples) * len(names)))
    chosen = {names[position] for position in order[:wanted]}
    return torch.tensor([group in chosen for group in groups])


def _stratified_choice(labels: Tensor, count: int, *, seed: int) -> Tensor:
    """A mask of ``count`` examples in which every class has its share, to within one example.

    Whole parts first, then the largest remainders; a class with few examples still gets one where ``count`` allows.
    """
    generator = np.random.Generator(np.random.Philox(key=seed))
    classes = labels.unique().tolist()
    rows = {label: generator.permutation(np.flatnonzero(labels.numpy() == label)) for label in classes}
    exact = {label: count * len(rows[label]) / len(labels) for label in classes}
    quota = {label: max(int(exact[label]), int(count >= len(classes))) for label in classes}
    by_remainder = sorted(classes, key=lambda label: (quota[label] - exact[label], label))
    while (missing := count - sum(quota.values())) != 0:
        step = 1 if missing > 0 else -1
        order = by_remainder if step > 0 else by_remainder[::-1]
        able = [label for label in order if (quota[label] < len(rows[label]) if step > 0 else quota[label] > 1)]
        for label in able[: abs(missing)]:
            quota[label] += step
    chosen = torch.zeros(len(labels), dtype=torch.bool)
    for label in classes:
        chosen[torch.from_numpy(rows[label][: quota[label]])] = True
    return chosen


def _check_none_lost(before: Examples, train: Examples) -> None:
    lost = sorted(set(before.labels.tolist()) - set(train.labels.tolist()))
    if lost and train.class_names:
        names = ", ".join(repr(train.class_names[label]) for label in lost)
        raise DataError(
            f"data: all examples of the class {names} went to validation or test, and none is left to train on. Add "
            "examples of it, or choose the splits in another way: data.validation.last takes them in the source's order"
        )


def _check_classes(examples: Examples) -> None:
    if len(examples) == 0:
        raise DataError("data: the training split is empty; a split needs at least one example")
    counts = Counter(examples.labels.tolist())
    several = isinstance(examples, TextExamples) and "labels" in examples.wanted
    if examples.class_names and not several and len(counts) < 2:
        only = examples.class_names[next(iter(counts))]
        raise DataError(f"data: all {len(examples)} training examples have the class {only!r}; two or more are needed")
