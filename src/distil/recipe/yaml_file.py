"""YAML read strictly: plain values only, no key twice, no alias, a bounded size; and the line of every key."""

import re
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any

import yaml

from distil.core.errors import Problem, RecipeError

MOST_BYTES = 1_000_000
MOST_DEPTH = 50
Path = tuple[str | int, ...]


@dataclass(frozen=True)
class Document:
    """A YAML file's value, and for each key, by its path, the line it stands on."""

    name: str
    value: Any
    lines: dict[Path, int] = field(default_factory=dict)


class _Loader(yaml.SafeLoader):
    """Plain values; 1e-3 is a number, as in YAML 1.2."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def parse_yaml(text: str, *, name: str) -> Document:
    """The value of a YAML text with the line of every key.

    Raises:
        RecipeError: it is not YAML, has a key twice, an alias or a tag, or is too large.
    """
    if len(text.encode()) > MOST_BYTES:
        raise RecipeError(f"{name}: larger than {MOST_BYTES:,} bytes; a recipe is a page of settings")
    loader = _Loader(text)
    try:
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            if isinstance(event, yaml.AliasEvent):
                raise RecipeError(
                    f"{name}: line {event.start_mark.line + 1}: aliases (*{event.anchor}) are not allowed; "
                    "write the value out"
                )
        node = loader.get_single_node()
        if node is None:
            return Document(name, value=None)
        reader = _Reader(loader)
        value = reader.read(node, ())
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise RecipeError(f"{name}: line {line}: not valid YAML: {error.problem}") from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise RecipeError(f"{name}: not valid YAML: {error}") from error
    finally:
        loader.dispose()
    if reader.problems:
        raise RecipeError(f"{name}: the file cannot be used:", reader.problems)
    return Document(name, value=value, lines=reader.lines)


def parse_value(text: str, *, name: str) -> Any:
    """The value of a short YAML text, such as the right side of ``--set``."""
    return parse_yaml(text, name=name).value


class _Reader:
    """Walks the nodes of a document."""

    def __init__(self, loader: _Loader) -> None:
        self._loader = loader
        self.lines: dict[Path, int] = {}
        self.problems: list[Problem] = []

    def read(self, node: yaml.Node, path: Path) -> Any:
        self.lines.setdefault(path, node.start_mark.line + 1)
        if len(path) > MOST_DEPTH:
            self._complain(node, path, f"nested deeper than {MOST_DEPTH} levels")
            return None
        match node:
            case yaml.MappingNode(tag="tag:yaml.org,2002:map"):
                return self._mapping(node, path)
            case yaml.SequenceNode(tag="tag:yaml.org,2002:seq"):
                return [self.read(child, (*path, index)) for index, child in enumerate(node.value)]
            case yaml.ScalarNode(tag=tag) if tag.startswith("tag:yaml.org,2002:") and not tag.startswith(
                "tag:yaml.org,2002:python"
            ):
                return self._loader.construct_object(node, deep=True)
            case _:
                self._complain(node, path, f"the tag {node.tag} is not allowed; a recipe holds plain values only")
                return None

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[Any, Any]:
        result: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                self._complain(key_node, path, "a key must be a word")
                continue
            key = key_node.value
            if not isinstance(key, Hashable) or key in result:
                first = self.lines[(*path, key)]
                self._complain(key_node, (*path, key), f"the key stands here twice (first on line {first})")
                continue
            self.lines[(*path, key)] = key_node.start_mark.line + 1
            result[key] = self.read(value_node, (*path, key))
        return result

    def _complain(self, node: yaml.Node, path: Path, what: str) -> None:
        self.problems.append(Problem(".".join(map(str, path)), what, line=node.start_mark.line + 1))
