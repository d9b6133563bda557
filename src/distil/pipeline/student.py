"""Students as a stage: every arm and seed, from the same initial weights, in the same order of examples."""

from collections.abc import Callable
from dataclasses import dataclass

from distil.core.seeds import derive
from distil.objective.objective import BoundObjective, Objective
from distil.objective.reused import with_reused_classifier
from distil.pipeline.context import Context
from distil.pipeline.teacher import Faculty, taught_by
from distil.pipeline.training import Pupil, TrainedModel, train_in_stages, weights_digest
from distil.pipeline.vocabulary import match_readers
from distil.recipe.recipe import Arm, Student, teachers_of
from distil.tasks.cut import build_student
from distil.tasks.network import Network, first_input
from distil.train.freezing import freeze

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
    pupil = make_pupil(context, arm, seed=seed, faculty=faculty, folder=f"arms/{name}/seed-{seed}")
    trained = train_in_stages(context, pupil, faculty.lectern)
    return TrainedStudent(name, seed, arm.student, pupil.network, trained)


def make_pupil(
    context: Context,
    arm: Arm,
    *,
    seed: int,
    faculty: Faculty,
    folder: str,
    watch: Callable[[float], None] | None = None,
) -> Pupil:
    """The student of an arm before its training, with everything that its result will depend on."""
    network = student_network(context, arm, seed=seed, faculty=faculty)
    return Pupil(
        network=network,
        name=VIEW,
        stages=arm.stages,
        examples=context.splits.students,
        seed=seed,
        folder=folder,
        inputs={
            "arm": arm.model_dump(mode="json", exclude={"stages"}),
            "seed": seed,
            "initial": weights_digest(network.model),
            "view": repr(network.view),
            "data": context.splits.fingerprint(),
            "teachers": taught_by(context, arm.stages),
            "precision": context.placement.precision,
        },
        permute=seed if arm.permute_knowledge else None,
        watch=watch,
    )


def student_network(context: Context, arm: Arm, *, seed: int, faculty: Faculty) -> Network:
    """The student as it starts: its initial weights are the seed's, the same in every arm."""
    network = build_student(
        arm.student.model,
        arm.student.from_teacher,
        arm.student.inputs,
        teachers={name: teacher.network for name, teacher in faculty.teachers.items()},
        teacher=arm.student.teacher,
        examples=context.splits.train,
        seed=derive("initial-weights", "student", seed),
        task=context.task,
    )
    views = {VIEW: network.view, **{name: teacher.network.view for name, teacher in faculty.teachers.items()}}
    return with_reused_classifier(
        network,
        [term for stage in arm.stages for term in stage.objective.values()],
        {name: (teacher.network, teacher.class_order) for name, teacher in faculty.teachers.items()},
        examples={name: first_input(context.splits.train, view, context.task) for name, view in views.items()},
        seed=seed,
    )


def bind_arm(
    context: Context, faculty: Faculty, arm: Arm, name: str = "student"
) -> tuple[Network, list[BoundObjective]]:
    """The arm's student at the first seed with the objective of each stage, as the run will have them. Takes a moment.

    Raises:
        CompatibilityError: a term does not fit the networks, or a layer that is written is not there.
        ModelError: what a stage freezes is not there.
    """
    network = student_network(context, arm, seed=context.recipe.seeds[0], faculty=faculty)
    num_ids = int(context.splits.train.ids.max()) + 1
    for stage in arm.stages:
        freeze(network.model, stage.freeze)()
    described = faculty.lectern.descriptions
    match_readers(context, network, {n: faculty.teachers[n].network for n in teachers_of(arm.stages, described)}, name)
    return network, [
        Objective(stage.objective).bind(network.description, described, num_ids=num_ids) for stage in arm.stages
    ]
