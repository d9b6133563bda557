"""The league: everything alike but the objective, nothing lost to a failing method, equal after interruptions."""

import json
import math
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from distil.compare import league
from distil.compare.league import LEAGUE, compare_methods, league_recipe
from distil.core.errors import NumericError, Preempted, RecipeError
from distil.core.events import read_events
from distil.core.files import read_json
from distil.core.interruption import Interruption
from distil.evaluate.prediction import load_predictions, load_values
from distil.models.tap import Tap
from distil.objective.own_config import OwnTerm
from distil.objective.response_config import ReverseKl
from distil.pipeline import training as training_module
from distil.pipeline.context import Context
from distil.pipeline.teacher import Faculty
from distil.recipe.recipe import Recipe
from distil.recipe.resolve import resolve
from distil.tasks.config import ImageClassificationConfig
from distil.train.loop import Trained, Training, train
from tests.check.text_fixture import recipe_of

from .conftest import DONE, METHODS, Begun, Broken, Finished, Mine, Watch, recipe

ARMS = ["scratch", "label-smoothing", "distilled", *DONE]


def without_times(table: Mapping[str, Any]) -> dict[str, Any]:
    """The table without what is measured in seconds."""
    rows = [{key: value for key, value in row.items() if key != "cost"} for row in table["rows"]]
    return {**table, "rows": rows, "tuning": [re.sub(r"\d+ s\.", "", note) for note in table["tuning"]]}


# what is in the table


def test_every_arm_has_a_row_and_says_what_became_of_it(finished: Finished) -> None:
    rows = finished.rows
    assert set(rows) == {"scratch", "label-smoothing", "distilled", *METHODS}
    assert [name for name, row in rows.items() if row["status"] == "done"] == ARMS
    assert {name: row["role"] for name, row in rows.items() if row["role"] != "method"} == {
        "scratch": "control", "label-smoothing": "control", "distilled": "plain"
    }  # fmt: skip
    assert (rows["vid"]["knowledge"], rows["mine"]["knowledge"]) == ("features", "own")
    assert rows["vid"]["source"].startswith("Ahn")
    assert read_json(finished.directory / LEAGUE) == finished.result.table
    assert finished.result.page.read_text() != ""


def test_a_method_that_does_not_fit_is_not_trained_and_says_why(finished: Finished) -> None:
    row = finished.rows["attentive"]
    assert row["status"] == "not applicable"
    assert "attention could be compared" in row["reason"]
    assert "mean" not in row
    assert not [folder for folder in finished.watched.folders if "attentive" in folder]


def test_a_method_that_raises_is_in_the_table_with_its_reason_and_loses_nobody(finished: Finished) -> None:
    rows = finished.rows
    assert (rows["broken"]["status"], rows["infinite"]["status"]) == ("failed", "failed")
    assert rows["broken"]["reason"].startswith("ZeroDivisionError: a bug in the user's term on ")
    assert rows["infinite"]["reason"] == "none of 3 trials came through; narrow the ranges of tune"
    told = [event["text"] for event in read_events(finished.directory / "events.jsonl")]
    assert any(text.startswith("broken failed and is left out: ZeroDivisionError") for text in told)


def test_the_numbers_of_a_row_are_those_of_the_predictions_on_disk(finished: Finished) -> None:
    def correct(name: str) -> np.ndarray:
        folders = [finished.directory / f"arms/{name}/seed-{seed}" for seed in (0, 1)]
        return np.stack([load_predictions(folder / "predictions.parquet").correct for folder in folders]).astype(float)

    def p_value(name: str) -> float:
        differences = correct(name) - correct("distilled")
        return max(stats.ttest_1samp(differences.mean(axis=axis), 0.0).pvalue for axis in (0, 1))  # type: ignore[union-attr]

    raw = {name: p_value(name) for name in DONE}
    for name in DONE:
        row = finished.rows[name]
        assert row["mean"] == pytest.approx(correct(name).mean())
        assert row["values"] == pytest.approx(correct(name).mean(axis=1).tolist())
        difference = (correct(name) - correct("distilled")).mean()
        assert row["against_plain"]["difference"] == pytest.approx(difference)
        smaller = sorted(value for value in raw.values() if value <= raw[name])
        expected = max(min(1.0, value * (len(DONE) - place)) for place, value in enumerate(smaller))
        assert row["against_plain"]["p"] == pytest.approx(expected, rel=1e-6)
        evaluation = [read_json(finished.directory / f"arms/{name}/seed-{seed}/evaluation.json") for seed in (0, 1)]
        assert row["validation"] == pytest.approx(np.mean([each["validation"]["accuracy"] for each in evaluation]))
    controls = {name: correct(name).mean() for name in ("scratch", "label-smoothing")}
    assert finished.result.table["best_control"] == max(controls, key=controls.__getitem__)
    assert finished.rows["distilled"]["against_control"] is not None
    assert finished.rows["scratch"]["against_plain"] is None


