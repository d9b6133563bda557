"""A finding of the pre-flight."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

Level = Literal["fine", "suspicious", "wrong"]
Mark = Literal["supervised", "read", "dropped"]


@dataclass(frozen=True)
class Piece:
    """A part of a text: ``supervised`` has to be said, ``read`` is only read, ``dropped`` is cut off or padding."""

    text: str
    mark: Mark


@dataclass(frozen=True)
class Finding:
    """What was looked at and found; where it is not fine, why it matters and what to do.

    Attributes:
        level: how bad it is.
        what: was found.
        why: it matters.
        remedy: what to do.
        texts: examples to look at, each in pieces.
    """

    level: Level
    what: str
    why: str = ""
    remedy: str = ""
    texts: tuple[tuple[Piece, ...], ...] = ()

    def __post_init__(self) -> None:
        assert self.level == "fine" or (self.why and self.remedy), "a finding says why it matters and what to do"

    def as_dict(self) -> dict[str, Any]:
        found = asdict(self)
        if not self.texts:
            del found["texts"]
        return found
