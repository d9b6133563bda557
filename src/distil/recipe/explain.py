"""Validation errors in words: the key as it is written, its line, what was found, what was expected, what was meant."""

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from distil.core.errors import Problem
from distil.recipe.place import Location, Path, Place, locate, value_at
from distil.recipe.recipe import NAME_PATTERN

MOST_SHOWN = 60
_OF_A_VALUE = {"string_type", "float_type", "greater_than_equal", "less_than_equal", "finite_number", "literal_error"}
MOST_KNOWN = 16
PATTERNS = {
    NAME_PATTERN: "a name of letters, digits, dots, underscores and hyphens that starts with a letter or a digit",
    "^[0-9a-f]{64}$": "64 hexadecimal digits in small letters",
}


@dataclass(frozen=True)
class Written:
    """A recipe's value as somebody wrote it: the line of each key, and what ``--set`` changed, by path."""

    value: Any
    lines: Mapping[Path, int] = field(default_factory=dict)
    overrides: Mapping[Path, str] = field(default_factory=dict)

    def problem(self, path: Path, what: str) -> Problem:
        """A problem with its key, and its origin: a line of the file, or an override."""
        where = ".".join(map(str, path))
        if (override := self._override_of(path)) is not None:
            return Problem(f"{where} (--set {shorten(override)})", what)
        inside = [override for key, override in self.overrides.items() if key[: len(path)] == path]
        if inside and path in self.lines and path:
            what += f" (changed by {', '.join(f'--set {shorten(override)}' for override in inside)})"
        return Problem(where, what, line=self._line_of(path))

    def _override_of(self, path: Path) -> str | None:
        """The override that wrote what stands at this path, or that made the mapping at it."""
        for key, override in reversed(list(self.overrides.items())):
            if path[: len(key)] == key or (path and key[: len(path)] == path and path not in self.lines):
                return override
        return None

    def _line_of(self, path: Path) -> int | None:
        """The line of the key, or of the nearest one around it that was written."""
        return next((self.lines[path[:n]] for n in range(len(path), -1, -1) if path[:n] in self.lines), None)


@dataclass(frozen=True)
class _Finding:
    """One of pydantic's errors with its location."""

    details: ErrorDetails
    location: Location

    @property
    def path(self) -> Path:
        return self.location.path


def explain(error: ValidationError, model: type[BaseModel], written: Written) -> list[Problem]:
    """Every problem of a failed validation, in the order of the file: one sentence for each key.

    Args:
        error: from pydantic.
        model: that was validated.
        written: what was validated.
    """
    findings = [_Finding(details, locate(model, details["loc"])) for details in error.errors(include_url=False)]
    sentences: dict[Path, str] = {}
    for path, what in _sentences(_without_consequences(findings), model, written.value):
        sentences.setdefault(path, what)
    return in_order(written.problem(path, what) for path, what in sentences.items())


def in_order(problems: Iterable[Problem]) -> list[Problem]:
    """Each problem once, by its line."""
    return sorted(dict.fromkeys(problems), key=lambda problem: problem.line or 0)


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """The end of a sentence about a word that is not known: the one that was meant, else all that are known."""
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    if near:
        return f"; did you mean {near[0]!r}?"
    if len(known) > MOST_KNOWN:
        close = difflib.get_close_matches(word, known, n=3, cutoff=0.3) or known[:3]
        return f"; known are {', '.join(close)} and {len(known) - len(close)} more, see distil methods"
    return f"; known are {', '.join(known)}" if known else ""


def shown(value: Any) -> str:
    """A value as it stands in YAML, on one short line."""
    if isinstance(value, str):
        return shorten(repr(value))
    try:
        text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10 * MOST_SHOWN)
    except yaml.YAMLError:  # an object of Python
        text = f"an object of type {type(value).__name__}"
    return shorten(text.removesuffix("...\n").strip())


def shorten(text: str) -> str:
    """At most 60 characters of a text."""
    text = " ".join(text.split())
    return text if len(text) <= MOST_SHOWN else text[: MOST_SHOWN - 3] + "..."


def _without_consequences(findings: Sequence[_Finding]) -> list[_Finding]:
    """Without "too few entries" where entries are missing only because they are wrong themselves."""
    paths = [finding.path for finding in findings]
    return [
        finding
        for finding in findings
        if finding.details["type"] != "too_short"
        or not any(path[: len(finding.path)] == finding.path and path != finding.path for path in paths)
    ]


