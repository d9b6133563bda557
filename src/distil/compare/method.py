"""From a recipe to one arm for each method: same student, same initial weights, same budget, other objective."""

import re
from collections.abc import Mapping, Sequence

from distil.core.errors import Problem, RecipeError
from distil.objective.config import Term, catalogue
from distil.objective.response_config import TrueLabels
from distil.objective.term_config import TeacherTermConfig, TermConfig
from distil.recipe.explain import did_you_mean
from distil.recipe.recipe import NAME_PATTERN, Arm, ResolvedRecipe, TrainStage
from distil.tune.config import ChoiceConfig, Space, TuneConfig

Methods = Sequence[str] | Mapping[str, Term]
PLAIN = {  # what every method is held against, by what a task's targets are
    "classes": ("soft-targets", "true-labels"),
    "multi-label": ("binary-kl", "binary-labels"),
    "embeddings": ("embedding-mse", "embedding-contrast"),
}
SHARE_OF_EPOCHS = 4
TRIED = (1.0, 0.1, 10.0)  # times a weight
TRIED_SMOOTHING = (0.1, 0.05, 0.2)


def method_arms(recipe: ResolvedRecipe, methods: Methods | None = None) -> dict[str, Arm]:
    """An arm for each method, by its name.

    A method on responses takes the place of the recipe's terms on responses, and has the weight of their sum times its
    own. A method without a teacher takes the place of all terms with one. Any other stands beside the whole objective,
    so that its arm shows what it adds to plain distillation.

    Args:
        recipe: resolved; its distilled arm is the plain one that all are held against.
        methods: kinds of the catalogue, or terms by name; None: every kind that such a task can have.

    Raises:
        RecipeError: a method is unknown, or its name is not one for a folder; there is none; or the recipe has no
            distilled arm, or several stages.
    """
    name = recipe.distilled
    if name is None:
        raise RecipeError(f"recipe {recipe.name}: methods are compared with a distilled arm, and it has controls only")
    plain = recipe.arms[name]
    if len(plain.stages) > 1:
        raise RecipeError(f"recipe {recipe.name}: its distilled arm has several stages; methods are compared in one")
    terms = methods if isinstance(methods, Mapping) else _named(recipe, methods)
    if not terms:
        raise RecipeError(f"recipe {recipe.name}: there is no method to compare; `distil methods` lists them")
    for name in terms:
        if not re.fullmatch(NAME_PATTERN, name):
            raise RecipeError(
                f"the method {name!r} names a folder: letters, digits and ._- only, a letter or digit first"
            )
    stage = next(iter(plain.stages))
    return {
        method: plain.model_copy(update={"stages": (_stage(stage, method, term, recipe),)})
        for method, term in terms.items()
    }


def weight_trials(recipe: ResolvedRecipe, methods: Mapping[str, Arm]) -> TuneConfig | None:
    """As many trials for each arm, on validation: published weights belong to other losses, nets and data.

    A method's own weight is tried as it is, ten times smaller and ten times larger; so are the weights of plain
    distillation; label smoothing has three amounts. A trial has a quarter of the epochs. None where there is no
    validation split.
    """
    if recipe.data.validation == "none":
        return None
    arms = {name: _weights_of(arm, name) for name, arm in {**recipe.arms, **methods}.items()}
    epochs = max(stage.training.epochs for arm in recipe.arms.values() for stage in arm.stages)
    return TuneConfig(
        trials=len(TRIED),
        epochs=max(1, epochs // SHARE_OF_EPOCHS),
        prune=False,
        arms={name: space for name, space in arms.items() if space},
    )


def own_term(objective: Mapping[str, Term], method: str) -> str | None:
    """The name that a method's term has in its arm's objective; None: this is no arm of a method."""
    return next((key for key in (f"{method}-method", method) if key in objective), None)


def _weights_of(arm: Arm, name: str) -> Space:
    objective = arm.stages[-1].objective
    own = own_term(objective, name)
    if own is None:
        taught = [key for key, term in objective.items() if term.needs_teacher]
        own = next((key for key in taught if objective[key].knowledge == "responses"), next(iter(taught), None))
    if own is not None:
        return {f"{own}.weight": ChoiceConfig(values=tuple(each * objective[own].weight for each in TRIED))}
    smoothed = [key for key, term in objective.items() if isinstance(term, TrueLabels) and term.smoothing > 0]
    return {f"{key}.smoothing": ChoiceConfig(values=TRIED_SMOOTHING) for key in smoothed}


def candidates(target: str = "classes") -> dict[str, TermConfig]:
    """Every method of the catalogue for a kind of target, with its published settings, but plain distillation."""
    return {kind: term() for kind, term in catalogue().items() if target in term.targets and kind not in PLAIN[target]}


def _named(recipe: ResolvedRecipe, methods: Sequence[str] | None) -> Mapping[str, Term]:
    known = candidates(next(iter(recipe.tasks.values())).target)
    if methods is None:
        return known  # type: ignore[return-value] - members of the union
    problems = [
        Problem(name, f"no method of this name that has a place in a league table{did_you_mean(name, list(known))}")
        for name in methods
        if name not in known
    ]
    if problems:
        raise RecipeError(f"recipe {recipe.name}: these methods cannot be compared:", problems)
    return {name: known[name] for name in methods}  # type: ignore[return-value]


def _stage(plain: TrainStage, method: str, term: Term, recipe: ResolvedRecipe) -> TrainStage:
    own = dict(plain.objective)
    if isinstance(term, TeacherTermConfig) and term.needs_teacher and term.teacher is None:
        term = term.model_copy(update={"teacher": _teacher(plain, recipe)})
    if not term.needs_teacher:
        own = {name: other for name, other in own.items() if not other.needs_teacher}
    elif term.knowledge == "responses":
        replaced = {name: other for name, other in own.items() if other.knowledge == "responses"}
        own = {name: other for name, other in own.items() if name not in replaced}
        if replaced:
            weight = sum(other.weight for other in replaced.values())
            term = term.model_copy(update={"weight": term.weight * weight})
    key = method if method not in own else f"{method}-method"
    return plain.model_copy(update={"objective": {**own, key: term}})


def _teacher(plain: TrainStage, recipe: ResolvedRecipe) -> str:
    """The teacher that the plain arm listens to."""
    named = [t.teacher for t in plain.objective.values() if isinstance(t, TeacherTermConfig) and t.teacher is not None]
    return named[0] if named else next(iter(recipe.teachers))
