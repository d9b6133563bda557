"""The training loop: plain steps on Fabric, all state in the checkpoint, and equal bits after any interruption."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from distil.core.errors import NumericError, Preempted, ResourceError
from distil.core.events import EventLog
from distil.core.interruption import Interruption
from distil.core.placement import Placement
from distil.core.seeds import derive, seeded
from distil.data.batch import Batch
from distil.data.feed import Feed
from distil.knowledge.response import Knowledge
from distil.models.tap import Taps
from distil.objective.objective import BoundObjective
from distil.train.checkpoint import Checkpoint, newest_checkpoint, refuse_non_finite, save_checkpoint
from distil.train.config import PlateauConfig, TrainingConfig
from distil.train.freezing import freeze, in_train_mode
from distil.train.optimizer import bound_weights, make_optimizer
from distil.train.schedule import learning_rate_factor

Metrics = Mapping[str, float]


@dataclass(frozen=True, eq=False)
class Trained:
    """The outcome of a training.

    Attributes:
        weights: of the state that is kept.
        kept_epoch: whose state that is, counted from 1.
        epochs: done.
        still_improving: whether more epochs promised more, see ``is_still_improving``; None: too few to tell.
    """

    weights: Mapping[str, Tensor]
    kept_epoch: int
    epochs: int
    still_improving: bool | None


@dataclass
class _Progress:
    """What changes during a training, besides weights and optimiser. All of it is in the checkpoint."""

    step: int = 0
    sums: dict[str, float] = field(default_factory=dict)  # of this epoch: each term's part times its count
    counts: dict[str, int] = field(default_factory=dict)
    watched: list[float] = field(default_factory=list)  # the loss of every epoch, on validation where there is one
    best_epoch: int = 0
    best_metrics: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Training:
    """Everything a training works with.

    Attributes:
        config: budget and optimiser.
        model: the network with its initial weights; it is trained in place.
        view: the input of the batches that the network takes.
        objective: bound to the knowledge.
        knowledge: what teachers say about a batch.
        feed: the batch of every step.
        validate: metrics on the validation split; None where there is none.
        metric: of these, the one that chooses between epochs; equal ones are told apart by the negative
            log-likelihood, where there is one.
        higher_is_better: of that metric.
        placement: where to compute.
        seed: of everything random in a step, such as dropout.
        folder: for ``events.jsonl`` and ``checkpoints/``.
        identity: hash of everything the result depends on; checkpoints of another identity are not used.
        frozen: patterns of the names of parameters that stay as they are.
    """

    config: TrainingConfig
    model: nn.Module
    view: str
    objective: BoundObjective
    knowledge: Knowledge
    feed: Feed
    validate: Callable[[nn.Module], Metrics] | None
    placement: Placement
    seed: int
    folder: Path
    identity: str
    frozen: tuple[str, ...] = ()
    metric: str = "accuracy"
    higher_is_better: bool = True

    def rank(self, metrics: Metrics) -> tuple[float, float]:
        """What better epochs have more of."""
        value = metrics[self.metric]
        return (value if self.higher_is_better else -value, -self.loss(metrics))

    def loss(self, metrics: Metrics) -> float:
        """What validation gives to be lowered."""
        value = metrics[self.metric]
        return metrics.get("negative_log_likelihood", -value if self.higher_is_better else value)


def train(training: Training, interruption: Interruption) -> Trained:
    """Trains a network, going on from its newest intact checkpoint; looks after every step whether to stop.

    Raises:
        NumericError: a loss or weight is not finite; nothing of that step is saved.
        ResourceError: memory is full, or a checkpoint could not be saved.
        Preempted: a stop was asked for; the step is finished and saved.
    """
    with seeded(training.seed), Loop(training) as loop:
        loop.resume()
        while not loop.is_finished:
            try:
                loop.step()
            except (torch.OutOfMemoryError, MemoryError) as error:
                raise ResourceError(
                    f"memory is full: {error}. Set training.micro_batch_size below {training.config.batch_size}; the "
                    "gradient stays the same. What was saved before is intact"
                ) from error
            if interruption.requested:
                loop.save()
                raise Preempted(
                    "stopped on request; the step is finished and saved. Run the same command again to go on"
                )
            loop.save_when_due()
        return loop.finish()


class Loop:
    """A training and its state: steps, epochs, saving and resuming. Hooks and frozen layers last until it is left."""

    def __init__(self, training: Training) -> None:
        config, self._training = training.config, training
        self._config, self._feed, self._objective = config, training.feed, training.objective
        self._checkpoints = training.folder / "checkpoints"
        self._events = EventLog(training.folder / "events.jsonl")
        self._module = training.model
        training.objective.module.to(training.placement.device)
        self._unfreeze = freeze(training.model, training.frozen)
        optimizer = make_optimizer([training.model, training.objective.module], config.optimizer)
        self._taps = Taps(training.model, training.objective.requires.student_taps)
        self._model, self._optimizer = training.placement.fabric.setup(in_train_mode(training.model), optimizer)
        self._total_steps = config.epochs * training.feed.steps_per_epoch
        self._progress = _Progress()
        self._best: dict[str, Tensor] = {}
        self._last_save = self._epoch_start = time.monotonic()

    def __enter__(self) -> "Loop":
        return self

    def __exit__(self, *error: object) -> None:
        self._taps.close()
        self._unfreeze()

    @property
    def is_finished(self) -> bool:
        progress, until = self._progress, self._config.until
        if progress.step >= self._total_steps:
            return True
        at_epoch_end = progress.step % self._feed.steps_per_epoch == 0
        if not isinstance(until, PlateauConfig) or not at_epoch_end or not progress.watched:
            return False
        lowest = min(range(len(progress.watched)), key=progress.watched.__getitem__)
        return len(progress.watched) - 1 - lowest >= until.patience

    def step(self) -> None:
        """One batch: forward, backward, update; at the end of an epoch its validation and its event."""
        progress = self._progress
        torch.manual_seed(derive("step", self._training.seed, progress.step))
        batch = self._feed.batch(progress.step).to(self._training.placement.device)
        counts = self._objective.counts(batch)
        parts = self._backward(batch, counts)
        self._update()
        progress.step += 1
        for name, part in parts.items():
            progress.sums[name] = progress.sums.get(name, 0.0) + part * counts[name]
            progress.counts[name] = progress.counts.get(name, 0) + counts[name]
        if progress.step % self._feed.steps_per_epoch == 0:
            self._end_epoch()

    def _backward(self, batch: Batch, counts: Mapping[str, int]) -> dict[str, float]:
        parts: dict[str, float] = {}
        for piece in batch.split(self._config.micro_batch_size):
            said = self._taps.observe(self._model, piece.inputs[self._training.view])
            loss = self._objective(said, self._training.knowledge(piece), piece, counts)
            if not math.isfinite(loss.total.item()):
                values = {name: part.item() for name, part in loss.parts.items()}
                raise NumericError(
                    f"step {self._progress.step}: the loss is {loss.total.item()} (parts: {values}) on the examples "
                    f"{piece.ids[:16].tolist()}{' and more' if len(piece) > 16 else ''}; nothing of it is saved. "
                    "Look at these examples, lower the learning rate, or set training.gradient_clip"
                )
            self._training.placement.fabric.backward(loss.total)
            for name, part in loss.parts.items():
                parts[name] = parts.get(name, 0.0) + part.item()
        return parts

    def _update(self) -> None:
        factor = learning_rate_factor(self._config.schedule, step=self._progress.step, total_steps=self._total_steps)
        for group in self._optimizer.param_groups:
            group["lr"] = self._config.optimizer.learning_rate * factor
        if self._config.gradient_clip is not None:
            self._training.placement.fabric.clip_gradients(
                self._model, self._optimizer, max_norm=self._config.gradient_clip
            )
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        if self._config.max_norm is not None:
            bound_weights(self._module, self._config.max_norm)

    def _end_epoch(self) -> None:
        progress = self._progress
        epoch = progress.step // self._feed.steps_per_epoch
        parts = {name: total / max(progress.counts[name], 1) for name, total in progress.sums.items()}
        weights = self._objective.weights
        loss = sum(weights[name] * part for name, part in parts.items())
        refuse_non_finite(self._module.state_dict(), step=progress.step, what="model")
        refuse_non_finite(self._objective.module.state_dict(), step=progress.step, what="objective")
        metrics = dict(self._training.validate(self._model)) if self._training.validate is not None else None
        if metrics is not None and not all(map(math.isfinite, metrics.values())):
            raise NumericError(
                f"step {progress.step}: validation gives {metrics}; nothing of this epoch is saved. Lower the learning "
                "rate or set training.gradient_clip"
            )
        progress.watched.append(self._training.loss(metrics) if metrics is not None else loss)
        if self._config.keep == "best" and metrics is not None and self._is_better(metrics):
            progress.best_epoch, progress.best_metrics = epoch, metrics
            self._best = {name: tensor.detach().clone() for name, tensor in self._module.state_dict().items()}
        adapted = self._objective.observe(self._training.loss(metrics)) if metrics is not None else {}
        now = time.monotonic()
        self._events.append(
            "epoch",
            step=progress.step,
            epoch=epoch,
            loss=loss,
            parts=parts,
            weights=weights,
            learning_rate=self._optimizer.param_groups[0]["lr"],
            validation=metrics,
            **({"adapted": adapted} if adapted else {}),
            seconds=now - self._epoch_start,
        )
        self._epoch_start = now
        progress.sums, progress.counts = {}, {}

    def _is_better(self, metrics: Metrics) -> bool:
        best = self._progress.best_metrics
        return not best or self._training.rank(metrics) > self._training.rank(best)

    def resume(self) -> None:
        """Takes up the newest intact checkpoint, or starts a new event file."""
        checkpoint, skipped = newest_checkpoint(self._checkpoints, identity=self._training.identity)
        if checkpoint is None:
            self._events.clear()
            self._events.append(
                "start", step=0, total_steps=self._total_steps, steps_per_epoch=self._feed.steps_per_epoch
            )
        else:
            self._events.cut_back(checkpoint.step)
            self._module.load_state_dict(checkpoint.tensors["model"])
            self._objective.module.load_state_dict(checkpoint.tensors.get("objective", {}))
            self._best = dict(checkpoint.tensors.get("best", {}))
            _load_optimizer(self._optimizer, checkpoint.tensors["optimizer"])
            self._progress = _Progress(**checkpoint.state["progress"])
        for reason in skipped:
            self._events.append("notice", step=self._progress.step, text=f"checkpoint passed over: {reason}")

    def save_when_due(self) -> None:
        if time.monotonic() - self._last_save >= self._config.checkpoint_seconds:
            self.save()

    def save(self) -> None:
        """Saves a checkpoint now."""
        tensors = {"model": self._module.state_dict(), "optimizer": _optimizer_tensors(self._optimizer)}
        if self._best:
            tensors["best"] = self._best
        if learned := self._objective.module.state_dict():
            tensors["objective"] = learned
        state: dict[str, Any] = {"identity": self._training.identity, "progress": vars(self._progress)}
        save_checkpoint(self._checkpoints, Checkpoint(step=self._progress.step, tensors=tensors, state=state))
        self._last_save = time.monotonic()

    def finish(self) -> Trained:
        """The kept state."""
        progress = self._progress
        epochs = progress.step // self._feed.steps_per_epoch
        weights = self._best if self._best else self._module.state_dict()
        kept_epoch = progress.best_epoch if self._best else epochs
        self._events.append("finish", step=progress.step, kept_epoch=kept_epoch)
        return Trained(
            weights={name: tensor.detach().cpu().clone().contiguous() for name, tensor in weights.items()},
            kept_epoch=kept_epoch,
            epochs=epochs,
            still_improving=is_still_improving(progress.watched),
        )


def is_still_improving(losses: list[float]) -> bool | None:
    """Whether the last tenth of the epochs lowered the mean loss by more than 2% against the tenth before it.

    None below ten epochs, where a tenth is no epoch.
    """
    tenth = len(losses) // 10
    if tenth == 0:
        return None
    late, before = losses[-tenth:], losses[-2 * tenth : -tenth]
    return sum(late) < 0.98 * sum(before)


def _optimizer_tensors(optimizer: Optimizer) -> dict[str, Tensor]:
    state = optimizer.state_dict()["state"]
    return {
        f"{index}.{name}": value for index, entry in state.items() for name, value in entry.items() if value is not None
    }


def _load_optimizer(optimizer: Optimizer, tensors: Mapping[str, Tensor]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, _, name = key.partition(".")
        state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
