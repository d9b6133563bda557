"""Sensitivity: how validation answers to a tuned setting, one small panel for each arm and setting."""

from dataclasses import dataclass

from distil.report.axis import Scale, Tick, padded
from distil.report.number import Number, is_fraction, percent, plain, quality, significant
from distil.report.record import RunRecord
from distil.report.series import Series, series_of

WIDTH, HEIGHT = 340, 232
LEFT, RIGHT, TOP, BOTTOM = 46, 330, 14, 196
LOGARITHMIC_FROM = 20  # largest over smallest value


@dataclass(frozen=True)
class Dot:
    """A trial: where it is drawn, whether it was chosen or stopped early, and its row in the table."""

    x: Number
    y: Number
    is_chosen: bool
    is_pruned: bool
    setting: str
    value: str


@dataclass(frozen=True)
class SensitivityPanel:
    """The trials of one arm, by one numeric setting."""

    key: str
    title: str
    note: str
    series: Series
    setting: str
    dots: tuple[Dot, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = RIGHT
    top: int = TOP
    bottom: int = BOTTOM


def sensitivity_panels(record: RunRecord) -> tuple[SensitivityPanel, ...]:
    """A panel for every setting that had at least two numeric values; none where nothing was tuned."""
    if record.tuning is None:
        return ()
    looks, metric = series_of(record), record.tuning["metric"]
    sign = 1 if record.verdict.higher_is_better else -1  # trials are rated such that higher is better
    found = []
    for arm, tuned in record.tuning["arms"].items():
        trials = [trial | {"value": sign * trial["value"]} for trial in tuned["trials"] if trial["value"] is not None]
        for setting in tuned["best"]:
            values = [trial["settings"][setting] for trial in trials]
            if all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in values) and len(set(values)) > 1:
                found.append(_panel(len(found), setting, tuned, trials, looks["arm", arm], metric=metric))
    return tuple(found)


def _panel(
    position: int, setting: str, tuned: dict, trials: list[dict], series: Series, *, metric: str
) -> SensitivityPanel:
    settings = [trial["settings"][setting] for trial in trials]
    values = [trial["value"] for trial in trials]
    low, high = min(settings), max(settings)
    logarithmic = low > 0 and high / low >= LOGARITHMIC_FROM
    bounds = (low / 1.2, high * 1.2) if logarithmic else padded(low, high)
    x = Scale(*bounds, start=LEFT, end=RIGHT, logarithmic=logarithmic)
    y = Scale(*padded(min(values), max(values)), start=BOTTOM, end=TOP)
    dots = tuple(
        Dot(
            x(trial["settings"][setting]),
            y(trial["value"]),
            is_chosen=trial["settings"] == tuned["best"] and not trial["is_pruned"],
            is_pruned=trial["is_pruned"],
            setting=significant(trial["settings"][setting]),
            value=quality(trial["value"], metric),
        )
        for trial in trials
    )
    others = len(tuned["best"]) - 1
    varied = "" if not others else f"; {others} other setting{'s' if others > 1 else ''} changed with it"
    return SensitivityPanel(
        key=f"sensitivity-{position}",
        title=f"{series.name}: {setting}",
        note=f"{len(trials)} trials on validation, {tuned['num_pruned']} stopped early, "
        f"{tuned['seconds']:.0f} s{varied}",
        series=series,
        setting=setting,
        dots=dots,
        x_ticks=x.ticks(plain if not logarithmic else significant, target=4),
        y_ticks=y.ticks(percent if is_fraction(metric) else significant, target=5),
    )
