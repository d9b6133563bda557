"""Validation errors in words: the key as it is written, its line, what was found, what was expected, what was meant."""

import difflib
import types
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from distil.core.errors import Problem

Path = tuple[str | int, ...]


def explain(error: ValidationError, model: type[BaseModel], value: Any, lines: Mapping[Path, int]) -> list[Problem]:
    """Every problem of a failed validation, in the order of the file.

    Args:
        error: from pydantic.
        model: that was validated.
        value: what was validated, as it was written.
        lines: the line of each key, by its path.
    """
    problems = [_problem(details, model, value, lines) for details in error.errors(include_url=False)]
    return sorted(dict.fromkeys(problems), key=lambda problem: problem.line or 0)


def _problem(details: ErrorDetails, model: type[BaseModel], value: Any, lines: Mapping[Path, int]) -> Problem:
    path = written_path(details["loc"], value)
    return Problem(".".join(map(str, path)), _sentence(details, model, path), line=_line(path, lines))


def written_path(location: Sequence[str | int], value: Any) -> Path:
    """The path of a problem as the user wrote it: pydantic also lists the kinds of the unions it went through."""
    path: list[str | int] = []
    for position, step in enumerate(location):
        last = position == len(location) - 1
        if isinstance(value, Mapping) and step in value:
            path.append(step)
            value = value[step]
        elif isinstance(value, (list, tuple)) and isinstance(step, int) and step < len(value):
            path.append(step)
            value = value[step]
        elif last and isinstance(value, Mapping) and value.get("kind") != step:
            path.append(step)  # a missing key
    return tuple(path)


def _sentence(details: ErrorDetails, model: type[BaseModel], path: Path) -> str:
    found, context = details["input"], details.get("ctx", {})
    match details["type"]:
        case "extra_forbidden":
            return f"unknown key{_did_you_mean(str(path[-1]), sorted(_keys_beside(model, details['loc'])))}"
        case "missing":
            return "missing; it must be given"
        case "union_tag_invalid":
            kinds = [kind.strip().strip("'") for kind in context["expected_tags"].split(",")]
            return f"there is no kind {context['tag']!r}{_did_you_mean(context['tag'], kinds)}"
        case "union_tag_not_found":
            return f"found {_shown(found)}; expected a kind, or a mapping with the key kind"
        case "value_error":
            return str(context["error"])
        case "literal_error":
            return f"found {_shown(found)}; expected {context['expected']}"
        case "ambiguous_term":
            return details["msg"]
        case _:
            message = details["msg"]
            return f"found {_shown(found)}; {message[:1].lower()}{message[1:]}"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _did_you_mean(word: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; known are {', '.join(known)}" if known else ""


def _line(path: Path, lines: Mapping[Path, int]) -> int | None:
    """The line of the key, or of the nearest one around it that was written."""
    for length in range(len(path), -1, -1):
        if path[:length] in lines:
            return lines[path[:length]]
    return None


def _keys_beside(model: type[BaseModel], location: Sequence[str | int]) -> set[str]:
    """The keys that may stand where the last step of the location does."""
    here: list[Any] = [model]
    for step in location[:-1]:
        here = [inner for each in here for inner in _step(each, step)]
    return {name for each in here for leaf in _leaves(each) if _is_model(leaf) for name in leaf.model_fields}


def _step(annotation: Any, step: str | int) -> list[Any]:
    inner: list[Any] = []
    for leaf in _leaves(annotation):
        if _is_model(leaf):
            if step in leaf.model_fields:
                inner.append(leaf.model_fields[str(step)].annotation)
            elif "kind" in leaf.model_fields and leaf.model_fields["kind"].default == step:
                inner.append(leaf)  # the step is the kind of a union, not a key
        elif get_origin(leaf) is dict:
            inner.append(get_args(leaf)[1])
        elif get_origin(leaf) in (tuple, list):
            inner.append(get_args(leaf)[0])
    return inner


def _leaves(annotation: Any) -> list[Any]:
    """What an annotation can be, with ``Annotated``, aliases and unions taken apart."""
    if get_origin(annotation) is Annotated:
        return _leaves(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return [leaf for each in get_args(annotation) for leaf in _leaves(each)]
    return [annotation]


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)
