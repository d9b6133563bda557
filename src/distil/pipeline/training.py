"""Training as a stage: of a teacher on labels, and of every arm and seed on its objective."""

import hashlib
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from distil.core.files import read_json, saving, write_json
from distil.core.seeds import derive
from distil.data.example import Examples
from distil.data.feed import Feed, evaluation_batches
from distil.data.view import View
from distil.knowledge.response import Knowledge
from distil.objective.objective import Objective
from distil.pipeline.context import Context
from distil.recipe.recipe import TrainStage
from distil.tasks.image_classification import validation_metrics
from distil.tasks.network import Network
from distil.tasks.score import score
from distil.train.loop import Trained, Training, train


@dataclass(frozen=True, eq=False)
class TrainedModel:
    """Weights on disk with what was found out while they were trained. ``validation`` is None without such a split."""

    weights: Mapping[str, Tensor]
    epochs: int
    kept_epoch: int
    still_improving: bool | None
    validation: Mapping[str, float] | None


def train_model(
    context: Context,
    *,
    network: Network,
    name: str,
    stage: TrainStage,
    objective: Objective,
    knowledge: Knowledge,
    examples: Examples,
    other_views: Mapping[str, View],
    seed: int,
    folder: Path,
    identity: str,
) -> TrainedModel:
    """Trains a network on ``examples`` and measures the kept state on the validation split.

    Args:
        context: the run.
        network: with its initial weights; it ends with the kept ones.
        name: of its view in the batches.
        stage: objective and training as the recipe has them.
        objective: bound to the knowledge.
        knowledge: what teachers say.
        examples: with the labels that this model may see.
        other_views: inputs that live teachers need.
        seed: of order, augmentation and dropout.
        folder: of the event file and the checkpoints.
        identity: hash of everything the result depends on.
    """
    feed = Feed(
        examples,
        views={name: network.view, **other_views},
        batch_size=stage.training.batch_size,
        augmentation=stage.training.augmentation,
        seed=derive("feed", seed),
    )

    def validate(candidate: nn.Module) -> dict[str, float]:
        return measure_on_validation(context, candidate, network.view) or {}

    training = Training(
        config=stage.training,
        model=network.model,
        view=name,
        objective=objective,
        knowledge=knowledge,
        feed=feed,
        validate=validate if context.splits.validation is not None else None,
        placement=context.placement,
        seed=derive("training", seed),
        folder=folder,
        identity=identity,
    )
    trained = train(training, context.interruption)
    return describe_trained(context, network, trained)


def train_once(
    context: Context, folder: str, inputs: Mapping[str, Any], produce: Callable[[], TrainedModel]
) -> TrainedModel:
    """A training as a stage. Its checkpoints go once its result is safe."""
    trained = context.once(f"{folder}/model", inputs, produce, save_trained, load_trained)
    shutil.rmtree(context.directory.path / folder / "checkpoints", ignore_errors=True)
    return trained


def describe_trained(context: Context, network: Network, trained: Trained) -> TrainedModel:
    """The kept state with its validation metrics."""
    network.model.load_state_dict(dict(trained.weights))
    network.model.to(context.placement.device)
    return TrainedModel(
        weights=trained.weights,
        epochs=trained.epochs,
        kept_epoch=trained.kept_epoch,
        still_improving=trained.still_improving,
        validation=measure_on_validation(context, network.model, network.view),
    )


def measure_on_validation(context: Context, model: nn.Module, view: View) -> dict[str, float] | None:
    """Accuracy and negative log-likelihood on the validation split; None where there is none."""
    if context.splits.validation is None:
        return None
    batches = evaluation_batches(context.splits.validation, views={"model": view})
    return validation_metrics(score(model, batches, view="model", device=context.placement.device))


def weights_digest(model: nn.Module) -> str:
    """sha256 of a model's weights and buffers: also of those that a Python function or a library brings along."""
    hasher = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        hasher.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        hasher.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return hasher.hexdigest()


def save_trained(trained: TrainedModel, folder: Path) -> list[Path]:
    """Writes the weights and what was found out about them, and names the two files."""
    weights, facts = folder / "model.safetensors", folder / "training.json"
    size = sum(tensor.numel() * tensor.element_size() for tensor in trained.weights.values())
    with saving(weights, size=size):
        save_file(dict(trained.weights), weights)
    known: dict[str, Any] = {key: value for key, value in vars(trained).items() if key != "weights"}
    write_json(facts, known)
    return [weights, facts]


def load_trained(folder: Path) -> TrainedModel:
    return TrainedModel(weights=load_file(folder / "model.safetensors"), **read_json(folder / "training.json"))
