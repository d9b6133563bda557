"""Resolve: every short form expanded, every default written out, and the parts held against each other."""

from collections.abc import Iterator, Mapping
from typing import Any, assert_never

import yaml

from distil.core.errors import Problem, RecipeError
from distil.data.config import SourceConfig
from distil.models.config import ConvNetConfig, MlpConfig, PretrainedWeights
from distil.objective.config import TrueLabels
from distil.recipe.recipe import (
    Arm,
    ControlConfig,
    LabelSmoothingControl,
    PermutedKnowledgeControl,
    Recipe,
    ResolvedRecipe,
    ScratchControl,
    Student,
    Teacher,
    TrainStage,
)
from distil.tasks.config import ImageClassificationConfig
from distil.train.config import PlateauConfig, TrainingConfig

DISTILLED = "distilled"
TEACHER = "teacher"
SHORT_FORMS = {"task": "tasks", "teacher": "teachers", "student": "arms", "objective": "arms"} | {
    "training": "arms",
    "controls": "arms",
}


def resolve(recipe: Recipe) -> ResolvedRecipe:
    """The form that code sees.

    Raises:
        RecipeError: both forms of one thing, a missing part, or parts that contradict each other; all problems at once.
    """
    problems = [
        Problem(short, f"{short} is the short form of {long}; write one of them")
        for short, long in SHORT_FORMS.items()
        if getattr(recipe, short) is not None and getattr(recipe, long) is not None
    ]
    if recipe.arms is None:
        problems += [
            Problem(part, "missing; it must be given, or arms in its place")
            for part in ("student", "objective")
            if getattr(recipe, part) is None
        ]
    if problems:
        raise RecipeError(f"recipe {recipe.name}: the recipe cannot be used:", problems)
    resolved = ResolvedRecipe(
        name=recipe.name,
        tasks=recipe.tasks or {"main": recipe.task or ImageClassificationConfig()},
        data=recipe.data,
        teachers={name: _resolve_teacher(teacher) for name, teacher in _teachers(recipe).items()},
        arms=recipe.arms if recipe.arms is not None else _arms(recipe),
        seeds=recipe.seeds,
        margin=recipe.margin,
        export=recipe.export,
        placement=recipe.placement,
    )
    problems = list(_contradictions(resolved))
    if problems:
        raise RecipeError(f"recipe {recipe.name}: the recipe cannot be used:", problems)
    return resolved


def to_yaml(recipe: ResolvedRecipe) -> str:
    """The resolved recipe as a file that can be run again."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=120)


def changed_keys(before: Mapping[str, Any], after: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Where two resolved recipes differ, as sentences ``key: before -> after``."""
    changes: list[str] = []
    for key in dict.fromkeys([*before, *after]):
        old, new = before.get(key), after.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            changes += changed_keys(old, new, f"{prefix}{key}.")
        elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
            changes += changed_keys(dict(enumerate(old)), dict(enumerate(new)), f"{prefix}{key}.")  # type: ignore[arg-type]
        elif old != new:
            changes.append(f"{prefix}{key}: {old!r} -> {new!r}")
    return changes


def _teachers(recipe: Recipe) -> dict[str, Teacher]:
    if recipe.teacher is not None:
        return {TEACHER: recipe.teacher}
    return recipe.teachers or {}


def _resolve_teacher(teacher: Teacher) -> Teacher:
    if teacher.weights is not None or teacher.stages is not None:
        return teacher
    stage = TrainStage(objective={"true-labels": TrueLabels()}, training=teacher.training or TrainingConfig())
    return teacher.model_copy(update={"training": None, "stages": (stage,)})


def _arms(recipe: Recipe) -> dict[str, Arm]:
    assert recipe.student is not None
    assert recipe.objective is not None
    training = recipe.training or TrainingConfig()
    stage = TrainStage(objective=recipe.objective, training=training)
    arms = {
        control.kind: _control(control, recipe.student, stage)
        for control in (recipe.controls if recipe.controls is not None else (ScratchControl(), LabelSmoothingControl()))
    }
    return {**arms, DISTILLED: Arm(student=recipe.student, stages=(stage,))}


def _control(control: ControlConfig, student: Student, stage: TrainStage) -> Arm:
    match control:
        case ScratchControl():
            labels = TrueLabels()
        case LabelSmoothingControl():
            labels = TrueLabels(smoothing=control.smoothing)
        case PermutedKnowledgeControl():
            return Arm(control=True, student=student, stages=(stage,), permute_knowledge=True)
        case _:
            assert_never(control)
    own = TrainStage(objective={"true-labels": labels}, training=control.training or stage.training)
    return Arm(control=True, student=student, stages=(own,))


def _contradictions(recipe: ResolvedRecipe) -> Iterator[Problem]:
    distilled = [name for name, arm in recipe.arms.items() if not arm.control]
    if len(distilled) > 1:
        yield Problem("arms", f"{distilled} are not controls; a run compares one arm with its controls")
    for name, teacher in recipe.teachers.items():
        yield from _teacher_contradictions(name, teacher, recipe.data)
    for name, arm in recipe.arms.items():
        yield from _arm_contradictions(name, arm, recipe)


def _teacher_contradictions(name: str, teacher: Teacher, data: SourceConfig) -> Iterator[Problem]:
    where = f"teachers.{name}"
    if isinstance(teacher.weights, PretrainedWeights) and isinstance(teacher.model, (MlpConfig, ConvNetConfig)):
        yield Problem(f"{where}.weights", f"a model of kind {teacher.model.kind} has no published weights; name a file")
    if teacher.weights is not None and teacher.weights.kind == "included" and teacher.model.kind != "module":
        yield Problem(f"{where}.weights", "included is for a network made by a Python function")
    if teacher.labels == "all" and data.labels == "all":
        yield Problem(f"{where}.labels", "all has an effect only where data.labels is a number")
    for stage in teacher.stages or ():
        needy = [term for term, config in stage.objective.items() if config.needs_teacher]
        if needy:
            yield Problem(
                f"{where}.stages.0.objective", f"{needy} need a teacher of their own, which a teacher cannot have yet"
            )
        yield from _training_contradictions(f"{where}.training", stage.training, data)


def _arm_contradictions(name: str, arm: Arm, recipe: ResolvedRecipe) -> Iterator[Problem]:
    where = f"arms.{name}"
    terms = arm.stage.objective
    weighted = {term: config for term, config in terms.items() if config.weight > 0}
    if not weighted:
        yield Problem(f"{where}.objective", "every weight is 0, so nothing would be learnt")
    needs_teacher = [term for term, config in weighted.items() if config.needs_teacher]
    if needs_teacher and not recipe.teachers:
        yield Problem("teacher", f"missing; the terms {needs_teacher} of the arm {name} need one")
    if not arm.control and weighted and not needs_teacher:
        yield Problem(f"{where}.objective", "no term uses a teacher, so this would be a control, not distillation")
    if arm.permute_knowledge and not needs_teacher:
        yield Problem(f"{where}.permute_knowledge", "it has an effect only where a term uses a teacher")
    yield from _training_contradictions(f"{where}.training", arm.stage.training, recipe.data)


def _training_contradictions(where: str, training: TrainingConfig, data: SourceConfig) -> Iterator[Problem]:
    if data.validation != "none":
        return
    if training.keep == "best":
        yield Problem(f"{where}.keep", "best needs a validation split, and data.validation is none; set keep: last")
    if isinstance(training.until, PlateauConfig):
        yield Problem(f"{where}.until", "plateau needs a validation split, and data.validation is none")
