"""Students as a stage: every arm and seed, from the same initial weights, in the same order of examples."""

from dataclasses import dataclass

from torch import nn

from distil.core.errors import ModelError
from distil.core.files import digest
from distil.core.seeds import derive
from distil.data.feed import evaluation_batches
from distil.data.view import View
from distil.models.describe import ModelDescription, describe_model
from distil.models.load import build_model
from distil.objective.objective import Objective
from distil.pipeline.context import Context
from distil.pipeline.teacher import Faculty
from distil.pipeline.training import TrainedModel, load_trained, save_trained, train_model
from distil.recipe.recipe import Arm, Student

VIEW = "student"


@dataclass(frozen=True, eq=False)
class TrainedStudent:
    """One student: of an arm and a seed."""

    arm: str
    seed: int
    config: Student
    model: nn.Module
    view: View
    description: ModelDescription
    trained: TrainedModel

    @property
    def folder(self) -> str:
        return f"arms/{self.arm}/seed-{self.seed}"


def build_student(context: Context, config: Student, *, seed: int) -> tuple[nn.Module, View, ModelDescription]:
    """A student with the initial weights of a seed, which every arm starts from."""
    view = context.view_of(config.model, config.inputs)
    model = build_model(
        config.model,
        num_classes=context.splits.train.num_classes,
        image_shape=(view.channels, view.height, view.width),
        seed=derive("initial-weights", "student", seed),
    )
    example = next(evaluation_batches(context.splits.train, views={VIEW: view}, batch_size=1)).inputs[VIEW]
    description = describe_model(model, example)
    if description.num_classes != context.splits.train.num_classes:
        raise ModelError(
            f"student: its output has {description.num_classes} classes, and the data have "
            f"{context.splits.train.num_classes}"
        )
    return model, view, description


def train_student(context: Context, name: str, arm: Arm, *, seed: int, faculty: Faculty) -> TrainedStudent:
    """The student of an arm and a seed."""
    model, view, description = build_student(context, arm.student, seed=seed)
    objective = Objective(arm.stage.objective).bind(num_classes=description.num_classes, teachers=faculty.num_classes)
    needs_teacher = objective.requires.teacher_outputs
    folder = f"arms/{name}/seed-{seed}"
    inputs = {
        "arm": arm.model_dump(mode="json"),
        "seed": seed,
        "data": context.splits.fingerprint(),
        "teachers": {
            teacher: [context.directory.output_hash(f"teachers/{teacher}/model"), context.recipe.teachers[teacher].classes]
            for teacher in sorted(needs_teacher)
        },
        "precision": context.placement.precision,
    }

    def produce() -> TrainedModel:
        return train_model(
            context,
            model=model,
            view=view,
            name=VIEW,
            stage=arm.stage,
            objective=objective,
            knowledge=faculty.knowledge_for(arm, seed=seed),
            examples=context.splits.students,
            other_views=faculty.views_for(arm),
            seed=seed,
            folder=context.directory.path / folder,
            identity=digest(inputs),
        )

    trained = context.once(f"{folder}/model", inputs, produce, save_trained, load_trained)
    model.load_state_dict(dict(trained.weights))
    return TrainedStudent(name, seed, arm.student, model, view, description, trained)
