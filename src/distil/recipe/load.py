"""From a file and overrides to a validated recipe, or to one error that lists everything wrong with it."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from distil.core.errors import Problem, RecipeError
from distil.recipe.explain import explain
from distil.recipe.recipe import Recipe
from distil.recipe.yaml_file import parse_value, parse_yaml


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe of a file, with ``KEY=VALUE`` overrides.

    Raises:
        RecipeError: the file or an override cannot be used.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        near = ", ".join(sorted(str(other) for other in path.parent.glob("*.yaml"))[:5]) if path.parent.is_dir() else ""
        raise RecipeError(f"{path}: no such recipe" + (f"; there are {near}" if near else "")) from error
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: cannot be read: {error}") from error
    return parse_recipe(text, overrides, name=str(path))


def parse_recipe(text: str, overrides: Sequence[str] = (), *, name: str = "recipe") -> Recipe:
    """The recipe of a YAML text; see ``load_recipe``."""
    document = parse_yaml(text, name=name)
    if not isinstance(document.value, dict):
        raise RecipeError(f"{name}: found {type(document.value).__name__}; expected keys such as name, data, student")
    value = copy.deepcopy(document.value)
    lines = dict(document.lines)
    for override in overrides:
        key = apply_override(value, override)
        lines = {path: line for path, line in lines.items() if path[: len(key)] != key}
    try:
        return Recipe.model_validate(value)
    except ValidationError as error:
        raise RecipeError(f"{name}: the recipe cannot be used:", explain(error, Recipe, value, lines)) from error


def apply_override(value: dict[str, Any], override: str) -> tuple[str | int, ...]:
    """Sets ``KEY=VALUE`` in a recipe's value and returns the path that was set. VALUE is YAML; KEY is dotted.

    Raises:
        RecipeError: it has no ``=``, or the key leads through something that has no keys.
    """
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise RecipeError(f"--set {override}: expected KEY=VALUE, such as training.epochs=5")
    steps = key.strip().split(".")
    here: Any = value
    path: list[str | int] = []
    for position, step in enumerate(steps):
        last = position == len(steps) - 1
        where: str | int = step
        if isinstance(here, list):
            if not step.isdigit() or int(step) >= len(here):
                raise _no_way(override, path, f"is a list of {len(here)}; expected a position 0 to {len(here) - 1}")
            where = int(step)
        elif not isinstance(here, dict):
            raise _no_way(override, path, f"is {here!r}, which has no keys")
        path.append(where)
        if last:
            here[where] = parse_value(text, name=f"--set {key}")
            break
        inner = here[where] if isinstance(here, list) else here.get(where)
        if inner is None:
            inner = {}
        elif isinstance(inner, str):
            inner = {"kind": inner}  # a string stands for its kind
        here[where] = inner
        here = inner
    return tuple(path)


def _no_way(override: str, path: Sequence[str | int], why: str) -> RecipeError:
    return RecipeError(f"--set {override}:", [Problem(".".join(map(str, path)), why)])
