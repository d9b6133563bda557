"""The recipe: the whole description of a run. A short form for people, a resolved form for the code."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from distil.core.config import Config, NonNegative, PlacementConfig, Probability, StringIsKind, Whole
from distil.data.config import DataConfig, InputsConfig
from distil.export.config import ExportConfig
from distil.models.config import ModelConfig, WeightsConfig
from distil.models.shrink_config import ShrinkConfig
from distil.objective.config import Term
from distil.objective.term_config import TeacherTermConfig
from distil.tasks.config import TaskConfig
from distil.train.config import TrainingConfig
from distil.tune.config import TuneConfig

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"

Objective = Annotated[dict[str, Term], Field(min_length=1)]


class TrainStage(Config):
    """A step of an arm: a training with an objective."""

    kind: Literal["train"] = "train"
    objective: Objective
    training: TrainingConfig = TrainingConfig()
    freeze: tuple[str, ...] = ()  # patterns of parameter names that this stage leaves as they are


StageConfig = Annotated[TrainStage, Field()]
Stages = Annotated[tuple[StageConfig, ...], Field(min_length=1)]


def teachers_of(stages: Sequence[TrainStage], known: Iterable[str]) -> tuple[str, ...]:
    """The teachers that the terms of stages listen to, each once; a term without a name listens to all that are known.

    Args:
        stages: terms of weight 0 are not computed and listen to nobody.
        known: where a term may leave its teacher unnamed there is one.
    """
    terms = [term for stage in stages for term in stage.objective.values() if term.weight > 0]
    listening = [term for term in terms if isinstance(term, TeacherTermConfig) and term.needs_teacher]
    named = [[term.teacher] if term.teacher is not None else list(known) for term in listening]
    return tuple(dict.fromkeys(name for each in named for name in each))


class Teacher(Config):
    """The model that knows: with weights, or trained here first."""

    model: ModelConfig
    inputs: InputsConfig = InputsConfig()
    weights: WeightsConfig | None = None
    training: TrainingConfig | None = None  # short for stages: one training, on the true labels or the objective
    teacher: str | None = None  # short: the teacher that teaches this one, an assistant
    objective: Objective | None = None  # short: what an assistant learns; None: true-labels 0.1, soft-targets 0.9
    stages: Stages | None = None
    labels: Literal["students", "all"] = "students"  # all: it may see labels that students may not
    classes: tuple[str, ...] | None = None  # class names in the order of its outputs; None: the order of the data

    @model_validator(mode="after")
    def _one_origin(self) -> "Teacher":
        given = [name for name in ("weights", "training", "stages") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} exclude each other: a teacher has weights or is trained here")
        if self.objective is not None and self.teacher is None:
            raise ValueError(
                "objective is what a teacher learns from its own teacher; name that one with the key teacher"
            )
        for name in ("teacher", "objective"):
            if getattr(self, name) is not None and (self.weights is not None or self.stages is not None):
                raise ValueError(f"{name} is for a teacher that is trained here in one stage; in stages, terms name it")
        if self.weights is not None and self.labels == "all":
            raise ValueError("labels has an effect only where the teacher is trained here; this one has weights")
        return self

    @property
    def taught_by(self) -> tuple[str, ...]:
        """The teachers that teach this one."""
        return teachers_of(self.stages or (), ())


class Student(Config):
    """The model that learns: of its own, or cut from a teacher."""

    model: ModelConfig | None = None
    from_teacher: ShrinkConfig | None = None  # what of the teacher it keeps; it starts with the teacher's weights
    teacher: str | None = None  # that it is cut from; None: the only one
    inputs: InputsConfig = InputsConfig()

    @model_validator(mode="after")
    def _one_origin(self) -> "Student":
        if (self.model is None) == (self.from_teacher is None):
            raise ValueError("give model, or from_teacher for a student that is cut from a teacher")
        if self.teacher is not None and self.from_teacher is None:
            raise ValueError("teacher has an effect only together with from_teacher")
        return self


class ScratchControl(Config):
    """The student alone, on the true labels."""

    kind: Literal["scratch"] = "scratch"
    name: Annotated[str, Field(pattern=NAME_PATTERN)] | None = None  # of the arm; None: scratch
    training: TrainingConfig | None = None  # None: the recipe's

    @property
    def arm(self) -> str:
        return self.name if self.name is not None else self.kind


class LabelSmoothingControl(Config):
    """The student alone, on smoothed labels: what softening gives without a teacher."""

    kind: Literal["label-smoothing"] = "label-smoothing"
    arm: ClassVar[str] = "label-smoothing"
    smoothing: Annotated[Probability, Field(gt=0)] = 0.1
    training: TrainingConfig | None = None  # None: the recipe's


class PermutedKnowledgeControl(Config):
    """The recipe's objective, with the teacher's wrong classes shuffled for each example."""

    kind: Literal["permuted-knowledge"] = "permuted-knowledge"
    arm: ClassVar[str] = "permuted-knowledge"


ControlConfig = Annotated[
    Annotated[ScratchControl | LabelSmoothingControl | PermutedKnowledgeControl, Field(discriminator="kind")],
    StringIsKind,
]


class Arm(Config):
    """One way to train a student."""

    control: bool = False
    student: Student
    stages: Stages
    permute_knowledge: bool = False

    def with_settings(self, settings: Mapping[str, Any]) -> "Arm":
        """The arm with settings of terms changed, by ``TERM.SETTING``; a term is that of the last stage that has it.

        Raises:
            KeyError: there is no such term or setting.
            ValidationError: a value is not one that the setting can have.
        """
        stages = list(self.stages)
        for key, value in settings.items():
            name, _, setting = key.rpartition(".")
            position = max((at for at, stage in enumerate(stages) if name in stage.objective), default=-1)
            if position < 0 or setting not in type(stages[position].objective[name]).model_fields:
                raise KeyError(key)
            stage, term = stages[position], stages[position].objective[name]
            own = {each: getattr(term, each) for each in type(term).model_fields}  # a user's term dumps more than these
            checked = type(term).model_validate({**own, setting: value})
            changed = term.model_copy(update={setting: getattr(checked, setting)})
            stages[position] = stage.model_copy(update={"objective": {**stage.objective, name: changed}})
        return self.model_copy(update={"stages": tuple(stages)})

    @property
    def terms(self) -> dict[str, Term]:
        """The terms of all stages that have a weight; of equal names the last."""
        return {name: term for stage in self.stages for name, term in stage.objective.items() if term.weight > 0}


def _expand_seeds(value: Any) -> Any:
    if not isinstance(value, int) or isinstance(value, bool):
        return value
    if not 1 <= value <= MOST_SEEDS:
        raise ValueError(f"found {value}; expected a number of seeds from 1 to {MOST_SEEDS}, or a list of seeds")
    return list(range(value))


MOST_SEEDS = 1000

Name = Annotated[str, Field(pattern=NAME_PATTERN)]
Seeds = Annotated[tuple[Whole, ...], Field(min_length=1), BeforeValidator(_expand_seeds)]


class RunSettings(Config):
    """What the short and the resolved form have in common."""

    name: Name
    data: DataConfig
    seeds: Seeds = (0, 1, 2)
    margin: NonNegative = 0.005  # of the metric: differences inside it count as none
    tune: TuneConfig | None = None
    export: tuple[ExportConfig, ...] = ()
    placement: PlacementConfig = PlacementConfig()

    @field_validator("seeds")
    @classmethod
    def _different(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(value)) != len(value):
            raise ValueError(f"the seeds {list(value)} are not all different; equal seeds give equal students")
        return value

    @field_validator("export")
    @classmethod
    def _each_target_once(cls, value: tuple[ExportConfig, ...]) -> tuple[ExportConfig, ...]:
        targets = [export.target for export in value]
        if len(set(targets)) != len(targets):
            raise ValueError("a target stands there twice; list its precisions together")
        return value


class Recipe(RunSettings):
    """A recipe in either form; ``resolve`` gives the resolved one. Writing both forms of one thing is an error."""

    task: TaskConfig | None = None
    teacher: Teacher | None = None
    student: Student | None = None
    objective: Objective | None = None
    training: TrainingConfig | None = None
    stages: Stages | None = None  # in place of objective and training, where there is more than one
    controls: tuple[ControlConfig, ...] | None = None

    tasks: Annotated[dict[Name, TaskConfig], Field(min_length=1, max_length=1)] | None = None
    teachers: dict[Name, Teacher] | None = None
    arms: Annotated[dict[Name, Arm], Field(min_length=1)] | None = None


class ResolvedRecipe(RunSettings):
    """The form that code sees: every default written out, every short form expanded."""

    tasks: dict[Name, TaskConfig]
    teachers: dict[Name, Teacher]
    arms: dict[Name, Arm]

    @property
    def teaching_order(self) -> list[str]:
        """The teachers, each after those that teach it."""
        order: dict[str, None] = {}

        def visit(name: str) -> None:
            for taught in self.teachers[name].taught_by:
                if taught not in order and taught in self.teachers and taught != name:
                    visit(taught)
            order[name] = None

        for name in self.teachers:
            if name not in order:
                visit(name)
        return list(order)

    @property
    def controls(self) -> dict[str, Arm]:
        return {name: arm for name, arm in self.arms.items() if arm.control}

    @property
    def distilled(self) -> str | None:
        """The name of the arm that is compared with the controls."""
        return next((name for name, arm in self.arms.items() if not arm.control), None)
