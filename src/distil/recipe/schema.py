"""The JSON Schema of recipes: for editors, which complete keys and show mistakes while typing."""

from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from distil.recipe.recipe import MOST_SEEDS, Recipe

ANY_WORD = "any-word"


class _RecipeSchema(GenerateJsonSchema):
    """Python functions cannot stand in a file, and short forms can."""

    def callable_schema(self, schema: core_schema.CallableSchema) -> JsonSchemaValue:  # noqa: ARG002
        return {"not": {}}

    def function_before_schema(self, schema: core_schema.BeforeValidatorFunctionSchema) -> JsonSchemaValue:
        long = super().function_before_schema(schema)
        short = _short_form(schema["function"], long)
        return {"anyOf": [long, short]} if short else long


def recipe_schema() -> dict[str, Any]:
    """The schema of a recipe in either form, short forms of its parts included."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **Recipe.model_json_schema(schema_generator=_RecipeSchema),
    }


def _short_form(function: core_schema.ValidationFunction, long: JsonSchemaValue) -> JsonSchemaValue | None:
    """The schema of what a function expands, found by asking it: a word, or the number of seeds."""
    if function["type"] != "no-info":
        return None
    try:
        from_word, from_number = function["function"](ANY_WORD), function["function"](1)
    except ValueError:  # it expands nothing, it refuses
        return None
    if from_number == [0]:
        return {"type": "integer", "minimum": 1, "maximum": MOST_SEEDS}
    if from_word == {"kind": ANY_WORD}:
        kinds = sorted(long.get("discriminator", {}).get("mapping", ()))
        return {"type": "string", "enum": kinds} if kinds else {"type": "string"}
    return {"type": "string"} if isinstance(from_word, dict) else None
