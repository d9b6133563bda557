"""Resolve: every short form expanded, every default written out, and the parts held against each other."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, assert_never

from pydantic import ValidationError

from distil.core.errors import Problem, RecipeError
from distil.data.config import DataConfig, SourceConfig, TextConfig
from distil.models.config import IncludedWeights, PretrainedWeights
from distil.objective.config import Term
from distil.objective.embedding_config import EmbeddingContrast
from distil.objective.label_config import BinaryLabels, SmoothedLabels
from distil.objective.own_config import OwnTerm
from distil.objective.response_config import SoftTargets, TrueLabels
from distil.objective.term_config import LayerTermConfig, TeacherTermConfig, TermConfig
from distil.recipe.explain import did_you_mean
from distil.recipe.place import Path
from distil.recipe.recipe import (
    Arm,
    ControlConfig,
    LabelSmoothingControl,
    PermutedKnowledgeControl,
    Recipe,
    ResolvedRecipe,
    ScratchControl,
    Student,
    Teacher,
    TrainStage,
)
from distil.recipe.yaml_file import dump_yaml
from distil.tasks.config import ImageClassificationConfig, RankingConfig, TaskConfig, TextClassificationConfig
from distil.train.config import PlateauConfig, TrainingConfig
from distil.tune.config import ChoiceConfig, TuneConfig

TARGETS = {
    "classes": "one class an example",
    "multi-label": "several classes an example",
    "embeddings": "embeddings",
}
EXPORTED = ("image-classification", "text-classification", "multi-label", "ranking", "sentence-embedding")
DISTILLED = "distilled"
TEACHER = "teacher"
SHORT_FORMS = {"task": "tasks", "teacher": "teachers", "student": "arms", "objective": "arms"} | {
    "training": "arms",
    "stages": "arms",
    "controls": "arms",
}


def resolve(recipe: Recipe) -> ResolvedRecipe:
    """The form that code sees.

    Raises:
        RecipeError: both forms of one thing, a missing part, or parts that contradict each other; all problems at once.
    """
    problems = [Problem(".".join(map(str, path)), what) for path, what in contradictions(recipe)]
    if problems:
        raise RecipeError(f"recipe {recipe.name}: the recipe cannot be used:", problems)
    return _expand(recipe)


def contradictions(recipe: Recipe) -> list[tuple[Path, str]]:
    """What is wrong with the parts of a recipe together: a key as it was written, and a sentence about it."""
    problems = list(_wrong_forms(recipe))
    if not problems:
        problems = [(_as_written(path, recipe), what) for path, what in _contradictions(_expand(recipe))]
    return list(dict(reversed(problems)).items())[::-1]  # one for each key, the first


def to_yaml(recipe: ResolvedRecipe) -> str:
    """The resolved recipe as a file that can be run again."""
    return dump_yaml(recipe.model_dump(mode="json"))


def changed_keys(before: Mapping[str, Any], after: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Where two resolved recipes differ, as sentences ``key: before -> after``."""
    changes: list[str] = []
    for key in dict.fromkeys([*before, *after]):
        old, new = before.get(key), after.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            changes += changed_keys(old, new, f"{prefix}{key}.")
        elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
            numbered = ({str(index): value for index, value in enumerate(values)} for values in (old, new))
            changes += changed_keys(*numbered, prefix=f"{prefix}{key}.")
        elif old != new:
            changes.append(f"{prefix}{key}: {old!r} -> {new!r}")
    return changes


def _expand(recipe: Recipe) -> ResolvedRecipe:
    tasks = recipe.tasks or {"main": recipe.task or default_task(recipe.data)}
    task = next(iter(tasks.values()))
    return ResolvedRecipe(
        name=recipe.name,
        tasks=tasks,
        data=recipe.data,
        teachers={
            name: _expand_teacher(teacher, [other for other in _teachers(recipe) if other != name], task)
            for name, teacher in _teachers(recipe).items()
        },
        arms=recipe.arms if recipe.arms is not None else _arms(recipe, task),
        seeds=recipe.seeds,
        margin=recipe.margin,
        tune=recipe.tune,
        export=recipe.export,
        placement=recipe.placement,
    )


def _teachers(recipe: Recipe) -> dict[str, Teacher]:
    if recipe.teacher is not None:
        return {TEACHER: recipe.teacher}
    return recipe.teachers or {}


