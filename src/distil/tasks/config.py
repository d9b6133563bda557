"""Which task: what a network is to say about an example."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from distil.core.config import Config, Count, Probability, StringIsKind


class AnyTaskConfig(Config):
    """What every task has.

    ``target`` is the kind of target, which terms must be made for; ``answers_are_places``: targets belong to tokens of
    the text as it stands, so that no augmentation may move them.
    """

    target: ClassVar[str] = "classes"
    answers_are_places: ClassVar[bool] = False


class ImageClassificationConfig(AnyTaskConfig):
    """One class for each image."""

    kind: Literal["image-classification"] = "image-classification"


class TextClassificationConfig(AnyTaskConfig):
    """One class for each text or pair of texts: sentiment, topic, entailment."""

    kind: Literal["text-classification"] = "text-classification"


class MultiLabelConfig(AnyTaskConfig):
    """Any number of classes for each text."""

    target = "multi-label"

    kind: Literal["multi-label"] = "multi-label"


class RankingConfig(AnyTaskConfig):
    """The right one among the candidates of a group, such as the sentence that answers a question: two classes."""

    kind: Literal["ranking"] = "ranking"
    scorer: Literal["cross-encoder", "bi-encoder"] = "cross-encoder"  # both texts in one; the cosine of two embeddings


class TokenClassificationConfig(AnyTaskConfig):
    """A tag for each word; the first piece of a word answers for it."""

    answers_are_places = True

    kind: Literal["token-classification"] = "token-classification"
    tags: Literal["entities", "plain"] = "entities"  # entities: O, B-TYPE, I-TYPE, counted whole


class QuestionAnsweringConfig(AnyTaskConfig):
    """Start and end of the answer in a context; a long context is read in windows that overlap."""

    answers_are_places = True

    kind: Literal["question-answering"] = "question-answering"
    stride: Count = 64  # tokens that two windows share
    max_answer_tokens: Count = 30
    language: Literal["en", "zh"] = "en"  # how answers are normalised before they are compared


class SequenceToSequenceConfig(AnyTaskConfig):
    """A text written from a text: translation, summary."""

    answers_are_places = True

    kind: Literal["sequence-to-sequence"] = "sequence-to-sequence"
    max_target_tokens: Count = 128
    num_beams: Count = 1
    tokenisation: Literal["13a", "zh", "char"] = "13a"  # of BLEU, as sacrebleu names it


class CausalLanguageModelConfig(AnyTaskConfig):
    """The next token of a text."""

    answers_are_places = True

    kind: Literal["causal-lm"] = "causal-lm"


class MaskedLanguageModelConfig(AnyTaskConfig):
    """The tokens of a text that are masked."""

    answers_are_places = True

    kind: Literal["masked-lm"] = "masked-lm"
    probability: Annotated[Probability, Field(gt=0)] = 0.15


class SentenceEmbeddingConfig(AnyTaskConfig):
    """A vector for each text, near to those of texts that mean the same. The data have pairs of such texts."""

    target = "embeddings"

    kind: Literal["sentence-embedding"] = "sentence-embedding"
    features: Count | None = None  # of the vector; None: the width of the model
    measure: Literal["retrieval", "spearman"] = "retrieval"  # spearman: against data.score


TextTaskConfig = (
    TextClassificationConfig
    | MultiLabelConfig
    | RankingConfig
    | TokenClassificationConfig
    | QuestionAnsweringConfig
    | SequenceToSequenceConfig
    | CausalLanguageModelConfig
    | MaskedLanguageModelConfig
    | SentenceEmbeddingConfig
)

TaskConfig = Annotated[
    Annotated[ImageClassificationConfig | TextTaskConfig, Field(discriminator="kind")],
    StringIsKind,
]
