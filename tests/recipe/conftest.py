"""A small recipe to change in one place."""

import pytest

from distil.core.errors import Problem, RecipeError
from distil.recipe.load import parse_recipe

SHORT = """\
name: small
data: digits
teacher:
  model: {kind: mlp, widths: [8]}
student:
  model: {kind: mlp, widths: [4]}
objective:
  labels: {kind: true-labels, weight: 0.1}
  soft: {kind: soft-targets, weight: 0.9}
training: {epochs: 1}
"""


@pytest.fixture
def short() -> str:
    return SHORT


def problems_of(text: str, *overrides: str) -> list[Problem]:
    """What is wrong with a recipe."""
    with pytest.raises(RecipeError) as caught:
        parse_recipe(text, overrides)
    assert caught.value.problems, str(caught.value)
    return list(caught.value.problems)


def problem_of(text: str, *overrides: str) -> Problem:
    """The one thing that is wrong with a recipe."""
    [problem] = problems_of(text, *overrides)
    return problem
