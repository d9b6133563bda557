"""From a file and overrides to a validated recipe, or to one error that lists everything wrong with it."""

import copy
import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from distil.core.errors import Problem, RecipeError
from distil.recipe import place
from distil.recipe.explain import Written, explain, in_order, shorten, shown
from distil.recipe.recipe import Recipe
from distil.recipe.resolve import contradictions
from distil.recipe.yaml_file import parse_value, parse_yaml


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe of a file, with ``KEY=VALUE`` overrides.

    Raises:
        RecipeError: the file or an override cannot be used, or the recipe contradicts itself.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise RecipeError(f"{path}: no such recipe{_other_recipes(path)}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: cannot be read: {error}") from error
    return parse_recipe(text, overrides, name=str(path))


def parse_recipe(text: str, overrides: Sequence[str] = (), *, name: str = "recipe") -> Recipe:
    """The recipe of a YAML text; see ``load_recipe``."""
    document = parse_yaml(text, name=name)
    if not isinstance(document.value, dict):
        found = "nothing in it" if document.value is None else shown(document.value)
        raise RecipeError(f"{name}: found {found}; expected keys such as name, data, student")
    value = copy.deepcopy(document.value)
    changed: dict[place.Path, str] = {}
    for override in overrides:
        key = apply_override(value, override)
        changed.pop(key, None)  # the last one counts
        changed[key] = override
    lines = {path: line for path, line in document.lines.items() if not any(_under(path, key) for key in changed)}
    return validate_recipe(Written(value, lines, changed), name=name)


def validate_recipe(written: Written, *, name: str = "recipe") -> Recipe:
    """The recipe of a value, with every problem in words.

    Raises:
        RecipeError: the value is not a recipe, or one that contradicts itself.
    """
    try:
        recipe = Recipe.model_validate(written.value)
    except ValidationError as error:
        problems = explain(error, Recipe, written)
    else:
        problems = in_order(written.problem(path, what) for path, what in contradictions(recipe))
        if not problems:
            return recipe
    raise RecipeError(f"{name}: the recipe cannot be used:", problems)


def apply_override(value: dict[str, Any], override: str) -> place.Path:
    """Sets ``KEY=VALUE`` in a recipe's value and returns the path that was set. VALUE is YAML; KEY is dotted.

    Raises:
        RecipeError: it has no ``=``, or the key leads through something that has no keys.
    """
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise RecipeError(f"--set {shorten(override)}: expected KEY=VALUE, such as training.epochs=5")
    *around, last = key.strip().split(".")
    here: Any = value
    there: place.Place | None = place.Place((Recipe,))
    path: list[str | int] = []
    for step in around:
        where = _step(here, step, path, override)
        there = there.inner(where) if there is not None else None
        path.append(where)
        inner = _container(here, where, there, path, override)
        here[where], here = inner, inner
    where = _step(here, last, path, override)
    here[where] = parse_value(text, name=f"--set {shorten(override)}")
    return (*path, where)


def _step(here: Any, step: str, path: Sequence[str | int], override: str) -> Any:
    """A key of a mapping or a position of a list."""
    if isinstance(here, Mapping):
        return step
    if step.isdecimal() and int(step) < len(here):
        return int(step)
    positions = f"a position from 0 to {len(here) - 1}" if here else "the whole list, since it is empty"
    raise _no_way(override, path, f"is a list of {len(here)}, and {step!r} leads nowhere in it; give {positions}")


def _container(
    here: Any, where: Any, there: place.Place | None, path: Sequence[str | int], override: str
) -> dict[str, Any] | list[Any]:
    """What stands at a key: made where it is missing, and a string in its long form."""
    inner = here.get(where) if isinstance(here, Mapping) else here[where]
    if isinstance(inner, str) and there is not None:
        inner = there.expand(inner)
    if inner is None:
        return {}
    if not isinstance(inner, (dict, list)):
        whole = f"--set {'.'.join(map(str, path))}=VALUE"
        raise _no_way(override, path, f"is {shown(inner)}, which has no keys; give it as a whole: {whole}")
    return inner


def _no_way(override: str, path: Sequence[str | int], why: str) -> RecipeError:
    return RecipeError(f"--set {shorten(override)}: cannot be used:", [Problem(".".join(map(str, path)), why)])


def _under(path: place.Path, key: place.Path) -> bool:
    return path[: len(key)] == key


def _other_recipes(path: Path) -> str:
    """The end of a sentence about a file that is missing: what may have been meant."""
    others = sorted(path.parent.glob("*.yaml")) if path.parent.is_dir() else []
    near = difflib.get_close_matches(path.name, [other.name for other in others], n=1, cutoff=0.6)
    if near:
        return f"; did you mean {path.with_name(near[0])}?"
    return f"; there are {', '.join(map(str, others[:5]))}" if others else ""
