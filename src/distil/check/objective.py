"""Does every term pull, and do the arms differ only where they should?"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from distil.check.finding import Finding
from distil.check.sample import affordable
from distil.check.student import VIEW
from distil.check.teacher import Candidate
from distil.core.seeds import derive
from distil.data.batch import Batch
from distil.data.config import TextConfig
from distil.data.example import Splits, TextExamples
from distil.data.feed import Feed
from distil.knowledge.response import Responses, looks_like_probabilities
from distil.models.tap import Taps
from distil.objective.objective import BoundObjective, Objective
from distil.recipe.recipe import Arm, ResolvedRecipe, TrainStage
from distil.recipe.resolve import changed_keys
from distil.tasks.network import Network
from distil.tasks.task import Task
from distil.train.freezing import freeze

TOO_UNEQUAL = 1_000
MANY_EPOCHS = 100


def check_objective(
    where: str, stage: TrainStage, network: Network, teachers: Mapping[str, Candidate], splits: Splits, task: Task
) -> Iterator[Finding]:
    """The size of every term and of its gradient at the student's initial weights, on one batch.

    Raises:
        ModelError: what the stage freezes is not there.
        CompatibilityError: a term cannot be computed for these networks.
    """
    freeze(network.model, stage.freeze)()
    objective = Objective(stage.objective, view=VIEW).bind(
        network.description,
        {name: candidate.network.description for name, candidate in teachers.items()},
        num_ids=int(splits.train.ids.max()) + 1,
    )
    views = {VIEW: network.view} | {name: candidate.network.view for name, candidate in teachers.items()}
    feed = Feed(
        splits.students,
        views=views,
        batch_size=stage.training.batch_size,
        order=stage.training.order,
        targets=task.targets,
        seed=derive("check"),
    )
    asked = [network.description, *(teachers[name].network.description for name in objective.requires.teacher_outputs)]
    whole = feed.batch(0)
    batch = affordable(whole, asked) if isinstance(splits.students, TextExamples) else whole
    knowledge = {
        name: teachers[name].frozen.observe(batch, taps) for name, taps in objective.requires.teacher_taps.items()
    }
    untrained = [name for name in objective.requires.teacher_outputs if not teachers[name].has_weights]
    with torch.no_grad():
        if task.target != "embeddings" and looks_like_probabilities(network.model.eval()(batch.inputs[VIEW])):
            yield Finding(
                "wrong",
                "student: its outputs are probabilities (0 to 1, sum 1), not logits",
                why="every loss takes logits; a softmax of a softmax has almost no gradient",
                remedy="remove the softmax at the student's end",
            )
    norms = {name: _gradient_norm(network.model, objective, name, knowledge, batch) for name in objective.weights}
    listed = "; ".join(
        f"{name} {value:.3g} (weight {objective.weights[name]:g}, gradient {norm:.3g})"
        for name, (value, norm) in norms.items()
    )
    caveat = f" (teacher {', '.join(untrained)} is untrained here, so its terms will be larger)" if untrained else ""
    cut = "" if len(batch) == len(whole) else f" ({len(batch)} examples of it)"
    yield Finding("fine", f"{where}, first batch{cut}: {listed}{caveat}")
    pulls = [norm for _, norm in norms.values() if norm > 0]
    if not untrained and len(pulls) > 1 and max(pulls) > TOO_UNEQUAL * min(pulls):
        yield Finding(
            "suspicious",
            f"{where}: the strongest term pulls {max(pulls) / min(pulls):.0f} times as hard as the weakest",
            why="the weakest term has next to no effect",
            remedy="change the weights, or remove the term",
        )


def check_arms(recipe: ResolvedRecipe) -> Iterator[Finding]:
    """What controls do not share with the distilled arm, and settings that make the verdict weaker than it could be."""
    distilled = recipe.arms[recipe.distilled].model_dump(mode="json") if recipe.distilled is not None else None
    for name, arm in recipe.controls.items():
        if distilled is not None:
            yield Finding("fine", f"control {name} differs from the distilled arm in: {_differences(distilled, arm)}")
    if recipe.controls and len(recipe.seeds) < 5:
        yield Finding(
            "suspicious",
            f"{len(recipe.seeds)} seeds",
            why="with fewer than five the interval over seeds is wide, and a real difference may stay INCONCLUSIVE",
            remedy="set seeds: 5 for a result you want to rely on",
        )
    of_texts = isinstance(recipe.data, TextConfig)
    for name, arm in recipe.arms.items():
        yield from _training_habits(name, arm, "text" if of_texts else "image")


def _differences(distilled: Mapping[str, Any], control: Arm) -> str:
    changes = changed_keys(distilled, control.model_dump(mode="json"))
    return "; ".join(change for change in changes if not change.startswith("control:")) or "nothing"


def _training_habits(name: str, arm: Arm, one: str) -> Iterator[Finding]:
    taught = [s.training for s in arm.stages if any(term.needs_teacher for term in s.objective.values())]
    for training in (each for each in taught if not each.augmentation and each.epochs > MANY_EPOCHS):
        yield Finding(
            "suspicious",
            f"arm {name}: {training.epochs} epochs on unchanged {one}s",
            why=f"a patient student gains more from new views of each {one} than from the same answers again "
            "(arXiv:2106.05237)",
            remedy=f"add training.augmentation; teacher and student then see the same changed {one}",
        )


def batch_statistics(network: Network, arm_name: str, arm: Arm) -> Iterator[Finding]:
    """Layers whose result depends on the batch, where batches are cut into pieces."""
    training = arm.stages[-1].training
    normalised = any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in network.model.modules())
    if training.micro_batch_size is not None and normalised:
        yield Finding(
            "suspicious",
            f"arm {arm_name}: batch normalisation sees {training.micro_batch_size} examples, the step "
            f"{training.batch_size}",
            why="its statistics come from each piece, so the result depends on micro_batch_size",
            remedy="raise micro_batch_size, or use a model without batch normalisation",
        )


def _gradient_norm(
    model: nn.Module, objective: BoundObjective, term: str, knowledge: Responses, batch: Batch
) -> tuple[float, float]:
    """A term's value, and the norm of the gradient of weight times value."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    with Taps(model, objective.requires.student_taps) as taps:
        said = taps.observe(model, batch.inputs[VIEW])
    part = objective(said, knowledge, batch, objective.counts(batch)).parts[term]
    gradients = torch.autograd.grad(objective.weights[term] * part, parameters, allow_unused=True)
    norm = torch.stack([part.new_zeros(()), *(each.norm() for each in gradients if each is not None)]).norm()
    return part.item(), norm.item()
