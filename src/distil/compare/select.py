"""Select: which terms, layers and teachers matter for a recipe, seen on training and validation examples alone."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from distil.compare.ablation import Ablation, ablations, removals, with_ablations
from distil.compare.figure import Figures, Standing
from distil.compare.observation import agreements, fits, gaps, similarities
from distil.compare.select_page import write_select_page
from distil.compare.suggestion import suggest
from distil.core.errors import DistilError, Preempted, Problem, RecipeError
from distil.core.files import read_json, write_atomically, write_json
from distil.evaluate.verdict import CONFIDENCE, decide
from distil.objective.config import catalogue
from distil.objective.response_config import TrueLabels
from distil.pipeline.context import Context
from distil.pipeline.opening import opened
from distil.pipeline.student import VIEW, TrainedStudent, train_student
from distil.pipeline.teacher import Faculty, prepare_teachers
from distil.pipeline.tuning import tune_arms
from distil.recipe.explain import did_you_mean
from distil.recipe.load import parse_recipe
from distil.recipe.recipe import Arm, Recipe, ResolvedRecipe, TrainStage
from distil.recipe.resolve import resolve, to_yaml
from distil.tasks.choice import make_task
from distil.tasks.classification import METRIC
from distil.tasks.score import score

SELECTION, SUGGESTED = "selection.json", "suggested.yaml"
SCRATCH = "scratch"
NOTHING_LEFT = "nothing that trains the answers would be left"


@dataclass(frozen=True)
class SelectionResult:
    """Where a selection is, and what came of it: ``record`` is the content of ``selection.json``."""

    directory: Path
    record: dict[str, Any]
    page: Path
    suggested: Path


def select(
    recipe: Recipe,
    run_directory: str | Path | None = None,
    *,
    methods: Sequence[str] | None = None,
    seeds: int | None = None,
) -> SelectionResult:
    """Trains the distilled arm, its controls, and an arm without each term and each of several teachers; then suggests.

    No figure comes from the test split. Done again, it goes on where it stopped.

    Args:
        recipe: with a distilled arm and a validation split.
        run_directory: ``runs/NAME-select`` unless given.
        methods: kinds of the catalogue that are held against the recipe's terms; None: a few of each kind of knowledge.
        seeds: how many; None: the recipe's.

    Raises:
        DistilError: the recipe, its data or its teacher cannot be used.
        Preempted: a signal asked to stop; everything is saved.
    """
    _refuse_unknown(recipe, methods)
    selection = selection_recipe(recipe, seeds=seeds)
    path = Path(run_directory) if run_directory is not None else Path("runs") / f"{recipe.name}-select"
    with opened(selection, path) as context:
        faculty = prepare_teachers(context)
        context = tune_arms(context, faculty)
        parts = ablations(context.recipe)
        context = replace(context, recipe=with_ablations(context.recipe, parts))
        students, failed = _train_all(context, faculty, parts)
        scores = {name: _correct(context, group) for name, group in students.items()}
        alone = students[_alone(context.recipe)][0]
        agreed, refused = agreements(context, faculty, alone, methods)
        figures = Figures(
            standing=_standing(context.recipe, scores),
            removals=removals(parts, scores, scores[selection.distilled or ""], margin=selection.margin),
            agreements=agreed,
            similarities=similarities(context, faculty, alone),
            gaps=gaps(context, faculty, alone),
        )
        tuned = {name: context.recipe.arms[name] for name in resolve(recipe).arms}
        source = resolve(recipe).model_copy(update={"arms": tuned})
        suggested, suggestions = suggest(figures, source, fits=lambda term: fits(term, alone, faculty))
        text = "".join(f"# {each.sentence}\n" for each in suggestions if each.applied) + to_yaml(suggested)
        write_atomically(path / SUGGESTED, text)
        record = {
            **_facts(context, scores, faculty),
            **asdict(figures),
            "not_left_out": {part.arm: NOTHING_LEFT for part in parts if part.stages is None} | failed,
            "not_measured": refused,
            "suggestions": [asdict(each) for each in suggestions],
            "suggested": text,
            "can_be_loaded": _can_be_loaded(text),
        }
        write_json(path / SELECTION, record)
        record = read_json(path / SELECTION)  # with lists in place of tuples, as whoever reads the file sees it
        page = write_select_page(path, record)
    return SelectionResult(directory=path, record=record, page=page, suggested=path / SUGGESTED)


def selection_recipe(recipe: Recipe, *, seeds: int | None = None) -> ResolvedRecipe:
    """The recipe of a selection: with the arms that leave something out, and a control where it has none to start from.

    Raises:
        RecipeError: the recipe cannot be used, its task is not about one class an example, it has no distilled arm, or
            no validation split.
    """
    resolved = resolve(recipe.model_copy(update={"seeds": tuple(range(seeds))}) if seeds is not None else recipe)
    task = next(iter(resolved.tasks.values()))
    if not make_task(task).one_class:
        raise RecipeError(
            f"recipe {recipe.name}: a selection holds gradients against that of the loss on one class an example, and "
            f"the task is {task.kind}. `distil compare` trains other methods for it"
        )
    if resolved.distilled is None:
        raise RecipeError(f"recipe {recipe.name}: a selection is about a distilled arm, and it has controls only")
    if resolved.data.validation == "none":
        raise RecipeError(
            f"recipe {recipe.name}: a selection looks at validation examples, never at the test split, and "
            "data.validation is none. Give it a share, such as --set 'data.validation={fraction: 0.1}'"
        )
    if _alone_or_none(resolved) is None:
        resolved = resolved.model_copy(update={"arms": {**_own_control(resolved), **resolved.arms}})
    return with_ablations(resolved, ablations(resolved)).model_copy(update={"export": ()})


def _refuse_unknown(recipe: Recipe, methods: Sequence[str] | None) -> None:
    known = [kind for kind, term in catalogue().items() if "classes" in term.targets]
    unknown = [name for name in methods or () if name not in known]
    if unknown:
        problems = [Problem(name, f"no method of this name for classes{did_you_mean(name, known)}") for name in unknown]
        raise RecipeError(f"recipe {recipe.name}: these methods cannot be looked at:", problems)


def _own_control(recipe: ResolvedRecipe) -> dict[str, Arm]:
    arm = recipe.arms[recipe.distilled or ""]
    epochs = sum(stage.training.epochs for stage in arm.stages)
    training = arm.stages[-1].training.model_copy(update={"epochs": epochs})
    name = SCRATCH if SCRATCH not in recipe.arms else f"{SCRATCH}-alone"
    stage = TrainStage(objective={"true-labels": TrueLabels()}, training=training)
    return {name: Arm(control=True, student=arm.student, stages=(stage,))}


def _alone_or_none(recipe: ResolvedRecipe) -> str | None:
    """The first control that is the distilled arm's student without a teacher."""
    student = recipe.arms[recipe.distilled or ""].student
    alone = (
        name
        for name, arm in recipe.controls.items()
        if arm.student == student and not any(term.needs_teacher for term in arm.terms.values())
    )
    return next(alone, None)


