"""The assistant: a network between a student and a teacher that is too far away for it."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from distil.compare.figure import Figures, Gap, Standing
from distil.models.config import ConvNetConfig, MlpConfig, ModelConfig
from distil.objective.config import Term
from distil.objective.term_config import LayerTermConfig, TeacherTermConfig
from distil.recipe.recipe import Arm, ResolvedRecipe, Teacher, TrainStage
from distil.report.number import percent, points

WIDE_ACCURACY = 0.03  # of a teacher above its student
ASSISTANT = "assistant"
SOURCE = "arXiv:1902.03393"


def find_gap(figures: Figures) -> Gap | None:
    """The teacher that is too far away; None: no teacher is, or distillation works all the same.

    Too far is what ``distil check`` finds suspicious, or three points of accuracy above the student. Distillation works
    where the interval over examples of the distilled arm minus the best control is above 0; that over seeds has no say,
    since with two or three seeds it nearly always holds 0. Of several teachers it is the best one.
    """
    far = [gap for gap in figures.gaps if gap.is_wide or gap.accuracy - figures.standing.accuracy > WIDE_ACCURACY]
    if figures.standing.interval[0] > 0 or not far:
        return None
    return max(far, key=lambda each: each.accuracy)


def describe_gap(gap: Gap, standing: Standing) -> str:
    """The figures of a gap as two sentences."""
    return (
        f"{called(gap.teacher)} is at {percent(gap.accuracy)} on validation and the distilled student at "
        f"{percent(standing.accuracy)}, {more_or_less(standing.difference, standing.interval)} than "
        f"{standing.best_control}, which has no teacher ({standing.word}). {gap.said[:1].upper()}{gap.said[1:]}."
    )


def model_in_between(student: ModelConfig | None, teacher: ModelConfig, gap: Gap) -> MlpConfig | ConvNetConfig | None:
    """A network about as many times larger than the student as it is smaller than the teacher.

    For a linear student a perceptron with one hidden layer, whose size is the geometric mean of parameters and
    operations of both; for two perceptrons or two plain convolutional nets one of their kind with the geometric mean of
    their widths. None for other networks, and where there is no room between the two.
    """
    if isinstance(student, MlpConfig) and not student.widths:
        size = math.exp(np.mean([math.log(max(each, 1)) for sizes in gap.sizes for each in sizes]))
        return MlpConfig(widths=(max(1, round(size / (gap.num_inputs + gap.num_classes))),))
    for kind in (MlpConfig, ConvNetConfig):
        if isinstance(student, kind) and isinstance(teacher, kind) and student.widths and teacher.widths:
            widths = _between(student.widths, teacher.widths)
            return kind(widths=widths) if widths not in (student.widths, teacher.widths) else None
    return None


def with_assistant(recipe: ResolvedRecipe, teacher: str, model: ModelConfig) -> ResolvedRecipe:
    """The recipe with an assistant that learns from a teacher, and arms that listen to the assistant in its place.

    The assistant learns what the student learns about outputs, for as long, with the labels that students see.
    """
    arm = recipe.arms[recipe.distilled or ""]
    last = arm.stages[-1]
    numbers = (f"{ASSISTANT}-{number}" for number in range(2, len(recipe.teachers) + 3))
    name = next(each for each in (ASSISTANT, *numbers) if each not in recipe.teachers)
    on_outputs = {
        key: _listening(term, recipe, {})
        for key, term in last.objective.items()
        if term.knowledge in ("labels", "responses") and heard(term, recipe) in (None, teacher)
    }
    objective = on_outputs or {key: _listening(term, recipe, {}) for key, term in last.objective.items()}
    stage = TrainStage(objective=objective, training=last.training)
    assistant = Teacher(model=model, inputs=arm.student.inputs, stages=(stage,))
    arms = {key: _arm_listening(each, recipe, {teacher: name}) for key, each in recipe.arms.items()}
    return recipe.model_copy(update={"teachers": {**recipe.teachers, name: assistant}, "arms": arms})


def called(teacher: str) -> str:
    """The words for a teacher at the beginning of a sentence."""
    return "The teacher" if teacher == "teacher" else f"The teacher {teacher}"


def heard(term: Term, recipe: ResolvedRecipe) -> str | None:
    """The teacher that a term listens to; None: none."""
    if not isinstance(term, TeacherTermConfig) or not term.needs_teacher:
        return None
    return term.teacher or next(iter(recipe.teachers))


def more_or_less(difference: float, interval: tuple[float, float]) -> str:
    """A difference of accuracies with its interval: ``0.3 points lower (−1.2 to +0.5)``."""
    low, high = interval
    side = "higher" if difference >= 0 else "lower"
    return f"{points(abs(difference)).lstrip('+')} points {side} ({points(low)} to {points(high)})"


def _between(first: Sequence[int], second: Sequence[int]) -> tuple[int, ...]:
    """As many layers as the mean, each as wide as the geometric mean at its relative depth."""
    places = np.linspace(0, 1, math.ceil((len(first) + len(second)) / 2))
    logs = [np.interp(places, np.linspace(0, 1, len(widths)), np.log(widths)) for widths in (first, second)]
    return tuple(max(1, round(math.exp(each))) for each in np.mean(logs, axis=0))


def _arm_listening(arm: Arm, recipe: ResolvedRecipe, instead: Mapping[str, str]) -> Arm:
    stages = tuple(
        stage.model_copy(
            update={"objective": {name: _listening(term, recipe, instead) for name, term in stage.objective.items()}}
        )
        for stage in arm.stages
    )
    return arm.model_copy(update={"stages": stages})


def _listening(term: Term, recipe: ResolvedRecipe, instead: Mapping[str, str]) -> Term:
    """The term with its teacher named; where that is another one now, layers by name are those of the old one."""
    teacher = heard(term, recipe)
    if teacher is None:
        return term
    changed = {"teacher": instead.get(teacher, teacher)}
    if teacher in instead and isinstance(term, LayerTermConfig):
        changed["layers"] = "auto"
    return term.model_copy(update=changed)
