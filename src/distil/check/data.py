"""Are the splits apart, and is there enough to learn from and to prove with?"""

from collections.abc import Iterator

from distil.check.finding import Finding
from distil.data.example import Examples, Splits, TextExamples
from distil.tasks.classification import Classification, ImageClassification
from distil.tasks.task import Task


def check_data(splits: Splits, task: Task | None = None) -> Iterator[Finding]:
    """Sizes, labels, and images or texts that stand on both sides of a split; without a task, of image classes."""
    validation = len(splits.validation) if splits.validation is not None else 0
    labelled = int(splits.students.labelled.sum())
    classes = f"; {splits.train.num_classes} classes" if splits.train.num_classes else ""
    yield Finding(
        "fine",
        f"data: {splits.source}; {len(splits.train)} training examples ({labelled} labelled for students), "
        f"{validation} validation, {len(splits.test)} test{classes}",
    )
    yield from _overlaps(splits)
    rare = _rare_classes(splits.students) if isinstance(task or ImageClassification(), Classification) else []
    if rare:
        yield Finding(
            "suspicious",
            f"fewer than 5 labelled training examples of: {', '.join(rare)}",
            why="the true labels say almost nothing about such a class, and its accuracy will be chance",
            remedy="label more of it, or raise data.labels",
        )
    if splits.validation is None:
        yield Finding(
            "suspicious",
            "there is no validation split",
            why="neither an epoch nor a setting can be chosen, and a weak teacher cannot be told before distilling",
            remedy="set data.validation while you choose settings; leave it out only for the last run",
        )


def _overlaps(splits: Splits) -> Iterator[Finding]:
    one, same = ("text", "the same texts") if isinstance(splits.train, TextExamples) else ("image", "the same pixels")
    known = [("training", splits.train)] + ([("validation", splits.validation)] if splits.validation else [])
    found = [(f"{name} and test", splits.test.count_shared(examples)) for name, examples in known]
    if splits.validation is not None:
        found.append(("training and validation", splits.validation.count_shared(splits.train)))
    shared = [f"{count} {one}s of {names}" for names, count in found if count]
    if not shared:
        yield Finding("fine", f"no {one} stands in two splits")
        return
    yield Finding(
        "suspicious",
        f"{same} stand in two splits: {', '.join(shared)}",
        why="what is measured on them is memory, not generalisation",
        remedy="remove the copies from the source, or split by what makes them alike",
    )


def _rare_classes(examples: Examples) -> list[str]:
    labels = examples.labels[examples.labelled]
    counts = labels.bincount(minlength=examples.num_classes).tolist()
    return [name for name, count in zip(examples.class_names, counts, strict=True) if count < 5]
