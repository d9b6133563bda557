"""Scores: what a model says about examples. The only pass without gradient, for all rooms alike."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from distil.data.batch import Batch


@dataclass(frozen=True, eq=False)
class Scores:
    """A model's logits for examples, with the labels they should give. All on the CPU, float32."""

    ids: Int[Tensor, " examples"]
    logits: Float[Tensor, "examples classes"]
    labels: Int[Tensor, " examples"]


def score(model: nn.Module, batches: Iterable[Batch], *, view: str, task: str = "main", device: str = "cpu") -> Scores:
    """The model's answers, in evaluation mode and without gradient; every submodule's mode is as before afterwards.

    Args:
        model: from the view's input to logits.
        batches: examples in the order wanted.
        view: which of the batches' inputs the model takes.
        task: whose labels go with the answers.
        device: where the model is.
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    ids, logits, labels = [], [], []
    try:
        with torch.no_grad():
            for batch in batches:
                output = model(batch.inputs[view].to(device))
                ids.append(batch.ids)
                logits.append(output.float().cpu())
                labels.append(batch.targets[task])
    finally:
        for module, mode in modes:
            module.training = mode
    # joined outside inference mode, so that the scores can take part in autograd
    return Scores(ids=torch.cat(ids), logits=torch.cat(logits), labels=torch.cat(labels))
