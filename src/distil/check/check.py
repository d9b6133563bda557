"""The pre-flight, from a recipe to findings."""

from collections.abc import Iterator, Mapping

from distil.check.cost import check_cost
from distil.check.data import check_data
from distil.check.finding import Finding
from distil.check.gap import check_gap
from distil.check.objective import batch_statistics, check_arms, check_objective
from distil.check.order import check_order
from distil.check.padding import check_padding
from distil.check.quality import check_quality
from distil.check.reading import show_examples
from distil.check.sample import sample_for, spread
from distil.check.student import arms_by_student, build_students, check_cut
from distil.check.teacher import Candidate, build_candidate, called, check_teacher, is_published
from distil.check.text import check_texts, without_empty
from distil.check.tokenizer import check_reading, check_tokenizers
from distil.core.config import PlacementConfig
from distil.core.placement import place
from distil.data.example import Splits, TextExamples
from distil.data.split import load_splits
from distil.data.text_view import TextView
from distil.export.onnx import require_exporter
from distil.recipe.recipe import Recipe, ResolvedRecipe, teachers_of
from distil.recipe.resolve import resolve
from distil.tasks.choice import make_task
from distil.tasks.network import Network
from distil.tasks.task import Task

TEXTS_COMPARED = 256  # that two tokenizers cut

Teachers = Mapping[str, Candidate]
Students = Mapping[str, Network]  # by arm


def check_recipe(recipe: Recipe) -> list[Finding]:
    """Everything that can be found out about a recipe without training.

    Raises:
        DistilError: the recipe, the data or a model cannot be used at all.
    """
    resolved = resolve(recipe)
    if resolved.export:
        require_exporter()
    with place(PlacementConfig(device="cpu", threads=resolved.placement.threads)):
        return list(_findings(resolved))


def _findings(recipe: ResolvedRecipe) -> Iterator[Finding]:
    task = make_task(next(iter(recipe.tasks.values())))
    splits = load_splits(recipe.data)
    yield from check_data(splits, task)
    teachers = {name: build_candidate(name, config, splits, task) for name, config in recipe.teachers.items()}
    students = build_students(recipe, teachers, splits, task)
    if isinstance(splits.train, TextExamples):
        yield from _on_texts(recipe, students, teachers, splits, task)
    for candidate in teachers.values():
        yield from _on_teacher(recipe, candidate, splits, task)
    yield from check_cut(recipe, teachers)
    yield from check_arms(recipe)
    for name, arm in recipe.arms.items():
        yield from batch_statistics(students[name], name, arm)
        for teacher in teachers_of(arm.stages, recipe.teachers):
            yield from check_gap(
                students[name].description, teachers[teacher].network.description, arm=name, name=teacher
            )
        for position, stage in enumerate(arm.stages):
            said = f"arm {name}" + (f", stage {position + 1}" if len(arm.stages) > 1 else "")
            yield from check_objective(said, stage, students[name], teachers, splits, task)
    yield from check_cost(recipe, students, teachers, splits, task)


def _on_teacher(recipe: ResolvedRecipe, candidate: Candidate, splits: Splits, task: Task) -> Iterator[Finding]:
    terms = [term for arm in recipe.arms.values() for stage in arm.stages for term in stage.objective.values()]
    examples = sample_for(candidate.network.description, without_empty(splits.train), task)
    yield from check_quality(candidate, examples, task)
    yield from check_teacher(candidate, examples, list(dict.fromkeys(terms)), task)
    yield from check_order(candidate, examples, task, next(iter(recipe.tasks.values())))
    yield from check_padding(candidate, examples, task)


def _on_texts(
    recipe: ResolvedRecipe, students: Students, teachers: Teachers, splits: Splits, task: Task
) -> Iterator[Finding]:
    """What networks read, and whether student and teacher read the same; of arms that have one student, once."""
    different = [arms for _, arms in arms_by_student(recipe)]
    views: dict[str, TextView] = {}
    for arms in different:
        name = "the student" if len(different) == 1 else f"the student of {', '.join(arms)}"
        views[name] = _text_view(students[arms[0]])
        yield show_examples(name, views[name], splits.students, task)
    views |= {called(name): _text_view(candidate.network) for name, candidate in teachers.items()}
    yield from check_texts(splits, views, task)
    for name, candidate in teachers.items():
        yield from check_reading(f"teacher {name}", candidate.network, candidate.config.model, candidate.config.inputs)
    compared = spread(without_empty(splits.train), TEXTS_COMPARED)
    assert isinstance(compared, TextExamples)
    for arms in different:
        heard = dict.fromkeys(name for arm in arms for name in teachers_of(recipe.arms[arm].stages, teachers))
        student = recipe.arms[arms[0]].student
        for name in heard:
            published = is_published(student.model) if student.model is not None else teachers[name].published
            yield from check_tokenizers(
                students[arms[0]], teachers[name], compared, task, arm=arms[-1], published=published
            )


def _text_view(network: Network) -> TextView:
    assert isinstance(network.view, TextView)
    return network.view
