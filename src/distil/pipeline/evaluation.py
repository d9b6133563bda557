"""The final evaluation as a stage: once every student is trained the test split is opened, and the verdict is given."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from distil.core.files import read_json, write_atomically, write_json
from distil.data.example import Examples, ImageExamples, TextExamples
from distil.data.feed import AnyView
from distil.data.text_view import TextView
from distil.data.view import View
from distil.evaluate.classification import confusion, fidelity, per_class, quality, reliability
from distil.evaluate.gallery import choose_examples, gallery_record, png
from distil.evaluate.prediction import (
    Assessment,
    Predictions,
    finite_metrics,
    load_predictions,
    load_values,
    save_predictions,
    save_values,
)
from distil.evaluate.slice import slice_report, slice_rows
from distil.evaluate.teacher_flag import flag_weak_teacher
from distil.evaluate.verdict import decide, verdict_record
from distil.models.describe import ModelDescription
from distil.objective.response_config import SoftTargets
from distil.pipeline.baseline import measure_baselines
from distil.pipeline.context import Context
from distil.pipeline.student import VIEW, TrainedStudent
from distil.pipeline.teacher import Faculty, ReadyTeacher
from distil.pipeline.training import TrainedModel
from distil.pipeline.tuning import tuning_notes
from distil.tasks.score import Scores, score
from distil.tasks.task import Task

Students = Mapping[str, Sequence[TrainedStudent]]  # arm -> one for each seed


@dataclass(frozen=True, eq=False)
class Evaluation:
    """How good every model is on the test split, and what good a model without training would be."""

    teachers: Mapping[str, Assessment]
    students: Mapping[str, Sequence[Assessment]]
    baselines: Mapping[str, Mapping[str, Any]]


def evaluate(context: Context, faculty: Faculty, students: Students) -> Evaluation:
    """Assessment and ``evaluation.json`` of every teacher and student on the test split."""
    teachers = {name: _evaluate_teacher(context, teacher) for name, teacher in faculty.teachers.items()}
    reference = next(iter(teachers.values()), None)
    said = {arm: [_evaluate_student(context, each, reference) for each in group] for arm, group in students.items()}
    test = context.splits.test.open_for_final_evaluation()
    return Evaluation(teachers, said, measure_baselines(context, faculty, test))


def give_verdict(
    context: Context, evaluation: Evaluation, faculty: Faculty, students: Students, flag: str | None
) -> dict[str, Any]:
    """Writes and returns ``verdict.json``."""
    recipe, task = context.recipe, context.task
    values = {arm: np.stack([each.values for each in group]) for arm, group in evaluation.students.items()}
    scores = {arm: rows if task.higher_is_better else -rows for arm, rows in values.items()}
    controls = {name: scores[name] for name in recipe.controls}
    groups = _groups(context)
    verdict = decide(scores.get(recipe.distilled or ""), controls, margin=recipe.margin, groups=groups)
    of_teachers = {name: float(each.values.mean()) for name, each in evaluation.teachers.items()}
    of_arms = {arm: [float(row.mean()) for row in rows] for arm, rows in values.items()}
    first_control = next(iter(controls), None)
    name = next(iter(of_teachers), None)
    judged = name is not None and _reads_everything(context, faculty.teachers[name])
    if flag is None and name is not None and judged and first_control is not None:
        flag = flag_weak_teacher(
            name,
            of_teachers[name],
            first_control,
            of_arms[first_control],
            split="test",
            higher_is_better=task.higher_is_better,
        )
    record = verdict_record(
        verdict,
        metric=task.metric,
        higher_is_better=task.higher_is_better,
        distilled=recipe.distilled,
        arms=of_arms,
        teachers=of_teachers,
        seeds=recipe.seeds,
        test_examples=next(iter(values.values())).shape[1],
        teacher_flag=flag,
        baselines=evaluation.baselines,
    )
    record["notes"] += _notes(context, faculty) + tuning_notes(context)
    write_json(context.directory.path / "verdict.json", record)
    _write_summary(context, evaluation, scores, verdict.best_control)
    _write_gallery(context, evaluation, students, verdict.best_control)
    return record


def flag_teacher_before_distilling(context: Context, faculty: Faculty, control: Sequence[TrainedStudent]) -> str | None:
    """Once the first control is trained: a warning where its teacher is no better, on the validation split."""
    if context.splits.validation is None:
        return None
    metric = context.task.metric
    for name, teacher in faculty.teachers.items():
        values = [each.trained.validation[metric] for each in control if each.trained.validation is not None]
        if teacher.trained.validation is None or not values or not _reads_everything(context, teacher):
            continue
        flag = flag_weak_teacher(
            name,
            teacher.trained.validation[metric],
            control[0].arm,
            values,
            split="validation",
            higher_is_better=context.task.higher_is_better,
        )
        if flag is not None:
            context.notice(flag)
            return flag
    return None


def _reads_everything(context: Context, teacher: ReadyTeacher) -> bool:
    """Whether a teacher teaches by all that it is measured on: of translations it may read one language alone."""
    view = teacher.network.view
    if isinstance(view, View):
        return True
    whole = context.task.test_view(view, context.splits.train)
    return isinstance(whole, TextView) and whole.columns == view.columns


def _evaluate_teacher(context: Context, teacher: ReadyTeacher) -> Assessment:
    folder, task = f"teachers/{teacher.name}", context.task

    def assess() -> Assessment:
        examples = context.splits.test.open_for_final_evaluation()
        view = task.test_view(teacher.network.view, examples)
        scores = teacher.frozen.scores(task.batches(examples, {teacher.name: view}), ask=task.ask)
        return _assessment(task, scores, examples, view)

    assessment = _assess_once(context, folder, assess)
    _write_evaluation(
        context,
        folder,
        assessment,
        teacher.network.description,
        teacher.trained,
        labelled=teacher.labelled_examples,
        reference=None,
    )
    return assessment


def _evaluate_student(context: Context, student: TrainedStudent, reference: Assessment | None) -> Assessment:
    def assess() -> Assessment:
        examples = context.splits.test.open_for_final_evaluation()
        task, device = context.task, context.placement.device
        view = task.test_view(student.network.view, examples)
        batches = task.batches(examples, {VIEW: view})
        scores = score(student.network.model.to(device), batches, view=VIEW, device=device, ask=task.ask)
        return _assessment(task, scores, examples, view)

    assessment = _assess_once(context, student.folder, assess)
    labelled = int(context.splits.students.labelled.sum())
    _write_evaluation(
        context,
        student.folder,
        assessment,
        student.network.description,
        student.trained,
        labelled=labelled,
        reference=reference,
    )
    return assessment


def _assess_once(context: Context, folder: str, assess: Callable[[], Assessment]) -> Assessment:
    classes = context.task.one_class
    return context.once(
        f"{folder}/predictions",
        {"model": context.directory.output_hash(f"{folder}/model"), "test": context.splits.test.fingerprint()},
        assess,
        lambda found, path: [_save(found, path / ("predictions.parquet" if classes else "values.parquet"))],
        lambda path: (
            _of_predictions(load_predictions(path / "predictions.parquet"))
            if classes
            else load_values(path / "values.parquet")
        ),
    )


def _assessment(task: Task, scores: Scores, examples: Examples, view: AnyView) -> Assessment:
    if task.one_class:
        return _of_predictions(
            Predictions(ids=scores.ids.numpy(), labels=scores.labels.numpy(), logits=scores.logits.numpy())
        )
    measured = task.measure(scores, examples, view)
    return Assessment(np.asarray(measured.values, dtype=np.float64), measured.metrics)


def _of_predictions(predictions: Predictions) -> Assessment:
    return Assessment(predictions.correct.astype(np.float64), quality(predictions), predictions)


def _save(assessment: Assessment, path: Path) -> Path:
    if assessment.predictions is not None:
        return save_predictions(assessment.predictions, path)
    return save_values(assessment, path)


def _groups(context: Context) -> tuple[str, ...] | None:
    """The group of each test unit, where the data name groups and a unit is an example."""
    examples = context.splits.test.open_for_final_evaluation()
    if not isinstance(examples, TextExamples) or context.task.values_of_groups:
        return None
    return examples.groups


def _write_evaluation(
    context: Context,
    folder: str,
    assessment: Assessment,
    description: ModelDescription,
    trained: TrainedModel,
    *,
    labelled: int,
    reference: Assessment | None,
) -> None:
    class_names, predictions = context.splits.train.class_names, assessment.predictions
    metrics = finite_metrics(assessment.metrics, headline=context.task.metric, where=folder)
    if infinite := [name for name, value in metrics.items() if value is None]:
        context.notice(f"{folder}, test: not a finite number and written as null: {', '.join(infinite)}")
    record = {
        "format": 1,
        "split": "test",
        "num_examples": len(assessment.values),
        "metrics": metrics,
        "num_parameters": description.num_parameters,
        "size_bytes": description.size_bytes,
        "multiply_accumulates": description.multiply_accumulates,
        "per_class": [],
        "confusion": [],
        "reliability": [],
        "validation": trained.validation,
        "still_improving": trained.still_improving,
        "labelled_examples": labelled,
    }
    if predictions is not None:
        said = reference.predictions if reference is not None else None
        record["metrics"] = {**metrics, **(fidelity(predictions, said) if said is not None else {})}
        record["per_class"] = per_class(predictions, class_names)
        record["confusion"] = confusion(predictions, len(class_names))
        record["reliability"] = reliability(predictions)
    write_json(context.directory.path / folder / "evaluation.json", record)


def _notes(context: Context, faculty: Faculty) -> list[str]:
    notes = []
    for name, teacher in faculty.teachers.items():
        if not _reads_everything(context, teacher):
            columns = getattr(teacher.network.view, "columns", ())
            notes.append(
                f"The teacher {name!r} teaches by {', '.join(columns)} alone. What it scores is how it reads all texts "
                "itself, which it may not be made for, so it is not held against the controls."
            )
        if teacher.trained.still_improving:
            notes.append(
                f"The teacher {name!r} was still improving when its training ended; a longer one may teach more."
            )
        students = int(context.splits.students.labelled.sum())
        if teacher.labelled_examples > students:
            notes.append(
                f"The teacher {name!r} had {teacher.labelled_examples} labels, the students {students}; "
                "part of what distillation brought is the teacher's labels on the other examples."
            )
    if context.splits.validation is None and faculty.teachers:
        notes.append("Without a validation split the teacher was not compared with a control before distilling.")
    return notes


def _write_summary(
    context: Context, evaluation: Evaluation, scores: Mapping[str, np.ndarray], best_control: str | None
) -> None:
    folder, distilled = context.directory.path / "evaluation", context.recipe.distilled
    inherited: dict[str, float] = {}
    changes: list[dict[str, Any]] = []
    if context.task.one_class:
        inherited = {
            arm: float(np.mean([_metric(context, arm, seed, "inherited_errors") for seed in context.recipe.seeds]))
            for arm in evaluation.students
            if evaluation.teachers
        }
        if distilled is not None and best_control is not None:
            before, after = (
                [_predictions(each) for each in evaluation.students[arm]] for arm in (best_control, distilled)
            )
            changes = _per_class_change(before, after, context.splits.train.class_names)
    summary: dict[str, Any] = {"inherited_errors": inherited, "per_class_change": changes, "best_control": best_control}
    if distilled is not None and best_control is not None and (slices := _slices(context)):
        found = slice_report(scores, slices, distilled=distilled, control=best_control, groups=_groups(context))
        summary["slices"] = [each for each in found if each["interval"] is not None]
    write_json(folder / "summary.json", summary)


def _per_class_change(
    control: Sequence[Predictions], distilled: Sequence[Predictions], class_names: Sequence[str]
) -> list[dict[str, Any]]:
    changes = []
    for label, name in enumerate(class_names):
        before, after = (np.mean([_class_accuracy(each, label) for each in group]) for group in (control, distilled))
        support = int((distilled[0].labels == label).sum())
        if support:
            changes.append(
                {
                    "name": name,
                    "support": support,
                    "control": float(before),
                    "distilled": float(after),
                    "change": float(after - before),
                }
            )
    return changes


def _slices(context: Context) -> Mapping[str, np.ndarray]:
    """Named parts of the test split, of tasks that judge whole texts."""
    examples = context.splits.test.open_for_final_evaluation()
    if not isinstance(examples, TextExamples) or not context.task.one_class:
        return {}
    return slice_rows(next(iter(examples.columns.values())))


def _predictions(assessment: Assessment) -> Predictions:
    assert assessment.predictions is not None
    return assessment.predictions


def _metric(context: Context, arm: str, seed: int, name: str) -> float:
    record = read_json(context.directory.path / f"arms/{arm}/seed-{seed}/evaluation.json")
    return record["metrics"][name]


def _class_accuracy(predictions: Predictions, label: int) -> float:
    of_class = predictions.labels == label
    return float(predictions.correct[of_class].mean()) if of_class.any() else 0.0


def _write_gallery(context: Context, evaluation: Evaluation, students: Students, best_control: str | None) -> None:
    distilled = context.recipe.distilled
    if distilled is None or best_control is None or not evaluation.teachers or not context.task.one_class:
        return
    seed = context.recipe.seeds.index(choose_student(students[distilled], context.task).seed)
    student, control = (_predictions(evaluation.students[arm][seed]) for arm in (distilled, best_control))
    teacher = _predictions(next(iter(evaluation.teachers.values())))
    rows = choose_examples(student, teacher, control)
    temperatures = [
        term.temperature for term in context.recipe.arms[distilled].terms.values() if isinstance(term, SoftTargets)
    ]
    record = gallery_record(
        rows,
        student=student,
        teacher=teacher,
        control=control,
        temperature=temperatures[0] if temperatures else 1.0,
        class_names=context.splits.train.class_names,
    )
    folder = context.directory.path / "evaluation"
    examples = context.splits.test.open_for_final_evaluation()
    for (row, _), example in zip(rows, record["examples"], strict=True):
        if isinstance(examples, ImageExamples):
            example["image"] = f"gallery/{example['id']}.png"
            write_atomically(folder / example["image"], png(examples.images[row].numpy()))
        elif isinstance(examples, TextExamples):
            example["text"] = "\n".join(values[row] for values in examples.columns.values())
    write_json(folder / "gallery.json", record)


def choose_student(students: Sequence[TrainedStudent], task: Task) -> TrainedStudent:
    """The student that ships: the best on validation, without such a split the first seed. Test has no say."""

    def rank(student: TrainedStudent) -> tuple[float, float]:
        metrics = student.trained.validation
        if metrics is None:
            return 0.0, 0.0
        return task.signed(metrics[task.metric]), -metrics.get("negative_log_likelihood", 0.0)

    return max(students, key=rank)
