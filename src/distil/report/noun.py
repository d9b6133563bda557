"""What to call a task's model, its input, and the units that a verdict counts."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

IMAGES = "image-classification"


@dataclass(frozen=True)
class Nouns:
    """The words for one task.

    Attributes:
        model: what a student of it is.
        unit: what the test split is counted in.
        input: what the model is asked about at once.
        labels: what students and teachers have more or fewer of.
        hub_task: the task's name on the Hugging Face Hub.
        auto_model: the class of transformers that loads a folder of such a model.
    """

    model: str
    unit: str = "text"
    input: str = "text"
    labels: str = "labels"
    hub_task: str = "other"
    auto_model: str = "AutoModel"

    @property
    def units(self) -> str:
        """Several units of the test split: ``test examples``."""
        return f"test {self.unit}s"


TASKS = {
    IMAGES: Nouns("image classifier", unit="example", input="image", hub_task=IMAGES),
    "text-classification": Nouns(
        "text classifier", hub_task="text-classification", auto_model="AutoModelForSequenceClassification"
    ),
    "multi-label": Nouns(
        "multi-label text classifier", hub_task="text-classification", auto_model="AutoModelForSequenceClassification"
    ),
    "ranking": Nouns(
        "text ranker",
        unit="question",
        input="pair of texts",
        hub_task="text-ranking",
        auto_model="AutoModelForSequenceClassification",
    ),
    "token-classification": Nouns(
        "token classifier",
        unit="sentence",
        hub_task="token-classification",
        auto_model="AutoModelForTokenClassification",
    ),
    "question-answering": Nouns(
        "question answerer",
        unit="question",
        input="question with its context",
        hub_task="question-answering",
        auto_model="AutoModelForQuestionAnswering",
    ),
    "sequence-to-sequence": Nouns(
        "text-to-text model", labels="pairs", hub_task="text2text-generation", auto_model="AutoModelForSeq2SeqLM"
    ),
    "causal-lm": Nouns("language model", labels="texts", hub_task="text-generation", auto_model="AutoModelForCausalLM"),
    "masked-lm": Nouns(
        "masked language model", labels="texts", hub_task="fill-mask", auto_model="AutoModelForMaskedLM"
    ),
    "sentence-embedding": Nouns("sentence encoder", unit="pair", labels="pairs", hub_task="sentence-similarity"),
}
READS_PAIRS = ("text-classification", "multi-label")  # where there are two columns


def task_of(data: Mapping[str, Any]) -> str:
    """The kind of the task in ``data.json``; a run from before there were texts has none, and is of images."""
    return str(data.get("task") or IMAGES)


def nouns_of(data: Mapping[str, Any]) -> Nouns:
    """The words for the content of ``data.json``."""
    task = task_of(data)
    words = TASKS.get(task, Nouns("model", unit="example", input="example"))
    text = data.get("text")
    if text is not None and task in READS_PAIRS and len(text["columns"]) == 2:
        return replace(words, unit="pair", input="pair of texts")
    return words
