"""Agreement: does a step along a term's gradient also lower the loss on labels the student has not seen?"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from distil.compare.candidate import kind_of
from distil.compare.gradient import LEAST_PAIRS, Direction, Sketch, cosine_of_means
from distil.core.errors import DataError
from distil.core.seeds import derive, seeded
from distil.data.batch import Batch
from distil.data.example import Examples
from distil.data.feed import TASK, AnyView, Feed
from distil.knowledge.response import LiveKnowledge, Responses
from distil.losses.label import label_cross_entropy
from distil.models.describe import ModelDescription
from distil.models.tap import Tap, Taps
from distil.objective.config import Term
from distil.objective.objective import BoundObjective, Objective
from distil.pipeline.context import Context
from distil.pipeline.student import VIEW
from distil.pipeline.teacher import Faculty
from distil.recipe.recipe import Arm
from distil.tasks.network import Network
from distil.train.config import OptimizerConfig
from distil.train.optimizer import make_optimizer

BATCHES = 16
FITTING_STEPS = 32
LEAST_OF_A_BATCH = 8
MOST_OF_A_BATCH = 256


@dataclass(frozen=True)
class Agreement:
    """Of one term, at the student's initial weights and at those it has after training alone. None: no label was met.

    Attributes:
        name: in the objective, or the kind of a candidate.
        kind: of the term.
        knowledge: that it is about.
        own: whether the recipe has it.
    """

    name: str
    kind: str
    knowledge: str
    own: bool
    initial: Direction | None
    trained: Direction | None


def measure_agreement(
    context: Context,
    faculty: Faculty,
    arm: Arm,
    networks: Sequence[Network],
    terms: Mapping[str, Term],
    own: Mapping[str, Term],
) -> list[Agreement]:
    """Cosine of each term's gradient with that of the true-label loss on validation examples, over up to 16 batches.

    The gradient is of all the student's parameters, in training mode, so the cosine says how much of a small step along
    the term lowers the loss on labels that were not trained on. The term is computed on a batch of training examples,
    as a training would see them, the loss on a batch of labelled validation examples, a new pair each time. What a term
    learns beside the student, such as a projector, is fitted for 32 steps first, with the student left as it is.

    Args:
        context: of the run.
        faculty: the teachers, ready to be asked.
        arm: whose training the batches are of.
        networks: the student at its initial and at its trained weights.
        terms: that can be bound.
        own: those of the recipe, by name.

    Raises:
        DataError: there are too few labelled validation examples.
    """
    training, splits, device = arm.stages[-1].training, context.splits, context.placement.device
    described = {name: teacher.network.description for name, teacher in faculty.teachers.items()}
    num_ids, view = int(splits.train.ids.max()) + 1, networks[0].view
    points = [_Point(network, terms, described, num_ids=num_ids, device=device) for network in networks]
    asked = points[0].teacher_taps
    knowledge = LiveKnowledge([faculty.teachers[name].frozen for name in asked], asked)
    views = {VIEW: view, **{name: faculty.teachers[name].network.view for name in asked}}
    feed = Feed(
        splits.students,
        views=views,
        batch_size=_batch_size(len(splits.students), training.batch_size),
        augmentation=training.augmentation,
        targets=context.task.targets,
        seed=derive("agreement"),
    )
    unseen = _validation_feed(splits.validation, view)
    num_pairs = min(BATCHES, feed.steps_per_epoch, unseen.steps_per_epoch)
    with seeded(derive("agreement")):
        if any(point.learns for point in points):
            for step in range(FITTING_STEPS):
                batch = feed.batch(num_pairs + step).to(device)
                heard = knowledge(batch)
                for point in points:
                    point.fit(batch, heard, step, training.optimizer)
        for step in range(num_pairs):
            batch, judged = feed.batch(step).to(device), unseen.batch(step).to(device)
            heard = knowledge(batch)
            for point in points:
                point.compare(batch, heard, judged, step)
    for name in asked:
        faculty.teachers[name].frozen.close()
    initial, trained = (point.close() for point in points)
    return [
        Agreement(
            name=name,
            kind=kind_of(term),
            knowledge=term.knowledge,
            own=name in own,
            initial=initial[name],
            trained=trained[name],
        )
        for name, term in terms.items()
    ]


class _Point:
    """A copy of the student at some weights, with every term bound to it alone."""

    def __init__(
        self,
        network: Network,
        terms: Mapping[str, Term],
        teachers: Mapping[str, ModelDescription],
        *,
        num_ids: int,
        device: str,
    ) -> None:
        self._model = copy.deepcopy(network.model).to(device).train().requires_grad_(True)
        self._terms: dict[str, BoundObjective] = {
            name: Objective({name: term}, view=VIEW).bind(network.description, teachers, num_ids=num_ids)
            for name, term in terms.items()
        }
        for bound in self._terms.values():
            bound.module.to(device).train()
        taps = (tap for bound in self._terms.values() for tap in bound.requires.student_taps)
        self._taps = Taps(self._model, taps)
        self._sketch = Sketch(list(self._model.parameters()))
        self._optimizers: dict[str, torch.optim.Optimizer] = {}
        self._wanted: dict[int, Tensor] = {}  # by step
        self._given: dict[str, dict[int, Tensor]] = {name: {} for name in terms}

    @property
    def learns(self) -> bool:
        return any(_has_state(bound.module) for bound in self._terms.values())

    @property
    def teacher_taps(self) -> dict[str, tuple[Tap, ...]]:
        """Of every teacher that some term listens to."""
        asked: dict[str, dict[Tap, None]] = {}
        for bound in self._terms.values():
            for name in sorted(bound.requires.teacher_outputs):
                asked.setdefault(name, {}).update(dict.fromkeys(bound.requires.teacher_taps.get(name, ())))
        return {name: tuple(taps) for name, taps in asked.items()}

    def fit(self, batch: Batch, heard: Responses, step: int, config: OptimizerConfig) -> None:
        """One step of what the terms learn beside the student; memories are filled."""
        with torch.no_grad():
            torch.manual_seed(derive("agreement", "fit", step))
            said = self._taps.observe(self._model, batch.inputs[VIEW])
        for name, bound in self._terms.items():
            if not _has_state(bound.module):
                continue
            torch.manual_seed(derive("agreement", "fit", name, step))
            loss = bound(said, heard, batch, bound.counts(batch)).total
            if loss.requires_grad:
                if name not in self._optimizers:
                    self._optimizers[name] = make_optimizer([bound.module], config)
                loss.backward()
                self._optimizers[name].step()
                self._optimizers[name].zero_grad(set_to_none=True)

    def compare(self, batch: Batch, heard: Responses, judged: Batch, step: int) -> None:
        """One cosine of each term that has something to say about the batch."""
        torch.manual_seed(derive("agreement", "judged", step))
        logits = self._taps.observe(self._model, judged.inputs[VIEW]).logits
        self._wanted[step] = self._sketch(label_cross_entropy(logits, judged.targets[TASK]).mean())
        torch.manual_seed(derive("agreement", "batch", step))
        said = self._taps.observe(self._model, batch.inputs[VIEW])
        for name, bound in self._terms.items():
            counts = bound.counts(batch)
            if any(counts.values()):
                torch.manual_seed(derive("agreement", name, step))
                self._given[name][step] = self._sketch(bound(said, heard, batch, counts).total)

    def close(self) -> dict[str, Direction | None]:
        """What was found out about each term; the student's hooks are removed."""
        self._taps.close()
        return {
            name: cosine_of_means(
                torch.stack(list(given.values())), torch.stack([self._wanted[step] for step in given])
            )
            if len(given) >= LEAST_PAIRS
            else None
            for name, given in self._given.items()
        }


def _has_state(module: nn.Module) -> bool:
    return any(True for _ in module.parameters()) or any(True for _ in module.buffers())


def _batch_size(num_examples: int, most: int) -> int:
    """Such that there are 16 batches that do not overlap, of eight examples or more, where there are so many."""
    return max(min(LEAST_OF_A_BATCH, num_examples // LEAST_PAIRS), min(most, num_examples // BATCHES))


def _validation_feed(validation: Examples | None, view: AnyView) -> Feed:
    labelled = validation.select(torch.nonzero(validation.labelled).flatten()) if validation is not None else None
    if labelled is None or len(labelled) < 2 * LEAST_PAIRS:
        few = f"fewer than {2 * LEAST_PAIRS} labelled validation examples"
        raise DataError(f"there are {few}, so no gradient of theirs is known; set data.validation to a larger share")
    size = _batch_size(len(labelled), MOST_OF_A_BATCH)
    return Feed(labelled, views={VIEW: view}, batch_size=size, seed=derive("agreement", "validation"))
