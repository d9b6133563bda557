"""What distil's loop costs over loops written by hand, per step, as ratios of medians measured side by side in one run.

Three loops take turns, in blocks of steps whose order changes: the bare step of a student, the bare step with the
teacher's forward pass, and distil's own step, with kept teacher outputs and with the teacher asked live.

    python benchmarks/step_time.py [--rounds 15] [--steps 20]
"""

import argparse
import copy
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from distil.core.config import PlacementConfig
from distil.core.placement import Placement, place
from distil.data.example import Examples, ImageExamples, TextExamples
from distil.data.feed import Feed, evaluation_batches
from distil.data.text_view import TextView
from distil.data.tokenizer import bpe_tokenizer
from distil.data.view import View
from distil.knowledge.response import KeptKnowledge, Knowledge, LiveKnowledge
from distil.knowledge.teacher import FrozenTeacher
from distil.models.builtin import ConvNet, Mlp
from distil.models.huggingface import load_pretrained
from distil.models.text_config import HuggingFaceModelConfig
from distil.objective.config import SoftTargets, TrueLabels
from distil.objective.objective import Objective
from distil.tasks.tokens import CausalLanguageModel
from distil.train.config import TrainingConfig
from distil.train.loop import Loop, Training

TEMPERATURE = 4.0
COMPARED = (("distil, live teacher", "bare with teacher"), ("distil, kept outputs", "bare student"))
Step = Callable[[], None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--steps", type=int, default=20)
    options = parser.parse_args()
    with place(PlacementConfig(device="cpu")) as placement:
        print(f"threads {placement.threads}, torch {torch.__version__}, medians over {options.rounds} rounds")
        for name, make in PAIRS.items():
            steps = make(placement)
            seconds = measure(steps, rounds=options.rounds, per_round=options.steps)
            print(f"{name}")
            for loop, times in seconds.items():
                print(f"  {loop:<28} {statistics.median(times) * 1e3:8.3f} ms a step")
            for over, under in COMPARED:
                if over not in seconds:
                    continue
                ratios = [a / b for a, b in zip(seconds[over], seconds[under], strict=True)]
                low, high = statistics.quantiles(ratios, n=4)[::2]
                print(f"  {over} / {under}: {statistics.median(ratios):.3f} (quartiles {low:.3f} to {high:.3f})")


def measure(steps: dict[str, Step], *, rounds: int, per_round: int) -> dict[str, list[float]]:
    """Seconds a step of every loop in every round; in each round the loops take turns in a random order."""
    order, shuffle = list(steps), random.Random(0)
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for step in steps.values():
        for _ in range(5):
            step()
    for _ in range(rounds):
        shuffle.shuffle(order)
        for name in order:
            start = time.perf_counter()
            for _ in range(per_round):
                steps[name]()
            seconds[name].append((time.perf_counter() - start) / per_round)
    return seconds


def mnist_mlps(placement: Placement) -> dict[str, Step]:
    def mlp(width: int) -> nn.Module:
        return Mlp(num_inputs=784, widths=[width, width], num_classes=10, dropout=0.0, input_dropout=0.0)

    return loops(mlp(800), mlp(1200), size=28, channels=1, batch_size=128, placement=placement)


def convnets(placement: Placement) -> dict[str, Step]:
    student = ConvNet(channels=3, widths=[16, 32, 64], num_classes=10, dropout=0.0)
    teacher = ConvNet(channels=3, widths=[64, 128, 256], num_classes=10, dropout=0.0)
    return loops(student, teacher, size=32, channels=3, batch_size=64, placement=placement)


def loops(
    student: nn.Module, teacher: nn.Module, *, size: int, channels: int, batch_size: int, placement: Placement
) -> dict[str, Step]:
    """The four loops on the same data, each with a student of its own."""
    torch.manual_seed(0)
    count = batch_size * 40
    images = torch.randint(0, 256, (count, channels, size, size), dtype=torch.uint8)
    labels = torch.randint(0, 10, (count,))
    examples = ImageExamples(ids=torch.arange(count), images=images, labels=labels, class_names=tuple("0123456789"))
    view = View(channels, size, size, (0.0,) * channels, (1.0,) * channels)
    frozen = FrozenTeacher("teacher", teacher)
    kept = frozen.keep(evaluation_batches(examples, views={"teacher": view}), [])
    pixels = images.float() / 255

    return {
        "bare student": bare(copy.deepcopy(student), pixels, labels, batch_size, kept.outputs.logits, None),
        "bare with teacher": bare(copy.deepcopy(student), pixels, labels, batch_size, None, teacher),
        "distil, kept outputs": ours(
            copy.deepcopy(student), examples, view, batch_size, KeptKnowledge({"teacher": kept}), placement
        ),
        "distil, live teacher": ours(
            copy.deepcopy(student), examples, view, batch_size, LiveKnowledge([frozen]), placement
        ),
    }


def bare(
    model: nn.Module,
    pixels: torch.Tensor,
    labels: torch.Tensor,
    batch_size: int,
    kept: torch.Tensor | None,
    teacher: nn.Module | None,
) -> Step:
    """A step as one writes it by hand: float images in memory, AdamW, Hinton's loss."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    position = 0
    order = torch.randperm(len(pixels))

    def step() -> None:
        nonlocal position, order
        if position + batch_size > len(pixels):
            position, order = 0, torch.randperm(len(pixels))
        rows = order[position : position + batch_size]
        position += batch_size
        inputs, targets = pixels[rows], labels[rows]
        with torch.no_grad():
            said = teacher(inputs) if teacher is not None else kept[rows]  # type: ignore[index]
        logits = model(inputs)
        soft = F.kl_div(
            F.log_softmax(logits / TEMPERATURE, dim=1),
            F.log_softmax(said / TEMPERATURE, dim=1),
            reduction="batchmean",
            log_target=True,
        )
        loss = 0.1 * F.cross_entropy(logits, targets) + 0.9 * TEMPERATURE**2 * soft
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()

    return step


def ours(
    model: nn.Module, examples: Examples, view: View, batch_size: int, knowledge: Knowledge, placement: Placement
) -> Step:
    """A step of distil's loop."""
    views = {"student": view, "teacher": view}
    return our_step(model, Feed(examples, views=views, batch_size=batch_size, seed=0), knowledge, placement)


def our_step(model: nn.Module, feed: Feed, knowledge: Knowledge, placement: Placement) -> Step:
    """A step of distil's loop on a feed."""
    terms = {"true-labels": TrueLabels(weight=0.1), "soft-targets": SoftTargets(weight=0.9, temperature=TEMPERATURE)}
    model.eval()
    with torch.no_grad():
        num_classes = model(feed.batch(0).inputs["student"]).shape[-1]
    training = Training(
        config=TrainingConfig(epochs=1_000, batch_size=len(feed.batch(0)), keep="last", checkpoint_seconds=1e9),
        model=model,
        view="student",
        objective=Objective(terms).bind(num_classes, {"teacher": num_classes}),
        knowledge=knowledge,
        feed=feed,
        validate=None,
        placement=placement,
        seed=0,
        folder=Path(tempfile.mkdtemp()),
        identity="benchmark",
    )
    return Loop(training).step


def language_models(placement: Placement) -> dict[str, Step]:
    """Next tokens of random sentences: a Llama of two layers taught by one of six, 16 texts of 96 tokens."""
    generator = random.Random(0)
    words = [f"w{number}" for number in range(3_000)]
    texts = tuple(" ".join(generator.choices(words, k=60)) for _ in range(320))
    tokenizer = bpe_tokenizer(texts, size=4_000)
    view = TextView(tokenizer, ("text",), 96, fixed=True)
    none = torch.zeros(len(texts), dtype=torch.int64)
    ids = torch.arange(len(texts))
    examples = TextExamples(ids=ids, labels=none, class_names=(), columns={"text": texts})
    student, teacher = (_llama(layers, tokenizer.get_vocab_size()) for layers in (2, 6))
    frozen, task = FrozenTeacher("teacher", teacher), CausalLanguageModel()
    feed = Feed(examples, views={"student": view, "teacher": view}, batch_size=16, targets=task.targets, seed=0)
    return {
        "bare with teacher": bare_language(copy.deepcopy(student), teacher, view(examples.columns)),
        "distil, live teacher": our_step(copy.deepcopy(student), feed, LiveKnowledge([frozen]), placement),
    }


def _llama(layers: int, vocabulary: int) -> nn.Module:
    torch.manual_seed(layers)
    sizes = {"hidden_size": 256, "num_attention_heads": 4, "num_key_value_heads": 4, "intermediate_size": 688}
    config = {"model_type": "llama", "num_hidden_layers": layers, "max_position_embeddings": 128, **sizes}
    return load_pretrained(
        HuggingFaceModelConfig(config=config),
        head="causal-lm",
        num_outputs=None,
        vocabulary_size=vocabulary,
        pad_token_id=0,
    )


def bare_language(model: nn.Module, teacher: nn.Module, tokens: dict[str, torch.Tensor]) -> Step:
    """The same step as one writes it by hand, on the tokens that are real."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    position = 0

    def step() -> None:
        nonlocal position
        rows = torch.arange(position, position + 16) % len(tokens["input_ids"])
        position += 16
        inputs = {name: value[rows] for name, value in tokens.items()}
        supervised = inputs["attention_mask"][:, 1:].bool()
        labels = inputs["input_ids"][:, 1:][supervised]
        with torch.no_grad():
            said = teacher(inputs)[:, :-1][supervised]
        logits = model(inputs)[:, :-1][supervised]
        soft = F.kl_div(
            F.log_softmax(logits / TEMPERATURE, dim=1),
            F.log_softmax(said / TEMPERATURE, dim=1),
            reduction="batchmean",
            log_target=True,
        )
        loss = 0.1 * F.cross_entropy(logits, labels) + 0.9 * TEMPERATURE**2 * soft
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()

    return step


PAIRS = {
    "MNIST MLPs, batch 128": mnist_mlps,
    "convnets 32x32, batch 64": convnets,
    "language models, 16 texts of 96 tokens": language_models,
}


if __name__ == "__main__":
    main()
