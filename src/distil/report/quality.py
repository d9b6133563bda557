"""The picture of the first screen: quality against size, with every seed as a dot and its range as a line."""

from dataclasses import dataclass, replace

from distil.report.axis import Scale, Tick, padded, spread
from distil.report.number import (
    Number,
    digits_for,
    is_fraction,
    metric_title,
    percent,
    quality,
    significant,
    size,
    size_tick,
)
from distil.report.overview import quality_range
from distil.report.record import RunRecord
from distil.report.series import Series, series_of

WIDTH, HEIGHT = 380, 344
LEFT, RIGHT, TOP, BOTTOM = 46, 374, 34, 296
APART = 14  # pixels between models of the same size that would cover each other
MARK_RADIUS = 7
SAME_PLACE = 26  # models closer than this share a column of labels
LABEL_GAP = 17
LONGEST_LABEL = 18
LETTER_WIDTH = 6.4


@dataclass(frozen=True)
class Mark:
    """One model: its mean at (x, y), its seeds, its range, and its label at (label_x, label_y)."""

    series: Series
    text: str
    value: str
    range: str
    size: str
    x: Number
    y: Number
    seeds: tuple[Number, ...]
    whisker: tuple[Number, Number] | None
    label_x: Number
    label_y: Number
    anchor: str


