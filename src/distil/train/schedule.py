"""Learning rate by step: a pure function, so that there is no scheduler to save."""

import math
from typing import assert_never

from distil.train.config import ConstantConfig, CosineConfig, OneCycleConfig, ScheduleConfig

ONE_CYCLE_START = 1 / 25
ONE_CYCLE_END = ONE_CYCLE_START / 1e4


def learning_rate_factor(config: ScheduleConfig, *, step: int, total_steps: int) -> float:
    """The share of the configured learning rate that a step uses.

    Args:
        config: the shape of the schedule.
        step: counted from 0.
        total_steps: of the training; step 0 .. total_steps - 1.
    """
    match config:
        case ConstantConfig():
            return _warmup(step, config.warmup * total_steps)
        case CosineConfig():
            warmup_steps = config.warmup * total_steps
            if step < warmup_steps:
                return _warmup(step, warmup_steps)
            return _half_cosine(1.0, config.final, (step - warmup_steps) / max(total_steps - warmup_steps, 1))
        case OneCycleConfig():
            peak = config.warmup * total_steps - 1  # the step of the highest rate, as torch's OneCycleLR counts
            if step <= peak:
                return _half_cosine(ONE_CYCLE_START, 1.0, step / peak if peak > 0 else 1.0)
            return _half_cosine(1.0, ONE_CYCLE_END, (step - peak) / max(total_steps - 1 - peak, 1))
        case _:
            assert_never(config)


def _warmup(step: int, warmup_steps: float) -> float:
    return min(1.0, (step + 1) / warmup_steps) if warmup_steps > 0 else 1.0


def _half_cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * min(share, 1.0))) / 2
