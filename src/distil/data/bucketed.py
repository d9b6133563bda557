"""Bucketed order: texts of like length together, so that batches hold less padding."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from distil.core.seeds import derive
from distil.data.order import batch_bounds


def bucketed_order(
    lengths: Sequence[int], *, batch_size: int, batches: int, seed: int, epoch: int
) -> Int[Tensor, " examples"]:
    """The rows in the order of this epoch: a permutation, equal for equal (seed, epoch).

    All rows are shuffled; of every ``batches`` batches the rows are sorted by length, equal lengths staying in random
    order; then the batches are shuffled. The batches are those of ``batch_bounds``, whose last one stays last.

    Args:
        lengths: of each row, such as its number of tokens.
        batch_size: rows in a batch.
        batches: how many are sorted together: more means less padding, and batches that are more alike in length.
        seed: of the run.
        epoch: counted from 0.
    """
    generator = np.random.Generator(np.random.Philox(key=derive("bucketed-order", seed, epoch)))
    rows, known = generator.permutation(len(lengths)), np.asarray(lengths)
    pool = batch_size * batches
    pieces = [rows[start : start + pool] for start in range(0, len(rows), pool)]
    ordered = np.concatenate([piece[np.argsort(known[piece], kind="stable")] for piece in pieces])
    bounds = batch_bounds(len(ordered), batch_size)
    *whole, last = [ordered[start:end] for start, end in bounds]
    return torch.from_numpy(np.concatenate([*(whole[i] for i in generator.permutation(len(whole))), last]))
