"""Place: what may stand somewhere in a recipe, read from the annotations of the recipe's classes."""

import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, BeforeValidator

from distil.objective.own_config import OwnTerm

Path = tuple[str | int, ...]


@dataclass(frozen=True)
class Place:
    """The types that a value may have, and the functions that expand a short form of it.

    None is left out, and so is what only Python can make.
    """

    members: tuple[Any, ...]
    expanders: tuple[Callable[[Any], Any], ...] = ()

    @property
    def is_plain_union(self) -> bool:
        """Several types, and no key ``kind`` that tells which."""
        return len(self.members) > 1 and not all(_is_model(m) and "kind" in m.model_fields for m in self.members)

    @property
    def kinds(self) -> list[str]:
        """What the key ``kind`` may be; empty where there is no choice."""
        if len(self.members) < 2 or self.is_plain_union:
            return []
        return [kind for member in self.members for kind in _kinds(member)]

    @property
    def keys(self) -> list[str]:
        """The keys that a mapping may have here; empty where any may stand."""
        return sorted({name for member in self.members if _is_model(member) for name in member.model_fields})

    @property
    def is_list(self) -> bool:
        return any(get_origin(member) in (tuple, list) for member in self.members)

    def expand(self, short: str) -> Any:
        """A string in its long form, such as ``{kind: string}``; the string itself where it stands for nothing else."""
        value: Any = short
        for expander in self.expanders:
            try:
                value = expander(value)
            except ValueError:  # what is wrong with it is said when the whole recipe is validated
                return {"kind": short}
        return value

    def inner(self, step: str | int) -> "Place | None":
        """The place under a key or a position; None where the recipe's classes say nothing about it."""
        found = [place for member in self.members if (place := _inner(member, step)) is not None]
        return found[0] if found else None

    def member(self, label: str | int) -> "Place":
        """One of several types by the label that pydantic gives it: the kind, or the name of the type."""
        for member in self.members:
            if _is_model(member) and (label in _kinds(member) or member.__name__ in str(label)):
                return Place((member,))
            if get_origin(member) is tuple and str(label).startswith("tuple"):
                return Place((member,))
        return Place(())


@dataclass(frozen=True)
class Location:
    """Where a problem stands: its path as written, the place there, and the plain union around it, if there is one."""

    path: Path
    place: Place
    union: Path | None  # the path of the union
    tried: Place  # the type of that union which the value was held against


def place_of(annotation: Any, metadata: Sequence[Any] = ()) -> Place:
    """The place that an annotation describes, with ``Annotated`` and unions taken apart."""
    if get_origin(annotation) is Annotated:
        inner, *own = get_args(annotation)
        return place_of(inner, [*own, *metadata])
    if get_origin(annotation) in (Union, types.UnionType):
        members = [member for member in get_args(annotation) if member not in (types.NoneType, OwnTerm)]
        if len(members) == 1:
            return place_of(members[0], metadata)
        return Place(tuple(_bare(member) for member in members), _expanders(metadata))
    return Place((annotation,), _expanders(metadata))


def locate(model: type[BaseModel], location: Sequence[str | int]) -> Location:
    """Where a problem that pydantic found stands as the user wrote it.

    Args:
        model: that was validated.
        location: from pydantic, which also lists the kinds and types of the unions it went through.
    """
    place: Place | None = Place((model,))
    path: list[str | int] = []
    union: Path | None = None
    tried: Place | None = None
    for step in location:
        if place is None:
            break
        if len(place.members) > 1:
            member = place.member(step)
            if place.is_plain_union and union is None:
                union, tried = tuple(path), member
            place = member
        elif step != "[key]":
            place = place.inner(step)
            path.append(step)
    return Location(tuple(path), place or Place(()), union, tried or Place(()))


def value_at(value: Any, path: Path) -> Any:
    """What stands at a path; None where nothing does."""
    for step in path:
        if isinstance(value, Mapping):
            value = value.get(step)
        elif isinstance(value, (list, tuple)) and isinstance(step, int) and step < len(value):
            value = value[step]
        else:
            return None
    return value


def _inner(member: Any, step: str | int) -> Place | None:
    if _is_model(member):
        field = member.model_fields.get(str(step))
        return place_of(field.annotation, field.metadata) if field is not None else None
    if get_origin(member) is dict:
        return place_of(get_args(member)[1])
    if get_origin(member) in (tuple, list):
        items = [item for item in get_args(member) if item is not ...]
        position = int(step) if str(step).isdecimal() else 0
        return place_of(items[min(position, len(items) - 1)])
    return None


def _bare(annotation: Any) -> Any:
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    return annotation


def _expanders(metadata: Sequence[Any]) -> tuple[Callable[[Any], Any], ...]:
    return tuple(each.func for each in metadata if isinstance(each, BeforeValidator))  # type: ignore[misc]


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _kinds(model: type[BaseModel]) -> tuple[str, ...]:
    """What the key ``kind`` of one class may be."""
    field = model.model_fields.get("kind")
    return get_args(field.annotation) if field is not None else ()
