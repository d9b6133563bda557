"""The league: one arm for each method, trained once with everything else alike, and held against plain distillation."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from distil.compare.cost import cost_record, measure_cost
from distil.compare.method import Methods, method_arms, own_term, weight_trials
from distil.compare.page import write_league_page
from distil.core.errors import CompatibilityError, DistilError, ModelError, RecipeError
from distil.core.files import read_json, write_json
from distil.evaluate.league import against_reference
from distil.evaluate.prediction import Assessment
from distil.evaluate.verdict import Comparison, decide
from distil.pipeline.context import Context
from distil.pipeline.evaluation import evaluate
from distil.pipeline.opening import opened
from distil.pipeline.student import TrainedStudent, bind_arm, train_student
from distil.pipeline.teacher import Faculty, prepare_teachers
from distil.pipeline.tuning import tune_arm, tuning_notes, with_tuned
from distil.recipe.recipe import Arm, Recipe, ResolvedRecipe
from distil.recipe.resolve import resolve
from distil.tasks.task import Task
from distil.tune.tune import Tuned

LEAGUE = "league.json"


@dataclass(frozen=True)
class LeagueResult:
    """Where a league is, and what came of it: ``table`` is the content of ``league.json``."""

    directory: Path
    table: dict[str, Any]
    page: Path


@dataclass(frozen=True, eq=False)
class _Trained:
    """The students of every arm that came through, and why others did not."""

    students: Mapping[str, Sequence[TrainedStudent]]
    not_applicable: Mapping[str, str]
    failed: Mapping[str, str]


def compare_methods(
    recipe: Recipe,
    methods: Methods | None = None,
    run_directory: str | Path | None = None,
    *,
    seeds: int | None = None,
    tuned: bool = True,
    confirm: bool = True,
) -> LeagueResult:
    """Trains the recipe's student once for each method and seed, and makes the league table.

    Same student, initial weights, order of examples, augmentation and budget for all; teachers' answers are computed
    once. Done again, it goes on where it stopped. A method that fails is in the table with its reason.

    Args:
        recipe: with a distilled arm, the plain one that methods are held against.
        methods: kinds of the catalogue, or terms by name; None: all that such a task can have.
        run_directory: ``runs/NAME-compare`` unless given.
        seeds: how many; None: the recipe's.
        tuned: whether every arm's weight is chosen on validation, by equally many trials.
        confirm: whether the best method on validation is trained again with fresh seeds.

    Raises:
        DistilError: the recipe, its data or its teacher cannot be used.
        Preempted: a signal asked to stop; everything is saved.
    """
    league = league_recipe(recipe, methods, seeds=seeds, tuned=tuned)
    arms = [name for name in league.arms if name not in resolve(recipe).arms]
    path = Path(run_directory) if run_directory is not None else Path("runs") / f"{recipe.name}-compare"
    with opened(league, path) as context:
        faculty = prepare_teachers(context)
        not_applicable = _misfits(context, faculty)
        context, failed = _tune(context, faculty, not_applicable)
        trained = _train_all(context, faculty, not_applicable, failed)
        costs = _costs(context, faculty, trained, arms)
        evaluation = evaluate(context, faculty, trained.students)
        table = _table(context, trained, evaluation.students, evaluation.teachers, arms, costs)
        page = _write(path, table)
        if confirm:
            table["confirmation"] = _confirm(context, faculty, table)
            page = _write(path, table)
    return LeagueResult(directory=path, table=table, page=page)


def league_recipe(
    recipe: Recipe, methods: Methods | None = None, *, seeds: int | None = None, tuned: bool = True
) -> ResolvedRecipe:
    """The recipe of a league: the arms of the recipe, and one for each method. Nothing is exported.

    With ``tuned`` every arm's weight is chosen on validation by equally many trials, unless the recipe has its own
    ``tune``.

    Raises:
        RecipeError: the recipe cannot be used, or a method is unknown.
    """
    resolved = resolve(recipe.model_copy(update={"seeds": tuple(range(seeds))}) if seeds is not None else recipe)
    arms = method_arms(resolved, methods)
    taken = sorted(set(arms) & set(resolved.arms))
    if taken:
        raise RecipeError(f"recipe {recipe.name}: the methods {taken} have the names of arms; rename them")
    tune = resolved.tune or (weight_trials(resolved, arms) if tuned else None)
    return resolved.model_copy(update={"arms": {**resolved.arms, **arms}, "export": (), "tune": tune})


def _misfits(context: Context, faculty: Faculty) -> dict[str, str]:
    """Methods that cannot be bound to these networks, with the reason. Nothing has been trained yet.

    Raises:
        CompatibilityError: an arm of the recipe itself does not fit.
    """
    needed = {context.recipe.distilled, *context.recipe.controls}
    reasons: dict[str, str] = {}
    for name, arm in context.recipe.arms.items():
        try:
            bind_arm(context, faculty, arm, name)
        except (CompatibilityError, ModelError) as error:
            if name in needed:
                raise
            reasons[name] = str(error)
    return reasons


def _tune(context: Context, faculty: Faculty, not_applicable: Mapping[str, str]) -> tuple[Context, dict[str, str]]:
    """The run with tuned arms, and why the trials of others could not be made."""
    if context.recipe.tune is None:
        return context, {}
    tuned: dict[str, Tuned] = {}
    failed: dict[str, str] = {}
    for name in context.recipe.tune.arms:
        if name in not_applicable:
            continue
        try:
            tuned[name] = tune_arm(context, faculty, name)
        except Exception as error:  # one method must not lose the rest
            failed[name] = _reason(context, name, error)
    return with_tuned(context, tuned), failed


def _train_all(
    context: Context, faculty: Faculty, not_applicable: Mapping[str, str], failed: Mapping[str, str]
) -> _Trained:
    students: dict[str, list[TrainedStudent]] = {}
    failed = dict(failed)
    for name, arm in sorted(context.recipe.arms.items(), key=lambda item: not item[1].control):
        if name in not_applicable or name in failed:
            continue
        try:
            students[name] = [train_student(context, name, arm, seed=s, faculty=faculty) for s in context.recipe.seeds]
        except Exception as error:  # one method must not lose the rest
            failed[name] = _reason(context, name, error)
    return _Trained(students, not_applicable, failed)


def _reason(context: Context, name: str, error: Exception) -> str:
    """Why a method is left out. What goes wrong in an arm of the recipe is raised: methods are held against those."""
    if name in (context.recipe.distilled, *context.recipe.controls):
        raise error
    reason = str(error) if isinstance(error, DistilError) else f"{type(error).__name__}: {error}"
    context.notice(f"{name} failed and is left out: {reason}")
    return reason


def _costs(context: Context, faculty: Faculty, trained: _Trained, methods: Sequence[str]) -> dict[str, Any]:
    """Measured once; a resumed league has the same figures."""
    arms = context.recipe.arms
    plain = arms[context.recipe.distilled or ""]

    def measure() -> dict[str, Any]:
        done = [name for name in methods if name in trained.students]
        return {name: cost_record(measure_cost(context, faculty, arms[name], plain)) for name in done}

    inputs = {"methods": {name: arms[name].model_dump(mode="json") for name in methods if name in trained.students}}
    return context.once(
        "league/cost",
        inputs,
        measure,
        lambda costs, folder: _save(costs, folder / "cost.json"),
        lambda folder: read_json(folder / "cost.json"),
    )


def _write(folder: Path, table: Mapping[str, Any]) -> Path:
    """Writes ``league.json`` and the page, and returns the page's path."""
    write_json(folder / LEAGUE, table)
    return write_league_page(folder, table)


