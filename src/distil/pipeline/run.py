"""The story of a run, on one screen."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distil.export.onnx import require_exporter
from distil.pipeline.context import Context
from distil.pipeline.evaluation import choose_student, evaluate, flag_teacher_before_distilling, give_verdict
from distil.pipeline.opening import opened
from distil.pipeline.shipping import ship
from distil.pipeline.student import TrainedStudent, bind_arm, train_student
from distil.pipeline.teacher import Faculty, prepare_teachers
from distil.pipeline.tuning import tune_arms
from distil.pipeline.vocabulary import record_tokenizers
from distil.recipe.recipe import Recipe
from distil.recipe.resolve import resolve
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
    path = Path(run_directory) if run_directory is not None else Path("runs") / recipe.name
    with opened(resolved, path) as context:
        faculty = prepare_teachers(context)
        # what does not fit is known before any student is trained
        students_read = {name: bind_arm(context, faculty, arm, name)[0].view for name, arm in resolved.arms.items()}
        teachers_read = {name: teacher.network.view for name, teacher in faculty.teachers.items()}
        record_tokenizers(context, teachers_read, students_read)
        context = tune_arms(context, faculty)
        students, flag = _train_all(context, faculty)
        evaluation = evaluate(context, faculty, students)
        verdict = give_verdict(context, evaluation, faculty, students, flag)
        try:
            ship(context, choose_student(students[resolved.distilled or next(iter(students))], context.task), faculty)
        finally:  # an artefact that fails its parity is an error, and the report says by how much
            report = write_report(path)
            write_model_card(path)
    return RunResult(directory=path, verdict=verdict, report=report)


def _train_all(context: Context, faculty: Faculty) -> tuple[dict[str, list[TrainedStudent]], str | None]:
    """Controls first, so that a teacher that is no better than the student alone is known before any distilled arm."""
    students: dict[str, list[TrainedStudent]] = {}
    flag: str | None = None
    for name, arm in sorted(context.recipe.arms.items(), key=lambda item: not item[1].control):
        students[name] = [train_student(context, name, arm, seed=s, faculty=faculty) for s in context.recipe.seeds]
        if len(students) == 1 and arm.control:
            flag = flag_teacher_before_distilling(context, faculty, students[name])
    return students, flag
