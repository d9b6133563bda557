"""Terms on the labels of the data, bound."""

from typing import assert_never

import torch
from torch import Tensor

from distil.losses.multilabel import binary_cross_entropy
from distil.losses.smoothing import adjusted_smoothing, smoothed_targets, target_cross_entropy
from distil.objective.label_config import BinaryLabels, LabelTerm, SmoothedLabels
from distil.objective.term import Binding, BoundTerm, FunctionTerm, TermInput


def bind_label(term: LabelTerm, binding: Binding) -> BoundTerm:
    """The term as a module."""
    match term:
        case BinaryLabels():
            return FunctionTerm(lambda said: binary_cross_entropy(said.student.logits, said.labels))
        case SmoothedLabels():
            return _Smoothed(term, num_classes=binding.student.num_classes)
        case _:
            assert_never(term)


class _Smoothed(BoundTerm):
    """Its smoothing and the validation losses it goes by are buffers, so that a checkpoint has them."""

    smoothing: Tensor
    losses: Tensor

    def __init__(self, term: SmoothedLabels, *, num_classes: int) -> None:
        super().__init__()
        self._term, self._num_classes = term, num_classes
        self.register_buffer("smoothing", torch.tensor(term.smoothing, dtype=torch.float64))
        self.register_buffer("losses", torch.zeros(2, dtype=torch.float64))
        self.register_buffer("num_losses", torch.zeros((), dtype=torch.int64))

    def forward(self, said: TermInput) -> Tensor:
        shape = (*said.labels.shape, self._num_classes)
        uniforms = torch.rand(shape, device=said.labels.device) if self._term.noise == "sampled" else None
        targets = smoothed_targets(
            said.labels, num_classes=self._num_classes, smoothing=self.smoothing.item(), uniforms=uniforms
        )
        return target_cross_entropy(said.student.logits, targets)

    def observe(self, validation_loss: float) -> dict[str, float]:
        if self._term.adapt == 0:
            return {}
        self.losses.copy_(torch.tensor([self.losses[1].item(), validation_loss]))
        self.num_losses += 1
        known = self.losses.tolist()[2 - min(int(self.num_losses), 2) :]
        adjusted = adjusted_smoothing(self.smoothing.item(), known, step=self._term.adapt, most=self._term.most)
        self.smoothing.fill_(adjusted)
        return {"smoothing": adjusted}
