"""How the arm of a method is made from a recipe, and which weights are tried."""

from pathlib import Path

import pytest

from distil.compare.method import candidates, method_arms, own_term, weight_trials
from distil.core.errors import RecipeError
from distil.objective.config import SoftTargets, Term, TrueLabels, catalogue
from distil.objective.feature_config import Hints
from distil.objective.feature_learned_config import VariationalInformation
from distil.objective.response_config import ReverseKl
from distil.recipe.recipe import Arm, ResolvedRecipe
from distil.recipe.resolve import resolve
from distil.tune.config import ChoiceConfig
from tests.check.text_fixture import recipe_of

from .conftest import Mine, recipe


def resolved(*overrides: str) -> ResolvedRecipe:
    return resolve(recipe(*overrides))


def objective(arm: Arm) -> dict[str, Term]:
    (stage,) = arm.stages
    return dict(stage.objective)


def objective_of(term: Term, *overrides: str, name: str = "method") -> dict[str, Term]:
    return objective(method_arms(resolved(*overrides), {name: term})[name])


LABELS = TrueLabels(weight=0.1)
SOFT = SoftTargets(weight=0.9, temperature=4.0)


# which methods


def test_every_kind_on_classes_but_the_plain_ones_is_a_candidate() -> None:
    known = candidates()
    assert {kind for kind, term in catalogue().items() if "classes" in term.targets} - set(known) == {
        "soft-targets", "true-labels"
    }  # fmt: skip
    assert not {"binary-kl", "regression-mse"} & set(known)
    assert all(term == catalogue()[kind]() for kind, term in known.items())
    assert list(method_arms(resolved())) == list(known)


def test_other_targets_have_other_methods_and_another_plain_distillation(tmp_path: Path) -> None:
    several = candidates("multi-label")
    assert {"similarity-preserving", "info-nce"} <= set(several)
    assert not {"binary-kl", "binary-labels", "soft-targets"} & set(several)
    assert list(method_arms(resolve(recipe_of("multi-label", tmp_path)))) == list(several)
    assert candidates("embeddings") == {}
    with pytest.raises(RecipeError, match="there is no method to compare"):
        method_arms(resolve(recipe_of("sentence-embedding", tmp_path)))


def test_methods_are_named_or_given() -> None:
    assert list(method_arms(resolved(), ["vid", "hints", "vid"])) == ["vid", "hints"]
    assert list(method_arms(resolved(), {"mine": Mine(), "other": Mine(scale=2.0)})) == ["mine", "other"]


# where the method's term stands


def test_a_method_on_responses_takes_the_place_and_the_weight_of_those_there_are() -> None:
    assert objective_of(ReverseKl(weight=2.0)) == {
        "true-labels": LABELS, "method": ReverseKl(weight=1.8, teacher="teacher")
    }  # fmt: skip
    two = "objective.more={kind: reverse-kl, weight: 0.3}"
    found = objective_of(ReverseKl(), two)
    assert list(found) == ["true-labels", "method"]
    assert found["method"].weight == pytest.approx(1.2)


def test_a_method_on_anything_else_stands_beside_the_whole_objective() -> None:
    for term in (VariationalInformation(weight=0.5), Mine()):
        found = objective_of(term)
        assert {name: found[name] for name in ("true-labels", "soft-targets")} == {
            "true-labels": LABELS, "soft-targets": SOFT.model_copy(update={"teacher": "teacher"})
        } or found["soft-targets"] == SOFT  # fmt: skip
        assert found["method"] == term.model_copy(update={"teacher": "teacher"})


def test_a_method_without_a_teacher_takes_the_place_of_all_terms_with_one() -> None:
    smoothed = candidates()["smoothed-labels"]
    hints = "objective.hints={kind: hints, weight: 1.0}"
    assert objective_of(smoothed, hints) == {"true-labels": LABELS, "method": smoothed}  # type: ignore[arg-type]


def test_a_name_that_a_term_of_the_recipe_has_stays_its_own() -> None:
    hints = "objective.hints={kind: hints, weight: 5.0}"
    found = objective_of(Hints(weight=0.5), hints, name="hints")
    assert (found["hints"].weight, found["hints-method"].weight) == (5.0, 0.5)
    assert own_term(found, "hints") == "hints-method"
    assert own_term(objective(resolved().arms["distilled"]), "distilled") is None
    tune = weight_trials(resolved(hints), method_arms(resolved(hints), {"hints": Hints(weight=0.5)}))
    assert tune is not None
    assert list(tune.arms["hints"]) == ["hints-method.weight"]


