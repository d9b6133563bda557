"""From a file and overrides to a recipe, or to one error with everything in it."""

import contextlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distil.core.errors import RecipeError
from distil.data.config import DigitsConfig, ValidationConfig
from distil.models.config import FileWeights
from distil.recipe.explain import Written
from distil.recipe.load import apply_override, load_recipe, parse_recipe, validate_recipe
from distil.recipe.recipe import LabelSmoothingControl, Recipe

from .conftest import SHORT, problem_of, problems_of


def refusal(text: str, *overrides: str) -> str:
    with pytest.raises(RecipeError) as caught:
        parse_recipe(text, overrides, name="r.yaml")
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_a_file_becomes_a_recipe(tmp_path: Path, short: str) -> None:
    path = tmp_path / "small.yaml"
    path.write_text(short, encoding="utf-8")
    recipe = load_recipe(path)
    assert recipe.name == "small"
    assert recipe.data == DigitsConfig()
    assert recipe.training is not None
    assert recipe.training.epochs == 1


def test_the_recipes_of_the_project_load(repository: Path) -> None:
    paths = sorted((repository / "recipes").glob("*.yaml"))
    assert len(paths) >= 2
    for path in paths:
        assert load_recipe(path).name == path.stem


def test_a_missing_file_names_the_one_that_was_meant(tmp_path: Path) -> None:
    for name in ("digits.yaml", "other.yaml"):
        (tmp_path / name).touch()
    with pytest.raises(RecipeError, match=r"digit\.yaml: no such recipe; did you mean .*/digits\.yaml\?$"):
        load_recipe(tmp_path / "digit.yaml")
    with pytest.raises(RecipeError, match=r"zzzz: no such recipe; there are .*/digits\.yaml, .*/other\.yaml$"):
        load_recipe(tmp_path / "zzzz")
    with pytest.raises(RecipeError, match=r"nowhere/x\.yaml: no such recipe$"):
        load_recipe(tmp_path / "nowhere" / "x.yaml")


def test_a_file_that_is_not_text_or_not_a_file(tmp_path: Path) -> None:
    (tmp_path / "binary.yaml").write_bytes(b"name: \xff\xfe")
    with pytest.raises(RecipeError, match=r"binary\.yaml: cannot be read"):
        load_recipe(tmp_path / "binary.yaml")
    with pytest.raises(RecipeError, match="cannot be read"):
        load_recipe(tmp_path)


@pytest.mark.parametrize(
    ("text", "found"),
    [("", "nothing in it"), ("# only a comment\n", "nothing in it"), ("- a\n- b\n", "[a, b]"), ("word", "'word'")],
)
def test_a_file_without_keys(text: str, found: str) -> None:
    assert refusal(text) == f"r.yaml: found {found}; expected keys such as name, data, student"


def test_an_exponent_is_a_number() -> None:
    recipe = parse_recipe(SHORT.replace("epochs: 1", "optimizer: {kind: adamw, learning_rate: 1e-3}"))
    assert recipe.training is not None
    assert recipe.training.optimizer.learning_rate == 0.001


def test_contradictions_are_found_when_loading_with_their_lines() -> None:
    text = SHORT.replace("data: digits", "data: {kind: digits, validation: none}")
    assert [(problem.where, problem.line) for problem in problems_of(text)] == [
        ("teacher.training.keep", 3),
        ("training.keep", 10),
    ]


# --set


def test_overrides_are_yaml_and_the_last_one_counts() -> None:
    recipe = parse_recipe(SHORT, ["training.epochs=3", "seeds=[4, 5]", "margin=1e-2", "training.epochs=7"])
    assert recipe.training is not None
    assert (recipe.training.epochs, recipe.seeds, recipe.margin) == (7, (4, 5), 0.01)


def test_an_override_of_a_key_that_is_not_there_makes_what_is_around_it() -> None:
    recipe = parse_recipe(SHORT, ["placement.threads=2", "student.inputs.size=16"])
    assert recipe.placement.threads == 2
    assert recipe.student is not None
    assert recipe.student.inputs.size == 16


def test_an_override_below_a_string_that_stands_for_its_kind() -> None:
    assert parse_recipe(SHORT, ["data.split_seed=1"]).data == DigitsConfig(split_seed=1)
    text = SHORT + "controls: [scratch, label-smoothing]\n"
    [_, control] = parse_recipe(text, ["controls.1.smoothing=0.3"]).controls or ()
    assert control == LabelSmoothingControl(smoothing=0.3)


def test_an_override_below_a_string_that_stands_for_a_path() -> None:
    digest = "0" * 64
    text = SHORT.replace("teacher:\n", "teacher:\n  weights: a.safetensors\n")
    recipe = parse_recipe(text, [f"teacher.weights.sha256='{digest}'"])
    assert recipe.teacher is not None
    assert recipe.teacher.weights == FileWeights(path="a.safetensors", sha256=digest)


def test_an_override_inside_a_list() -> None:
    recipe = parse_recipe(SHORT.replace("widths: [4]", "widths: [4, 5]"), ["student.model.widths.1=6"])
    assert recipe.student is not None
    assert recipe.student.model.model_dump()["widths"] == (4, 6)


