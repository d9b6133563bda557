"""What is inside a network, and how the layers of a student and its teacher would be paired."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch

from distil.check.student import arms_by_student
from distil.core.config import PlacementConfig
from distil.core.errors import ModelError, RecipeError
from distil.core.placement import place
from distil.core.seeds import derive
from distil.data.split import load_splits
from distil.models.config import ModelConfig, TimmConfig, TorchvisionModelConfig
from distil.models.describe import ModelDescription, describe_model
from distil.models.load import build_model
from distil.models.tap_config import Take
from distil.objective.alignment import auto_pairs
from distil.recipe.recipe import Recipe
from distil.recipe.resolve import resolve
from distil.tasks.choice import make_task
from distil.tasks.cut import build_student
from distil.tasks.network import build_network

TAKES: tuple[Take, ...] = ("output", "pre-activation", "attention")


@dataclass(frozen=True)
class Inspection:
    """Networks by name, and for each pair of student and teacher the map of ``layers: auto``.

    Attributes:
        models: descriptions by name; a student as ``student (ARM)`` where arms have different ones.
        maps: for each ``STUDENT <- TEACHER``, by what is taken, the pairs of layer names.
    """

    models: Mapping[str, ModelDescription]
    maps: Mapping[str, Mapping[str, list[tuple[str, str]]]]

    def as_dict(self) -> dict[str, Any]:
        return {"models": {name: asdict(model) for name, model in self.models.items()}, "maps": self.maps}


def inspect_recipe(recipe: Recipe) -> Inspection:
    """The networks of a recipe, measured on its first training example.

    Raises:
        DistilError: the recipe, its data or a model cannot be used.
    """
    resolved = resolve(recipe)
    task = make_task(next(iter(resolved.tasks.values())))
    with place(PlacementConfig(device="cpu", threads=resolved.placement.threads)):
        examples = load_splits(resolved.data).train
        networks = {
            name: build_network(
                config.model,
                config.inputs,
                examples=examples,
                seed=derive("inspect"),
                task=task,
                who=f"teachers.{name}",
            )
            for name, config in resolved.teachers.items()
        }
        students: dict[str, ModelDescription] = {}
        for student, arms in arms_by_student(resolved):
            network = build_student(
                student.model,
                student.from_teacher,
                student.inputs,
                teachers=networks,
                teacher=student.teacher,
                examples=examples,
                seed=derive("inspect"),
                task=task,
            )
            if network.description not in students.values():
                students["student" if not students else f"student ({arms[0]})"] = network.description
    teachers = {name: network.description for name, network in networks.items()}
    maps = {
        f"{student} <- {teacher}": _maps(students[student], teachers[teacher])
        for student in students
        for teacher in teachers
    }
    return Inspection({**teachers, **students}, maps)


def inspect_model(config: ModelConfig, *, image_shape: tuple[int, int, int], num_classes: int) -> Inspection:
    """One network, measured on one image of noise."""
    with place(PlacementConfig(device="cpu")):
        model = build_model(config, num_classes=num_classes, image_shape=image_shape, seed=derive("inspect"))
        noise = torch.rand(1, *image_shape, generator=torch.Generator().manual_seed(0))
        return Inspection({getattr(config, "name", config.kind): describe_model(model, noise)}, {})


def named_model(text: str) -> ModelConfig:
    """The model of ``LIBRARY:NAME``, such as ``timm:resnet18``.

    Raises:
        RecipeError: the library is not one that distil builds models with.
    """
    library, _, name = text.partition(":")
    match library:
        case "timm":
            return TimmConfig(name=name)
        case "torchvision":
            return TorchvisionModelConfig(name=name)
        case _:
            raise RecipeError(f"{text!r}: expected timm:NAME, torchvision:NAME or a recipe file")


def _maps(student: ModelDescription, teacher: ModelDescription) -> dict[str, list[tuple[str, str]]]:
    found = {}
    for take in TAKES:
        try:
            pairs = auto_pairs(student, teacher, take=take, last_only=False)
        except ModelError:
            continue
        found[take] = [(ours.name, theirs.name) for ours, theirs in pairs]
    return found