def _save(value: Any, path: Path) -> list[Path]:
    write_json(path, value)
    return [path]


def _table(
    context: Context,
    trained: _Trained,
    said: Mapping[str, Sequence[Assessment]],
    teachers: Mapping[str, Assessment],
    methods: Sequence[str],
    costs: Mapping[str, Any],
) -> dict[str, Any]:
    recipe, task = context.recipe, context.task
    plain = recipe.distilled or ""
    values = {name: np.stack([each.values for each in group]) for name, group in said.items()}
    scores = _scores(values, task)
    done = {name: scores[name] for name in methods if name in scores}
    best_control = max(recipe.controls, key=lambda name: float(scores[name].mean()), default=None)
    to_plain = against_reference(done, scores[plain], margin=recipe.margin)
    with_plain = {plain: scores[plain], **done}
    to_control = (
        against_reference(with_plain, scores[best_control], margin=recipe.margin) if best_control is not None else {}
    )
    rows = []
    for name, arm in recipe.arms.items():
        row = {"name": name, "role": _role(recipe, name, methods), **_facts(arm, name)}
        if name in scores:
            row |= {
                "status": "done",
                "mean": float(values[name].mean()),
                "values": [float(each.mean()) for each in values[name]],
                "validation": _validation(trained.students[name], task.metric),
                "against_plain": _comparison(to_plain.get(name)),
                "against_control": _comparison(to_control.get(name)),
                "cost": costs.get(name),
            }
        else:
            reason = trained.failed.get(name) or trained.not_applicable[name]
            row |= {"status": "failed" if name in trained.failed else "not applicable", "reason": reason}
        rows.append(row)
    return {
        "format": 1,
        "name": recipe.name,
        "metric": task.metric,
        "higher_is_better": task.higher_is_better,
        "confidence": 0.95,
        "correction": "Holm",
        "seeds": list(recipe.seeds),
        "test_examples": scores[plain].shape[1],
        "plain": plain,
        "best_control": best_control,
        "margin": recipe.margin,
        "teachers": {name: float(each.values.mean()) for name, each in teachers.items()},
        "rows": rows,
        "tuning": tuning_notes(_only(context, trained.students)),
        "confirmation": None,
    }


