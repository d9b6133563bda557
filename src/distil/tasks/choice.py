"""From a task's configuration to the task."""

from typing import assert_never

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


def make_task(config: TaskConfig) -> Task:
    """The task of a configuration."""
    match config:
        case ImageClassificationConfig():
            return ImageClassification()
        case TextClassificationConfig():
            return Classification()
        case MultiLabelConfig():
            return MultiLabel()
        case RankingConfig():
            return Ranking(config)
        case TokenClassificationConfig():
            return TokenClassification(config)
        case QuestionAnsweringConfig():
            return QuestionAnswering(config)
        case SequenceToSequenceConfig():
            return SequenceToSequence(config)
        case CausalLanguageModelConfig():
            return CausalLanguageModel()
        case MaskedLanguageModelConfig():
            return MaskedLanguageModel(config)
        case SentenceEmbeddingConfig():
            return SentenceEmbedding(config)
        case _:
            assert_never(config)
