"""What a method costs: time of a step against the plain one's, activations held for the backward pass, parameters."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from distil.core.seeds import derive, seeded
from distil.data.feed import Feed
from distil.models.tap import Taps
from distil.pipeline.context import Context
from distil.pipeline.student import VIEW, bind_arm
from distil.pipeline.teacher import Faculty
from distil.recipe.recipe import Arm
from distil.train.optimizer import make_optimizer

WARM_UPS = 2
ROUNDS = 9


@dataclass(frozen=True)
class Cost:
    """What a method costs beside the plain arm.

    Attributes:
        step_ratio: time of a training step over that of the plain arm, medians of steps taken in turn.
        activation_bytes: held for the backward pass of one step, without weights.
        projector_parameters: trained beside the student and not shipped.
    """

    step_ratio: float
    activation_bytes: int
    projector_parameters: int


def measure_cost(context: Context, faculty: Faculty, arm: Arm, plain: Arm) -> Cost:
    """A few steps of the arm and of the plain one in turn, on one real batch, teacher's answers as in the run."""
    step, reference = _Step(context, faculty, arm), _Step(context, faculty, plain)
    with seeded(derive("cost")):
        for _ in range(WARM_UPS):
            step()
            reference()
        seconds = [(_timed(step), _timed(reference)) for _ in range(ROUNDS)]
        held = step.activation_bytes()
    ours, theirs = zip(*seconds, strict=True)
    step.close()
    reference.close()
    return Cost(
        step_ratio=statistics.median(ours) / statistics.median(theirs),
        activation_bytes=held,
        projector_parameters=sum(parameter.numel() for parameter in step.objective.module.parameters()),
    )


def cost_record(cost: Cost) -> dict[str, Any]:
    """The cost as JSON."""
    return asdict(cost)


class _Step:
    """A training step of an arm on its first batch."""

    def __init__(self, context: Context, faculty: Faculty, arm: Arm) -> None:
        config, device = arm.stages[-1].training, context.placement.device
        network, (*_, self.objective) = bind_arm(context, faculty, arm)
        self._model = network.model.to(device).train()
        self.objective.module.to(device)
        self._optimizer = make_optimizer([self._model, self.objective.module], config.optimizer)
        lesson = faculty.lectern.lesson(self.objective.requires, views_change=bool(config.augmentation))
        views: Mapping[str, Any] = {VIEW: network.view, **lesson.views}
        feed = Feed(
            context.splits.students,
            views=views,
            batch_size=config.batch_size,
            order=config.order,
            targets=context.task.targets,
            seed=derive("cost"),
        )
        self._batch, self._knowledge = feed.batch(0).to(device), lesson.knowledge
        self._taps = Taps(self._model, self.objective.requires.student_taps)

    def __call__(self) -> None:
        self._loss().backward()
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)

    def activation_bytes(self) -> int:
        """Bytes that the forward pass keeps, each storage once, weights left out."""
        weights = {p.untyped_storage().data_ptr() for m in (self._model, self.objective.module) for p in m.parameters()}
        held: dict[int, Tensor] = {}

        def keep(tensor: Tensor) -> Tensor:
            if tensor.untyped_storage().data_ptr() not in weights:
                held[tensor.untyped_storage().data_ptr()] = tensor
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = self._loss()
        size = sum(tensor.untyped_storage().nbytes() for tensor in held.values())
        del loss
        return size

    def close(self) -> None:
        self._taps.close()

    def _loss(self) -> Tensor:
        said = self._taps.observe(self._model, self._batch.inputs[VIEW])
        return self.objective(said, self._knowledge(self._batch), self._batch, self.objective.counts(self._batch)).total


def _timed(step: Callable[[], None]) -> float:
    start = time.perf_counter()
    step()
    return time.perf_counter() - start
