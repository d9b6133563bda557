"""Observations of a student that was trained alone and of its teachers, each made once and kept in the directory."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from distil.check.gap import check_gap
from distil.compare.agreement import Agreement, measure_agreement
from distil.compare.assistant import heard
from distil.compare.candidate import PER_KIND, candidate_terms, shortlist
from distil.compare.figure import Gap
from distil.compare.gradient import Direction
from distil.compare.similarity import Similarity, measure_similarity
from distil.core.errors import CompatibilityError, ModelError
from distil.core.files import read_json, write_json
from distil.data.view import View
from distil.objective.config import Term
from distil.objective.objective import Objective
from distil.pipeline.context import Context
from distil.pipeline.student import VIEW, TrainedStudent, student_network
from distil.pipeline.teacher import Faculty
from distil.recipe.recipe import ResolvedRecipe
from distil.tasks.classification import METRIC


def heard_teachers(recipe: ResolvedRecipe) -> list[str]:
    """The teachers of the distilled arm."""
    found = (heard(term, recipe) for term in recipe.arms[recipe.distilled or ""].terms.values())
    return list(dict.fromkeys(name for name in found if name is not None))


def similarities(context: Context, faculty: Faculty, alone: TrainedStudent) -> dict[str, Similarity]:
    """CKA of the student that was trained alone with each teacher of the distilled arm."""

    def measure() -> dict[str, Any]:
        return {
            name: asdict(measure_similarity(context, alone.network, faculty.teachers[name]))
            for name in heard_teachers(context.recipe)
        }

    found = _once(context, "similarity", _made_from(context, faculty, alone), measure)
    return {
        name: Similarity(
            tuple(each["student"]), tuple(each["teacher"]), tuple(map(tuple, each["values"])), each["examples"]
        )
        for name, each in found.items()
    }


def agreements(
    context: Context, faculty: Faculty, alone: TrainedStudent, methods: Sequence[str] | None
) -> tuple[tuple[Agreement, ...], dict[str, str]]:
    """Of every term and candidate, at the student's initial weights and at those it has alone; why others have none.

    Args:
        context: of the run.
        faculty: the teachers.
        alone: the student that was trained without a teacher.
        methods: kinds of candidates; None: a few of each kind of knowledge.
    """
    recipe = context.recipe
    arm, own = recipe.arms[alone.arm], recipe.arms[recipe.distilled or ""].terms
    terms, refused = shortlist(
        candidate_terms(own, methods, teacher=heard_teachers(context.recipe)[0]),
        own,
        alone.network.description,
        faculty.lectern.descriptions,
        num_ids=int(context.splits.train.ids.max()) + 1,
        per_kind=None if methods is not None else PER_KIND,
    )
    inputs = _made_from(context, faculty, alone) | {
        "terms": {name: term.model_dump(mode="json") for name, term in terms.items()},
        "own": sorted(own),
    }

    def measure() -> list[dict[str, Any]]:
        initial = student_network(context, arm, seed=alone.seed, faculty=faculty)
        found = measure_agreement(context, faculty, arm, [initial, alone.network], terms, own)
        return [asdict(each) for each in found]

    found = _once(context, "agreement", inputs, measure)
    directions = [{key: _direction(each[key]) for key in ("initial", "trained")} for each in found]
    return tuple(Agreement(**{**each, **both}) for each, both in zip(found, directions, strict=True)), refused


def _direction(found: Mapping[str, Any] | None) -> Direction | None:
    return Direction(**{**found, "interval": tuple(found["interval"])}) if found is not None else None


def _made_from(context: Context, faculty: Faculty, alone: TrainedStudent) -> dict[str, Any]:
    directory = context.directory
    return {
        "student": directory.output_hash(f"{alone.folder}/model"),
        "teachers": {name: directory.output_hash(f"teachers/{name}/model") for name in faculty.teachers},
        "arm": context.recipe.arms[alone.arm].model_dump(mode="json"),
        "data": context.splits.fingerprint(),
    }


def _once(context: Context, name: str, inputs: Mapping[str, Any], measure: Callable[[], Any]) -> Any:
    def save(found: Any, folder: Path) -> list[Path]:
        write_json(folder / f"{name}.json", found)
        return [folder / f"{name}.json"]

    return context.once(f"select/{name}", inputs, measure, save, lambda folder: read_json(folder / f"{name}.json"))


def gaps(context: Context, faculty: Faculty, alone: TrainedStudent) -> tuple[Gap, ...]:
    """How far each teacher of the distilled arm is from the student, as ``distil check`` sees it and on validation."""
    student, view = alone.network.description, alone.network.view
    found = []
    for name in heard_teachers(context.recipe):
        teacher = faculty.teachers[name]
        described, validation = teacher.network.description, teacher.trained.validation
        assert validation is not None
        (finding,) = check_gap(student, described, arm=context.recipe.distilled or "", name=name)
        sizes = ((each.num_parameters, each.multiply_accumulates) for each in (student, described))
        found.append(
            Gap(
                teacher=name,
                said=finding.what,
                is_wide=finding.level != "fine",
                accuracy=validation[METRIC],
                sizes=(next(sizes), next(sizes)),
                num_inputs=view.channels * view.height * view.width if isinstance(view, View) else view.max_length,
                num_classes=student.num_classes,
            )
        )
    return tuple(found)


def fits(term: Term, alone: TrainedStudent, faculty: Faculty) -> bool:
    """Whether a term can be bound to the student and the teacher that it names."""
    try:
        Objective({"term": term}, view=VIEW).bind(alone.network.description, faculty.lectern.descriptions)
    except (CompatibilityError, ModelError):
        return False
    return True
