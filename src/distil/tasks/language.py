"""Tasks whose answer is for a whole text: labels, the right candidate, an embedding, a text."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from distil.core.errors import DataError
from distil.core.inputs import Inputs
from distil.data.batch import Batch
from distil.data.example import Examples, TextExamples
from distil.data.feed import AnyView, Read, Targets, class_targets
from distil.data.text_view import TextView
from distil.losses.logit import label_cross_entropy
from distil.losses.multilabel import binary_cross_entropy
from distil.tasks import multi_label, ranking, sentence_embedding, sequence_to_sequence
from distil.tasks.classification import Classification
from distil.tasks.config import RankingConfig, SentenceEmbeddingConfig, SequenceToSequenceConfig
from distil.tasks.multi_label import example_f1, multi_label_metrics
from distil.tasks.ranking import rank_groups, ranking_metrics
from distil.tasks.score import Scores
from distil.tasks.sentence_embedding import (
    cosines,
    reciprocal_ranks,
    retrieval_metrics,
    retrieval_ranks,
    spearman,
    spearman_values,
)
from distil.tasks.sequence_to_sequence import decoder_targets, generate, writing_quality, written_texts
from distil.tasks.task import Measured, Task


def texts_of(examples: Examples) -> TextExamples:
    """The examples, which are texts: tasks of this kind are for nothing else."""
    if not isinstance(examples, TextExamples):
        raise DataError("this task is for texts, and the data are images; use data of kind text")
    return examples


def wanted(examples: Examples, role: str, key: str) -> tuple[Any, ...]:
    """What the data say should be answered.

    Raises:
        DataError: the recipe names no such column.
    """
    found = texts_of(examples).wanted.get(role)
    if found is None:
        raise DataError(f"data.{key}: this task needs it; name the column")
    return found


class MultiLabel(Task):
    """Any number of classes for each text."""

    metric = multi_label.METRIC
    target = "multi-label"

    def num_outputs(self, examples: Examples) -> int:
        return examples.num_classes

    def targets(self, read: Read) -> Targets:
        return Targets(values=several_labels(read.examples), present=read.examples.labels >= 0)

    def measure(self, scores: Scores, examples: Examples, view: AnyView) -> Measured:  # noqa: ARG002
        targets = several_labels(examples)
        likelihood = binary_cross_entropy(scores.logits.double(), targets).mean().item()
        metrics = multi_label_metrics(scores.logits, targets)
        return Measured(example_f1(scores.logits, targets), {**metrics, "negative_log_likelihood": likelihood})

    def describe(self, view: AnyView, class_names: Sequence[str]) -> dict[str, object]:
        """Each class has a probability of its own."""
        return super().describe(view, class_names) | {"output": {"name": "logits", "activation": "sigmoid"}}


def several_labels(examples: Examples) -> Tensor:
    """1 for each class of an example, 0 elsewhere."""
    rows = wanted(examples, "labels", "label")
    targets = torch.zeros(len(rows), examples.num_classes)
    for row, labels in enumerate(rows):
        targets[row, torch.tensor(labels, dtype=torch.int64)] = 1.0
    return targets


class Ranking(Classification):
    """The right one among the candidates of a group."""

    metric = ranking.METRIC
    one_class = False
    values_of_groups = True

    def __init__(self, config: RankingConfig) -> None:
        self.head = "embedding" if config.scorer == "bi-encoder" else "classes"

    def targets(self, read: Read) -> Targets:
        return class_targets(read)

    def measure(self, scores: Scores, examples: Examples, view: AnyView) -> Measured:  # noqa: ARG002
        groups = texts_of(examples).groups
        if groups is None or scores.logits.shape[1] != 2:
            raise DataError("task ranking needs groups of candidates of two classes: set data.layout or data.group")
        scored = (scores.logits[:, 1] - scores.logits[:, 0]).double().numpy()
        ranked = rank_groups(scored, scores.labels.numpy() == 1, groups)
        likelihood = label_cross_entropy(scores.logits.double(), scores.labels).mean().item()
        return Measured(ranked.hit_at_1, {**ranking_metrics(ranked), "negative_log_likelihood": likelihood})


class SentenceEmbedding(Task):
    """A vector for each text; of a pair of texts the first asks for the second among all others of the split."""

    head = "embedding"
    target = "embeddings"

    def __init__(self, config: SentenceEmbeddingConfig) -> None:
        self.features = config.features
        is_spearman = config.measure == "spearman"
        self.metric = sentence_embedding.PAIR_METRIC if is_spearman else sentence_embedding.RETRIEVAL_METRIC

    def num_outputs(self, examples: Examples) -> None:  # noqa: ARG002
        return None

    def targets(self, read: Read) -> Targets:
        labels = torch.zeros(len(read.examples), dtype=torch.int64)
        return Targets(values=labels, present=torch.ones(len(labels), dtype=torch.bool))

    def test_view(self, view: AnyView, examples: Examples) -> AnyView:
        """Both texts of a pair, also where a teacher teaches by one of them alone."""
        assert isinstance(view, TextView)
        return replace(view, columns=tuple(texts_of(examples).columns), _known={})

    def measure(self, scores: Scores, examples: Examples, view: AnyView) -> Measured:
        assert isinstance(view, TextView)
        if len(view.columns) != 2:
            raise DataError("task sentence-embedding is measured on pairs of texts; set data.text to two columns")
        first, second = scores.logits.chunk(2, dim=1)
        if self.metric == sentence_embedding.PAIR_METRIC:
            alike = np.asarray(wanted(examples, "score", "score"), dtype=np.float64)
            cosine = cosines(first, second).numpy()
            return Measured(spearman_values(cosine, alike), {self.metric: spearman(cosine, alike)})
        texts = texts_of(examples).columns[view.columns[1]]
        place = {text: row for row, text in reversed(list(enumerate(texts)))}  # of equal texts the first stands for all
        kept = sorted(place.values())
        number = {row: position for position, row in enumerate(kept)}
        right = torch.tensor([number[place[text]] for text in texts])
        ranks = retrieval_ranks(first, second[kept], right)
        return Measured(reciprocal_ranks(ranks), retrieval_metrics(ranks))


class SequenceToSequence(Task):
    """A text written from a text."""

    metric = sequence_to_sequence.METRIC
    head = "seq2seq"
    answers_for_tokens = True
    evaluation_batch = 32

    def __init__(self, config: SequenceToSequenceConfig) -> None:
        self._config = config

    def num_outputs(self, examples: Examples) -> None:  # noqa: ARG002
        return None

    def targets(self, read: Read) -> Targets:
        view = next(iter(read.views.values()))
        assert isinstance(view, TextView)
        made = self._decoder_targets(view, wanted(read.examples, "target", "target"))
        inputs = {name: {**_named(each), "decoder_input_ids": made.input_ids} for name, each in read.inputs.items()}
        present = made.mask & read.examples.labelled.unsqueeze(1)
        return Targets(values=made.labels, present=present, positions=made.mask, inputs=inputs)

    def _decoder_targets(self, view: TextView, texts: tuple[Any, ...]) -> Any:
        limit = self._config.max_target_tokens
        rows = [view.uncut.encode(text).ids for text in texts]
        rows = [row if len(row) <= limit else [*row[: limit - 1], row[-1]] for row in rows]
        length = max(map(len, rows))
        ids = torch.tensor([row + [view.pad_id] * (length - len(row)) for row in rows])
        mask = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in rows])
        return decoder_targets(ids, mask, start_id=view.start_id, pad_id=view.pad_id)

    def ask(self, model: nn.Module, inputs: Inputs, batch: Batch) -> Tensor:  # noqa: ARG002
        named = {name: value for name, value in _named(inputs).items() if name != "decoder_input_ids"}
        pretrained: Any = model.pretrained
        return (
            generate(pretrained, named, max_new_tokens=self._config.max_target_tokens, num_beams=self._config.num_beams)
            + 1
        )  # 0 fills up what is shorter

    def measure(self, scores: Scores, examples: Examples, view: AnyView) -> Measured:
        assert isinstance(view, TextView)
        ids = (scores.logits.long() - 1).where(scores.logits > 0, torch.tensor(view.end_id))
        found = writing_quality(
            written_texts(view.tokenizer, ids, end_id=view.end_id),
            list(wanted(examples, "target", "target")),
            tokenisation=self._config.tokenisation,
        )
        return Measured(found.values, found.metrics)


def _named(inputs: Inputs) -> dict[str, Tensor]:
    assert not isinstance(inputs, Tensor)
    return dict(inputs)
