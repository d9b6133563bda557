"""Predictors that look at nothing, for every task: what a teacher must be better than."""

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from distil.core.seeds import derive
from distil.data.example import Examples
from distil.data.feed import TASK
from distil.data.text_view import TextView
from distil.evaluate.baseline import unigram_language_model
from distil.tasks.language import (
    MultiLabel,
    Ranking,
    SentenceEmbedding,
    SequenceToSequence,
    several_labels,
    texts_of,
    wanted,
)
from distil.tasks.network import Network
from distil.tasks.ranking import chance_hit
from distil.tasks.score import Scores
from distil.tasks.sentence_embedding import PAIR_METRIC
from distil.tasks.sequence_to_sequence import writing_quality
from distil.tasks.task import Task
from distil.tasks.tokens import CausalLanguageModel, MaskedLanguageModel, QuestionAnswering, TokenClassification

MODEL = "model"  # the name of the view


@dataclass(frozen=True)
class Trivial:
    """What a predictor that looks at nothing reaches, in the task's headline metric."""

    name: str
    value: float


def trivial_predictor(task: Task, network: Network, examples: Examples, scores: Scores) -> Trivial:
    """The predictor of a task.

    Args:
        task: of several kinds, but not of one class an example.
        network: whose tokenizer and view are meant.
        examples: that the network was asked about.
        scores: what it said.
    """
    match task:
        case Ranking():
            groups = texts_of(examples).groups
            assert groups is not None, "the task has measured them"
            return Trivial("a random order", chance_hit(examples.labels.numpy() == 1, groups))
        case MultiLabel():
            share = several_labels(examples).mean(dim=0)
            constant = torch.where(share == share.max(), 1.0, -1.0).expand(len(examples), -1)
            return Trivial("always the most frequent label", _measured(task, network, examples, scores, constant))
        case TokenClassification():
            constants = (torch.full_like(scores.logits, tag) for tag in range(examples.num_classes))
            best = max(_measured(task, network, examples, scores, constant) for constant in constants)
            return Trivial("always one tag, the best of all", best)
        case QuestionAnswering():
            generator = torch.Generator().manual_seed(derive("check", "spans"))
            chance = torch.rand(scores.logits.shape, generator=generator).where(scores.logits.isfinite(), -torch.inf)
            return Trivial("an answer drawn at random", _measured(task, network, examples, scores, chance))
        case CausalLanguageModel():
            tokens = scores.logits[:, 1]
            uniform = torch.stack([tokens * math.log(network.description.num_classes), tokens], dim=1)
            return Trivial("all tokens equally likely", _measured(task, network, examples, scores, uniform))
        case MaskedLanguageModel():
            return Trivial("always the most frequent token", _most_frequent_token(task, network, examples))
        case SentenceEmbedding():
            if task.metric == PAIR_METRIC:
                return Trivial("a random order", 0.0)
            return Trivial("a random order", float(np.mean(1 / np.arange(1, len(examples) + 1))))
        case SequenceToSequence():
            columns = texts_of(examples).columns
            (source,) = (columns[name] for name in _view(network).columns)
            found = writing_quality(list(source), list(wanted(examples, "target", "target")))
            return Trivial("the source as it stands", found.metrics[task.metric])
        case _:
            raise NotImplementedError(type(task).__name__)


def byte_frequencies(network: Network, examples: Examples) -> float:
    """Bits that a byte of these texts costs, guessed by the frequencies of bytes in the texts themselves."""
    column = texts_of(examples).columns[_view(network).columns[0]]
    texts = [text for text in column if text]
    return float(unigram_language_model(texts, texts).values.mean())


def _most_frequent_token(task: Task, network: Network, examples: Examples) -> float:
    rows: list[Tensor] = []
    for batch in task.batches(examples, {MODEL: network.view}):
        rows += [labels[mask] for labels, mask in zip(batch.targets[TASK], batch.positions[TASK], strict=True)]
    ids, counts = torch.cat(rows).unique(return_counts=True)
    return float(np.mean([(row == ids[counts.argmax()]).double().mean().item() for row in rows if len(row)]))


def _measured(task: Task, network: Network, examples: Examples, scores: Scores, said: Tensor) -> float:
    """The metric of answers in place of the network's."""
    return task.measure(replace(scores, logits=said), examples, network.view).metrics[task.metric]


def _view(network: Network) -> TextView:
    assert isinstance(network.view, TextView)
    return network.view
