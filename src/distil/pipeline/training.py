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

from distil.core.files import digest, read_json, saving, write_json
from distil.core.seeds import derive
from distil.data.example import Examples
from distil.data.feed import AnyView, Feed
from distil.evaluate.prediction import finite_metrics
from distil.objective.objective import Objective
from distil.pipeline.context import Context
from distil.pipeline.lesson import Lectern
from distil.recipe.recipe import TrainStage
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


@dataclass(frozen=True, eq=False)
class Pupil:
    """A network that is to be trained, be it a student or a teacher.

    Attributes:
        network: with its initial weights; it ends with those of the last stage.
        name: of its view in the batches.
        stages: as the recipe has them, one after the other.
        examples: with the labels that it may see.
        seed: of order, augmentation, dropout and projectors.
        folder: in the run directory; stages before the last have folders of their own inside.
        inputs: everything the result depends on beside the stages.
        permute: the seed of a shuffle of the teachers' wrong classes; None: none.
        watch: takes the validation metric after each epoch of the last stage.
    """

    network: Network
    name: str
    stages: tuple[TrainStage, ...]
    examples: Examples
    seed: int
    folder: str
    inputs: Mapping[str, Any]
    permute: int | None = None
    watch: Callable[[float], None] | None = None


def train_in_stages(context: Context, pupil: Pupil, lectern: Lectern) -> TrainedModel:
    """Trains a network stage by stage; each is found again where it is done. The answer is that of the last."""
    trained: TrainedModel | None = None
    for position, stage in enumerate(pupil.stages):
        is_last = position == len(pupil.stages) - 1
        folder = pupil.folder if is_last else f"{pupil.folder}/stage-{position + 1}"
        done = [each.model_dump(mode="json") for each in pupil.stages[: position + 1]]
        inputs = {**pupil.inputs, "stages": done}
        seed = pupil.seed if position == 0 else derive("stage", pupil.seed, position)

        def produce(
            stage: TrainStage = stage, folder: str = folder, inputs: Mapping[str, Any] = inputs, seed: int = seed
        ) -> TrainedModel:
            return _train_stage(context, pupil, stage, lectern, folder=folder, identity=digest(dict(inputs)), seed=seed)

        trained = train_once(context, folder, inputs, produce)
        pupil.network.model.load_state_dict(dict(trained.weights))
    assert trained is not None
    return trained


def _train_stage(
    context: Context, pupil: Pupil, stage: TrainStage, lectern: Lectern, *, folder: str, identity: str, seed: int
) -> TrainedModel:
    network, config = pupil.network, stage.training
    objective = Objective(stage.objective, view=pupil.name).bind(
        network.description, lectern.descriptions, seed=seed, num_ids=int(context.splits.train.ids.max()) + 1
    )
    lesson = lectern.lesson(objective.requires, views_change=bool(config.augmentation), permute=pupil.permute)
    feed = Feed(
        pupil.examples,
        views={pupil.name: network.view, **lesson.views},
        batch_size=config.batch_size,
        augmentation=config.augmentation,
        order=config.order,
        targets=context.task.targets,
        seed=derive("feed", seed),
    )

    def validate(candidate: nn.Module) -> dict[str, float]:
        metrics = measure_on_validation(context, candidate, network.view) or {}
        if pupil.watch is not None and stage is pupil.stages[-1]:
            pupil.watch(context.task.signed(metrics[context.task.metric]))
        return metrics

    training = Training(
        config=config,
        model=network.model,
        view=pupil.name,
        objective=objective,
        knowledge=lesson.knowledge,
        feed=feed,
        validate=validate if context.splits.validation is not None else None,
        metric=context.task.metric,
        higher_is_better=context.task.higher_is_better,
        placement=context.placement,
        seed=derive("training", seed),
        folder=context.directory.path / folder,
        identity=identity,
        frozen=stage.freeze,
    )
    return describe_trained(context, network, train(training, context.interruption))


def train_once(
    context: Context, folder: str, inputs: Mapping[str, Any], produce: Callable[[], TrainedModel]
) -> TrainedModel:
    """A training as a stage. Its checkpoints go once its result is safe."""
    trained = context.once(f"{folder}/model", inputs, produce, save_trained, load_trained)
    shutil.rmtree(context.directory.path / folder / "checkpoints", ignore_errors=True)
    return trained


def describe_trained(context: Context, network: Network, trained: Trained) -> TrainedModel:
    """The kept state with its validation metrics, as far as they are finite numbers."""
    network.model.load_state_dict(dict(trained.weights))
    network.model.to(context.placement.device)
    validation = measure_on_validation(context, network.model, network.view)
    if validation is not None:
        known = finite_metrics(validation, headline=context.task.metric, where="the validation split")
        validation = {name: value for name, value in known.items() if value is not None}
    return TrainedModel(
        weights=trained.weights,
        epochs=trained.epochs,
        kept_epoch=trained.kept_epoch,
        still_improving=trained.still_improving,
        validation=validation,
    )


def measure_on_validation(context: Context, model: nn.Module, view: AnyView) -> dict[str, float] | None:
    """The task's metrics on the validation split; None where there is none."""
    examples, task = context.splits.validation, context.task
    if examples is None:
        return None
    view = task.test_view(view, examples)
    batches = task.batches(examples, {"model": view})
    scores = score(model, batches, view="model", device=context.placement.device, ask=task.ask)
    return task.validation(scores, examples, view)


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
