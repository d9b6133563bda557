import inspect

import pytest

from distil.core import errors
from distil.core.errors import DistilError, MissingExtraError, Preempted, Problem, RecipeError

EXIT_CODES = {
    "DistilError": 1,
    "RecipeError": 2,
    "MissingExtraError": 2,
    "DataError": 3,
    "ModelError": 3,
    "CompatibilityError": 3,
    "IntegrityError": 3,
    "ExportError": 3,
    "NumericError": 4,
    "ResourceError": 5,
    "Preempted": 75,
}


@pytest.mark.parametrize(("name", "code"), EXIT_CODES.items())
def test_every_error_has_the_exit_code_of_the_architecture(name: str, code: int) -> None:
    assert getattr(errors, name).exit_code == code


def test_the_tree_in_the_docstring_is_the_tree_in_the_code() -> None:
    classes = {name for name, value in inspect.getmembers(errors, inspect.isclass) if hasattr(value, "exit_code")}
    assert classes == set(EXIT_CODES)
    words = [line.split() for line in (errors.__doc__ or "").splitlines()]
    drawn = {line[0]: int(line[1]) for line in words if len(line) > 1 and line[0] in classes}
    assert drawn == EXIT_CODES


def test_a_recipe_error_lists_every_problem_with_key_and_line() -> None:
    problems = [Problem("objective.soft-targets.temperature", "is -1", line=7), Problem("", "a key is twice", line=9)]
    error = RecipeError("recipe.yaml has 2 problems:", problems)
    assert str(error).splitlines() == [
        "recipe.yaml has 2 problems:",
        "  objective.soft-targets.temperature (line 7): is -1",
        "  a key is twice (line 9)",
    ]
    assert error.problems == tuple(problems)


def test_a_problem_without_a_line_came_from_python() -> None:
    assert str(Problem("seeds", "is empty")) == "seeds: is empty"


def test_a_missing_extra_gives_the_pip_line() -> None:
    error = MissingExtraError("timm", extra="vision", purpose="the model resnet18")
    assert "pip install 'distil[vision]'" in str(error)
    assert "'timm'" in str(error)


def test_a_preemption_passes_through_code_that_catches_exceptions() -> None:
    assert not issubclass(Preempted, Exception)
    assert not issubclass(Preempted, DistilError)