@dataclass(frozen=True)
class QualityChart:
    """Everything that the macro draws, in pixels of a box of WIDTH x HEIGHT. ``good`` is where good models stand."""

    marks: tuple[Mark, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    y_label: str
    good: str
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = RIGHT
    top: int = TOP
    bottom: int = BOTTOM


@dataclass(frozen=True)
class _Model:
    series: Series
    num_bytes: int
    mean: Number
    values: tuple[Number, ...]
    bounds: tuple[Number, Number] | None


def quality_chart(record: RunRecord) -> QualityChart:
    """Quality (linear) against the size of the weights (logarithmic) of every teacher and arm."""
    models = _models(record)
    in_percent, is_high_good = is_fraction(record.verdict.metric), record.verdict.higher_is_better
    y_scale = _y_scale(models, in_percent=in_percent)
    x_scale = _x_scale(models)
    marks = [mark for group in _groups(models, x_scale) for mark in _marks(group, x_scale, y_scale, record)]
    label = (lambda value: percent(value, 0)) if in_percent else significant
    if in_percent and y_scale.high - y_scale.low < 0.04:
        label = percent
    return QualityChart(
        marks=_untangled(marks),
        x_ticks=x_scale.ticks(size_tick),
        y_ticks=y_scale.ticks(label),
        y_label=metric_title(record.verdict.metric) + ("" if is_high_good else ", lower is better"),
        good="small and high" if is_high_good else "small and low",
    )


def _models(record: RunRecord) -> list[_Model]:
    looks = series_of(record)
    found: list[_Model] = []
    for (kind, name), look in looks.items():
        is_teacher = kind == "teacher"
        model = record.teachers[name] if is_teacher else next(iter(record.arms[name].values()))
        values = (record.verdict.teachers[name],) if is_teacher else record.verdict.arms[name].values
        mean = values[0] if is_teacher else record.verdict.arms[name].mean
        bounds = quality_range(record, values)
        found.append(_Model(look, max(1, model.evaluation.size_bytes), mean, values, bounds))
    return found


def _y_scale(models: list[_Model], *, in_percent: bool) -> Scale:
    everything = [value for model in models for value in (model.mean, *model.values, *(model.bounds or ()))]
    limits = {"floor": 0.0, "ceiling": 1.0} if in_percent else {}
    low, high = padded(min(everything), max(everything), **limits)
    return Scale(low, high, BOTTOM, TOP)


def _x_scale(models: list[_Model]) -> Scale:
    """The smallest stands left and the largest right with room for the groups; equal sizes stand in the middle."""
    low, high = (extreme(model.num_bytes for model in models) for extreme in (min, max))
    room = 40
    width = RIGHT - LEFT
    if high / low < 1.3:
        return Scale(low / 3, high * 3, LEFT, RIGHT, logarithmic=True)
    factor = (high / low) ** (room / (width - 2 * room))
    return Scale(low / factor, high * factor, LEFT, RIGHT, logarithmic=True)


def _groups(models: list[_Model], x_scale: Scale) -> list[list[_Model]]:
    groups: list[list[_Model]] = []
    for model in sorted(models, key=lambda each: each.num_bytes):
        if groups and x_scale(model.num_bytes) - x_scale(groups[-1][-1].num_bytes) < SAME_PLACE:
            groups[-1].append(model)
        else:
            groups.append([model])
    return groups


def _marks(group: list[_Model], x_scale: Scale, y_scale: Scale, record: RunRecord) -> list[Mark]:
    """Models of about one size, worst first, with their labels beside the group and never over each other."""
    group = sorted(group, key=lambda model: y_scale(model.mean), reverse=True)
    xs = _beside(group, x_scale, y_scale)
    on_the_right = sum(xs) / len(xs) < (LEFT + RIGHT) / 2
    label_x = max(xs) + 15 if on_the_right else min(xs) - 15
    wanted = [y_scale(model.mean) for model in group]
    label_ys = spread(wanted, gap=LABEL_GAP, low=TOP + 4, high=BOTTOM - 6)
    metric, digits = record.verdict.metric, digits_for(record.verdict.test_examples)
    return [
        Mark(
            series=model.series,
            text=_shortened(model.series.name),
            value=quality(model.mean, metric, digits),
            range=" to ".join(quality(bound, metric, digits) for bound in model.bounds or ()),
            size=size(model.num_bytes),
            x=round(x, 1),
            y=y_scale(model.mean),
            seeds=tuple(y_scale(value) for value in model.values) if len(model.values) > 1 else (),
            whisker=(y_scale(model.bounds[0]), y_scale(model.bounds[1])) if model.bounds else None,
            label_x=round(label_x, 1),
            label_y=label_y,
            anchor="start" if on_the_right else "end",
        )
        for model, x, label_y in zip(group, xs, label_ys, strict=True)
    ]


def _beside(group: list[_Model], x_scale: Scale, y_scale: Scale) -> list[Number]:
    """Every model at its size; only those that would cover each other step aside, left and right in turn."""
    taken: list[tuple[Number, Number, Number]] = []  # x, highest and lowest pixel
    for model in group:
        extent = [y_scale(value) for value in (model.mean, *model.values, *(model.bounds or ()))]
        top, bottom = min(extent) - MARK_RADIUS, max(extent) + MARK_RADIUS
        in_the_way = [x for x, high, low in taken if bottom >= high and low >= top]
        taken.append((_nearest_free(x_scale(model.num_bytes), in_the_way), top, bottom))
    return [x for x, _, _ in taken]


def _nearest_free(wanted: Number, taken: list[Number]) -> Number:
    steps = range(2 * len(taken) + 1)
    places = (wanted + (step + 1) // 2 * (APART if step % 2 else -APART) for step in steps)
    return next(place for place in places if all(abs(place - other) >= APART for other in taken))


def _untangled(marks: list[Mark]) -> tuple[Mark, ...]:
    """Where labels of two groups would meet in the middle, all labels share one column of places."""
    boxes = [_label_box(mark) for mark in marks]
    pairs = [(one, other) for index, one in enumerate(boxes) for other in boxes[:index]]
    if not any(a[0] < b[1] and b[0] < a[1] and abs(a[2] - b[2]) < LABEL_GAP - 1 for a, b in pairs):
        return tuple(marks)
    places = spread([mark.label_y for mark in marks], gap=LABEL_GAP, low=TOP + 4, high=BOTTOM - 6)
    return tuple(replace(mark, label_y=place) for mark, place in zip(marks, places, strict=True))


def _label_box(mark: Mark) -> tuple[Number, Number, Number]:
    """Left, right and height of a label, its width guessed from its letters."""
    width = LETTER_WIDTH * (len(mark.text) + 1 + len(mark.value))
    left = mark.label_x if mark.anchor == "start" else mark.label_x - width
    return left, left + width, mark.label_y


def _shortened(name: str) -> str:
    return name if len(name) <= LONGEST_LABEL else name[: LONGEST_LABEL - 1] + "…"