def test_each_method_has_a_cost(finished: Finished) -> None:
    costs = {name: row["cost"] for name, row in finished.rows.items() if row.get("cost")}
    assert list(costs) == DONE
    assert all(cost["step_ratio"] > 0 and cost["activation_bytes"] > 0 for cost in costs.values())
    assert costs["vid"]["projector_parameters"] > 0 == costs["mine"]["projector_parameters"]


# everything alike


def test_33_every_arm_of_a_seed_has_the_same_weights_order_and_budget(finished: Finished) -> None:
    for seed in (0, 1):
        group = [each for each in finished.watched.begun if re.fullmatch(rf"arms/.*/seed-{seed}", each.folder)]
        assert sorted(each.folder.split("/")[1] for each in group) == sorted(ARMS)
        assert len({each.initial for each in group}) == 1
        assert all(each.order == group[0].order for each in group)
        assert {each.steps for each in group} == {group[0].steps}
        assert len({each.training.seed for each in group}) == 1
        assert len({each.training.config.model_dump_json() for each in group}) == 1
    seeds = [next(e for e in finished.watched.begun if e.folder == f"arms/vid/seed-{seed}") for seed in (0, 1)]
    assert seeds[0].initial != seeds[1].initial
    assert seeds[0].order != seeds[1].order


def test_33_every_arm_has_as_many_trials_of_the_same_length(finished: Finished) -> None:
    trials = [each for each in finished.watched.begun if "trial-" in each.folder]
    names = [each.folder.split("/")[1] for each in trials]
    assert {name: names.count(name) for name in set(names) - {"broken"}} == dict.fromkeys(
        {*ARMS, "infinite"} - {"scratch"}, 3
    )  # the student alone has nothing to choose
    assert len({each.steps for each in trials}) == len({each.initial for each in trials}) == 1
    tuned = read_json(finished.directory / "tuning.json")["arms"]
    assert set(tuned) == {*ARMS} - {"scratch"}
    assert [trial["settings"]["vid.weight"] for trial in tuned["vid"]["trials"]] == [1.0, 0.1, 10.0]
    assert len(finished.result.table["tuning"]) == len(tuned)
    assert finished.rows["vid"]["term"]["weight"] == tuned["vid"]["best"]["vid.weight"]


def test_the_teacher_is_asked_once_for_answers_and_once_for_the_layers_of_a_method(finished: Finished) -> None:
    kept = finished.watched.kept
    assert kept[0] == ()
    assert len(kept) == 2
    assert all(isinstance(tap, Tap) for tap in kept[1])
    assert [folder for folder in finished.watched.folders if "teacher" in folder] == ["teachers/teacher"]


def test_32_the_test_split_is_opened_when_every_arm_is_trained(finished: Finished) -> None:
    told = finished.watched.told
    first = told.index("test split")
    after = [each for each in told[first:] if each != "test split"]
    fresh = [f"arms/{name}/seed-{seed}" for name in names_of(finished) for seed in (2, 3)]
    assert sorted(after) == sorted(fresh)


def names_of(finished: Finished) -> list[str]:
    confirmed = finished.result.table["confirmation"]
    return [confirmed["method"], *confirmed["against"]]


# confirmation


