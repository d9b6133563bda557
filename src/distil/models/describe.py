"""What a network is: its size, its cost and the shape of what it says, measured on one real input."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from distil.core.errors import ModelError


@dataclass(frozen=True)
class ModelDescription:
    """Facts about a network.

    Attributes:
        num_classes: numbers in its output for an example.
        num_parameters: of all its weights; buffers, such as running means, are not counted.
        size_bytes: of weights and buffers as they are stored.
        multiply_accumulates: for one example.
    """

    num_classes: int
    num_parameters: int
    size_bytes: int
    multiply_accumulates: int


def describe_model(model: nn.Module, example: Tensor) -> ModelDescription:
    """Runs one example through the model in evaluation mode; the model is left as it was.

    Raises:
        ModelError: the model cannot take the input, or its output is not one row of scores an example.
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    # torch's fused attention is invisible to the counter, which then reports nothing
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.inference_mode(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            output = model(example[:1])
    except Exception as error:  # networks raise all kinds about an input, assertions too
        shape = list(example.shape[1:])
        raise ModelError(f"{type(model).__name__} cannot take an input of shape {shape}: {error}") from error
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
        for module, mode in modes:
            module.training = mode
    if not isinstance(output, Tensor) or output.ndim != 2:
        found = f"shape {list(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
        raise ModelError(
            f"{type(model).__name__} gives {found}; image classification needs logits of shape [batch, classes]"
        )
    return ModelDescription(
        num_classes=output.shape[1],
        num_parameters=sum(parameter.numel() for parameter in model.parameters()),
        size_bytes=sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values()),
        multiply_accumulates=counter.get_total_flops() // 2,
    )
