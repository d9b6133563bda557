"""Small networks trained on scikit-learn's digits and on made-up sentences, and their artefacts."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from distil.export.artefact import Samples, write_artefact

from . import texts

NUM_TRAIN = 700
TAGGING = 5  # epochs


@dataclass(frozen=True)
class Digits:
    """Preprocessed images [N, 1, 8, 8] and classes; ``test_pixels`` are the same test images as uint8 [N, 8, 8]."""

    train_inputs: np.ndarray
    train_targets: np.ndarray
    test_inputs: np.ndarray
    test_targets: np.ndarray
    test_pixels: np.ndarray


@pytest.fixture(scope="session")
def preprocessing() -> dict[str, Any]:
    return {
        "format": 1,
        "class_names": ["zero", "一", "two", "three", "four", "five", "six", "seven", "eight", "<nine>"],
        "input": {"name": "images", "layout": "NCHW", "dtype": "float32", "channels": 1, "height": 8, "width": 8},
        "preprocessing": {"mode": "L", "scale": 1 / 255, "mean": [0.3], "std": [0.4]},
        "output": {"name": "logits"},
    }


@pytest.fixture(scope="session")
def digits() -> Digits:
    source = load_digits()
    order = np.random.default_rng(0).permutation(len(source.target))
    pixels = np.rint(source.images * 255 / 16).astype(np.uint8)[order]
    targets = source.target[order].astype(np.int64)
    inputs = np.ascontiguousarray((pixels[:, None].astype(np.float32) / 255 - 0.3) / 0.4).astype(np.float32)
    return Digits(inputs[:NUM_TRAIN], targets[:NUM_TRAIN], inputs[NUM_TRAIN:], targets[NUM_TRAIN:], pixels[NUM_TRAIN:])


def train(model: nn.Module, digits: Digits, *, epochs: int) -> nn.Module:
    inputs, targets = torch.tensor(digits.train_inputs), torch.tensor(digits.train_targets)
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    generator = torch.Generator().manual_seed(0)
    model.train()
    for _ in range(epochs):
        for chosen in torch.randperm(len(targets), generator=generator).split(64):
            optimiser.zero_grad()
            nn.functional.cross_entropy(model(inputs[chosen]), targets[chosen]).backward()
            optimiser.step()
    return model.eval()


def compute_reference(model: nn.Module, inputs: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return model(torch.tensor(inputs)).numpy()


@pytest.fixture(scope="session")
def models(digits: Digits) -> Iterator[dict[str, nn.Module]]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # two threads on a busy machine are many times slower for networks this small
    torch.manual_seed(0)
    mlp = nn.Sequential(
        nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Dropout(0.1), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)
    )
    convnet = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1, bias=False),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(32, 10),
    )
    yield {"mlp": train(mlp, digits, epochs=40), "convnet": train(convnet, digits, epochs=30)}
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def write(
    models: dict[str, nn.Module], digits: Digits, preprocessing: dict[str, Any]
) -> Callable[[Path, str, str], list[Path]]:
    """Writes the artefact of a model (``mlp`` or ``convnet``) in a precision into a directory."""

    def write_into(directory: Path, name: str, precision: Any) -> list[Path]:
        reference = compute_reference(models[name], digits.test_inputs)
        return write_artefact(
            directory,
            model=models[name],
            samples=Samples(digits.test_inputs, reference, digits.test_targets),
            calibration=digits.train_inputs[:512],
            preprocessing=preprocessing,
            precision=precision,
        )

    return write_into


@pytest.fixture(scope="session")
def artefacts(tmp_path_factory: pytest.TempPathFactory, write: Callable[[Path, str, str], list[Path]]) -> Path:
    """``mlp-fp32``, ``mlp-int8``, ``convnet-fp32``, ``convnet-int8``. Read only: a test that changes one copies it."""
    root = tmp_path_factory.mktemp("exports")
    for name in ("mlp", "convnet"):
        for precision in ("fp32", "int8"):
            write(root / f"{name}-{precision}", name, precision)
    return root


@dataclass(frozen=True)
class TextModel:
    """A trained network for texts with all that its artefact needs; ``samples`` are texts it has not seen."""

    model: nn.Module
    tokenizer: Any
    samples: Samples
    card: dict[str, Any]

    def write(self, directory: Path, precision: Any, **changes: Any) -> list[Path]:
        arguments = {
            "model": self.model,
            "samples": self.samples,
            "calibration": None,
            "preprocessing": self.card,
            "precision": precision,
            "extra_files": {"tokenizer.json": self.tokenizer.to_str().encode()},
        }
        return write_artefact(directory, **(arguments | changes))


@pytest.fixture(scope="session")
def text_models() -> Iterator[dict[str, TextModel]]:
    """``characters`` (a CNN), ``words`` (a BERT, with types of tokens), ``tags`` (of each word), ``embedding``."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    (seen, labels), (unseen, targets) = texts.sentences(700, seed=0), texts.sentences(150, seed=1)
    words, characters = texts.word_tokenizer(), texts.character_tokenizer()
    plain = ("input_ids", "attention_mask")
    typed = (*plain, "token_type_ids")

    def make(model: nn.Module, tokenizer: Any, names: tuple[str, ...], epochs: int, **described: Any) -> TextModel:
        inputs, tests = texts.tokenise(tokenizer, seen, names), texts.tokenise(tokenizer, unseen, names)
        answers, asked = (texts.tags(inputs), texts.tags(tests)) if epochs == TAGGING else (labels, targets)
        if epochs:
            texts.train(model, inputs, answers, epochs=epochs)
        reference = texts.compute(model.eval(), tests)
        samples = Samples(tests, reference, asked if epochs else None)
        return TextModel(model, tokenizer, samples, texts.describe(names, **described))

    yield {
        "characters": make(texts.CharacterCnn(), characters, plain, 12),
        "words": make(texts.Transformer(), words, typed, 8),
        "tags": make(texts.Tagger(), words, plain, TAGGING),
        "embedding": make(texts.Embedder(), words, plain, 0, class_names=[], output="embedding"),
    }
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def text_artefacts(tmp_path_factory: pytest.TempPathFactory, text_models: dict[str, TextModel]) -> Path:
    """``NAME-fp32`` and ``NAME-int8`` of every text model. Read only."""
    root = tmp_path_factory.mktemp("text-exports")
    for name, each in text_models.items():
        for precision in ("fp32", "int8"):
            each.write(root / f"{name}-{precision}", precision)
    return root
