"""Small made-up examples for the tests of this folder."""

import numpy as np
import torch

from distil.data.example import Examples, ImageExamples


def make(
    num_examples: int = 40, *, num_classes: int = 4, shape: tuple[int, int, int] = (1, 5, 6), first_id: int = 0
) -> Examples:
    generator = np.random.default_rng(0)
    return ImageExamples(
        ids=torch.arange(first_id, first_id + num_examples),
        images=torch.from_numpy(generator.integers(0, 256, (num_examples, *shape), dtype=np.uint8)),
        labels=torch.arange(num_examples) % num_classes,
        class_names=tuple("abcdefghij"[:num_classes]),
    )
