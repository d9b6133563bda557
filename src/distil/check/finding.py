"""A finding of the pre-flight."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

Level = Literal["fine", "suspicious", "wrong"]


@dataclass(frozen=True)
class Finding:
    """What was looked at and found; where it is not fine, why it matters and what to do."""

    level: Level
    what: str
    why: str = ""
    remedy: str = ""

    def __post_init__(self) -> None:
        assert self.level == "fine" or (self.why and self.remedy), "a finding says why it matters and what to do"

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)
