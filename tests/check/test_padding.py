"""Correctness, lines 11, 12 and 21: what a teacher says of a text does not depend on the texts beside it."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from distil.check.finding import Finding
from distil.check.padding import check_padding
from distil.check.teacher import Candidate, build_candidate
from distil.data.example import TextExamples
from distil.data.split import load_splits
from distil.knowledge.teacher import FrozenTeacher
from distil.models.describe import ModelDescription
from distil.models.text_config import TextCnnConfig
from distil.recipe.recipe import Teacher
from distil.recipe.resolve import resolve
from distil.tasks.choice import make_task
from distil.tasks.classification import Classification
from distil.tasks.network import Network

from .test_text import of_length, view_of
from .text_fixture import LLAMA, recipe_of

KINDS = (
    *("text-classification", "causal-lm", "masked-lm", "token-classification", "question-answering"),
    *("sentence-embedding", "multi-label"),
)


def candidate_of(model: nn.Module) -> Candidate:
    network = Network(model, view_of(16), ModelDescription(num_classes=2))
    return Candidate("teacher", Teacher(model=TextCnnConfig()), network, FrozenTeacher("teacher", model), None)


class MeanOfTokens(nn.Module):
    """A bag of words that may or may not look at padding."""

    def __init__(self, *, masked: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding, self.masked = nn.Embedding(32, 2), masked

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        tokens = self.embedding(inputs["input_ids"])
        weights = inputs["attention_mask"].unsqueeze(-1) if self.masked else torch.ones_like(tokens[..., :1])
        return (tokens * weights).sum(dim=1) / weights.sum(dim=1)


def checked(model: nn.Module, texts: TextExamples) -> list[Finding]:
    return list(check_padding(candidate_of(model), texts, Classification()))


def test_11_a_mean_over_padding_is_found() -> None:
    texts = of_length(3, 9, 5, 12)
    (sound,) = checked(MeanOfTokens(masked=True), texts)
    assert sound.level == "fine"
    (broken,) = checked(MeanOfTokens(masked=False), texts)
    assert broken.level == "wrong"
    assert "attention_mask" in broken.remedy


def test_texts_that_are_all_cut_at_the_same_length_are_padded_all_the_same() -> None:
    (finding,) = checked(MeanOfTokens(masked=False), of_length(40, 40, 40))
    assert finding.level == "wrong"


@pytest.mark.parametrize("kind", KINDS)
def test_21_networks_of_every_kind_are_sound(kind: str, tmp_path: Path) -> None:
    (finding,) = found_in(kind, tmp_path)
    assert finding.level == "fine"
    assert ("on the left" in finding.what) == (kind == "causal-lm")


def found_in(kind: str, folder: Path, *overrides: str) -> list[Finding]:
    resolved = resolve(recipe_of(kind, folder, *overrides))
    task, splits = make_task(resolved.tasks["main"]), load_splits(resolved.data)
    candidate = build_candidate("teacher", resolved.teachers["teacher"], splits, task)
    return list(check_padding(candidate, splits.train, task))


def test_12_a_decoder_that_classifies_is_padded_on_both_sides(tmp_path: Path) -> None:
    (finding,) = found_in("text-classification", tmp_path, *as_config(LLAMA))
    assert (finding.level, "and padded on the left" in finding.what) == ("fine", True)


def test_12_a_decoder_that_counts_padding_says_so(tmp_path: Path) -> None:
    """OPT counts positions by itself, from the attention mask; BLOOM has none. GPT-2 is told its positions."""
    gpt = {"model_type": "gpt2", "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 64}
    (finding,) = found_in("causal-lm", tmp_path, *as_config(gpt))
    assert "padded on the left" in finding.what
    assert finding.level == "fine"


def as_config(config: dict[str, Any]) -> tuple[str, str]:
    import json

    return (f"teacher.model.config={json.dumps(config)}", "student.from_teacher.keep=first")


def test_12_another_answer_with_padding_on_the_left_is_suspicious(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Positions that start at the padding: what a model does that is not told where its text starts."""
    from distil.models import huggingface_network

    monkeypatch.setattr(huggingface_network, "_positions_start_at_zero", lambda body: False)
    gpt = {"model_type": "gpt2", "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 64}
    resolved = resolve(recipe_of("causal-lm", tmp_path, *as_config(gpt)))
    task, splits = make_task(resolved.tasks["main"]), load_splits(resolved.data)
    candidate = build_candidate("teacher", resolved.teachers["teacher"], splits, task)
    (refused,) = check_padding(candidate, splits.train, task)
    assert (refused.level, "padding on the left is refused" in refused.what) == ("fine", True)
    candidate.network.model._counts_padding = False  # type: ignore[assignment] - without the network's own guard
    (finding,) = check_padding(candidate, splits.train, task)
    assert finding.level == "suspicious"
    assert finding.what.startswith("teacher teacher: padding on the left changes its answer")
