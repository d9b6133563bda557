"""A model's input: one tensor, such as images, or several by name, such as token ids with their mask. Batch first."""

from collections.abc import Mapping
from typing import TypeAlias

import torch
from torch import Tensor

Inputs: TypeAlias = Tensor | Mapping[str, Tensor]


def num_rows(inputs: Inputs) -> int:
    """How many examples there are."""
    return len(inputs) if isinstance(inputs, Tensor) else len(next(iter(inputs.values())))


def take_rows(inputs: Inputs, rows: slice | Tensor) -> Inputs:
    """The same for some examples."""
    if isinstance(inputs, Tensor):
        return inputs[rows]
    return {name: value[rows] for name, value in inputs.items()}


def move(inputs: Inputs, device: str) -> Inputs:
    """The same on a device."""
    if isinstance(inputs, Tensor):
        return inputs.to(device, non_blocking=True)
    return {name: value.to(device, non_blocking=True) for name, value in inputs.items()}


def shapes_of(inputs: Inputs) -> str:
    """The shape of one example, for messages."""
    if isinstance(inputs, Tensor):
        return str(list(inputs.shape[1:]))
    return ", ".join(f"{name} {list(value.shape[1:])}" for name, value in inputs.items())


def join_rows(pieces: list[Inputs]) -> Inputs:
    """Pieces one after the other; of named tensors shorter ones are filled with 0 at the end, to one length."""
    first = pieces[0]
    if isinstance(first, Tensor):
        return torch.cat([piece for piece in pieces if isinstance(piece, Tensor)])
    named = [piece for piece in pieces if not isinstance(piece, Tensor)]
    return {name: _padded([piece[name] for piece in named]) for name in first}


def real_tokens(inputs: Inputs) -> Tensor | None:
    """Which tokens are real and not padding, as booleans [batch, tokens]; None: the input has no tokens."""
    if isinstance(inputs, Tensor) or "attention_mask" not in inputs or inputs["attention_mask"].ndim != 2:
        return None
    return inputs["attention_mask"].bool()


def _padded(values: list[Tensor]) -> Tensor:
    length = max(value.shape[-1] for value in values)
    return torch.cat([torch.nn.functional.pad(value, (0, length - value.shape[-1])) for value in values])
