"""The terms an objective can have. The union is the catalogue: a term that is not in it does not exist."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

from distil.core.config import Config, NonNegative, Positive, Probability, expand_kind


class TermConfig(Config):
    """What every term has. ``scope`` is what its value belongs to: ``example``, so that any split of a batch agrees."""

    scope: ClassVar[Literal["example", "batch"]] = "example"
    needs_labels: ClassVar[bool] = False
    needs_teacher: ClassVar[bool] = False

    weight: NonNegative = 1.0  # 0: the term is not computed


class TrueLabels(TermConfig):
    """Cross-entropy against the true labels; unlabelled examples are left out."""

    needs_labels = True

    kind: Literal["true-labels"] = "true-labels"
    smoothing: Probability = 0.0


class SoftTargets(TermConfig):
    """The teacher's softened classes (Hinton 2015), times the temperature squared."""

    needs_teacher = True

    kind: Literal["soft-targets"] = "soft-targets"
    temperature: Positive = 4.0
    teacher: str | None = None  # None: the only one


class TeacherLabels(TermConfig):
    """Cross-entropy against the class the teacher decides for: the survey's hard-label loss."""

    needs_teacher = True

    kind: Literal["teacher-labels"] = "teacher-labels"
    teacher: str | None = None  # None: the only one


def _expand_term(value: Any) -> Any:
    value = expand_kind(value)
    if isinstance(value, dict) and value.get("kind") == "hard-labels":
        raise PydanticCustomError(
            "ambiguous_term",
            "'hard-labels' means two things in the literature: write true-labels for the labels of the data, "
            "or teacher-labels for the classes that the teacher decides for",
        )
    return value


Term = Annotated[
    Annotated[TrueLabels | SoftTargets | TeacherLabels, Field(discriminator="kind")],
    BeforeValidator(_expand_term),
]