def _expand_teacher(teacher: Teacher, others: list[str], task: TaskConfig) -> Teacher:
    """A teacher with its stages written out, and its own teacher named in every term: the order of trainings needs it.

    Args:
        teacher: as the recipe has it.
        others: the names of the other teachers.
        task: what it learns.
    """
    if teacher.weights is not None:
        return teacher
    if teacher.stages is not None:
        return teacher.model_copy(update={"stages": tuple(_taught_by_only(stage, others) for stage in teacher.stages)})
    objective: dict[str, Term] = teacher.objective or {"true-labels": label_term(task)}
    if teacher.teacher is not None:
        terms = teacher.objective or {"true-labels": TrueLabels(weight=0.1), "soft-targets": SoftTargets(weight=0.9)}
        objective = {name: _taught(term, teacher.teacher) for name, term in terms.items()}
    stage = TrainStage(objective=objective, training=teacher.training or TrainingConfig())
    return teacher.model_copy(update={"training": None, "teacher": None, "objective": None, "stages": (stage,)})


def _taught_by_only(stage: TrainStage, others: list[str]) -> TrainStage:
    if len(others) != 1:
        return stage
    return stage.model_copy(
        update={"objective": {name: _taught(term, others[0]) for name, term in stage.objective.items()}}
    )


def _taught(term: Term, teacher: str) -> Term:
    """The term with its teacher named where it is not."""
    listens = isinstance(term, TeacherTermConfig) and term.needs_teacher and term.teacher is None
    return term.model_copy(update={"teacher": teacher}) if listens else term


def _arms(recipe: Recipe, task: TaskConfig) -> dict[str, Arm]:
    assert recipe.student is not None
    stages = recipe.stages or _one_stage(recipe)
    budget = stages[-1].training.model_copy(update={"epochs": sum(stage.training.epochs for stage in stages)})
    arms = {control.arm: _control(control, recipe.student, stages, budget, task) for control in _controls(recipe)}
    return {**arms, DISTILLED: Arm(student=recipe.student, stages=stages)}


def _one_stage(recipe: Recipe) -> tuple[TrainStage, ...]:
    assert recipe.objective is not None
    return (TrainStage(objective=recipe.objective, training=recipe.training or TrainingConfig()),)


def _controls(recipe: Recipe) -> tuple[ControlConfig, ...]:
    if recipe.controls is not None:
        return recipe.controls
    task = next(iter(recipe.tasks.values())) if recipe.tasks else recipe.task or default_task(recipe.data)
    return (ScratchControl(), LabelSmoothingControl()) if task.target == "classes" else (ScratchControl(),)


def default_task(data: DataConfig) -> TaskConfig:
    """What is asked of data where a recipe does not say."""
    return TextClassificationConfig() if isinstance(data, TextConfig) else ImageClassificationConfig()


def label_term(task: TaskConfig) -> Term:
    """What a network learns of the data alone."""
    match task.target:
        case "multi-label":
            return BinaryLabels()
        case "embeddings":
            return EmbeddingContrast()
        case _:
            return TrueLabels()


def _control(
    control: ControlConfig, student: Student, stages: tuple[TrainStage, ...], budget: TrainingConfig, task: TaskConfig
) -> Arm:
    """A control trains as long as all stages of the distilled arm together, as the last of them does."""
    match control:
        case ScratchControl():
            labels: Term = label_term(task)
        case LabelSmoothingControl():
            labels = TrueLabels(smoothing=control.smoothing)
        case PermutedKnowledgeControl():
            return Arm(control=True, student=student, stages=stages, permute_knowledge=True)
        case _:
            assert_never(control)
    own = TrainStage(objective={"true-labels": labels}, training=control.training or budget)
    return Arm(control=True, student=student, stages=(own,))


def _wrong_forms(recipe: Recipe) -> Iterator[tuple[Path, str]]:
    for short, long in SHORT_FORMS.items():
        if getattr(recipe, short) is not None and getattr(recipe, long) is not None:
            yield (short,), f"{short} is the short form of {long}; write one of them"
    if recipe.arms is None:
        if recipe.student is None:
            yield ("student",), "missing; it must be given, or arms in its place"
        if recipe.objective is None and recipe.stages is None:
            yield ("objective",), "missing; it must be given, or arms in its place"
    for part in ("objective", "training"):
        if recipe.stages is not None and getattr(recipe, part) is not None:
            yield (part,), f"stages have their own {part}; write one of them"
    names = [control.arm for control in recipe.controls or ()]
    for position, name in enumerate(names):
        if name in names[:position] or name == DISTILLED:
            yield ("controls", position), f"there is an arm {name} already; give each control a name of its own"


