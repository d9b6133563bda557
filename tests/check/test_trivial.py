"""Predictors that look at nothing, by hand."""

import math
from typing import Any

import pytest
import torch
from torch import nn

from distil.check.trivial import Trivial, byte_frequencies, trivial_predictor
from distil.data.example import TextExamples
from distil.models.describe import ModelDescription
from distil.tasks.choice import make_task
from distil.tasks.config import (
    CausalLanguageModelConfig,
    MultiLabelConfig,
    QuestionAnsweringConfig,
    RankingConfig,
    SentenceEmbeddingConfig,
    TokenClassificationConfig,
)
from distil.tasks.network import Network
from distil.tasks.score import Scores
from distil.tasks.task import Task

from .test_text import examples, view_of


def network_of(view: Any, num_classes: int = 2) -> Network:
    return Network(nn.Identity(), view, ModelDescription(num_classes=num_classes))


def predictor(task: Task, texts: TextExamples, logits: torch.Tensor, view: Any = None, width: int = 2) -> Trivial:
    scores = Scores(texts.ids, logits, texts.labels)
    return trivial_predictor(task, network_of(view or view_of(16), width), texts, scores)


def test_of_a_ranking_it_is_a_random_order() -> None:
    texts = TextExamples(
        ids=torch.arange(5),
        labels=torch.tensor([1, 0, 0, 1, 0]),
        class_names=("other", "answer"),
        columns={"text": ("a",) * 5},
        groups=("x", "x", "x", "y", "y"),
    )
    assert predictor(make_task(RankingConfig()), texts, torch.zeros(5, 2)).value == pytest.approx((1 / 3 + 1 / 2) / 2)


def test_of_several_labels_it_is_the_most_frequent_one() -> None:
    texts = examples({"text": ["a", "b"]}, labels=[[1], [0, 1]])
    found = predictor(make_task(MultiLabelConfig()), texts, torch.zeros(2, 2))
    assert found.value == pytest.approx((1 + 2 / 3) / 2)  # F1 of {1} against {1}, and against {0, 1}


def test_of_tags_it_is_the_most_frequent_tag() -> None:
    texts = examples({"text": [["a", "b"], ["a", "b", "c"]]}, labels=[[0, 0], [1, 0, 1]])
    task = make_task(TokenClassificationConfig())
    found = predictor(task, texts, torch.ones(2, 5))
    # O: nothing is found, which is right of the first; B-A: of the second two of three entities are right, F1 0.8
    assert (found.name, found.value) == ("always one tag, the best of all", 0.5)


def test_of_spans_it_is_drawn_among_the_places_of_the_context() -> None:
    texts = examples({"question": ["a"], "context": ["bc"]}, answers=[{"text": ["c"], "answer_start": [1]}])
    view = view_of(16, ("question", "context"), fixed=True, overlap=2)
    logits = torch.full((1, 2, 16), -torch.inf)
    logits[:, :, 3:5] = 0.0  # [CLS] a [SEP] b c [SEP]
    found = predictor(make_task(QuestionAnsweringConfig(stride=2)), texts, logits, view)
    assert found.value in (0.0, 2 / 3, 1.0)  # b, bc or c


def test_of_a_language_model_all_tokens_are_equally_likely() -> None:
    texts = examples({"text": ["abc", "a"]})
    logits = torch.tensor([[0.0, 4.0], [0.0, 2.0]])
    found = predictor(make_task(CausalLanguageModelConfig()), texts, logits, view_of(16, fixed=True), width=32)
    # 3 characters, and the end of the text, at 5 bits each; of the first token nothing is asked
    assert found.value == pytest.approx((4 * math.log2(32) / 3 + 2 * math.log2(32) / 1) / 2)


def test_bytes_are_guessed_by_their_frequency() -> None:
    texts = examples({"text": ["aaab"]})
    expected = -(3 * math.log2(4 / 260) + math.log2(2 / 260)) / 4
    assert byte_frequencies(network_of(view_of(16)), texts) == pytest.approx(expected)


def test_of_embeddings_it_is_a_random_order() -> None:
    texts = examples({"first": ["a", "b", "c"], "second": ["a", "b", "c"]})
    retrieval = make_task(SentenceEmbeddingConfig())
    assert predictor(retrieval, texts, torch.zeros(3, 4)).value == pytest.approx((1 + 1 / 2 + 1 / 3) / 3)
    pairs = make_task(SentenceEmbeddingConfig(measure="spearman"))
    assert predictor(pairs, texts, torch.zeros(3, 4)).value == 0.0
