"""What differs between the arms of a recipe: every control shares the rest with the distilled arm (correctness 33)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from distil.report.number import ABSENT

ROLE_KEYS = ("control",)
LONGEST_VALUE = 80


@dataclass(frozen=True)
class Difference:
    """One key of the resolved recipe and its value in every arm, as YAML would write it."""

    key: str
    values: tuple[str, ...]


def differences(arms: Mapping[str, Any]) -> tuple[tuple[Difference, ...], int]:
    """The keys whose values are not the same in every arm, in the order of the recipe, and how many are the same.

    A single stage is written without its index: ``objective.soft-targets.weight``.
    """
    flat = {name: _flat(_without_role(arm)) for name, arm in arms.items()}
    keys = list(dict.fromkeys(key for values in flat.values() for key in values))
    found = [
        Difference(key, tuple(values.get(key, ABSENT) for values in flat.values()))
        for key in keys
        if len({values.get(key, ABSENT) for values in flat.values()}) > 1
    ]
    return tuple(sorted(found, key=lambda each: keys.index(each.key))), len(keys) - len(found)


def _without_role(arm: Mapping[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in arm.items() if key not in ROLE_KEYS}
    stages = kept.get("stages")
    if isinstance(stages, Sequence) and len(stages) == 1:
        kept.pop("stages")
        kept |= stages[0]
    return kept


def _flat(value: Any, prefix: str = "") -> dict[str, str]:
    """Dotted key -> text, for every leaf; lists of plain values are leaves."""
    if isinstance(value, Mapping) and value:
        children = [(f"{prefix}.{key}" if prefix else str(key), child) for key, child in value.items()]
    elif isinstance(value, list) and any(isinstance(each, Mapping) for each in value):
        children = [(f"{prefix}[{index}]", child) for index, child in enumerate(value)]
    else:
        return {prefix: _text(value)}
    return {key: text for name, child in children for key, text in _flat(child, name).items()}


def _text(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, width=10_000, allow_unicode=True).strip()
    text = text.removesuffix("\n...").strip()
    return text if len(text) <= LONGEST_VALUE else text[: LONGEST_VALUE - 1] + "…"
