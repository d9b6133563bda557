"""How a model looks in every chart: its class in the style sheet, its marker and its dash. Never colour alone."""

from dataclasses import dataclass

from distil.report.record import RunRecord

CONTROL_STYLES = (("1", "square", "6 3"), ("2", "triangle", "2 3"), ("3", "cross", "8 3 2 3"), ("4", "hexagon", "1 2"))
MARKERS = {
    "circle": "M-5 0a5 5 0 1 0 10 0a5 5 0 1 0 -10 0Z",
    "diamond": "M0 -6.5L6.5 0L0 6.5L-6.5 0Z",
    "square": "M-4.5 -4.5L4.5 -4.5L4.5 4.5L-4.5 4.5Z",
    "triangle": "M0 -6L5.8 4.6L-5.8 4.6Z",
    "cross": "M-5 -2L-2 -5L0 -3L2 -5L5 -2L3 0L5 2L2 5L0 3L-2 5L-5 2L-3 0Z",
    "hexagon": "M-5.5 0L-2.8 -5L2.8 -5L5.5 0L2.8 5L-2.8 5Z",
}


@dataclass(frozen=True)
class Series:
    """``style`` ends a class name of style.css; ``outline`` is the marker around 0, 0; ``dash`` is empty for a line."""

    name: str
    role: str
    style: str
    outline: str
    dash: str = ""


def series_of(record: RunRecord) -> dict[tuple[str, str], Series]:
    """The look of every teacher and arm by (``"teacher"`` or ``"arm"``, name): teachers, distilled arms, controls."""
    looks: dict[tuple[str, str], Series] = {}
    for name in record.teachers:
        looks["teacher", name] = Series(name, "teacher", "teacher", MARKERS["diamond"], "4 2")
    for name in record.distilled_arms:
        looks["arm", name] = Series(name, "distilled", "distilled", MARKERS["circle"])
    for index, name in enumerate(record.controls):
        style, marker, dash = CONTROL_STYLES[index % len(CONTROL_STYLES)]
        looks["arm", name] = Series(name, "control", style, MARKERS[marker], dash)
    return looks