def test_a_method_listens_to_the_teacher_of_the_plain_arm_unless_it_names_one() -> None:
    two = (
        "teachers={big: {model: {kind: mlp, widths: [8]}, training: {epochs: 1}}, "
        "other: {model: {kind: mlp, widths: [8]}, training: {epochs: 1}}}",
        "teacher=null",
        "objective.soft-targets.teacher=other",
    )
    assert objective_of(Mine(), *two)["method"].teacher == "other"  # type: ignore[union-attr]
    assert objective_of(Mine(teacher="big"), *two)["method"].teacher == "big"  # type: ignore[union-attr]


def test_33_nothing_else_in_the_arm_differs() -> None:
    plain = resolved().arms["distilled"]
    for arm in method_arms(resolved()).values():
        (stage,) = arm.stages
        bare = stage.model_copy(update={"objective": plain.stages[0].objective})
        assert arm.model_copy(update={"stages": (bare,)}) == plain


# weights that are tried


def tried(arm: str, *overrides: str, **methods: Term) -> dict[str, tuple[object, ...]]:
    recipe = resolved(*overrides)
    tune = weight_trials(recipe, method_arms(recipe, methods or ["vid"]))
    assert tune is not None
    return {key: values.values for key, values in tune.arms[arm].items() if isinstance(values, ChoiceConfig)}


def test_every_weight_is_tried_as_it_is_smaller_and_larger() -> None:
    assert tried("vid") == {"vid.weight": (1.0, 0.1, 10.0)}
    assert tried("mine", mine=Mine(weight=3.0)) == {"mine.weight": pytest.approx((3.0, 0.3, 30.0))}
    assert tried("distilled") == {"soft-targets.weight": pytest.approx((0.9, 0.09, 9.0))}
    assert tried("label-smoothing") == {"true-labels.smoothing": (0.1, 0.05, 0.2)}


def test_33_plain_distillation_by_layers_has_trials_as_well() -> None:
    by_layers = "objective={true-labels: {kind: true-labels}, hints: {kind: hints, weight: 2.0}}"
    assert tried("distilled", by_layers) == {"hints.weight": pytest.approx((2.0, 0.2, 20.0))}


def test_33_as_many_trials_for_each_arm_of_a_quarter_of_the_epochs() -> None:
    for epochs, expected in ((2, 1), (8, 2), (30, 7)):
        recipe = resolved(f"training.epochs={epochs}")
        tune = weight_trials(recipe, method_arms(recipe))
        assert tune is not None
        assert (tune.trials, tune.epochs, tune.prune) == (3, expected, False)
        assert all(len(values.values) == 3 for space in tune.arms.values() for values in space.values())  # type: ignore[union-attr]
        assert set(recipe.arms) | set(candidates()) == {*tune.arms, "scratch"}


def test_without_validation_nothing_can_be_chosen() -> None:
    blind = resolved("data.validation=none", "training.keep=last", "teacher.training.keep=last")
    assert weight_trials(blind, method_arms(blind, ["vid"])) is None


# what is refused


def test_unknown_methods_all_at_once_with_the_nearest_name() -> None:
    with pytest.raises(RecipeError, match="recipe small: these methods cannot be compared:") as caught:
        method_arms(resolved(), ["vidd", "hint", "binary-kl", "soft-targets", "zzz"])
    whats = {problem.where: problem.what for problem in caught.value.problems}
    assert whats["vidd"].endswith("did you mean 'vid'?")
    assert whats["hint"].endswith("did you mean 'hints'?")
    assert set(whats) == {"vidd", "hint", "binary-kl", "soft-targets", "zzz"}
    assert whats["zzz"].endswith("see distil methods")


@pytest.mark.parametrize("name", ["../up", "a/b", "", ".hidden", "two words"])
def test_a_name_is_that_of_a_folder(name: str) -> None:
    with pytest.raises(RecipeError, match="names a folder: letters, digits and"):
        method_arms(resolved(), {name: Mine()})


def test_no_method_at_all() -> None:
    for none in ([], {}):
        with pytest.raises(RecipeError, match="there is no method to compare; `distil methods` lists them"):
            method_arms(resolved(), none)


def test_a_recipe_of_controls_has_nothing_to_hold_methods_against() -> None:
    stage, student = "{objective: {labels: true-labels}}", "{model: {kind: mlp, widths: [4]}}"
    arms = f"arms={{alone: {{control: true, student: {student}, stages: [{stage}]}}}}"
    alone = resolved(arms, "student=null", "objective=null", "training=null", "controls=null")
    with pytest.raises(RecipeError, match="methods are compared with a distilled arm, and it has controls only"):
        method_arms(alone)


def test_a_recipe_of_several_stages_is_refused() -> None:
    stages = "stages=[{objective: {hints: hints}, training: {keep: last}}, {objective: {soft: soft-targets}}]"
    staged = resolved(stages, "objective=null", "training=null")
    with pytest.raises(RecipeError, match="its distilled arm has several stages; methods are compared in one"):
        method_arms(staged)