def test_an_override_with_an_equals_sign_in_its_value() -> None:
    assert apply_override({}, "a.b=x=y") == ("a", "b")
    value: dict[str, object] = {}
    apply_override(value, "a.b=x=y")
    assert value == {"a": {"b": "x=y"}}


@pytest.mark.parametrize("position", ["2", "-1", "first", "\u00b2"])
def test_a_position_that_is_not_in_the_list(position: str) -> None:
    message = refusal(SHORT.replace("[4]", "[4, 5]"), f"student.model.widths.{position}=6")
    assert f"student.model.widths: is a list of 2, and {position!r} leads nowhere in it" in message
    assert "give a position from 0 to 1" in message


def test_a_position_in_an_empty_list() -> None:
    assert "give the whole list, since it is empty" in refusal(SHORT + "controls: []\n", "controls.0=scratch")


def test_an_override_through_a_value_without_keys_names_the_key_and_the_way_out() -> None:
    message = refusal(SHORT, "training.epochs.more=1")
    assert message.startswith(
        "--set training.epochs.more=1: cannot be used:\n  training.epochs: is 1, which has no keys"
    )
    message = refusal(SHORT, "name.x=1")
    assert "name: is 'small', which has no keys; give it as a whole: --set name=VALUE" in message


def test_an_override_below_the_word_none() -> None:
    text = SHORT.replace("data: digits", "data: {kind: digits, validation: none}")
    message = refusal(text, "data.validation.fraction=0.2")
    assert "data.validation: is 'none', which has no keys; give it as a whole: --set data.validation=VALUE" in message
    assert parse_recipe(text, ["data.validation={fraction: 0.2}"]).data.validation == ValidationConfig(fraction=0.2)


@pytest.mark.parametrize("override", ["training.epochs", "=5", " =5", ""])
def test_an_override_without_a_key_or_a_value(override: str) -> None:
    assert "expected KEY=VALUE, such as training.epochs=5" in refusal(SHORT, override)


def test_an_override_with_a_misspelt_key_names_it_and_what_was_meant() -> None:
    problem = problem_of(SHORT, "training.epoch=5")
    assert str(problem) == "training.epoch (--set training.epoch=5): unknown key; did you mean 'epochs'?"
    problem = problem_of(SHORT, "trainng.epochs=5")
    assert str(problem) == "trainng (--set trainng.epochs=5): unknown key; did you mean 'training'?"


def test_a_wrong_value_is_told_by_its_override_and_others_by_their_line() -> None:
    text = SHORT.replace("weight: 0.1", "weight: -1")
    assert {str(problem) for problem in problems_of(text, "training.epochs=five")} == {
        "training.epochs (--set training.epochs=five): found 'five'; expected a whole number",
        "objective.labels.weight (line 8): found -1; expected a number of 0 or more",
    }


def test_an_override_that_is_not_yaml_or_holds_a_tag() -> None:
    assert refusal(SHORT, "seeds=[1, 2").startswith("--set seeds=[1, 2: line 1: not a YAML that can be used:")
    assert "the tag tag:yaml.org,2002:python/name:os.system is not allowed" in refusal(
        SHORT, "name=!!python/name:os.system x"
    )


def test_the_given_value_is_not_changed_by_overrides() -> None:
    parse_recipe(SHORT, ["training.epochs=5"])
    recipe = parse_recipe(SHORT)
    assert recipe.training is not None
    assert recipe.training.epochs == 1


def test_a_recipe_from_a_mapping() -> None:
    with pytest.raises(RecipeError, match="data: missing; it must be given"):
        validate_recipe(Written({"name": "a"}))
    with pytest.raises(RecipeError, match="expected a mapping with the keys"):
        validate_recipe(Written([1]))


@given(st.text())
@settings(max_examples=200, deadline=None)
def test_any_text_is_a_recipe_or_a_recipe_error(text: str) -> None:
    with pytest.raises(RecipeError):
        parse_recipe(text)


@given(st.text(max_size=8), st.text(alphabet="[]{}:, -=.'\"&*!abn1e\u00b2", max_size=12))
@settings(max_examples=300, deadline=None)
def test_any_override_gives_a_recipe_or_a_recipe_error(key: str, value: str) -> None:
    for override in (f"{key}={value}", f"data.{key}={value}", f"student.model.{key}={value}", f"seeds={value}", key):
        with contextlib.suppress(RecipeError):
            assert isinstance(parse_recipe(SHORT, [override]), Recipe)


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_a_recipe_with_a_line_cut_or_doubled_is_a_recipe_or_a_recipe_error(data: st.DataObject) -> None:
    lines = SHORT.splitlines()
    position = data.draw(st.integers(0, len(lines) - 1))
    cut = data.draw(st.integers(0, len(lines[position])))
    end = [lines[position]] if data.draw(st.booleans()) else []
    changed = [*lines[:position], lines[position][:cut], *end, *lines[position + 1 :]]
    with contextlib.suppress(RecipeError):
        assert isinstance(parse_recipe("\n".join(changed)), Recipe)
