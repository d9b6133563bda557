"""The verdict: whether distillation helped, against controls that had the same budget.

Two intervals must agree. One resamples the test examples, with the seeds averaged per example: would other examples
say the same? The other looks at the differences between seeds: would other seeds say the same?
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped
from scipy import stats

CONFIDENCE = 0.95
EQUIVALENCE_CONFIDENCE = 0.90  # two one-sided tests at 5% each
RESAMPLES = 9_999
RESAMPLED_AT_ONCE = 1_000_000  # values in memory
ROUNDING = 1e-12  # relative; what differs by less is equal
ENOUGH_SEEDS = 5

Interval = tuple[float, float]


@dataclass(frozen=True)
class Comparison:
    """The distilled arm against one control: differences are distilled minus control, positive is better."""

    difference: float
    interval: Interval
    seed_interval: Interval | None
    equivalence_interval: Interval

    @property
    def lowest(self) -> float:
        return min(self.interval[0], self.seed_interval[0] if self.seed_interval else self.interval[0])

    @property
    def highest(self) -> float:
        return max(self.interval[1], self.seed_interval[1] if self.seed_interval else self.interval[1])


@dataclass(frozen=True)
class Verdict:
    """The word, the comparisons behind it, and what a reader must know beside it."""

    word: str
    against: Mapping[str, Comparison] = field(default_factory=dict)
    best_control: str | None = None
    notes: tuple[str, ...] = ()


def decide(
    distilled: Shaped[np.ndarray, "seeds examples"] | None,
    controls: Mapping[str, Shaped[np.ndarray, "seeds examples"]],
    *,
    margin: float,
    groups: Sequence[str] | None = None,
) -> Verdict:
    """The verdict on per-example scores, of which higher is better.

    Args:
        distilled: the distilled arm's score of every example (for accuracy: 1 where right) by seed; None: no such arm.
        controls: the same for each control, same seeds, same examples.
        margin: differences inside -margin..margin count as none.
        groups: of each example, such as its article or speaker: examples of a group are resampled together.
    """
    if distilled is None or not controls:
        missing = "no distilled arm" if distilled is None else "no control"
        return Verdict("NOT TESTED", notes=(f"The recipe has {missing}, so nothing was compared.",))
    against = {name: compare(distilled, scores, groups=groups) for name, scores in controls.items()}
    best = max(controls, key=lambda name: float(controls[name].mean()))
    lowest, highest = against[best].equivalence_interval
    if all(comparison.lowest > 0 for comparison in against.values()):
        word = "BEATS"
    elif any(comparison.highest < 0 for comparison in against.values()):
        word = "WORSE"
    elif -margin < lowest and highest < margin:
        word = "EQUIVALENT"
    else:
        word = "INCONCLUSIVE"
    return Verdict(word, against=against, best_control=best, notes=_notes(word, len(distilled), against[best]))


def compare(
    distilled: Shaped[np.ndarray, "seeds examples"],
    control: Shaped[np.ndarray, "seeds examples"],
    *,
    groups: Sequence[str] | None = None,
) -> Comparison:
    """Difference of the means, with a paired bootstrap over examples (BCa) and a paired t interval over seeds.

    With ``groups`` whole groups are drawn, each with the sum of its differences and its size.
    """
    assert distilled.shape == control.shape, "a control has other seeds or other test examples"
    differences = distilled.astype(np.float64) - control.astype(np.float64)
    by_example = differences.mean(axis=0)
    by_seed = differences.mean(axis=1)
    interval, equivalence_interval = bootstrap_intervals(
        by_example, confidences=(CONFIDENCE, EQUIVALENCE_CONFIDENCE), groups=groups
    )
    return Comparison(
        difference=float(differences.mean()),
        interval=interval,
        seed_interval=seed_interval(by_seed, confidence=CONFIDENCE) if len(by_seed) > 1 else None,
        equivalence_interval=equivalence_interval,
    )


def bootstrap_intervals(
    values: Float[np.ndarray, " examples"], *, confidences: Sequence[float], groups: Sequence[str] | None = None
) -> list[Interval]:
    """Intervals of the mean by the bias-corrected and accelerated bootstrap (Efron 1987), all from one resampling.

    The resampling is fixed. Where all values, or the means of all groups, are equal there is nothing to resample, and
    the interval is that value.
    """
    data, statistic = _resampled(values, groups)
    first, *sizes = data
    drawn = first / sizes[0] if sizes else first
    if np.ptp(drawn) <= ROUNDING * np.abs(values).max():
        return [(float(drawn[0]), float(drawn[0]))] * len(confidences)
    intervals: list[Interval] = []
    resampled = None
    for confidence in confidences:
        resampled = stats.bootstrap(
            data,
            statistic,
            paired=bool(sizes),
            confidence_level=confidence,
            n_resamples=RESAMPLES if resampled is None else 0,
            bootstrap_result=resampled,
            batch=max(1, RESAMPLED_AT_ONCE // len(first)),
            method="BCa",
            rng=np.random.default_rng(0),
        )
        low, high = resampled.confidence_interval
        intervals.append((float(low), float(high)))
    return intervals


def _resampled(
    values: np.ndarray, groups: Sequence[str] | None
) -> tuple[tuple[np.ndarray, ...], Callable[..., np.ndarray]]:
    """What is drawn again, and the mean of what was drawn: examples, or the sums and sizes of groups."""
    if groups is None or len(set(groups)) < 2:
        return (values,), np.mean
    names = sorted(set(groups), key=lambda name: (len(name), name))  # whatever the order of the examples
    place = {name: number for number, name in enumerate(names)}
    numbers = np.array([place[name] for name in groups])
    sums, sizes = np.bincount(numbers, weights=values), np.bincount(numbers).astype(np.float64)
    return (sums, sizes), lambda total, size, axis=-1: total.sum(axis=axis) / size.sum(axis=axis)


def seed_interval(values: Float[np.ndarray, " seeds"], *, confidence: float) -> Interval:
    """Interval of the mean by Student's t."""
    mean, error = float(values.mean()), float(stats.sem(values))
    reach = float(stats.t.ppf((1 + confidence) / 2, df=len(values) - 1)) * error
    return mean - reach, mean + reach


