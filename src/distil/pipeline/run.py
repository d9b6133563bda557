"""The story of a run, on one screen."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from distil.core.environment import describe_environment
from distil.core.errors import RecipeError
from distil.core.events import EventLog
from distil.core.files import read_json, write_atomically
from distil.core.interruption import interruption
from distil.core.placement import place
from distil.core.run_directory import RunDirectory
from distil.data.example import Splits
from distil.data.split import load_splits
from distil.export.onnx import require_exporter
from distil.pipeline.context import Context
from distil.pipeline.evaluation import choose_student, evaluate, flag_teacher_before_distilling, give_verdict
from distil.pipeline.shipping import ship
from distil.pipeline.student import TrainedStudent, train_student
from distil.pipeline.teacher import Faculty, prepare_teachers
from distil.recipe.recipe import Recipe, ResolvedRecipe
from distil.recipe.resolve import changed_keys, resolve, to_yaml
from distil.report.card import write_model_card
from distil.report.html import write_report


@dataclass(frozen=True)
class RunResult:
    """Where a run is, and what came of it: ``verdict`` is the content of ``verdict.json``."""

    directory: Path
    verdict: dict[str, Any]
    report: Path


def run(recipe: Recipe, run_directory: str | Path | None = None) -> RunResult:
    """Does everything a recipe says; done again, it goes on where it stopped.

    Args:
        recipe: in short or resolved form.
        run_directory: ``runs/NAME`` unless given.

    Raises:
        DistilError: of the kind and with the remedy; what was finished before is kept.
        Preempted: a signal asked to stop; everything is saved.
    """
    resolved = resolve(recipe)
    if resolved.export:
        require_exporter()
    directory = RunDirectory(Path(run_directory) if run_directory is not None else Path("runs") / recipe.name)
    with directory.locked(), interruption() as stop, place(resolved.placement) as placement:
        _open(directory, resolved)
        splits = load_splits(resolved.data)
        context = Context(resolved, splits, directory, placement, stop)
        _record_circumstances(context)

        faculty = prepare_teachers(context)
        students, flag = _train_all(context, faculty)
        evaluation = evaluate(context, faculty, students)
        verdict = give_verdict(context, evaluation, faculty, students, flag)
        try:
            ship(context, choose_student(students[resolved.distilled or next(iter(students))]), faculty)
        finally:  # an artefact that fails its parity is an error, and the report says by how much
            report = write_report(directory.path)
            write_model_card(directory.path)
    return RunResult(directory=directory.path, verdict=verdict, report=report)


def _train_all(context: Context, faculty: Faculty) -> tuple[dict[str, list[TrainedStudent]], str | None]:
    """Controls first, so that a teacher that is no better than the student alone is known before any distilled arm."""
    students: dict[str, list[TrainedStudent]] = {}
    flag: str | None = None
    for name, arm in sorted(context.recipe.arms.items(), key=lambda item: not item[1].control):
        students[name] = [train_student(context, name, arm, seed=s, faculty=faculty) for s in context.recipe.seeds]
        if len(students) == 1 and arm.control:
            flag = flag_teacher_before_distilling(context, faculty, students[name])
    return students, flag


def _open(directory: RunDirectory, recipe: ResolvedRecipe) -> None:
    """A new directory gets the recipe; an old one must have been made with the same.

    Raises:
        RecipeError: the recipe has changed; the keys that differ are named.
    """
    path = directory.path / "recipe.resolved.yaml"
    if not path.exists():
        write_atomically(path, to_yaml(recipe))
        return
    changes = changed_keys(yaml.safe_load(path.read_text(encoding="utf-8")), yaml.safe_load(to_yaml(recipe)))
    if changes:
        listed = "\n  ".join(changes)
        raise RecipeError(
            f"{directory.path} was made with another recipe. These keys differ:\n  {listed}\n"
            "Choose another --run-dir, change them back, or remove the directory"
        )
    EventLog(directory.path / "events.jsonl").clear()


def _record_circumstances(context: Context) -> None:
    directory, splits = context.directory, context.splits
    environment = describe_environment() | {"placement": context.placement.describe()}
    path = directory.path / "environment.json"
    if path.exists() and (changes := changed_keys(read_json(path), environment)):
        context.notice("resumed in another environment, so bits may differ from an unbroken run: " + "; ".join(changes))
    directory.record("environment.json", environment)
    directory.record("data.json", describe_data(context.recipe, splits))
    context.notice(f"data: {splits.source}, fingerprint {splits.fingerprint()[:12]}")


def describe_data(recipe: ResolvedRecipe, splits: Splits) -> dict[str, Any]:
    """The content of ``data.json``."""
    channels, height, width = splits.train.image_shape
    labelled = int(splits.students.labelled.sum())
    return {
        "fingerprint": splits.fingerprint(),
        "source": splits.source,
        "splits": {
            "train": len(splits.train),
            "validation": len(splits.validation) if splits.validation is not None else 0,
            "test": len(splits.test),
        },
        "labelled": labelled,
        "teacher_labels": {
            name: len(splits.train) if teacher.labels == "all" else labelled
            for name, teacher in recipe.teachers.items()
            if teacher.stages is not None
        },
        "class_names": list(splits.train.class_names),
        "image": {"channels": channels, "height": height, "width": width},
    }
