"""Teachers as a stage: loaded or trained first, frozen, and asked once for all examples where that is right."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import nn

from distil.core.errors import CompatibilityError
from distil.core.files import digest
from distil.core.seeds import derive
from distil.data.feed import evaluation_batches
from distil.data.view import View
from distil.knowledge.response import KeptKnowledge, Knowledge, LiveKnowledge, NoKnowledge, PermutedKnowledge
from distil.knowledge.teacher import FrozenTeacher, class_order
from distil.objective.objective import Objective
from distil.pipeline.context import Context
from distil.pipeline.training import TrainedModel, describe_trained, train_model, train_once, weights_digest
from distil.recipe.recipe import Arm, Teacher
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


class Faculty:
    """All teachers of a run, and what they say."""

    def __init__(self, context: Context, teachers: Mapping[str, ReadyTeacher]) -> None:
        self._context, self.teachers = context, teachers

    def knowledge_for(self, arm: Arm, *, seed: int) -> Knowledge:
        """What an arm's students are told: kept where their views never change, live under augmentation."""
        if not any(term.needs_teacher for term in arm.stage.objective.values()):
            return NoKnowledge()
        if arm.permute_knowledge and min(self.num_classes.values()) < 3:
            raise CompatibilityError(
                "the control permuted-knowledge needs three or more classes: of two, only one is wrong and there is "
                "nothing to shuffle. Leave it out of controls"
            )
        knowledge: Knowledge = self._kept if self.is_kept(arm) else LiveKnowledge(self._frozen)
        return PermutedKnowledge(knowledge, seed=seed) if arm.permute_knowledge else knowledge

    def views_for(self, arm: Arm) -> dict[str, View]:
        """The inputs that a batch of the arm needs for its teachers."""
        if self.is_kept(arm) or not any(term.needs_teacher for term in arm.stage.objective.values()):
            return {}
        return {name: teacher.network.view for name, teacher in self.teachers.items()}

    def is_kept(self, arm: Arm) -> bool:
        return not arm.stage.training.augmentation

    @property
    def num_classes(self) -> dict[str, int]:
        return {name: teacher.network.description.num_classes for name, teacher in self.teachers.items()}

    @property
    def _frozen(self) -> list[FrozenTeacher]:
        return [teacher.frozen for teacher in self.teachers.values()]

    @cached_property
    def _kept(self) -> KeptKnowledge:
        examples, device = self._context.splits.train, self._context.placement.device
        said = {
            name: teacher.frozen.scores(evaluation_batches(examples, views={name: teacher.network.view}))
            for name, teacher in self.teachers.items()
        }
        return KeptKnowledge(said, device=device)


def prepare_teachers(context: Context) -> Faculty:
    """Every teacher of the recipe, trained where it has no weights."""
    return Faculty(context, {name: _prepare(context, name, config) for name, config in context.recipe.teachers.items()})


def _prepare(context: Context, name: str, config: Teacher) -> ReadyTeacher:
    splits = context.splits
    network = build_network(
        config.model,
        config.inputs,
        examples=splits.train,
        seed=derive("initial-weights", "teacher", name, context.recipe.seeds[0]),
        weights=config.weights,
        num_classes=len(config.classes) if config.classes is not None else None,
        who=f"teachers.{name}",
    )
    order = class_order(name, config.classes, splits.train.class_names)
    examples = splits.train if config.labels == "all" else splits.students
    inputs = teacher_inputs(context, name, config, network)

    def produce() -> TrainedModel:
        if config.stages is None:
            given = Trained(weights=_weights_of(network.model), kept_epoch=0, epochs=0, still_improving=None)
            return describe_trained(context, network, given)
        stage = config.stages[0]
        return train_model(
            context,
            network=network,
            name=name,
            stage=stage,
            objective=Objective(stage.objective).bind(num_classes=network.description.num_classes, teachers={}),
            knowledge=NoKnowledge(),
            examples=examples,
            other_views={},
            seed=derive("teacher", name, context.recipe.seeds[0]),
            folder=context.directory.path / "teachers" / name,
            identity=digest(inputs),
        )

    trained = train_once(context, f"teachers/{name}", inputs, produce)
    network.model.load_state_dict(dict(trained.weights))
    return ReadyTeacher(
        name=name,
        config=config,
        network=network,
        frozen=FrozenTeacher(name, network.model, class_order=order, device=context.placement.device),
        trained=trained,
        labelled_examples=int(examples.labelled.sum()),
    )


def teacher_inputs(context: Context, name: str, config: Teacher, network: Network) -> dict[str, Any]:
    """Everything a teacher's weights depend on; ``network`` is as it was built, with the weights it comes with."""
    return {
        "teacher": name,
        "config": config.model_dump(mode="json"),
        "data": context.splits.fingerprint(),
        "seed": context.recipe.seeds[0],
        "precision": context.placement.precision,
        "initial": weights_digest(network.model),
    }


def _weights_of(model: nn.Module) -> dict[str, Any]:
    return {name: tensor.detach().cpu().clone().contiguous() for name, tensor in model.state_dict().items()}
