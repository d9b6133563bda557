from typing import get_args

import pytest

from distil.tasks.choice import make_task
from distil.tasks.classification import Classification, ImageClassification
from distil.tasks.config import (
    CausalLanguageModelConfig,
    ImageClassificationConfig,
    MaskedLanguageModelConfig,
    MultiLabelConfig,
    QuestionAnsweringConfig,
    RankingConfig,
    SentenceEmbeddingConfig,
    SequenceToSequenceConfig,
    TaskConfig,
    TextClassificationConfig,
    TokenClassificationConfig,
)
from distil.tasks.language import MultiLabel, Ranking, SentenceEmbedding, SequenceToSequence
from distil.tasks.task import Task
from distil.tasks.tokens import CausalLanguageModel, MaskedLanguageModel, QuestionAnswering, TokenClassification

CHOSEN: list[tuple[TaskConfig, type[Task], str]] = [
    (ImageClassificationConfig(), ImageClassification, "accuracy"),
    (TextClassificationConfig(), Classification, "accuracy"),
    (MultiLabelConfig(), MultiLabel, "example_f1"),
    (RankingConfig(), Ranking, "hit_at_1"),
    (TokenClassificationConfig(), TokenClassification, "sentence_entity_f1"),
    (TokenClassificationConfig(tags="plain"), TokenClassification, "sentence_tag_accuracy"),
    (QuestionAnsweringConfig(), QuestionAnswering, "answer_f1"),
    (SequenceToSequenceConfig(), SequenceToSequence, "sentence_chrf"),
    (CausalLanguageModelConfig(), CausalLanguageModel, "document_bits_per_byte"),
    (MaskedLanguageModelConfig(), MaskedLanguageModel, "example_masked_accuracy"),
    (SentenceEmbeddingConfig(), SentenceEmbedding, "mean_reciprocal_rank"),
    (SentenceEmbeddingConfig(measure="spearman"), SentenceEmbedding, "spearman"),
]


@pytest.mark.parametrize(("config", "kind", "metric"), CHOSEN, ids=lambda value: getattr(value, "kind", None))
def test_each_configuration_is_its_task_with_its_headline_metric(
    config: TaskConfig, kind: type[Task], metric: str
) -> None:
    task = make_task(config)
    assert type(task) is kind
    assert task.metric == metric
    assert task.target == config.target


def test_every_configuration_is_tried_here() -> None:
    union = get_args(get_args(TaskConfig)[0])
    assert {type(config) for config, _, _ in CHOSEN} == set(union)


def test_a_setting_of_the_configuration_reaches_the_task() -> None:
    answering = make_task(QuestionAnsweringConfig(stride=9))
    assert answering.overlap == 9
    embedding = make_task(SentenceEmbeddingConfig(features=5))
    assert isinstance(embedding, SentenceEmbedding)
    assert embedding.features == 5
    for task in (make_task(TextClassificationConfig()), make_task(CausalLanguageModelConfig())):
        assert task.overlap is None


def test_20_tasks_of_one_configuration_share_no_state() -> None:
    first, second = (make_task(TokenClassificationConfig(tags=tags)) for tags in ("plain", "entities"))
    assert (first.metric, second.metric) == ("sentence_tag_accuracy", "sentence_entity_f1")
    assert TokenClassification.metric == "sentence_entity_f1"
