"""Which example comes when: a function of seed and epoch, so that a resumed run needs nothing but its step."""

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from distil.core.seeds import derive


def epoch_order(num_examples: int, *, seed: int, epoch: int) -> Int[Tensor, " examples"]:
    """The rows in the order of this epoch: a permutation, equal for equal (seed, epoch)."""
    generator = np.random.Generator(np.random.Philox(key=derive("order", seed, epoch)))
    return torch.from_numpy(generator.permutation(num_examples))


def batch_bounds(num_examples: int, batch_size: int) -> list[tuple[int, int]]:
    """Start and end of every batch of an epoch. Each example is in one batch; the last batch may be smaller.

    A single example left over joins the batch before it: batch normalisation cannot be trained on one example.
    """
    starts = list(range(0, num_examples, batch_size))
    if batch_size > 1 and len(starts) > 1 and num_examples - starts[-1] == 1:
        starts.pop()
    return [(start, end) for start, end in zip(starts, [*starts[1:], num_examples], strict=True)]
