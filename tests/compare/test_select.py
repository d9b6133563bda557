"""Correctness, line 32: a selection never sees the test split. And what it leaves behind, resumes and suggests."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import distil.compare.select as select_module
from distil.cli.main import main
from distil.compare.select import SelectionResult, select, selection_recipe
from distil.core.errors import NumericError, RecipeError
from distil.core.files import read_json
from distil.data.example import Sealed
from distil.evaluate.verdict import compare
from distil.pipeline.run import run
from distil.recipe.load import load_recipe
from distil.recipe.resolve import resolve
from tests.check.text_fixture import recipe_of
from tests.compare import selection_fixture
from tests.compare.selection_fixture import METHODS, SMALL, few_steps, small

selected = selection_fixture.selected

ABLATED = ("without-true-labels", "without-soft-targets", "without-hints")


def test_32_the_test_split_is_never_opened(
    selected: SelectionResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("open_for_final_evaluation", "open_for_parity", "count_shared"):
        monkeypatch.setattr(Sealed, name, lambda *_, **__: pytest.fail("the test split was opened"))
    recipe = small(*QUICK, "objective={soft: {kind: soft-targets}}")
    result = select(recipe, tmp_path / "run", methods=["correlation"], seeds=1)
    assert result.record["removals"] == []
    assert result.record["not_left_out"] == {"without-soft": "nothing that trains the answers would be left"}
    assert not list(selected.directory.rglob("predictions.parquet"))
    assert not list(selected.directory.rglob("evaluation.json"))


def test_arms_are_trained_alike_with_the_seeds_asked_for(selected: SelectionResult) -> None:
    record = selected.record
    assert record["seeds"] == [0, 1]
    assert set(record["arms"]) == {"scratch", "distilled", *ABLATED}
    assert all(len(arm["values"]) == 2 for arm in record["arms"].values())
    assert record["validation_examples"] == 180
    assert record["split"] == "validation"
    stored = load_recipe(selected.directory / "suggested.yaml")
    assert resolve(stored).seeds == (0, 1, 2)  # the recipe's own
    assert not (selected.directory / "exports").exists()


def test_accuracies_are_those_that_training_kept(selected: SelectionResult) -> None:
    for name, arm in selected.record["arms"].items():
        for seed, value in enumerate(arm["values"]):
            kept = read_json(selected.directory / f"arms/{name}/seed-{seed}/training.json")
            assert value == pytest.approx(kept["validation"]["accuracy"])


def test_the_differences_are_full_minus_without(selected: SelectionResult) -> None:
    arms = selected.record["arms"]
    assert [each["arm"] for each in selected.record["removals"]] == list(ABLATED)
    for each in selected.record["removals"]:
        assert each["difference"] == pytest.approx(arms["distilled"]["mean"] - arms[each["arm"]]["mean"])
        assert each["interval"][0] <= each["difference"] <= each["interval"][1]
    standing = selected.record["standing"]
    assert standing["best_control"] == "scratch"
    assert standing["difference"] == pytest.approx(arms["distilled"]["mean"] - arms["scratch"]["mean"])


def test_scores_go_into_the_comparison_by_example(selected: SelectionResult, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, np.ndarray] = {}
    removals = select_module.removals

    def watch(parts: Any, scores: Any, full: np.ndarray, **rest: Any) -> Any:
        seen.update(scores, full=full)
        return removals(parts, scores, full, **rest)

    monkeypatch.setattr(select_module, "removals", watch)
    again = select(small(), selected.directory, methods=METHODS, seeds=2)
    assert seen["full"].shape == (2, 180)
    expected = compare(seen["full"], seen["without-hints"])
    assert again.record["removals"][2]["difference"] == pytest.approx(expected.difference)
    assert again.record == selected.record  # and nothing has changed


def test_again_it_trains_and_observes_nothing(selected: SelectionResult, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distil.pipeline.training.train", lambda *_, **__: pytest.fail("trained again"))
    for name in ("measure_similarity", "measure_agreement"):
        monkeypatch.setattr(f"distil.compare.observation.{name}", lambda *_, **__: pytest.fail("observed again"))
    before = selected.page.read_bytes(), selected.suggested.read_bytes()
    select(small(), selected.directory, methods=METHODS, seeds=2)
    assert (selected.page.read_bytes(), selected.suggested.read_bytes()) == before


def test_the_suggested_recipe_loads_and_runs(selected: SelectionResult, tmp_path: Path) -> None:
    text = selected.suggested.read_text()
    applied = [each["sentence"] for each in selected.record["suggestions"] if each["applied"]]
    assert text.startswith("".join(f"# {sentence}\n" for sentence in applied))
    assert selected.record["can_be_loaded"] is True
    recipe = load_recipe(selected.suggested, ["seeds=[0]", "export=[]", "teachers.teacher.stages.0.training.epochs=1"])
    assert recipe.name == "small-suggested"
    assert run(recipe, tmp_path / "run").verdict["verdict"] in ("BEATS", "WORSE", "EQUIVALENT", "INCONCLUSIVE")


QUICK = (
    "objective={true-labels: {kind: true-labels}, soft: {kind: soft-targets}}",
    "training.epochs=1",
    "teacher.training.epochs=1",
)


def test_an_arm_without_a_term_may_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train = select_module.train_student

    def failing(context: Any, name: str, arm: Any, **rest: Any) -> Any:
        if name == "without-soft":
            raise NumericError("the loss is nan")
        return train(context, name, arm, **rest)

    monkeypatch.setattr(select_module, "train_student", failing)
    monkeypatch.setattr(select_module, "agreements", lambda *_: ((), {}))
    record = select(small(*QUICK), tmp_path / "run", seeds=1).record
    assert record["not_left_out"] == {"without-soft": "the loss is nan"}
    assert [each["arm"] for each in record["removals"]] == ["without-true-labels"]
    assert record["removals"][0]["seed_interval"] is None


def test_an_arm_of_the_recipe_may_not_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: Any, **__: Any) -> Any:
        raise NumericError("the loss is nan")

    monkeypatch.setattr(select_module, "train_student", failing)
    with pytest.raises(NumericError):
        select(small(*QUICK), tmp_path / "run", seeds=1)


def test_tuned_settings_are_those_of_every_arm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    def watch(context: Any, faculty: Any, parts: Any) -> Any:
        seen.update(context.recipe.arms)
        raise NumericError("enough")

    monkeypatch.setattr(select_module, "_train_all", watch)
    tune = "tune={trials: 2, prune: false, arms: {distilled: {soft.weight: {values: [0.5, 0.25]}}}}"
    with pytest.raises(NumericError, match="enough"):
        select(small(*QUICK, tune), tmp_path / "run", seeds=1)
    weight = seen["distilled"].terms["soft"].weight
    assert weight in (0.5, 0.25)
    assert seen["without-true-labels"].terms["soft"].weight == weight


@pytest.mark.parametrize("kind", ["causal-lm", "sentence-embedding", "multi-label", "token-classification"])
def test_a_task_without_one_class_an_example_is_refused_with_what_there_is(kind: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=f"one class an example, and the task is {kind}.*`distil compare`"):
        selection_recipe(recipe_of(kind, tmp_path))


def test_texts_with_a_student_that_is_cut_from_its_teacher(tmp_path: Path) -> None:
    recipe = recipe_of("text-classification", tmp_path / "data")
    with few_steps():
        result = select(recipe, tmp_path / "run", methods=["hints", "attention-maps"], seeds=1)
    assert set(result.record["arms"]) == {"scratch", "distilled", "without-labels", "without-soft"}
    (similarity,) = result.record["similarities"].values()
    assert len(similarity["student"]) == 1
    assert len(similarity["teacher"]) == 2
    assert all(-1 <= value <= 1 for row in similarity["values"] for value in row)
    assert {each["name"] for each in result.record["agreements"]} >= {"labels", "soft", "hints"}
    assert resolve(load_recipe(result.suggested)).arms["distilled"].student.from_teacher is not None
    assert result.record["validation_examples"] == 10


def test_without_validation_it_is_refused_with_what_to_do() -> None:
    none = ("data.validation=none", "training.keep=last", "teacher.training.keep=last")
    with pytest.raises(RecipeError, match=r"never at the test split.*--set 'data\.validation=\{fraction: 0\.1\}'"):
        select(small(*none), "never-made")
    assert not Path("never-made").exists()


def test_without_a_distilled_arm_it_is_refused() -> None:
    resolved = resolve(small())
    controls = small().model_copy(
        update={
            **dict.fromkeys(("student", "objective", "training", "controls", "teacher")),
            "arms": {"scratch": resolved.arms["scratch"]},
            "teachers": dict(resolved.teachers),
        }
    )
    with pytest.raises(RecipeError, match="it has controls only"):
        selection_recipe(controls)


def test_an_unknown_method_is_refused_with_the_one_that_was_meant() -> None:
    with pytest.raises(RecipeError, match=r"info-nec: no method of this name for classes; did you mean 'info-nce'\?"):
        select(small(), "never-made", methods=["info-nec"])


def test_a_recipe_without_controls_gets_one_to_start_from() -> None:
    recipe = selection_recipe(small("controls=[]"), seeds=1)
    assert list(recipe.controls) == ["scratch"]
    arm = recipe.arms["scratch"]
    assert arm.student == recipe.arms["distilled"].student
    assert [term.knowledge for term in arm.terms.values()] == ["labels"]
    assert arm.stages[-1].training == recipe.arms["distilled"].stages[-1].training
    assert recipe.distilled == "distilled"


def test_a_control_with_the_teachers_knowledge_is_no_start() -> None:
    recipe = selection_recipe(small("controls=[permuted-knowledge]", "objective={soft: {kind: soft-targets}}"))
    assert list(recipe.controls) == ["scratch", "permuted-knowledge"]


def test_a_recipe_from_python_is_for_reading() -> None:
    assert select_module._can_be_loaded("name: a\nmodel: python:0123\n") is False


def test_the_command_prints_figures_and_suggestions_and_where_they_are(
    selected: SelectionResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "small.yaml"
    file.write_text(SMALL, encoding="utf-8")
    arguments = [str(file), "--seeds", "2", "--methods", ",".join(METHODS), "--run-dir", str(selected.directory)]

    def printed(*more: str) -> str:
        monkeypatch.setattr(sys, "argv", ["distil", "select", *arguments, *more])
        with pytest.raises(SystemExit) as caught:
            main()
        assert not caught.value.code
        return capsys.readouterr().out

    out = printed()
    for each in selected.record["removals"]:
        assert re.search(rf"^{each['terms'][0]} .*{each['difference']:+.4f} .*{each['word']}$", out, re.MULTILINE)
    for each in selected.record["agreements"]:
        assert f"{each['trained']['cosine']:+.3f}" in out
    for each in selected.record["suggestions"]:
        assert each["sentence"] in out
    assert f"Suggested recipe: {selected.suggested}" in out
    assert json.loads(printed("--json")) == selected.record
