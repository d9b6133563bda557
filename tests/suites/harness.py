"""What every row of the suite works with: real digits, texts, a loop, and the observation of both networks."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import torch
from pydantic import TypeAdapter
from torch import Tensor, nn

from distil.core.config import PlacementConfig
from distil.core.inputs import Inputs
from distil.core.interruption import Interruption
from distil.core.placement import place
from distil.data.batch import Batch
from distil.data.config import DataConfig
from distil.data.example import Examples
from distil.data.feed import TASK, Feed
from distil.data.split import load_splits
from distil.data.view import View
from distil.knowledge.response import LiveKnowledge
from distil.knowledge.teacher import FrozenTeacher
from distil.models.describe import describe_model
from distil.models.huggingface import load_pretrained
from distil.models.tap import Outputs, Taps
from distil.models.text_config import HuggingFaceModelConfig
from distil.objective.config import Term
from distil.objective.objective import BoundObjective, Objective
from distil.train.config import TrainingConfig
from distil.train.loop import Trained, Training, train
from tests.suites.rows import CLASSES, build

VIEW = View(channels=1, height=8, width=8, mean=(0.3,), std=(0.4,))
VIEWS = {"student": VIEW, "teacher": VIEW}
STEPS = 20
BATCH = 32
LENGTHS = (3, 7, 5, 7)  # real tokens of each text
VOCABULARY = 30


@cache
def digits() -> Examples:
    """160 real digits: five steps an epoch."""
    config = TypeAdapter(DataConfig).validate_python({"kind": "digits", "test": 0.6, "validation": {"fraction": 0.25}})
    return load_splits(config).train.select(torch.arange(5 * BATCH))


class TargetFeed(Feed):
    """A feed whose targets are of another kind, made from the examples themselves."""

    kind = "classes"

    def batch(self, step: int) -> Batch:
        return with_targets(super().batch(step), self.kind)


def with_targets(batch: Batch, kind: str) -> Batch:
    """For multi-label: the class and whether the image is bright; for regression: mean brightness of ten row pairs.

    For embeddings as for regression: a teacher learns to place images by them, and terms do not look at them.
    """
    if kind == "classes":
        return batch
    pixels, labels = batch.inputs["student"], batch.targets[TASK]
    if kind == "multi-label":
        bright = pixels.mean(dim=(1, 2, 3)) > pixels.mean()
        targets = torch.nn.functional.one_hot(labels, CLASSES).float()
        targets[:, 0] = bright.float()
    else:
        targets = torch.nn.functional.adaptive_avg_pool1d(pixels.flatten(1), CLASSES)
    return replace(batch, targets={TASK: targets})


def feed(kind: str = "classes", *, batch_size: int = BATCH) -> Feed:
    made = TargetFeed(digits(), views=VIEWS, batch_size=batch_size, seed=3)
    made.kind = kind
    return made


def texts(length: int, *, filler: int = 0) -> Batch:
    """Four texts of two classes, padded to ``length`` tokens with any token."""
    generator = torch.Generator().manual_seed(5)
    rows = [torch.randint(1, VOCABULARY, (each,), generator=generator) for each in LENGTHS]
    ids = torch.stack([nn.functional.pad(row, (0, length - len(row)), value=filler) for row in rows])
    mask = (torch.arange(length) < torch.tensor(LENGTHS).unsqueeze(1)).long()
    inputs = {"input_ids": ids, "attention_mask": mask}
    present = torch.ones(len(rows), dtype=torch.bool)
    views = {"student": inputs, "teacher": inputs}
    return Batch(torch.arange(len(rows)), views, {TASK: torch.tensor([0, 1, 0, 1])}, {TASK: present})


def encoder(num_layers: int) -> nn.Module:
    """A tiny BERT drawn at random."""
    config = {"model_type": "bert", "hidden_size": 24, "num_hidden_layers": num_layers, "num_attention_heads": 2}
    config |= {"intermediate_size": 32, "max_position_embeddings": 32}
    model = HuggingFaceModelConfig(config=config)
    return load_pretrained(model, head="classes", num_outputs=2, vocabulary_size=VOCABULARY, pad_token_id=0).eval()


@dataclass(frozen=True, eq=False)
class Pair:
    """A student, its teacher, and the objective that binds them."""

    student: nn.Module
    teacher: nn.Module
    objective: BoundObjective

    def said(self, batch: Batch) -> Outputs:
        with Taps(self.student, self.objective.requires.student_taps) as taps:
            return taps.observe(self.student, batch.inputs["student"])

    def heard(self, batch: Batch) -> dict[str, Outputs]:
        if not self.objective.requires.teacher_outputs:
            return {}
        taps = self.objective.requires.teacher_taps["teacher"]
        return {"teacher": FrozenTeacher("teacher", self.teacher).observe(batch, taps)}

    def part(self, batch: Batch, said: Outputs | None = None, heard: Mapping[str, Outputs] | None = None) -> Tensor:
        """The term's value for a whole batch."""
        said = said if said is not None else self.said(batch)
        heard = heard if heard is not None else self.heard(batch)
        return self.objective(said, heard, batch, self.objective.counts(batch)).parts["term"]