def test_the_confirmation_has_fresh_seeds_and_the_method_that_was_best_on_validation(finished: Finished) -> None:
    table = finished.result.table
    confirmed = table["confirmation"]
    validation = {name: finished.rows[name]["validation"] for name in DONE}
    assert validation[confirmed["method"]] == max(validation.values())
    assert not set(confirmed["seeds"]) & set(table["seeds"])
    assert len(confirmed["seeds"]) == len(table["seeds"])
    assert list(confirmed["against"]) == [table["plain"], table["best_control"]]
    assert confirmed["verdict"] in ("BEATS", "WORSE", "EQUIVALENT", "INCONCLUSIVE")
    for name, each in confirmed["against"].items():
        expected = confirmed["means"][confirmed["method"]] - confirmed["means"][name]
        assert each["difference"] == pytest.approx(expected)
        fresh = [
            load_predictions(finished.directory / f"arms/{name}/seed-{seed}/predictions.parquet").correct.mean()
            for seed in confirmed["seeds"]
        ]
        assert confirmed["means"][name] == pytest.approx(np.mean(fresh))


def test_32_the_test_split_has_no_say_in_the_winner(monkeypatch: pytest.MonkeyPatch) -> None:
    """``tests`` is best on the test split, ``validates`` on validation; ``failed`` has neither."""
    rows = [
        {"name": "tests", "role": "method", "status": "done", "mean": 0.99, "validation": 0.5},
        {"name": "validates", "role": "method", "status": "done", "mean": 0.5, "validation": 0.6},
        {"name": "failed", "role": "method", "status": "failed", "reason": "why"},
        {"name": "plain", "role": "plain", "status": "done", "mean": 0.9, "validation": 0.9},
    ]
    trained: list[tuple[str, int]] = []

    def train_student(context: Any, name: str, arm: Any, *, seed: int, faculty: Any) -> str:
        trained.append((name, seed))
        return name

    def evaluate(context: Any, faculty: Any, students: Mapping[str, list[str]]) -> Any:
        said = {
            name: [SimpleNamespace(values=np.array([True, False, True]))] * len(group)
            for name, group in students.items()
        }
        return SimpleNamespace(students=said)

    monkeypatch.setattr(league, "train_student", train_student)
    monkeypatch.setattr(league, "evaluate", evaluate)
    arms = dict.fromkeys(("tests", "validates", "plain"))
    tasks = {"main": ImageClassificationConfig()}
    context = object.__new__(Context)
    object.__setattr__(context, "recipe", SimpleNamespace(seeds=(3, 0, 7), arms=arms, margin=0.005, tasks=tasks))
    faculty = object.__new__(Faculty)
    table = {"rows": rows, "plain": "plain", "best_control": None}
    confirmed = league._confirm(context, faculty, table)
    assert confirmed is not None
    assert confirmed["method"] == "validates"
    assert confirmed["seeds"] == [8, 9, 10]
    assert trained == [(name, seed) for name in ("validates", "plain") for seed in (8, 9, 10)]
    assert league._confirm(context, faculty, {**table, "rows": rows[2:]}) is None


# going on


def test_31_a_finished_league_is_read_again_to_the_last_byte(
    finished: Finished, tmp_path: Path, watched: Watch
) -> None:
    shutil.copytree(finished.directory, tmp_path / "run")
    again = compare_methods(recipe(), METHODS, tmp_path / "run")
    assert {folder.split("/")[1] for folder in watched.folders} == {"broken"}  # what raised is tried again
    assert again.table == finished.result.table
    for name in (LEAGUE, "league.html", "tuning.json"):
        assert (tmp_path / "run" / name).read_bytes() == (finished.directory / name).read_bytes()


class _StopAfter(Interruption):
    def __init__(self, steps: int) -> None:
        self._left = steps

    @property
    def requested(self) -> bool:
        self._left -= 1
        return self._left <= 0


def test_31_interrupted_in_a_trial_an_arm_and_the_confirmation_gives_an_equal_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = ("controls=[scratch]", "seeds=1"), {"vid": METHODS["vid"]}
    unbroken = compare_methods(recipe(*short[0]), short[1], tmp_path / "unbroken")
    for part in ("vid/trial-1", "vid/seed-0", "distilled/seed-1"):

        def stopping(work: Training, interruption: Interruption, part: str = part) -> Trained:
            return train(work, _StopAfter(2) if str(work.folder).endswith(part) else interruption)

        monkeypatch.setattr(training_module, "train", stopping)
        with pytest.raises(Preempted):
            compare_methods(recipe(*short[0]), short[1], tmp_path / "broken")
        assert (tmp_path / "broken" / LEAGUE).exists() == (part == "distilled/seed-1")
    costs = read_json(tmp_path / "broken/league/cost.json")
    monkeypatch.undo()
    resumed = compare_methods(recipe(*short[0]), short[1], tmp_path / "broken")
    assert without_times(resumed.table) == without_times(unbroken.table)
    assert {row["name"]: row["cost"] for row in resumed.table["rows"] if row["role"] == "method"} == costs


