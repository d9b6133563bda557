"""Random numbers as functions of what they are for: no generator is carried along, so none is saved or restored."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def derive(*purpose: str | int) -> int:
    """A seed (63 bits) for a purpose, such as ``derive("order", seed, epoch)``: equal purposes give equal seeds."""
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in purpose)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Torch's global generators start from ``seed`` inside, and are as before outside."""
    with torch.random.fork_rng(devices=range(torch.cuda.device_count()) if torch.cuda.is_available() else []):
        torch.manual_seed(seed)
        yield


def uniform(seed: int, counters: np.ndarray) -> np.ndarray:
    """One number in [0, 1) for each counter: a function of the seed and that counter alone, whatever stands beside it.

    The mixing function is splitmix64 (Steele, Lea, Flood 2014), applied twice so that seeds and counters do not add up.
    """
    mixed = _splitmix64(_splitmix64(counters.astype(np.uint64)) ^ np.uint64(seed))
    return (mixed >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _splitmix64(values: np.ndarray) -> np.ndarray:
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
