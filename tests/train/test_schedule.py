import math

import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, OneCycleLR

from distil.train.config import ConstantConfig, CosineConfig, OneCycleConfig
from distil.train.schedule import learning_rate_factor

STEPS = 100


def factors(config: ConstantConfig | CosineConfig | OneCycleConfig) -> list[float]:
    return [learning_rate_factor(config, step=step, total_steps=STEPS) for step in range(STEPS)]


def torch_rates(scheduler_of: type, **settings: float) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = scheduler_of(optimizer, **settings)
    rates = []
    for _ in range(STEPS):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step() if len(rates) < STEPS else None
    return rates


@pytest.mark.parametrize("warmup", [0.1, 0.3, 0.5])
def test_one_cycle_is_the_schedule_of_torch(warmup: float) -> None:
    expected = torch_rates(OneCycleLR, max_lr=1.0, total_steps=STEPS, pct_start=warmup, cycle_momentum=False)
    assert factors(OneCycleConfig(warmup=warmup)) == pytest.approx(expected, abs=1e-12)


def test_cosine_without_warm_up_is_the_schedule_of_torch() -> None:
    expected = torch_rates(CosineAnnealingLR, T_max=STEPS, eta_min=0.25)
    assert factors(CosineConfig(final=0.25)) == pytest.approx(expected, abs=1e-9)


def test_warm_up_rises_in_a_straight_line_to_the_full_rate() -> None:
    assert factors(CosineConfig(warmup=0.1))[:10] == pytest.approx([step / 10 for step in range(1, 11)])
    assert factors(ConstantConfig(warmup=0.1))[9:] == [1.0] * 91


def test_constant_stays() -> None:
    assert set(factors(ConstantConfig())) == {1.0}


@pytest.mark.parametrize("config", [ConstantConfig(), CosineConfig(warmup=0.5), OneCycleConfig()])
def test_a_single_step_has_a_finite_positive_rate(config: ConstantConfig | CosineConfig | OneCycleConfig) -> None:
    factor = learning_rate_factor(config, step=0, total_steps=1)
    assert math.isfinite(factor)
    assert 0 < factor <= 1


def test_one_cycle_whose_peak_is_its_first_step_starts_there() -> None:
    config = OneCycleConfig(warmup=0.01)
    assert learning_rate_factor(config, step=0, total_steps=100) == 1.0
    assert learning_rate_factor(config, step=99, total_steps=100) < 1e-4