def _sentences(findings: Sequence[_Finding], model: type[BaseModel], value: Any) -> Iterator[tuple[Path, str]]:
    """A path and a sentence for each finding; the findings about one plain union make one sentence where they must."""
    for union, group in groupby(findings, key=lambda finding: finding.location.union):
        alternatives = list(group)
        if union is not None:
            fitting = [each for each in alternatives if _has_the_shape(value_at(value, union), each.location.tried)]
            if not fitting:
                expected = ", or ".join(dict.fromkeys(_expected(each) for each in alternatives))
                yield union, f"found {shown(value_at(value, union))}; expected {expected}"
                continue
            alternatives = fitting
        for path, same in groupby(alternatives, key=lambda finding: finding.path):
            findings_there = list(same)
            if len(findings_there) > 1 and all(each.details["type"] in _OF_A_VALUE for each in findings_there):
                expected = ", or ".join(dict.fromkeys(_expected(each) for each in findings_there))
                yield path, f"found {shown(findings_there[0].details['input'])}; expected {expected}"  # an inner union
                continue
            for finding in findings_there:
                yield _path_and_sentence(finding, model, value)


def _has_the_shape(value: Any, tried: Place) -> bool:
    """Whether a value is a mapping where keys are expected, or a list where a list is."""
    if isinstance(value, Mapping):
        return bool(tried.keys)
    return isinstance(value, (list, tuple)) and tried.is_list


def _path_and_sentence(finding: _Finding, model: type[BaseModel], value: Any) -> tuple[Path, str]:
    details, path, place = finding.details, finding.path, finding.location.place
    found, context = details["input"], details.get("ctx", {})
    match details["type"]:
        case "extra_forbidden":
            beside = locate(model, details["loc"][:-1]).place
            return path, f"unknown key{did_you_mean(str(path[-1]), beside.keys)}"
        case "missing":
            return path, "missing; it must be given"
        case "union_tag_invalid":
            what = f"there is no kind {context['tag']!r}{did_you_mean(context['tag'], place.kinds)}"
            return ((*path, "kind") if isinstance(value_at(value, path), Mapping) else path), what
        case "union_tag_not_found" if isinstance(found, Mapping):
            return path, f"the key kind is missing; known are {', '.join(place.kinds)}"
        case "value_error":
            return path, str(context["error"])
        case "ambiguous_term" | "own_term":
            return path, details["msg"]
        case _:
            return path, f"found {shown(found)}; expected {_expected(finding)}"


def _expected(finding: _Finding) -> str:
    """What would be right, as a noun."""
    context, place = finding.details.get("ctx", {}), finding.location.place
    match finding.details["type"]:
        case "int_type" | "int_parsing" | "int_from_float" | "int_parsing_size":
            return "a whole number"
        case "float_type" | "float_parsing":
            return "a number"
        case "finite_number":
            return "a finite number"
        case "string_type":
            return "text"
        case "bool_type" | "bool_parsing":
            return "true or false"
        case "tuple_type" | "list_type":
            return "a list"
        case "dict_type" | "model_type" | "model_attributes_type" | "union_tag_not_found":
            return _mapping_expected(place)
        case "greater_than_equal":
            return f"a number of {context['ge']:g} or more"
        case "greater_than":
            return f"a number above {context['gt']:g}"
        case "less_than_equal":
            return f"a number of at most {context['le']:g}"
        case "less_than":
            return f"a number below {context['lt']:g}"
        case "too_short":
            return f"at least {_entries(context['min_length'])}"
        case "too_long":
            return f"at most {_entries(context['max_length'])}"
        case "literal_error":
            return context["expected"]
        case "string_pattern_mismatch":
            return PATTERNS.get(context["pattern"], f"text of the form {context['pattern']}")
        case "value_error":
            return str(context["error"])
        case _:
            return finding.details["msg"].removeprefix("Input should be ")


def _mapping_expected(place: Place) -> str:
    if place.kinds:
        return f"a kind ({', '.join(place.kinds)}), or a mapping with the key kind"
    return f"a mapping with the keys {', '.join(place.keys)}" if place.keys else "a mapping"


def _entries(count: int) -> str:
    return f"{count} entry" if count == 1 else f"{count} entries"
