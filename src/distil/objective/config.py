"""The terms an objective can have. The union is the catalogue: a term that is not in it is a user's own."""

from collections.abc import Callable
from typing import Annotated, Any, get_args

from pydantic import BeforeValidator, Field, GetPydanticSchema, PlainSerializer, WrapValidator
from pydantic_core import PydanticCustomError

from distil.core.config import expand_kind
from distil.objective.attention_config import AttentionTerm
from distil.objective.contrast_config import ContrastTerm
from distil.objective.embedding_config import EmbeddingTerm
from distil.objective.feature_config import FeatureTerm
from distil.objective.feature_learned_config import FeatureLearnedTerm
from distil.objective.label_config import LabelTerm
from distil.objective.own_config import PYTHON, OwnTerm, PluginConfig, load_plugin
from distil.objective.relation_config import RelationTerm
from distil.objective.response_config import ResponseTerm
from distil.objective.response_config import SoftTargets as SoftTargets
from distil.objective.response_config import TeacherLabels as TeacherLabels
from distil.objective.response_config import TrueLabels as TrueLabels
from distil.objective.term_config import TermConfig

BuiltinTerm = (
    LabelTerm
    | ResponseTerm
    | FeatureTerm
    | FeatureLearnedTerm
    | AttentionTerm
    | RelationTerm
    | ContrastTerm
    | EmbeddingTerm
)


def _expand_term(value: Any) -> Any:
    value = expand_kind(value)
    if isinstance(value, dict) and value.get("kind") == "hard-labels":
        raise PydanticCustomError(
            "ambiguous_term",
            "'hard-labels' means two things in the literature: write true-labels for the labels of the data, "
            "or teacher-labels for the classes that the teacher decides for",
        )
    return value


def _own_or_builtin(value: Any, handler: Callable[[Any], Any]) -> Any:
    if isinstance(value, OwnTerm):
        return value
    kind = value.get("kind") if isinstance(value, dict) else value
    if kind == "plugin":
        return load_plugin(expand_kind(value))
    if isinstance(kind, str) and kind.startswith(PYTHON):
        raise PydanticCustomError(
            "own_term", "a term of your own is an object from Python; a recipe file names it as a plugin, never as code"
        )
    return handler(value)


def _dump_term(term: TermConfig, info: Any) -> dict[str, Any]:
    return term.model_dump(mode=info.mode)


_Builtin = Annotated[BuiltinTerm, Field(discriminator="kind")]
_Written = Annotated[_Builtin, BeforeValidator(_expand_term)] | PluginConfig
Term = Annotated[
    BuiltinTerm | OwnTerm,
    GetPydanticSchema(lambda _, handler: handler.generate_schema(_Builtin)),  # an own term never gets so far
    BeforeValidator(_expand_term),
    WrapValidator(_own_or_builtin, json_schema_input_type=_Written),
    PlainSerializer(_dump_term, when_used="always"),
]


def catalogue() -> dict[str, type[TermConfig]]:
    """Every term there is, by its kind."""
    return {member.model_fields["kind"].default: member for member in get_args(BuiltinTerm)}
