"""Students as they start: built by themselves, or cut from a teacher, once for all arms that have the same one."""

import copy
from collections.abc import Iterator, Mapping
from typing import Any

from distil.check.finding import Finding
from distil.check.teacher import Candidate, called
from distil.core.seeds import derive
from distil.data.example import Splits
from distil.models.huggingface_network import HuggingFaceNetwork
from distil.models.shrink import describe_cut
from distil.objective.reused import with_reused_classifier
from distil.recipe.recipe import Arm, ResolvedRecipe, Student
from distil.tasks.cut import build_student
from distil.tasks.network import Network, first_input
from distil.tasks.task import Task

VIEW = "student"


def arms_by_student(recipe: ResolvedRecipe) -> list[tuple[Student, list[str]]]:
    """The different students, each with the arms that have it."""
    found: list[tuple[Student, list[str]]] = []
    for name, arm in recipe.arms.items():
        arms = next((arms for student, arms in found if student == arm.student), None)
        if arms is None:
            found.append((arm.student, [name]))
        else:
            arms.append(name)
    return found


def build_students(
    recipe: ResolvedRecipe, teachers: Mapping[str, Candidate], splits: Splits, task: Task
) -> dict[str, Network]:
    """The student of each arm, as the first seed starts it; every arm has its own copy of the weights."""
    networks: dict[str, Network] = {}
    for student, arms in arms_by_student(recipe):
        network = build_student(
            student.model,
            student.from_teacher,
            student.inputs,
            teachers={name: candidate.network for name, candidate in teachers.items()},
            teacher=student.teacher,
            examples=splits.train,
            seed=derive("initial-weights", "student", recipe.seeds[0]),
            task=task,
        )
        for name in arms:
            own = Network(copy.deepcopy(network.model), network.view, network.description)
            networks[name] = _as_taught(own, recipe.arms[name], teachers, splits, task)
    return {name: networks[name] for name in recipe.arms}


def check_cut(recipe: ResolvedRecipe, teachers: Mapping[str, Candidate]) -> Iterator[Finding]:
    """What students that are cut from a teacher keep of it."""
    for student, arms in arms_by_student(recipe):
        if student.from_teacher is None:
            continue
        candidate = teachers[student.teacher or next(iter(teachers))]
        whole: Any = next(m for m in candidate.network.model.modules() if isinstance(m, HuggingFaceNetwork))
        said = f"student of {', '.join(arms)}: cut from {called(candidate.name)}, {_kept(whole, student)}"
        if candidate.is_trained_here:
            said += "; that teacher is trained first when the recipe runs, and its weights are still other ones here"
        yield Finding("fine", said)


def _kept(whole: HuggingFaceNetwork, student: Student) -> str:
    assert student.from_teacher is not None
    vocabulary = student.from_teacher.vocabulary
    said = describe_cut(whole.pretrained, student.from_teacher.model_copy(update={"vocabulary": None}))
    return said if vocabulary is None else f"{said}; {vocabulary:,} of its tokens"


def _as_taught(network: Network, arm: Arm, teachers: Mapping[str, Candidate], splits: Splits, task: Task) -> Network:
    views = {VIEW: network.view, **{name: candidate.network.view for name, candidate in teachers.items()}}
    return with_reused_classifier(
        network,
        [term for stage in arm.stages for term in stage.objective.values()],
        {name: (candidate.network, candidate.class_order) for name, candidate in teachers.items()},
        examples={name: first_input(splits.train, view, task) for name, view in views.items()},
        seed=derive("check"),
    )