def _scores(values: Mapping[str, np.ndarray], task: Task) -> dict[str, np.ndarray]:
    """The metric of every test unit by arm and seed, such that higher is better."""
    return {name: rows.astype(np.float64) if task.higher_is_better else -rows for name, rows in values.items()}


def _only(context: Context, names: Collection[str]) -> Context:
    """The same with these arms alone."""
    arms = {name: arm for name, arm in context.recipe.arms.items() if name in names}
    return replace(context, recipe=context.recipe.model_copy(update={"arms": arms}))


def _role(recipe: ResolvedRecipe, name: str, methods: Sequence[str]) -> str:
    if name in methods:
        return "method"
    return "plain" if name == recipe.distilled else "control"


def _facts(arm: Arm, name: str) -> dict[str, Any]:
    """Of a method's own term, which has the method's name in its objective."""
    objective = arm.stages[-1].objective
    key = own_term(objective, name)
    if key is None:
        return {"knowledge": None, "source": None}
    term = objective[key]
    return {"knowledge": term.knowledge, "source": term.source, "term": term.model_dump(mode="json")}


def _validation(students: Sequence[TrainedStudent], metric: str) -> float | None:
    values = [each.trained.validation[metric] for each in students if each.trained.validation is not None]
    return float(np.mean(values)) if values else None


def _comparison(found: tuple[str, Comparison, float] | None) -> dict[str, Any] | None:
    if found is None:
        return None
    word, comparison, p = found
    return {
        "word": word,
        "difference": comparison.difference,
        "interval": list(comparison.interval),
        "seed_interval": list(comparison.seed_interval) if comparison.seed_interval else None,
        "p": p,
    }


def _confirm(context: Context, faculty: Faculty, table: Mapping[str, Any]) -> dict[str, Any] | None:
    """The method with the best validation, trained with seeds that had no part in its choice."""
    rows = [row for row in table["rows"] if row["role"] == "method" and row["status"] == "done"]
    ranked = [row for row in rows if row["validation"] is not None]
    if not ranked:
        return None
    winner = max(ranked, key=lambda row: context.task.signed(row["validation"]))["name"]
    seeds = [max(context.recipe.seeds) + 1 + number for number in range(len(context.recipe.seeds))]
    names = [winner, table["plain"]] + ([table["best_control"]] if table["best_control"] is not None else [])
    arms = context.recipe.arms
    students = {
        name: [train_student(context, name, arms[name], seed=s, faculty=faculty) for s in seeds] for name in names
    }
    said = evaluate(context, faculty, students).students
    values = {name: np.stack([each.values for each in group]) for name, group in said.items()}
    scores = _scores(values, context.task)
    verdict = decide(scores[winner], {name: scores[name] for name in names[1:]}, margin=context.recipe.margin)
    return {
        "method": winner,
        "seeds": seeds,
        "verdict": verdict.word,
        "means": {name: float(rows.mean()) for name, rows in values.items()},
        "against": {
            name: {"difference": each.difference, "interval": list(each.interval)}
            for name, each in verdict.against.items()
        },
    }
