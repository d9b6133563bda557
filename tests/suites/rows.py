"""One row for each term: the networks it is tried on, and which common properties it has."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import timm
import torch
from torch import nn

from distil.models.builtin import ConvNet, Mlp
from distil.models.reuse import reuse_classifier
from distil.objective.config import catalogue
from distil.objective.term_config import TermConfig

CLASSES = 10


def convnet(*widths: int, num_outputs: int = CLASSES) -> Callable[[], nn.Module]:
    return lambda: ConvNet(channels=1, widths=widths, num_classes=num_outputs, dropout=0.0)


def mlp(*widths: int) -> Callable[[], nn.Module]:
    return lambda: Mlp(num_inputs=64, widths=widths, num_classes=CLASSES, dropout=0.0, input_dropout=0.0)


def vit(*, width: int, depth: int, heads: int) -> Callable[[], nn.Module]:
    settings = {"img_size": 8, "patch_size": 2, "in_chans": 1, "num_classes": CLASSES}
    return lambda: timm.create_model("vit_tiny_patch16_224", **settings, embed_dim=width, depth=depth, num_heads=heads)


def reused(student: Callable[[], nn.Module], teacher: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    return lambda: reuse_classifier(student(), teacher(), torch.rand(2, 1, 8, 8))


SMALL, LARGE, TRANSFORMER = convnet(4, 8), convnet(8, 16), vit(width=24, depth=3, heads=3)

SMALL_VIT, LARGE_VIT = vit(width=24, depth=2, heads=3), vit(width=36, depth=3, heads=3)
OTHER_HEADS = vit(width=24, depth=2, heads=2)

TWO_TEXTS = convnet(4, 8, num_outputs=2 * CLASSES)  # the embeddings of two, side by side


@dataclass(frozen=True)
class Row:
    """How a term is tried.

    Attributes:
        settings: other than the defaults.
        student: a network, and a teacher of the same family that is larger.
        teacher: see there.
        unlike: a student and a teacher of two families.
        identity: a student equal to its teacher has value 0 and gradient 0.
        symmetric: student and teacher can be exchanged.
        falls: 20 steps lower the value on the batches that are trained on. A memory that is empty at first says 0.
        random: it draws at random, so that two passes differ.
        targets: what kind of targets the batches have.
        tokens: of terms on layers: it has a value for a vector, as each token of a text is, without positions around.
    """

    settings: Mapping[str, Any] = field(default_factory=dict)
    student: Callable[[], nn.Module] = SMALL
    teacher: Callable[[], nn.Module] = LARGE
    unlike: tuple[Callable[[], nn.Module], Callable[[], nn.Module]] = (SMALL, TRANSFORMER)
    identity: bool = False
    symmetric: bool = False
    falls: bool = True
    random: bool = False
    targets: str = "classes"
    tokens: bool = True

    def term(self, kind: str, **changes: Any) -> TermConfig:
        return catalogue()[kind](**{**self.settings, **changes})


def build(make: Callable[[], nn.Module], *, seed: int) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return make()


ROWS: dict[str, Row] = {
    "smoothed-labels": Row(settings={"noise": "sampled"}, random=True),
    "binary-labels": Row(targets="multi-label"),
    "true-labels": Row(),
    "hints": Row(),
    "feature-cosine": Row(identity=True),
    "attention-transfer": Row(identity=True, symmetric=True, tokens=False),
    "fsp": Row(identity=True, symmetric=True),
    "nst": Row(identity=True, symmetric=True, tokens=False),
    "pkt": Row(identity=True),
    "channel-wise": Row(identity=True, tokens=False),
    "attention-maps": Row(
        student=SMALL_VIT, teacher=LARGE_VIT, unlike=(SMALL_VIT, LARGE_VIT), identity=True, symmetric=True
    ),
    "attention-kl": Row(student=SMALL_VIT, teacher=LARGE_VIT, unlike=(SMALL_VIT, LARGE_VIT), identity=True),
    "qkv-relations": Row(
        settings={"relation_heads": 6},
        student=OTHER_HEADS,
        teacher=LARGE_VIT,
        unlike=(OTHER_HEADS, LARGE_VIT),
        identity=True,
    ),
    "relation-distance": Row(identity=True, symmetric=True),
    "relation-angle": Row(identity=True, symmetric=True),
    "similarity-preserving": Row(identity=True, symmetric=True),
    "correlation-congruence": Row(identity=True, symmetric=True),
    "inter-channel": Row(tokens=False),
    "pairs": Row(),
    "info-nce": Row(),
    "memory-contrast": Row(random=True, falls=False),
    "queue-contrast": Row(falls=False),
    "supervised-contrast": Row(),
    "vid": Row(),
    "ofd": Row(unlike=(SMALL, mlp(24, 20))),
    "factor-transfer": Row(),
    "review": Row(),
    "masked-generative": Row(random=True, tokens=False),
    "semantic-calibration": Row(settings={"profile": 16}),
    "simkd": Row(student=reused(SMALL, LARGE), unlike=(reused(SMALL, TRANSFORMER), TRANSFORMER)),
    "soft-targets": Row(identity=True),
    "teacher-labels": Row(),
    "reverse-kl": Row(identity=True),
    "jensen-shannon": Row(identity=True, symmetric=True),
    "skew-kl": Row(identity=True),
    "total-variation": Row(identity=True, symmetric=True),
    "logit-mse": Row(identity=True, symmetric=True),
    "decoupled": Row(identity=True),
    "normalised": Row(),
    "correlation": Row(identity=True, symmetric=True),
    "multi-level": Row(identity=True),
    "teacher-free": Row(),
    "born-again": Row(),
    "binary-kl": Row(identity=True, targets="multi-label"),
    "regression-mse": Row(identity=True, symmetric=True, targets="regression"),
    "bounded-regression": Row(targets="regression"),
    "attentive-imitation": Row(targets="regression"),
    "top-k": Row(identity=True),
    "sampled": Row(random=True),
    "embedding-mse": Row(identity=True, symmetric=True, unlike=(TWO_TEXTS, TRANSFORMER), targets="embeddings"),
    "embedding-contrast": Row(unlike=(TWO_TEXTS, TRANSFORMER), targets="embeddings"),
}
