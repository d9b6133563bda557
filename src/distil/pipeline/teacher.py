"""Teachers as a stage: loaded or trained first, frozen, and asked once for all examples where that is right."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from distil.core.seeds import derive
from distil.knowledge.teacher import FrozenTeacher, class_order
from distil.pipeline.context import Context
from distil.pipeline.lesson import Lectern
from distil.pipeline.training import (
    Pupil,
    TrainedModel,
    describe_trained,
    train_in_stages,
    train_once,
    weights_digest,
)
from distil.recipe.recipe import Teacher, TrainStage, teachers_of
from distil.tasks.network import Network, build_network
from distil.train.loop import Trained


@dataclass(frozen=True, eq=False)
class ReadyTeacher:
    """A teacher that can be asked."""

    name: str
    config: Teacher
    network: Network
    frozen: FrozenTeacher
    trained: TrainedModel
    labelled_examples: int
    class_order: list[int] | None


class Faculty:
    """All teachers of a run, and what they say."""

    def __init__(self, context: Context, teachers: Mapping[str, ReadyTeacher]) -> None:
        self.teachers = dict(teachers)
        asked = {name: (teacher.network, teacher.frozen) for name, teacher in teachers.items()}
        self.lectern = Lectern(asked, examples=context.splits.train, device=context.placement.device, task=context.task)


def prepare_teachers(context: Context) -> Faculty:
    """Every teacher of the recipe, trained where it has no weights; whoever teaches another teacher comes first."""
    ready: dict[str, ReadyTeacher] = {}
    for name in context.recipe.teaching_order:
        ready[name] = _prepare(context, name, context.recipe.teachers[name], Faculty(context, ready))
    return Faculty(context, {name: ready[name] for name in context.recipe.teachers})


def _prepare(context: Context, name: str, config: Teacher, faculty: Faculty) -> ReadyTeacher:
    splits = context.splits
    network = build_network(
        config.model,
        config.inputs,
        examples=splits.train,
        seed=derive("initial-weights", "teacher", name, context.recipe.seeds[0]),
        task=context.task,
        weights=config.weights,
        num_classes=len(config.classes) if config.classes is not None else None,
        who=f"teachers.{name}",
    )
    order = class_order(name, config.classes, splits.train.class_names)
    examples = splits.train if config.labels == "all" else splits.students
    inputs = teacher_inputs(context, name, config, network)
    folder = f"teachers/{name}"
    if config.stages is None:
        given = Trained(weights=_weights_of(network.model), kept_epoch=0, epochs=0, still_improving=None)
        trained = train_once(context, folder, inputs, lambda: describe_trained(context, network, given))
        network.model.load_state_dict(dict(trained.weights))
    else:
        pupil = Pupil(
            network=network,
            name=name,
            stages=config.stages,
            examples=examples,
            seed=derive("teacher", name, context.recipe.seeds[0]),
            folder=folder,
            inputs=inputs,
        )
        trained = train_in_stages(context, pupil, faculty.lectern)
    return ReadyTeacher(
        name=name,
        config=config,
        network=network,
        frozen=FrozenTeacher(name, network.model, class_order=order, device=context.placement.device),
        trained=trained,
        labelled_examples=int(examples.labelled.sum()),
        class_order=order,
    )


def teacher_inputs(context: Context, name: str, config: Teacher, network: Network) -> dict[str, Any]:
    """Everything a teacher's weights depend on; ``network`` is as it was built, with the weights it comes with."""
    return {
        "teacher": name,
        "config": config.model_dump(mode="json"),
        "data": context.splits.fingerprint(),
        "seed": context.recipe.seeds[0],
        "precision": context.placement.precision,
        "taught_by": taught_by(context, config.stages or ()),
        "initial": weights_digest(network.model),
    }


def taught_by(context: Context, stages: Sequence[TrainStage]) -> dict[str, Any]:
    """Every teacher that terms of the stages listen to: its weights, and the order of its classes."""
    known = context.recipe.teachers
    return {
        name: [context.directory.output_hash(f"teachers/{name}/model"), known[name].classes]
        for name in sorted(teachers_of(stages, known))
    }


def _weights_of(model: nn.Module) -> dict[str, Any]:
    return {name: tensor.detach().cpu().clone().contiguous() for name, tensor in model.state_dict().items()}