def _alone(recipe: ResolvedRecipe) -> str:
    name = _alone_or_none(recipe)
    assert name is not None
    return name


def _train_all(
    context: Context, faculty: Faculty, parts: Sequence[Ablation]
) -> tuple[dict[str, list[TrainedStudent]], dict[str, str]]:
    """Controls first. An arm that leaves something out and fails does not lose the rest."""
    students: dict[str, list[TrainedStudent]] = {}
    failed: dict[str, str] = {}
    spare = {part.arm for part in parts}
    for name, arm in sorted(context.recipe.arms.items(), key=lambda item: not item[1].control):
        try:
            students[name] = [train_student(context, name, arm, seed=s, faculty=faculty) for s in context.recipe.seeds]
        except Preempted:
            raise
        except DistilError as error:
            if name not in spare:
                raise
            failed[name] = str(error)
            context.notice(f"{name} failed and is left out: {error}")
    return students, failed


def _correct(context: Context, students: Sequence[TrainedStudent]) -> np.ndarray:
    """Whether each seed's student is right about each validation example."""
    validation, device = context.splits.validation, context.placement.device
    assert validation is not None
    task, rows = context.task, []
    for student in students:
        batches = task.batches(validation, {VIEW: student.network.view})
        scores = score(student.network.model.to(device), batches, view=VIEW, device=device, ask=task.ask)
        rows.append(task.measure(scores, validation, student.network.view).values)
    return np.stack(rows).astype(np.float64)


def _standing(recipe: ResolvedRecipe, scores: Mapping[str, np.ndarray]) -> Standing:
    distilled = scores[recipe.distilled or ""]
    verdict = decide(distilled, {name: scores[name] for name in recipe.controls}, margin=recipe.margin)
    assert verdict.best_control is not None
    against = verdict.against[verdict.best_control]
    return Standing(
        word=verdict.word,
        accuracy=float(distilled.mean()),
        best_control=verdict.best_control,
        difference=against.difference,
        interval=against.interval,
        seed_interval=against.seed_interval,
    )


def _facts(context: Context, scores: Mapping[str, np.ndarray], faculty: Faculty) -> dict[str, Any]:
    recipe, validation = context.recipe, context.splits.validation
    return {
        "format": 1,
        "name": recipe.name,
        "metric": METRIC,
        "split": "validation",
        "confidence": CONFIDENCE,
        "correction": "Holm",
        "seeds": list(recipe.seeds),
        "margin": recipe.margin,
        "validation_examples": len(validation) if validation is not None else 0,
        "distilled": recipe.distilled,
        "alone": _alone(recipe),
        "arms": {
            name: {"mean": float(rows.mean()), "values": [float(row.mean()) for row in rows]}
            for name, rows in scores.items()
        },
        "teachers": {
            name: teacher.trained.validation[METRIC] if teacher.trained.validation is not None else None
            for name, teacher in faculty.teachers.items()
        },
    }


def _can_be_loaded(text: str) -> bool:
    """Not where a recipe from Python has functions or arrays in it."""
    try:
        parse_recipe(text)
    except RecipeError:
        return False
    return True
