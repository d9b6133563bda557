"""The JSON Schema of recipes: for editors, which complete keys and show mistakes while typing."""

from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from distil.recipe.recipe import Recipe


class _PythonOnly(GenerateJsonSchema):
    """Python functions cannot stand in a file; their schema matches nothing."""

    def callable_schema(self, schema: core_schema.CallableSchema) -> JsonSchemaValue:  # noqa: ARG002
        return {"not": {}}


def recipe_schema() -> dict[str, Any]:
    """The schema of a recipe in either form."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **Recipe.model_json_schema(schema_generator=_PythonOnly),
    }
