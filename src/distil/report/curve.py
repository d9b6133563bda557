"""Learning curves: one small panel for each quantity, every arm in it, mean of the seeds with their range."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from distil.report.axis import Scale, Tick, linear_values, padded, path
from distil.report.number import Number, is_fraction, metric_name, percent, plain, significant
from distil.report.record import Epoch, RunRecord, TrainedModel
from distil.report.series import Series, series_of

WIDTH, HEIGHT = 340, 232
LEFT, RIGHT, TOP, BOTTOM = 46, 330, 14, 196
LOGARITHMIC_FROM = 40  # largest over smallest value
MOST_POINTS = 300
TABLE_ROWS = 6

Pick = Callable[[Epoch], Number | None]


@dataclass(frozen=True)
class Line:
    """The mean of one arm as a path, and the range of its seeds as an area (empty with one seed)."""

    series: Series
    line: str
    band: str


@dataclass(frozen=True)
class Panel:
    """One quantity over the epochs. ``table`` has a row for each of a few epochs: (epoch, one text for each line)."""

    key: str
    title: str
    unit: str
    lines: tuple[Line, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    table: tuple[tuple[int, tuple[str, ...]], ...]
    note: str = ""
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = RIGHT
    top: int = TOP
    bottom: int = BOTTOM


@dataclass(frozen=True)
class _Curve:
    """Mean, smallest and largest seed by epoch."""

    series: Series
    points: dict[int, tuple[Number, Number, Number]]


def validation_panels(record: RunRecord) -> tuple[Panel, ...]:
    """Headline metric and likelihood on the validation split of every arm, then the metric of every teacher.

    A quantity that was not measured has no panel, nor has a teacher that was not trained here.
    """
    looks, headline = series_of(record), record.verdict.metric
    arms = [(looks["arm", name], tuple(seeds.values())) for name, seeds in _drawn_arms(record)]
    panels = [
        _panel(arms, _validation(metric), key=f"validation-{metric}", title=_validation_title(metric), unit=unit)
        for metric, unit in {headline: _unit(headline), "negative_log_likelihood": "nats"}.items()
    ]
    panels += [
        _panel(
            [(looks["teacher", name], (teacher,))],
            _validation(headline),
            key=f"teacher-{index}",
            title=f"{_capital(_teacher(name))}: validation {metric_name(headline)}",
            unit=_unit(headline),
        )
        for index, (name, teacher) in enumerate(record.teachers.items())
    ]
    return tuple(panel for panel in panels if panel is not None)


def loss_panels(record: RunRecord) -> tuple[Panel, ...]:
    """The loss of every arm, then each of its parts before weighting."""
    looks = series_of(record)
    arms = [(looks["arm", name], tuple(seeds.values())) for name, seeds in _drawn_arms(record)]
    terms = list(dict.fromkeys(term for _, models in arms for term in _terms(models)))
    panels = [_panel(arms, lambda epoch: epoch.loss, key="loss", title="Loss (weighted sum)", unit="nats")]
    panels += [
        _panel(
            [(look, models) for look, models in arms if term in _terms(models)],
            _part(term),
            key=f"part-{index}",
            title=f"Part: {term}",
            unit="nats",
            note=_weights(arms, term),
        )
        for index, term in enumerate(terms)
    ]
    return tuple(panel for panel in panels if panel is not None)


def _drawn_arms(record: RunRecord) -> Iterable[tuple[str, dict[int, TrainedModel]]]:
    """Controls first, so that the distilled arms are drawn on top of them."""
    return [(name, dict(record.arms[name])) for name in (*record.controls, *reversed(record.distilled_arms))]


def _terms(models: Iterable[TrainedModel]) -> dict[str, None]:
    return {term: None for model in models for epoch in model.epochs for term in epoch.parts}


def _validation(metric: str) -> Pick:
    return lambda epoch: None if epoch.validation is None else epoch.validation.get(metric)


def _part(term: str) -> Pick:
    return lambda epoch: epoch.parts.get(term)


def _unit(metric: str) -> str:
    return "%" if is_fraction(metric) else metric_name(metric)


def _validation_title(metric: str) -> str:
    return f"Validation {metric_name(metric)}"


def _teacher(name: str) -> str:
    return name if "teacher" in name.lower() else f"teacher {name}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _weights(arms: list[tuple[Series, tuple[TrainedModel, ...]]], term: str) -> str:
    """``weight 1 in scratch, 0.1 in distilled``; a weight that changes is shown as first to last."""
    by_weight: dict[str, list[str]] = {}
    for look, models in arms:
        weights = [epoch.weights[term] for epoch in models[0].epochs if term in epoch.weights] if models else []
        if weights:
            same = weights[0] == weights[-1]
            text = plain(weights[0]) if same else f"{plain(weights[0])} to {plain(weights[-1])}"
            by_weight.setdefault(text, []).append(look.name)
    if len(by_weight) == 1:
        return f"weight {next(iter(by_weight))}"
    return (
        "weight " + "; ".join(f"{text} in {', '.join(names)}" for text, names in by_weight.items()) if by_weight else ""
    )


def _panel(
    arms: Iterable[tuple[Series, tuple[TrainedModel, ...]]],
    pick: Pick,
    *,
    key: str,
    title: str,
    unit: str,
    note: str = "",
) -> Panel | None:
    """None where nothing was measured."""
    curves = [_curve(look, models, pick) for look, models in arms]
    curves = [curve for curve in curves if curve.points]
    if not curves:
        return None
    x_scale, y_scale = _scales(curves, is_fraction=unit == "%")
    percent_digits = 0 if y_scale.high - y_scale.low > 0.04 else 1
    return Panel(
        key=key,
        title=title + (" (log scale)" if y_scale.logarithmic else ""),
        unit=unit,
        lines=tuple(_line(curve, x_scale, y_scale) for curve in curves),
        x_ticks=_epoch_ticks(x_scale),
        y_ticks=y_scale.ticks((lambda value: percent(value, percent_digits)) if unit == "%" else plain),
        table=_table(curves, is_fraction=unit == "%"),
        note=note,
    )


def _curve(look: Series, models: tuple[TrainedModel, ...], pick: Pick) -> _Curve:
    """Only epochs that every seed has a value for, so that the mean is always over the same models."""
    by_seed = [{epoch.epoch: value for epoch in model.epochs if (value := pick(epoch)) is not None} for model in models]
    shared = sorted(set.intersection(*(set(values) for values in by_seed))) if by_seed else []
    points = {}
    for epoch in shared:
        values = [each[epoch] for each in by_seed]
        points[epoch] = (sum(values) / len(values), min(values), max(values))
    return _Curve(look, points)


def _scales(curves: list[_Curve], *, is_fraction: bool) -> tuple[Scale, Scale]:
    values = [value for curve in curves for triple in curve.points.values() for value in triple]
    epochs = [epoch for curve in curves for epoch in curve.points]
    first, last = min(epochs), max(epochs)
    x_scale = Scale(first, last if last > first else first + 1, LEFT, RIGHT)
    low, high = min(values), max(values)
    if not is_fraction and low > 0 and high / low > LOGARITHMIC_FROM:
        return x_scale, Scale(low / 1.2, high * 1.2, BOTTOM, TOP, logarithmic=True)
    limits = {"floor": 0.0, "ceiling": 1.0} if is_fraction else {"floor": 0.0} if low >= 0 else {}
    return x_scale, Scale(*padded(low, high, share=0.06, **limits), BOTTOM, TOP)


def _line(curve: _Curve, x_scale: Scale, y_scale: Scale) -> Line:
    epochs = _thinned(list(curve.points))
    means = [(x_scale(epoch), y_scale(curve.points[epoch][0])) for epoch in epochs]
    lows = [(x_scale(epoch), y_scale(curve.points[epoch][1])) for epoch in epochs]
    highs = [(x_scale(epoch), y_scale(curve.points[epoch][2])) for epoch in epochs]
    if len(means) == 1:  # a single epoch: a short stroke, so that there is something to see
        means = [means[0], (means[0][0] + 6, means[0][1])]
    band = path([*lows, *reversed(highs)], closed=True) if lows != highs else ""
    return Line(curve.series, path(means), band)


def _thinned(epochs: list[int]) -> list[int]:
    """At most MOST_POINTS epochs, the last one among them."""
    step = -(-len(epochs) // MOST_POINTS)
    return sorted({*epochs[::step], epochs[-1]}) if epochs else []


def _epoch_ticks(x_scale: Scale) -> tuple[Tick, ...]:
    wanted = [value for value in linear_values(x_scale.low, x_scale.high) if value == int(value)]
    return tuple(Tick(x_scale(value), f"{value:.0f}") for value in wanted)


def _table(curves: list[_Curve], *, is_fraction: bool) -> tuple[tuple[int, tuple[str, ...]], ...]:
    epochs = sorted({epoch for curve in curves for epoch in curve.points})
    last = len(epochs) - 1
    chosen = sorted({epochs[round(last * step / (TABLE_ROWS - 1))] for step in range(TABLE_ROWS)})
    text = percent if is_fraction else significant
    return tuple((epoch, tuple(_cell(curve.points.get(epoch), text) for curve in curves)) for epoch in chosen)


def _cell(point: tuple[Number, Number, Number] | None, text: Callable[[Number], str]) -> str:
    if point is None:
        return "–"
    mean, low, high = point
    return text(mean) if low == high else f"{text(mean)} ({text(low).removesuffix('%')}–{text(high)})"