def test_other_methods_in_the_same_directory_are_refused_with_what_differs(finished: Finished) -> None:
    fewer = {name: term for name, term in METHODS.items() if name != "vid"}
    with pytest.raises(RecipeError, match=r"made with another recipe[^$]*arms\.vid"):
        compare_methods(recipe(), fewer, finished.directory)
    with pytest.raises(RecipeError, match=r"arms\.mine\.stages\.0\.objective\.mine\.scale: 1\.0 -> 2\.0"):
        compare_methods(recipe(), {**METHODS, "mine": Mine(scale=2.0)}, finished.directory)
    with pytest.raises(RecipeError, match=r"seeds"):
        compare_methods(recipe(), METHODS, finished.directory, seeds=3)
    with pytest.raises(RecipeError, match=r"tune"):
        compare_methods(recipe(), METHODS, finished.directory, tuned=False)
    assert read_json(finished.directory / LEAGUE) == finished.result.table


# what goes wrong


def test_an_arm_of_the_recipe_itself_may_not_fail(tmp_path: Path) -> None:
    whole = resolve(recipe("training.epochs=1", "seeds=1"))
    arm = whole.arms["distilled"]
    (stage,) = arm.stages
    arm = arm.model_copy(
        update={"stages": (stage.model_copy(update={"objective": {**stage.objective, "own": Broken()}}),)}
    )
    broken = Recipe(**{**dict(whole), "arms": {**whole.arms, "distilled": arm}})
    with pytest.raises(ZeroDivisionError):
        compare_methods(broken, {"reverse-kl": ReverseKl()}, tmp_path / "run")


def test_a_confirmation_that_fails_leaves_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(work: Training, interruption: Interruption) -> Trained:
        if work.folder.name == "seed-1":
            raise NumericError("the loss is nan")
        return train(work, interruption)

    monkeypatch.setattr(training_module, "train", failing)
    one = ("training.epochs=1", "controls=[]", "seeds=1")
    with pytest.raises(NumericError, match="the loss is nan"):
        compare_methods(recipe(*one), {"mine": Mine()}, tmp_path / "run", tuned=False)
    table = read_json(tmp_path / "run" / LEAGUE)
    assert [row["status"] for row in table["rows"]] == ["done", "done"]
    assert table["confirmation"] is None
    assert (tmp_path / "run" / "league.html").is_file()
    assert compare_methods(recipe(*one), {"mine": Mine()}, tmp_path / "run", tuned=False, confirm=False).table == table


def test_without_trials_a_method_that_raises_in_its_training_is_left_out_alike(tmp_path: Path) -> None:
    """Also without validation, controls and a second seed, where several columns are empty."""
    bare = ("training={epochs: 1, batch_size: 256, keep: last}", "data.validation=none", "controls=[]", "seeds=1",
            "teacher.training={epochs: 1, keep: last}")  # fmt: skip
    result = compare_methods(recipe(*bare), {"mine": Mine(), "broken": Broken()}, tmp_path / "run")
    plain, mine, broken = result.table["rows"]
    assert (plain["name"], mine["status"], broken["status"]) == ("distilled", "done", "failed")
    assert (result.table["confirmation"], result.table["tuning"], result.table["best_control"]) == (None, [], None)
    assert (mine["validation"], mine["against_control"], plain["against_plain"]) == (None, None, None)
    assert mine["against_plain"]["seed_interval"] is None
    assert math.isfinite(mine["against_plain"]["p"])
    assert not (tmp_path / "run" / "tune").exists()
    assert "mine" in result.page.read_text()


