"""Are a teacher's outputs what losses take, and does asking leave it as it is? ``quality`` says how much it knows."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from distil.check.finding import Finding
from distil.core.seeds import derive
from distil.data.batch import Batch
from distil.data.example import Examples, Splits, TextExamples
from distil.knowledge.response import looks_like_probabilities
from distil.knowledge.teacher import FrozenTeacher, class_order
from distil.models.config import FileWeights, ModelConfig
from distil.models.huggingface_network import HuggingFaceNetwork
from distil.models.text_config import HuggingFaceModelConfig
from distil.objective.config import Term
from distil.objective.objective import Objective
from distil.objective.response_config import SoftTargets
from distil.recipe.recipe import Teacher
from distil.tasks.network import Network, build_network
from distil.tasks.score import score
from distil.tasks.side import Sides
from distil.tasks.task import Task

IDENTITY_BOUND = 1e-4  # nats: what float32 leaves of a divergence that is 0
TEXTS = 16
FEW_TEXTS = 2  # where outputs are for tokens, of which a vocabulary of scores each is held


@dataclass(frozen=True, eq=False)
class Candidate:
    """A teacher as the recipe has it, built and frozen; trained only where it comes with weights."""

    name: str
    config: Teacher
    network: Network
    frozen: FrozenTeacher
    class_order: list[int] | None

    @property
    def published(self) -> bool:
        return is_published(self.config.model)

    @property
    def drawn(self) -> tuple[str, ...]:
        """Weights of a published model that were not published and have been drawn at random."""
        parts = list(self.network.model.modules())
        names = [name for each in parts if isinstance(each, HuggingFaceNetwork) for name in each.drawn]
        new = ["projection" for each in parts if isinstance(each, Sides) and isinstance(each.projection, nn.Linear)]
        return (*names, *new)

    @property
    def has_weights(self) -> bool:
        """Whether it has all the weights that it needs before it is trained here."""
        if isinstance(self.config.weights, FileWeights):
            return True
        return not self.drawn if self.published else self.config.weights is not None

    @property
    def is_trained_here(self) -> bool:
        return self.config.stages is not None


def called(teacher: str) -> str:
    """The words for a teacher inside a sentence."""
    return "the teacher" if teacher == "teacher" else f"the teacher {teacher}"


def is_published(model: ModelConfig | None) -> bool:
    """Whether it is a model that brings weights along."""
    return isinstance(model, HuggingFaceModelConfig) and model.config is None


def build_candidate(name: str, config: Teacher, splits: Splits, task: Task) -> Candidate:
    """The teacher of a recipe on the CPU."""
    network = build_network(
        config.model,
        config.inputs,
        examples=splits.train,
        seed=derive("check", name),
        task=task,
        weights=config.weights,
        num_classes=len(config.classes) if config.classes is not None else None,
        who=f"teachers.{name}",
    )
    order = class_order(name, config.classes, splits.train.class_names)
    return Candidate(name, config, network, FrozenTeacher(name, network.model, class_order=order), order)


def check_teacher(candidate: Candidate, examples: Examples, terms: Sequence[Term], task: Task) -> Iterator[Finding]:
    """The kind of its output, its state, and whether divergences vanish, on a batch of the tensors that it gets."""
    batch = next(task.batches(examples, {candidate.name: candidate.network.view}))
    if isinstance(examples, TextExamples):
        batch = next(batch.split(FEW_TEXTS if task.answers_for_tokens or task.head == "spans" else TEXTS))
    if task.target != "embeddings":
        yield _logits(candidate, batch)
    yield _unchanged_by_asking(candidate, batch)
    yield from _identity(candidate, batch, [term for term in terms if isinstance(term, SoftTargets)])


def _logits(candidate: Candidate, batch: Batch) -> Finding:
    who = f"teacher {candidate.name}"
    if not looks_like_probabilities(candidate.frozen(batch)):
        return Finding("fine", f"{who}: its outputs are logits")
    return Finding(
        "wrong",
        f"{who}: its outputs are probabilities (0 to 1, sum 1), not logits",
        why="a softmax over probabilities is almost uniform, so the student would learn next to nothing",
        remedy="remove the softmax at its end, or return the logarithm of the probabilities",
    )


def _unchanged_by_asking(candidate: Candidate, batch: Batch) -> Finding:
    """Asks it from inside a parent in training mode, where dropout and batch normalisation would show."""
    parent = nn.ModuleList([candidate.network.model])
    before = {name: tensor.clone() for name, tensor in candidate.network.model.state_dict().items()}
    parent.train()
    first = candidate.frozen(batch)
    parent.train()
    second = candidate.frozen(batch)
    after = candidate.network.model.state_dict()
    changed = [name for name, tensor in before.items() if not torch.equal(tensor, after[name])]
    trainable = [name for name, parameter in candidate.network.model.named_parameters() if parameter.requires_grad]
    if changed or trainable or not torch.equal(first, second):
        return Finding(
            "wrong",
            f"teacher {candidate.name}: asking changes it ({changed[:3]}), its answers differ, or it is trainable",
            why="a teacher that moves or answers at random teaches something else at every step",
            remedy="look for train(), buffers that are set, or random numbers in its forward pass",
        )
    return Finding(
        "fine", f"teacher {candidate.name}: in evaluation mode, frozen, buffers unchanged, same answer twice"
    )


def _identity(candidate: Candidate, batch: Batch, terms: Sequence[SoftTargets]) -> Iterator[Finding]:
    """The teacher in the student's place: every divergence must be 0 along the path that training takes."""
    copy = score(candidate.frozen.as_module(), [batch], view=candidate.name)
    for term in terms:
        alone: dict[str, Term] = {"divergence": term.model_copy(update={"weight": 1.0, "teacher": candidate.name})}
        num_classes = copy.logits.shape[-1]
        objective = Objective(alone, view=candidate.name).bind(num_classes, {candidate.name: num_classes})
        knowledge = {candidate.name: candidate.frozen(batch)}
        value = objective(copy.logits, knowledge, batch, objective.counts(batch)).total.item()
        name = f"{term.kind} at temperature {term.temperature:g}"
        bound = IDENTITY_BOUND * max(1.0, math.sqrt(term.temperature))
        if abs(value) <= bound:
            yield Finding("fine", f"{name}: a copy of the teacher in the student's place gives {value:.1e} nats")
        else:
            yield Finding(
                "wrong",
                f"{name}: a copy of the teacher in the student's place gives {value:.3g} nats, not 0",
                why="student and teacher do not get the same tensors or classes, so the loss pulls elsewhere",
                remedy="an answer that depends on the batch or on chance cannot be matched; remove what makes it so",
            )
