"""Scores: what a model says about examples. The only pass without gradient, for all rooms alike."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from distil.core.inputs import Inputs, move
from distil.data.batch import Batch

Ask: TypeAlias = Callable[[nn.Module, Inputs, Batch], Tensor]


@dataclass(frozen=True, eq=False)
class Scores:
    """A model's logits for examples, or whatever else the task keeps of its answers. All on the CPU, float32.

    ``labels`` are the classes that should be said; 0 for tasks whose targets are no single class.
    """

    ids: Int[Tensor, " examples"]
    logits: Float[Tensor, "examples *answer"]
    labels: Int[Tensor, " examples"]


def ask_plainly(model: nn.Module, inputs: Inputs, batch: Batch) -> Tensor:  # noqa: ARG001
    """The model's output as it is."""
    return model(inputs)


def score(
    model: nn.Module,
    batches: Iterable[Batch],
    *,
    view: str,
    task: str = "main",
    device: str = "cpu",
    ask: Ask = ask_plainly,
) -> Scores:
    """The model's answers, in evaluation mode and without gradient; every submodule's mode is as before afterwards.

    Args:
        model: from the view's input to logits.
        batches: examples in the order wanted.
        view: which of the batches' inputs the model takes.
        task: whose labels go with the answers.
        device: where the model is.
        ask: what is kept of an answer.
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    ids, logits, labels = [], [], []
    try:
        with torch.no_grad():
            for batch in batches:
                output = ask(model, move(batch.inputs[view], device), batch)
                ids.append(batch.ids)
                logits.append(output.float().cpu())
                target = batch.targets[task]
                is_class = target.ndim == 1 and not target.is_floating_point()
                labels.append(target if is_class else torch.zeros(len(batch), dtype=torch.int64))
    finally:
        for module, mode in modes:
            module.training = mode
    # joined outside inference mode, so that the scores can take part in autograd
    return Scores(ids=torch.cat(ids), logits=_joined(logits), labels=torch.cat(labels))


def _joined(answers: list[Tensor]) -> Tensor:
    """Answers of all batches; those for tokens are filled with 0 to the longest."""
    shapes = {answer.shape[1:] for answer in answers}
    if len(shapes) == 1:
        return torch.cat(answers)
    length = max(shape[-1] for shape in shapes)
    return torch.cat([F.pad(answer, (0, length - answer.shape[-1])) for answer in answers])
