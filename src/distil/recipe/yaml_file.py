"""YAML read strictly: plain values only, no key twice, no alias, a bounded size; and the line of every key."""

import re
from dataclasses import dataclass, field
from typing import Any

import yaml

from distil.core.errors import Problem, RecipeError
from distil.recipe.place import Path

MOST_BYTES = 200_000
MOST_DEPTH = 50
PLAIN = {f"tag:yaml.org,2002:{kind}" for kind in ("null", "bool", "int", "float", "str")}


@dataclass(frozen=True)
class Document:
    """A YAML file's value, and for each key, by its path, the line it stands on."""

    name: str
    value: Any
    lines: dict[Path, int] = field(default_factory=dict)


class _Loader(yaml.SafeLoader):
    """Plain values; 1e-3 is a number, as in YAML 1.2. Stops at the first alias and where it is nested too deep."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent):
            raise _refused(f"aliases (*{event.anchor}) are not allowed; write the value out", event.start_mark)
        self._depth += 1
        if self._depth > MOST_DEPTH:
            raise _refused(f"nested deeper than {MOST_DEPTH} levels", event.start_mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag in PLAIN]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


class _Dumper(yaml.SafeDumper):
    """Writes what ``_Loader`` reads back: text that looks like a number is quoted."""


for _each in (_Loader, _Dumper):
    _each.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
    )


def _refused(problem: str, mark: yaml.Mark) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=mark)


def parse_yaml(text: str, *, name: str) -> Document:
    """The value of a YAML text with the line of every key.

    Raises:
        RecipeError: it is not YAML, has a key twice, an alias or a tag, or is too large.
    """
    if len(text.encode(errors="replace")) > MOST_BYTES:
        raise RecipeError(f"{name}: larger than {MOST_BYTES:,} bytes; a recipe is a page of settings")
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        what = ", ".join(part for part in (error.context, error.problem) if part)
        raise RecipeError(f"{name}: line {line}: not a YAML that can be used: {what}") from error
    except yaml.reader.ReaderError as error:
        line = text[: error.position].count("\n") + 1
        raise RecipeError(f"{name}: line {line}: not a YAML that can be used: {error.reason}") from error
    if node is None:
        return Document(name, value=None)
    reader = _Reader(loader)
    value = reader.read(node, ())
    if reader.problems:
        raise RecipeError(f"{name}: cannot be used:", reader.problems)
    return Document(name, value=value, lines=reader.lines)


def parse_value(text: str, *, name: str) -> Any:
    """The value of a short YAML text, such as the right side of ``--set``."""
    return parse_yaml(text, name=name).value


def dump_yaml(value: Any) -> str:
    """The value as a YAML text that ``parse_yaml`` reads back."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


class _Reader:
    """Walks the nodes of a document."""

    def __init__(self, loader: _Loader) -> None:
        self._loader = loader
        self.lines: dict[Path, int] = {}
        self.problems: list[Problem] = []

    def read(self, node: yaml.Node, path: Path) -> Any:
        self.lines.setdefault(path, node.start_mark.line + 1)
        match node:
            case yaml.MappingNode(tag="tag:yaml.org,2002:map"):
                return self._mapping(node, path)
            case yaml.SequenceNode(tag="tag:yaml.org,2002:seq"):
                return [self.read(child, (*path, index)) for index, child in enumerate(node.value)]
            case yaml.ScalarNode(tag=tag) if tag in PLAIN:
                return self._scalar(node, path)
            case _:
                self._complain(node, path, f"the tag {node.tag} is not allowed; a recipe holds plain values only")
                return None

    def _scalar(self, node: yaml.ScalarNode, path: Path) -> Any:
        try:
            return self._loader.construct_object(node)
        except (ValueError, KeyError):  # an explicit tag such as !!int on something else, or a number without end
            kind = node.tag.rpartition(":")[2]
            self._complain(node, path, f"{node.value[:20]!r} cannot be read as a YAML {kind}")
            return None

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                self._complain(key_node, path, "a key must be a word")
                continue
            key: str = key_node.value
            if key in result:
                first = self.lines[(*path, key)]
                self._complain(key_node, (*path, key), f"the key stands here twice (first on line {first})")
                continue
            self.lines[(*path, key)] = key_node.start_mark.line + 1
            result[key] = self.read(value_node, (*path, key))
        return result

    def _complain(self, node: yaml.Node, path: Path, what: str) -> None:
        self.problems.append(Problem(".".join(map(str, path)), what, line=node.start_mark.line + 1))
