"""The JSON Schema: structure that editors need, and agreement with the recipes of the project."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from distil.recipe.load import load_recipe, parse_recipe
from distil.recipe.recipe import Recipe
from distil.recipe.resolve import resolve
from distil.recipe.schema import recipe_schema
from distil.recipe.yaml_file import parse_yaml

from .conftest import SHORT

SCHEMA = recipe_schema()


def complaints(value: Any, schema: Any, where: str = "") -> list[str]:
    """What the parts of JSON Schema that pydantic writes say about a value; a part that is not known is an error."""
    if isinstance(schema, bool):
        return [] if schema else [f"{where}: nothing may stand here"]
    known = {"title", "description", "default", "$defs", "$schema", "discriminator", "uniqueItems"}
    found: list[str] = []
    for word, rule in schema.items():
        if word not in known:
            found += _RULES[word](value, rule, schema, where)
    return found


def _reference(value: Any, rule: str, schema: Any, where: str) -> list[str]:
    return complaints(value, SCHEMA["$defs"][rule.removeprefix("#/$defs/")], where)


def _any_of(value: Any, rule: list[Any], schema: Any, where: str) -> list[str]:
    each = [complaints(value, inner, where) for inner in rule]
    return [] if any(not found for found in each) else [f"{where}: none of {len(rule)}", *min(each, key=len)]


def _one_of(value: Any, rule: list[Any], schema: Any, where: str) -> list[str]:
    fitting = sum(not complaints(value, inner, where) for inner in rule)
    return [] if fitting == 1 else [f"{where}: {fitting} of {len(rule)} fit"]


def _type(value: Any, rule: str, schema: Any, where: str) -> list[str]:
    types: dict[str, Any] = {"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None)}
    if rule in types:
        fits = isinstance(value, types[rule])
    else:
        fits = isinstance(value, int if rule == "integer" else (int, float)) and not isinstance(value, bool)
    return [] if fits else [f"{where}: {value!r} is not {rule}"]


def _properties(value: Any, rule: dict[str, Any], schema: Any, where: str) -> list[str]:
    if not isinstance(value, dict):
        return []
    return [c for key in value.keys() & rule.keys() for c in complaints(value[key], rule[key], f"{where}.{key}")]


def _additional(value: Any, rule: Any, schema: Any, where: str) -> list[str]:
    extra = value.keys() - schema.get("properties", {}).keys() if isinstance(value, dict) else []
    return [complaint for key in extra for complaint in complaints(value[key], rule, f"{where}.{key}")]


def _pattern_properties(value: Any, rule: dict[str, Any], schema: Any, where: str) -> list[str]:
    """Names of teachers and arms: a name that fits no pattern is refused here, as loading does."""
    [(pattern, inner)] = rule.items()
    found: list[str] = []
    for key in value if isinstance(value, dict) else ():
        found += complaints(value[key], inner, f"{where}.{key}") if re.search(pattern, key) else [f"{where}: {key}"]
    return found


def _items(value: Any, rule: Any, schema: Any, where: str) -> list[str]:
    first = len(schema.get("prefixItems", ()))
    return [c for n, item in enumerate(value[first:]) for c in complaints(item, rule, f"{where}.{first + n}")]


def _holds(fits: Any) -> Any:
    return lambda value, rule, schema, where: [] if fits(value, rule) else [f"{where}: {value!r} against {rule!r}"]


_NUMBER = (int, float)
_RULES: dict[str, Any] = {
    "$ref": _reference,
    "anyOf": _any_of,
    "oneOf": _one_of,
    "not": lambda value, rule, schema, where: [] if complaints(value, rule) else [f"{where}: not allowed"],
    "type": _type,
    "properties": _properties,
    "additionalProperties": _additional,
    "patternProperties": _pattern_properties,
    "propertyNames": lambda value, rule, schema, where: [c for key in value for c in complaints(key, rule, where)],
    "items": lambda value, rule, schema, where: _items(value, rule, schema, where) if isinstance(value, list) else [],
    "prefixItems": lambda value, rule, schema, where: (
        [c for item, inner in zip(value, rule, strict=False) for c in complaints(item, inner, where)]
        if isinstance(value, list)
        else []
    ),
    "required": _holds(lambda value, rule: not isinstance(value, dict) or set(rule) <= value.keys()),
    "const": _holds(lambda value, rule: value == rule),
    "enum": _holds(lambda value, rule: value in rule),
    "pattern": _holds(lambda value, rule: not isinstance(value, str) or re.search(rule, value)),
    "minimum": _holds(lambda value, rule: not isinstance(value, _NUMBER) or value >= rule),
    "exclusiveMinimum": _holds(lambda value, rule: not isinstance(value, _NUMBER) or value > rule),
    "maximum": _holds(lambda value, rule: not isinstance(value, _NUMBER) or value <= rule),
    "exclusiveMaximum": _holds(lambda value, rule: not isinstance(value, _NUMBER) or value < rule),
    "minItems": _holds(lambda value, rule: not isinstance(value, list) or len(value) >= rule),
    "maxItems": _holds(lambda value, rule: not isinstance(value, list) or len(value) <= rule),
    "minProperties": _holds(lambda value, rule: not isinstance(value, dict) or len(value) >= rule),
    "maxProperties": _holds(lambda value, rule: not isinstance(value, dict) or len(value) <= rule),
}


def test_it_is_json_and_names_its_dialect() -> None:
    assert json.loads(json.dumps(SCHEMA, allow_nan=False)) == SCHEMA
    assert SCHEMA["$schema"] == "https://json-schema.org/draft/2020-12/schema"


def test_every_key_of_a_recipe_is_in_it_and_no_other_is_allowed() -> None:
    assert set(SCHEMA["properties"]) == set(Recipe.model_fields)
    assert SCHEMA["additionalProperties"] is False
    assert set(SCHEMA["required"]) == {"name", "data"}


def test_every_reference_leads_somewhere() -> None:
    references = set(re.findall(r'"#/\$defs/([^"]+)"', json.dumps(SCHEMA)))
    assert references
    assert references <= SCHEMA["$defs"].keys()


def test_it_accepts_the_recipes_of_the_project(repository: Path) -> None:
    for path in sorted((repository / "recipes").glob("*.yaml")):
        value = parse_yaml(path.read_text(encoding="utf-8"), name=str(path)).value
        assert complaints(value, SCHEMA) == [], path


def test_it_accepts_resolved_recipes(repository: Path) -> None:
    for path in sorted((repository / "recipes").glob("*.yaml")):
        assert complaints(resolve(load_recipe(path)).model_dump(mode="json"), SCHEMA) == [], path


@pytest.mark.parametrize(
    "change",
    [
        {"more": 1},
        {"seeds": []},
        {"name": "a b"},
        {"margin": -1},
        {"training": {"epochs": "five"}},
        {"teacher": {"model": {"kind": "mlp"}}},
        {"teacher": {"model": {"kind": "module", "make": "os.system"}}},
        {"objective": {"x": {"kind": "soft-targets", "temprature": 1}}},
        {"data": {"kind": "arrays"}},
    ],
)
def test_it_refuses_what_loading_refuses(change: dict[str, Any]) -> None:
    assert complaints(yaml.safe_load(SHORT) | change, SCHEMA)


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("data", "digits"),
        ("training", {"schedule": "one-cycle", "optimizer": "sgd", "until": "epochs", "augmentation": ["flip"]}),
        ("controls", ["scratch", {"kind": "label-smoothing"}, "permuted-knowledge"]),
        ("objective", {"a": "true-labels", "b": "soft-targets"}),
        ("seeds", 5),
        ("task", "image-classification"),
    ],
)
def test_it_accepts_the_short_forms_that_loading_accepts(override: str, value: Any) -> None:
    parse_recipe(SHORT, [f"{override}={json.dumps(value)}"])
    assert complaints(yaml.safe_load(SHORT) | {override: value}, SCHEMA) == []
