import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from distil.core.seeds import derive, seeded, uniform

MASK = 2**64 - 1


def splitmix64(value: int) -> int:
    """The mixing function in Python's whole numbers, from the published C code."""
    value = (value + 0x9E3779B97F4A7C15) & MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & MASK
    return value ^ (value >> 31)


def test_the_reference_gives_the_published_first_number() -> None:
    assert splitmix64(0) == 0xE220A8397B1DCDAF


@settings(deadline=None, max_examples=50)
@given(seed=st.integers(0, 2**63 - 1), counters=st.lists(st.integers(0, 2**62), min_size=1, max_size=8))
def test_uniform_is_the_reference_for_each_counter(seed: int, counters: list[int]) -> None:
    expected = [(splitmix64(splitmix64(counter) ^ seed) >> 11) * 2.0**-53 for counter in counters]
    assert uniform(seed, np.array(counters)).tolist() == expected


@settings(deadline=None, max_examples=50)
@given(counters=st.lists(st.integers(0, 10_000), min_size=1, max_size=20, unique=True), data=st.data())
def test_uniform_ignores_neighbours_and_order(counters: list[int], data: st.DataObject) -> None:
    shuffled = data.draw(st.permutations(counters))
    alone = {counter: uniform(3, np.array([counter]))[0] for counter in counters}
    assert uniform(3, np.array(shuffled)).tolist() == [alone[counter] for counter in shuffled]


def test_uniform_is_spread_evenly_over_counters_and_over_seeds() -> None:
    over_counters = uniform(derive("x"), np.arange(100_000))
    over_seeds = np.array([uniform(derive("x", seed), np.array([7]))[0] for seed in range(5_000)])
    for values in (over_counters, over_seeds):
        assert (values >= 0).all()
        assert (values < 1).all()
        counts = np.histogram(values, bins=20, range=(0, 1))[0]
        expected = len(values) / 20
        assert ((counts - expected) ** 2 / expected).sum() < 43.8  # chi-square, 19 degrees of freedom, 0.999


def test_neighbouring_seeds_are_not_correlated() -> None:
    first, second = uniform(derive("x", 0), np.arange(50_000)), uniform(derive("x", 1), np.arange(50_000))
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.02


def test_equal_purposes_give_equal_seeds_and_others_differ() -> None:
    assert derive("order", 1, 2) == derive("order", 1, 2)
    purposes = [("order", 1, 2), ("order", 2, 1), ("order", 12), ("order", "1", 2), ("order1", 2), ("ord", "er", 1, 2)]
    seeds = [derive(*purpose) for purpose in purposes]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_derive_is_the_same_in_every_process_and_version() -> None:
    # sha256 of b"str:order\x1fint:0" begins with these bytes (from sha256sum); a change here would break old runs
    first_bytes = bytes.fromhex("7684889585a20603")
    assert derive("order", 0) == int.from_bytes(first_bytes, "little") >> 1


def test_seeded_replays_inside_and_restores_outside() -> None:
    torch.manual_seed(5)
    expected_outside = torch.rand(2)
    torch.manual_seed(5)
    draws = []
    for _ in range(2):
        with seeded(11):
            draws.append(torch.rand(3))
    assert torch.equal(draws[0], draws[1])
    assert torch.equal(torch.rand(2), expected_outside)


def test_seeded_restores_after_an_error() -> None:
    before = torch.random.get_rng_state()
    with pytest.raises(RuntimeError, match="size"), seeded(1):
        torch.rand(2) @ torch.rand(3)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_20_no_generator_is_shared_between_purposes() -> None:
    numbers = {purpose: uniform(derive(purpose, 0), np.arange(4)).tolist() for purpose in ("order", "dropout", "shift")}
    assert all(first != second for first, second in itertools.combinations(numbers.values(), 2))