def _contradictions(recipe: ResolvedRecipe) -> Iterator[tuple[Path, str]]:
    """Paths are those of the resolved form."""
    distilled = [name for name, arm in recipe.arms.items() if not arm.control]
    if len(distilled) > 1:
        yield ("arms",), f"{_listed(distilled)} are not controls; a run compares one arm with its controls"
    needy = {name: None for arm in recipe.arms.values() for name, term in arm.terms.items() if term.needs_teacher}
    if needy and not recipe.teachers:
        yield ("teacher",), f"missing; {_terms(needy)} cannot be computed without one"
    for name, teacher in recipe.teachers.items():
        yield from _teacher_contradictions(("teachers", name), teacher, recipe)
    for name, arm in recipe.arms.items():
        yield from _arm_contradictions(("arms", name), arm, recipe)
    task = next(iter(recipe.tasks.values()))
    if recipe.export and task.kind not in EXPORTED:
        yield ("export",), f"of {task.kind} nothing is exported yet; the student's folder of transformers is shipped"
    if recipe.export and isinstance(task, RankingConfig) and task.scorer == "bi-encoder":
        yield ("export",), "of a bi-encoder nothing is exported yet; the student's folder of transformers is shipped"
    if recipe.tune is not None:
        yield from _tune_contradictions(recipe.tune, recipe)


def _teacher_contradictions(where: Path, teacher: Teacher, recipe: ResolvedRecipe) -> Iterator[tuple[Path, str]]:
    kind, data = teacher.model.kind, recipe.data
    if where[-1] == "student":
        yield where, "a teacher cannot be called student; give it another name"
    if isinstance(teacher.weights, PretrainedWeights) and kind not in ("timm", "torchvision", "huggingface"):
        yield (*where, "weights"), f"a model of kind {kind} has no published weights; name a file"
    if isinstance(teacher.weights, IncludedWeights) and kind != "module":
        yield (*where, "weights"), "included is for a network made by a Python function"
    if teacher.labels == "all" and data.labels == "all":
        yield (*where, "labels"), "all has an effect only where data.labels is a number"
    others = [name for name in recipe.teachers if name != where[-1]]
    for position, stage in enumerate(teacher.stages or ()):
        last = position == len(teacher.stages or ()) - 1
        yield from _stage_contradictions((*where, "stages", position), stage, recipe, others, last=last)
    if str(where[-1]) in _teaches_itself(recipe):
        yield where, "it teaches itself, by way of the teachers that it is taught by; a chain has a first teacher"


def _teaches_itself(recipe: ResolvedRecipe) -> set[str]:
    """Teachers that are reached again by following those that they are taught by."""

    def above(name: str, seen: frozenset[str]) -> set[str]:
        direct = set(recipe.teachers[name].taught_by) & set(recipe.teachers) - seen
        return direct.union(*(above(each, seen | direct) for each in direct))

    return {name for name in recipe.teachers if name in above(name, frozenset())}


def _arm_contradictions(where: Path, arm: Arm, recipe: ResolvedRecipe) -> Iterator[tuple[Path, str]]:
    uses_teacher = any(term.needs_teacher for term in arm.terms.values())
    if arm.terms and not arm.control and not uses_teacher:
        yield (*where, "stages", 0, "objective"), "no term uses a teacher, so this would be a control, not distillation"
    if arm.permute_knowledge and not uses_teacher:
        yield (*where, "permute_knowledge"), "it has an effect only where a term uses a teacher"
    layered = [name for name, term in arm.terms.items() if _compares_layers(term)]
    if arm.permute_knowledge and layered:
        yield (
            (*where, "permute_knowledge"),
            f"it shuffles classes, and {_terms(layered)} would compare layers as they are; leave this control out",
        )
    for position, stage in enumerate(arm.stages):
        last = position == len(arm.stages) - 1
        yield from _stage_contradictions((*where, "stages", position), stage, recipe, list(recipe.teachers), last=last)


