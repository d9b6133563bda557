"""Which channels, heads and neurons of a model matter, measured on real data without any gradient."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from distil.core.errors import DataError, ModelError, NumericError
from distil.models.shrink_architecture import linear_layers, norms_of, sizes_of


@dataclass(frozen=True, eq=False)
class Importance:
    """How large each part of a model is on real data; within one field, more is more important.

    Attributes:
        hidden: of each channel of the stream, over all layers together.
        heads: of each query head, layer by layer.
        neurons: of each feed-forward neuron, layer by layer.
        features: of each feature of the classifier's own space; None: the model has none.
        num_examples: measured on how many examples.
    """

    hidden: Float[Tensor, " channels"]
    heads: Float[Tensor, "layers heads"]
    neurons: Float[Tensor, "layers neurons"]
    features: Float[Tensor, " features"] | None
    num_examples: int


def measure_importance(model: nn.Module, batches: Iterable[Mapping[str, Tensor]]) -> Importance:
    r"""Importance of channels, heads and neurons by the size of their activations.

    .. math:: \sqrt{\frac{1}{E} \sum_e \Big( \frac{1}{T_e} \sum_t |a_{et}| \Big)^2}

    over the E examples and the T_e real tokens of each: a mean over tokens, then a root mean square over examples.
    What a is: for a channel of the stream, the output of a normalisation layer, and the values of all such layers of
    the base model are added up; for a head, its output before the attention's last linear layer, with the L2 norm over
    the head's features in place of the absolute value; for a neuron, what goes into the second feed-forward layer, so
    after the activation and the gate; for a feature of the classifier's own space, what the classifier reads, or, where
    there is none, what the pooler's linear layer writes.

    Padding does not count, whichever side it is on. How the examples are divided into batches makes no difference.

    Args:
        model: of transformers, in evaluation mode. It is not changed.
        batches: inputs of the model by name, with ``attention_mask``. A few hundred examples are enough.

    Raises:
        ModelError: the model is none that a student can be cut from, or is in training mode, with dropout on.
        DataError: there is no example, or a batch without ``attention_mask``.
        NumericError: an activation is not finite.

    Source: Muralidharan et al. 2024, arXiv:2407.14679, section 2.2 (mean over the sequence, L2 over the batch). The L2
    norm is divided by the root of E, which changes no order. The paper measures neurons before the activation, in a
    feed-forward without a gate; here it is what the next layer reads, which is one definition for both kinds. Features
    are not in the paper.
    """
    sizes = sizes_of(model)
    if any(module.training for module in model.modules()):
        raise ModelError(f"{type(model).__name__} is in training mode, where dropout is on; call its eval() first")
    norms = norms_of(model)
    attention = linear_layers(model, "heads", end="input")
    feed_forward = linear_layers(model, "neurons", end="input")
    read = linear_layers(model, "features", end="input")
    written = [] if read else linear_layers(model, "features", end="output")

    watch = _Watch(model)
    for name in [*norms, *written]:
        watch.output_of(name, torch.abs)
    for name in [*feed_forward, *read]:
        watch.input_of(name, torch.abs)
    for name in attention:
        watch.input_of(name, lambda value: value.unflatten(-1, (sizes.heads, sizes.head_size)).norm(dim=-1))
    sizes_seen = watch.run(batches)

    features = [sizes_seen[name] for name in [*read, *written] if name in sizes_seen]
    return Importance(
        hidden=torch.stack([sizes_seen[name] for name in norms]).sum(dim=0),
        heads=torch.stack([sizes_seen[name] for name in attention]),
        neurons=torch.stack([sizes_seen[name] for name in feed_forward]),
        features=features[0] if features else None,
        num_examples=watch.num_examples,
    )


class _Watch:
    """Hooks that add up, for each module, the squares of the examples' means over real tokens."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.num_examples = 0
        self._sums: dict[str, Tensor] = {}
        self._handles: list[Any] = []
        self._real: Bool[Tensor, "batch tokens"] = torch.ones(0, 0, dtype=torch.bool)

    def output_of(self, name: str, magnitude: Callable[[Tensor], Tensor]) -> None:
        def see(module: nn.Module, args: Any, output: Tensor) -> None:  # noqa: ARG001
            self._add(name, magnitude(output.float()))

        self._handles.append(self.model.get_submodule(name).register_forward_hook(see))

    def input_of(self, name: str, magnitude: Callable[[Tensor], Tensor]) -> None:
        def see(module: nn.Module, args: Any) -> None:  # noqa: ARG001
            self._add(name, magnitude(args[0].float()))

        self._handles.append(self.model.get_submodule(name).register_forward_pre_hook(see))

    def run(self, batches: Iterable[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """The root mean squares over the examples, by module, in float32 on the CPU."""
        device = next(self.model.parameters()).device
        try:
            with torch.no_grad():
                for batch in batches:
                    if "attention_mask" not in batch:
                        raise DataError(
                            f"a batch has {', '.join(batch)} and no attention_mask, so that padding would count; give "
                            "a mask with 1 for real tokens and 0 for padding"
                        )
                    inputs = {name: value.to(device) for name, value in batch.items()}
                    self._real = inputs["attention_mask"].bool().flatten(end_dim=-2)
                    self.num_examples += int(self._real.any(dim=-1).sum())
                    self.model(**inputs)
        finally:
            for handle in self._handles:
                handle.remove()
        if self.num_examples == 0:
            raise DataError("there are no examples to measure importance on; give at least one batch of real texts")
        seen = {name: (total / self.num_examples).sqrt().float().cpu() for name, total in self._sums.items()}
        wrong = [name for name, value in seen.items() if not bool(value.isfinite().all())]
        if wrong:
            raise NumericError(f"activations are not finite at {', '.join(wrong[:3])}; measure in float32")
        return seen

    def _add(self, name: str, magnitudes: Float[Tensor, "batch *tokens parts"]) -> None:
        some = self._real.any(dim=-1)
        if magnitudes.ndim == 3:
            real = self._real.unsqueeze(-1)
            magnitudes = torch.where(real, magnitudes, 0.0).sum(dim=1) / real.sum(dim=1).clamp(min=1)
        squares = magnitudes[some].double().square().sum(dim=0)
        self._sums[name] = self._sums[name] + squares if name in self._sums else squares