def smallest_detectable(comparison: Comparison) -> float:
    """The smallest difference that would have been told from none: half the width of the wider interval."""
    widths = [high - low for low, high in (comparison.interval, comparison.seed_interval or comparison.interval)]
    return max(widths) / 2


def verdict_record(
    verdict: Verdict,
    *,
    metric: str,
    higher_is_better: bool = True,
    distilled: str | None,
    arms: Mapping[str, Sequence[float]],
    teachers: Mapping[str, float],
    seeds: Sequence[int],
    test_examples: int,
    teacher_flag: str | None,
    baselines: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """The content of ``verdict.json``."""
    best = verdict.against.get(verdict.best_control or "")
    return {
        "format": 1,
        "verdict": verdict.word,
        "metric": metric,
        "higher_is_better": higher_is_better,
        "confidence": CONFIDENCE,
        "difference": best.difference if best else None,
        "interval": list(best.interval) if best else None,
        "seed_interval": list(best.seed_interval) if best and best.seed_interval else None,
        "smallest_detectable": smallest_detectable(best) if best else None,
        "best_control": verdict.best_control,
        "distilled": distilled,
        "seeds": list(seeds),
        "test_examples": test_examples,
        "arms": {name: {"mean": float(np.mean(values)), "values": list(values)} for name, values in arms.items()},
        "teachers": dict(teachers),
        "baselines": dict(baselines or {}),
        "against": {
            name: {
                "difference": comparison.difference,
                "interval": list(comparison.interval),
                "seed_interval": list(comparison.seed_interval) if comparison.seed_interval else None,
            }
            for name, comparison in verdict.against.items()
        },
        "parts": {},
        "notes": list(verdict.notes),
        "teacher_flag": teacher_flag,
    }


def _notes(word: str, num_seeds: int, best: Comparison) -> tuple[str, ...]:
    notes = []
    if num_seeds == 1:
        notes.append("One seed: the interval covers other test examples, not other trainings.")
    elif num_seeds < ENOUGH_SEEDS:
        notes.append(f"{num_seeds} seeds: fewer than {ENOUGH_SEEDS}, so the interval over seeds is wide.")
    if word == "INCONCLUSIVE":
        notes.append(
            f"This run could not have told a difference below {smallest_detectable(best):.4f} from none; "
            "more seeds or more test examples would."
        )
    return tuple(notes)