def bind(term: Term, student: nn.Module, teacher: nn.Module, *, seed: int = 0, example: Inputs | None = None) -> Pair:
    """A pair bound by one term, both networks described on a real digit, or on ``example``."""
    example = feed().batch(0).inputs["student"] if example is None else example
    teachers = {"teacher": describe_model(teacher, example)}
    objective = Objective({"term": term}).bind(
        describe_model(student, example), teachers, seed=seed, num_ids=int(digits().ids.max()) + 1
    )
    return Pair(student, teacher, objective)


def taught(make: Callable[[], nn.Module], targets: str = "classes") -> nn.Module:
    """A teacher that has learnt the 160 digits; a copy of its own for everyone who asks."""
    return copy.deepcopy(_taught(make, targets))


@cache
def _taught(make: Callable[[], nn.Module], targets: str) -> nn.Module:
    loss = {
        "classes": torch.nn.functional.cross_entropy,
        "multi-label": torch.nn.functional.binary_cross_entropy_with_logits,
        "regression": torch.nn.functional.mse_loss,
        "embeddings": torch.nn.functional.mse_loss,
    }[targets]
    model = build(make, seed=7).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.003)
    source = feed(targets)
    for step in range(60):
        batch = source.batch(step)
        loss(model(batch.inputs["teacher"]), batch.targets[TASK]).backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()


class StopsAt(Interruption):
    """Asks to stop after a number of steps."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self._left = steps

    @property
    def requested(self) -> bool:  # type: ignore[override]
        self._left -= 1
        return self._left <= 0

    @requested.setter
    def requested(self, value: bool) -> None:
        pass


def run(pair: Pair, folder: Path, *, kind: str, stop_at: int | None = None, precision: str = "fp32") -> Trained:
    """Twenty steps of the real loop, or as many as there are left after an interruption."""
    config = TrainingConfig.model_validate(
        {
            "epochs": STEPS // 5,
            "batch_size": BATCH,
            "keep": "last",
            "optimizer": {"kind": "adamw", "learning_rate": 0.003},
        }
    )
    taps = pair.objective.requires.teacher_taps
    frozen = FrozenTeacher("teacher", pair.teacher)
    with place(PlacementConfig.model_validate({"device": "cpu", "threads": 1, "precision": precision})) as placement:
        training = Training(
            config=config,
            model=pair.student,
            view="student",
            objective=pair.objective,
            knowledge=LiveKnowledge([frozen] if pair.objective.requires.teacher_outputs else [], taps),
            feed=feed(kind),
            validate=None,
            placement=placement,
            seed=11,
            folder=folder,
            identity="suite",
        )
        return train(training, Interruption() if stop_at is None else StopsAt(stop_at))
