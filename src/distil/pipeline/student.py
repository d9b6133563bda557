"""Students as a stage: every arm and seed, from the same initial weights, in the same order of examples."""

from dataclasses import dataclass

from distil.core.files import digest
from distil.core.seeds import derive
from distil.objective.objective import Objective
from distil.pipeline.context import Context
from distil.pipeline.teacher import Faculty
from distil.pipeline.training import TrainedModel, train_model, train_once, weights_digest
from distil.recipe.recipe import Arm, Student
from distil.tasks.network import Network, build_network

VIEW = "student"


@dataclass(frozen=True, eq=False)
class TrainedStudent:
    """One student: of an arm and a seed."""

    arm: str
    seed: int
    config: Student
    network: Network
    trained: TrainedModel

    @property
    def folder(self) -> str:
        return f"arms/{self.arm}/seed-{self.seed}"


def train_student(context: Context, name: str, arm: Arm, *, seed: int, faculty: Faculty) -> TrainedStudent:
    """The student of an arm and a seed. Its initial weights are the seed's, the same in every arm."""
    network = build_network(
        arm.student.model,
        arm.student.inputs,
        examples=context.splits.train,
        seed=derive("initial-weights", "student", seed),
    )
    num_classes = network.description.num_classes
    objective = Objective(arm.stage.objective).bind(num_classes=num_classes, teachers=faculty.num_classes)
    needs_teacher = objective.requires.teacher_outputs
    folder = f"arms/{name}/seed-{seed}"
    inputs = {
        "arm": arm.model_dump(mode="json"),
        "seed": seed,
        "initial": weights_digest(network.model),
        "data": context.splits.fingerprint(),
        "teachers": {
            teacher: [
                context.directory.output_hash(f"teachers/{teacher}/model"),
                context.recipe.teachers[teacher].classes,
            ]
            for teacher in sorted(needs_teacher)
        },
        "precision": context.placement.precision,
    }

    def produce() -> TrainedModel:
        return train_model(
            context,
            network=network,
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

    trained = train_once(context, folder, inputs, produce)
    network.model.load_state_dict(dict(trained.weights))
    return TrainedStudent(name, seed, arm.student, network, trained)