def _stage_contradictions(
    where: Path, stage: TrainStage, recipe: ResolvedRecipe, teachers: list[str], *, last: bool
) -> Iterator[tuple[Path, str]]:
    terms = {name: term for name, term in stage.objective.items() if term.weight > 0}
    if not terms:
        yield (*where, "objective"), "every weight is 0, so nothing would be learnt"
    task = next(iter(recipe.tasks.values()))
    if task.answers_are_places and any(each.kind == "transfer" for each in stage.training.augmentation):
        what = f"transfer moves the words of a text, and the targets of {task.kind} are places in it; remove it"
        yield (*where, "training", "augmentation"), what
    for name, term in stage.objective.items():
        path = (*where, "objective", name)
        if task.target not in term.targets:
            wanted = " or ".join(sorted(term.targets))
            yield path, f"{_kind(term)} is for {wanted}, and {task.kind} has {TARGETS[task.target]}"
        if term.needs_teacher and isinstance(term, TeacherTermConfig) and recipe.teachers:
            yield from _teacher_of_term(path, term, teachers)
        if isinstance(term, SmoothedLabels) and term.adapt > 0 and recipe.data.validation == "none":
            yield (*path, "adapt"), "it follows the validation loss, and data.validation is none; leave it out"
        if term.scope == "batch" and stage.training.micro_batch_size is not None:
            yield path, f"{_kind(term)} compares the examples of a batch; remove training.micro_batch_size"
    on_outputs = any(term.knowledge in ("labels", "responses", "own") for term in terms.values())
    if terms and not on_outputs and not last and stage.training.keep == "best" and recipe.data.validation != "none":
        yield (
            (*where, "training", "keep"),
            "best looks at the outputs, which no term of this stage trains; set keep: last",
        )
    yield from _training_contradictions((*where, "training"), stage.training, recipe.data)


def _compares_layers(term: TermConfig) -> bool:
    return isinstance(term, LayerTermConfig) and (not isinstance(term, OwnTerm) or term.uses_layers)


def _tune_contradictions(tune: TuneConfig, recipe: ResolvedRecipe) -> Iterator[tuple[Path, str]]:
    if recipe.data.validation == "none":
        yield ("tune",), "settings are chosen on the validation split, and data.validation is none"
    for name, space in tune.arms.items():
        if name not in recipe.arms:
            yield ("tune", "arms", name), f"there is no arm {name!r}{did_you_mean(name, list(recipe.arms))}"
            continue
        for key, values in space.items():
            tried = values.values if isinstance(values, ChoiceConfig) else (values.low, values.high)
            for value in tried:
                try:
                    recipe.arms[name].with_settings({key: value})
                except KeyError:
                    terms = ", ".join(recipe.arms[name].terms)
                    yield ("tune", "arms", name, key), f"expected TERM.SETTING, of the terms {terms} and their settings"
                    break
                except ValidationError as error:
                    yield ("tune", "arms", name, key), f"{value!r}: {error.errors()[0]['msg']}"


def _kind(term: TermConfig) -> str:
    return str(getattr(term, "kind", type(term).__name__))


def _teacher_of_term(where: Path, term: TeacherTermConfig, teachers: list[str]) -> Iterator[tuple[Path, str]]:
    if not teachers:
        yield where, "there is no other teacher that could teach this one"
    elif term.teacher is None and len(teachers) > 1:
        yield where, f"there are several teachers; name one with the key teacher: {_listed(teachers)}"
    elif term.teacher is not None and term.teacher not in teachers:
        yield (*where, "teacher"), f"there is no teacher {term.teacher!r}{did_you_mean(term.teacher, teachers)}"


def _training_contradictions(where: Path, training: TrainingConfig, data: SourceConfig) -> Iterator[tuple[Path, str]]:
    if data.validation != "none":
        return
    if training.keep == "best":
        yield (*where, "keep"), "best needs a validation split, and data.validation is none; set keep: last"
    if isinstance(training.until, PlateauConfig):
        yield (*where, "until"), "plateau needs a validation split, and data.validation is none"


def _as_written(path: Path, recipe: Recipe) -> Path:
    """The path of a key of the resolved form in the form in which the recipe was written."""
    match path:
        case ("teachers", name, *rest):
            start: Path = ("teacher",) if recipe.teacher is not None else ("teachers", name)
            if rest[:1] == ["stages"] and _teachers(recipe)[str(name)].stages is None:
                rest = rest[2:]
            return (*start, *rest)
        case ("arms", name, *rest) if recipe.arms is None:
            return _as_written_in_short(str(name), rest, recipe)
        case ("teacher",) if recipe.arms is not None:
            return ("teachers",)
        case _:
            return path


def _as_written_in_short(arm: str, rest: list[str | int], recipe: Recipe) -> Path:
    for position, control in enumerate(_controls(recipe)):
        own = isinstance(control, (ScratchControl, LabelSmoothingControl)) and control.training is not None
        if control.arm == arm and (own or rest[0] != "stages"):
            return ("controls", position, *(rest[2:] if own else ()))
    return tuple(rest if recipe.stages is not None else rest[2:])


def _terms(names: Iterable[str]) -> str:
    listed = list(names)
    return f"the term {listed[0]}" if len(listed) == 1 else f"the terms {_listed(listed)}"


def _listed(words: Iterable[str]) -> str:
    return ", ".join(words)