def test_names_that_are_not_methods_are_refused_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        compare_methods(recipe(), ["vid", "reverse-k", "nothing-like-it"], tmp_path / "run")
    first, second = caught.value.problems
    assert (first.where, first.what) == (
        "reverse-k", "no method of this name that has a place in a league table; did you mean 'reverse-kl'?"
    )  # fmt: skip
    assert second.what.endswith("see distil methods")
    with pytest.raises(RecipeError, match=r"the methods \['scratch'\] have the names of arms; rename them"):
        compare_methods(recipe(), {"scratch": Mine()}, tmp_path / "run")
    assert not (tmp_path / "run").exists()


# the recipe of a league


def test_the_recipe_of_a_league_has_the_arms_of_both_and_exports_nothing() -> None:
    plain = resolve(recipe("export=[{target: onnx}]"))
    found = league_recipe(recipe("export=[{target: onnx}]"), ["vid", "hints"], seeds=4)
    assert list(found.arms) == [*plain.arms, "vid", "hints"]
    assert all(found.arms[name] == arm for name, arm in plain.arms.items())
    assert (found.export, found.seeds, found.distilled) == ((), (0, 1, 2, 3), "distilled")
    assert found.controls == plain.controls
    assert league_recipe(recipe("seeds=[5, 8]"), ["vid"]).seeds == (5, 8)


def test_trials_are_the_recipe_s_own_where_it_has_them() -> None:
    own = "tune={trials: 2, arms: {distilled: {soft-targets.weight: [0.5, 0.9]}}}"
    assert league_recipe(recipe(own), ["vid"]).tune == resolve(recipe(own)).tune
    assert league_recipe(recipe(), ["vid"], tuned=False).tune is None
    tune = league_recipe(recipe(), ["vid"]).tune
    assert tune is not None
    assert (tune.trials, tune.prune, tune.epochs) == (3, False, 1)


def test_33_methods_without_trials_beside_a_tuned_plain_arm_are_told(tmp_path: Path) -> None:
    own = "tune={trials: 2, arms: {distilled: {soft-targets.weight: [0.5, 0.9]}}}"
    overrides = (own, "training.epochs=1", "controls=[]", "seeds=1")
    result = compare_methods(recipe(*overrides), {"mine": Mine()}, tmp_path / "run", confirm=False)
    assert result.table["tuning"][1:] == ["mine had no trials, the distilled arm had; that is not the same budget."]


def test_the_table_is_json_that_others_can_read(finished: Finished) -> None:
    text = (finished.directory / LEAGUE).read_text()
    assert json.loads(text, parse_constant=pytest.fail)["format"] == 1
    begun: list[Begun] = finished.watched.begun
    assert all(isinstance(each.training.config.epochs, int) for each in begun)
    assert issubclass(Mine, OwnTerm)


# texts


def test_texts_are_compared_with_students_cut_from_their_teacher(tmp_path: Path) -> None:
    methods = ["reverse-kl", "attention-maps"]
    recipe = recipe_of("text-classification", tmp_path / "data", "training.epochs=2")
    result = compare_methods(recipe, methods, tmp_path / "run", seeds=1, tuned=False)
    rows = {row["name"]: row for row in result.table["rows"]}
    assert {name: row["status"] for name, row in rows.items()} == dict.fromkeys(
        ("scratch", "distilled", *methods), "done"
    )
    assert result.table["metric"] == "accuracy"
    assert result.table["test_examples"] == 10
    assert result.table["confirmation"]["method"] in methods


def test_of_a_metric_of_which_less_is_better_a_smaller_one_is_a_positive_difference(tmp_path: Path) -> None:
    recipe = recipe_of("causal-lm", tmp_path / "data", "training.epochs=2")
    methods = ["reverse-kl", "top-k"]
    result = compare_methods(recipe, methods, tmp_path / "run", seeds=1, tuned=False)
    table = result.table
    rows = {row["name"]: row for row in table["rows"]}
    assert (table["metric"], table["higher_is_better"]) == ("document_bits_per_byte", False)
    plain = rows["distilled"]["mean"]
    for name in methods:
        assert rows[name]["against_plain"]["difference"] == pytest.approx(plain - rows[name]["mean"])
        stored = load_values(result.directory / f"arms/{name}/seed-0/values.parquet").values
        assert rows[name]["mean"] == pytest.approx(stored.mean())
    assert table["confirmation"]["method"] == min(methods, key=lambda name: rows[name]["validation"])
    assert table["best_control"] == "scratch"
