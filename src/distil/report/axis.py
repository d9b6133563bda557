"""Scales, ticks and places for labels: the arithmetic under every chart. Units are pixels of the chart's own box."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from distil.report.number import Number


@dataclass(frozen=True)
class Tick:
    """Where a grid line stands, in pixels, and what is written at it."""

    position: Number
    label: str


@dataclass(frozen=True)
class Scale:
    """A map from values to pixels, linear or logarithmic."""

    low: Number
    high: Number
    start: Number
    end: Number
    logarithmic: bool = False

    def __call__(self, value: Number) -> Number:
        """The pixel of a value, to a tenth. Values outside of the domain are held at its border."""
        low, high, value = (math.log(each) if self.logarithmic else each for each in (self.low, self.high, value))
        share = min(1.0, max(0.0, (value - low) / (high - low)))
        return round(self.start + share * (self.end - self.start), 1)

    def ticks(self, label: Callable[[Number], str], *, target: int = 5) -> tuple[Tick, ...]:
        """About ``target`` round values inside of the domain."""
        values = log_values(self.low, self.high) if self.logarithmic else linear_values(self.low, self.high, target)
        return tuple(Tick(self(value), label(value)) for value in values)


def linear_values(low: Number, high: Number, target: int = 5) -> list[Number]:
    """Multiples of 1, 2 or 5 times a power of ten between two values: the step that gives nearest to ``target``."""
    power = 10.0 ** math.floor(math.log10((high - low) / target))
    candidates = [_multiples(factor * power, low, high) for factor in (10, 5, 2, 1, 0.5)]
    return min(candidates, key=lambda values: abs(len(values) - target))


def _multiples(step: Number, low: Number, high: Number) -> list[Number]:
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


def log_values(low: Number, high: Number) -> list[Number]:
    """Powers of ten between two values, with 3 times, or 2 and 5 times each where the range is short.

    Where even that leaves one or none, the range is so short that round values at equal distances serve.
    """
    decades = math.log10(high / low)
    factors = (1,) if decades > 3 else (1, 3) if decades > 1.6 else (1, 2, 5)
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    values = [factor * 10.0**exponent for exponent in exponents for factor in factors]
    found = [value for value in values if low * 0.999 <= value <= high * 1.001]
    return found if len(found) > 1 else linear_values(low, high)


def padded(
    low: Number, high: Number, *, share: Number = 0.08, floor: Number = -math.inf, ceiling: Number = math.inf
) -> tuple[Number, Number]:
    """A domain a little wider than its values, never of width zero, and inside of floor and ceiling."""
    width = high - low or abs(high) * 0.1 or 1.0
    return max(floor, low - share * width), min(ceiling, high + share * width)


def spread(positions: Sequence[Number], *, gap: Number, low: Number, high: Number) -> list[Number]:
    """Moves labels apart until neighbours are ``gap`` pixels from each other, as little as possible, in their order.

    Labels that touch become one block around the mean of the places they wanted. Where there are more labels than
    room between ``low`` and ``high`` they start at ``low``.
    """
    order = sorted(range(len(positions)), key=lambda index: positions[index])
    blocks: list[list[Number]] = []  # each: mean wanted place of its first label, number of labels
    for place, index in enumerate(order):
        blocks.append([positions[index] - place * gap, 1])
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            wanted, number = blocks.pop()
            before = blocks[-1]
            before[0] = (before[0] * before[1] + wanted * number) / (before[1] + number)
            before[1] += number
    ceiling = high - (len(order) - 1) * gap
    starts = [max(low, min(wanted, ceiling)) for wanted, number in blocks for _ in range(int(number))]
    placed = [0.0] * len(positions)
    for place, index in enumerate(order):
        placed[index] = round(starts[place] + place * gap, 1)
    return placed


def path(points: Sequence[tuple[Number, Number]], *, closed: bool = False) -> str:
    """The ``d`` attribute of a polyline."""
    return "M" + "L".join(f"{x:g} {y:g}" for x, y in points) + ("Z" if closed else "")
