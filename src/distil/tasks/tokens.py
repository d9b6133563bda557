"""Tasks whose answers are for tokens: the next one, a hidden one, the tag of a word, start and end of an answer."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from distil.core.errors import DataError
from distil.core.inputs import Inputs
from distil.data.batch import Batch
from distil.data.example import Examples
from distil.data.feed import TASK, AnyView, Read, Targets
from distil.data.text_source import require_answer
from distil.data.text_view import TextView
from distil.tasks import causal_language_modelling, masked_language_modelling, question_answering, token_classification
from distil.tasks.causal_language_modelling import (
    bits_per_byte,
    language_model_metrics,
    next_token_targets,
    predicted_bytes,
    supervised_nats,
)
from distil.tasks.config import MaskedLanguageModelConfig, QuestionAnsweringConfig, TokenClassificationConfig
from distil.tasks.language import texts_of, wanted
from distil.tasks.masked_language_modelling import (
    mask_tokens,
    masked_accuracy,
    masked_language_model_metrics,
    num_right,
)
from distil.tasks.question_answering import (
    Window,
    answer_metrics,
    answer_positions,
    answer_values,
    best_spans,
    context_mask,
)
from distil.tasks.score import Scores
from distil.tasks.task import Measured, Task
from distil.tasks.token_classification import (
    WordTargets,
    has_entities,
    tag_metrics,
    tag_names,
    tag_values,
    word_targets,
)

EVALUATION_SEED = 0  # of what is hidden in evaluation: the same for all models


class CausalLanguageModel(Task):
    """The next token of a text."""

    metric = causal_language_modelling.METRIC
    higher_is_better = False
    head = "causal-lm"
    answers_for_tokens = True
    fixed_length = True
    evaluation_batch = 8

    def num_outputs(self, examples: Examples) -> None:  # noqa: ARG002
        return None

    def targets(self, read: Read) -> Targets:
        inputs = _student_inputs(read)
        labels, mask = next_token_targets(inputs["input_ids"], inputs["attention_mask"])
        return Targets(values=labels, present=mask, positions=mask)

    def ask(self, model: nn.Module, inputs: Inputs, batch: Batch) -> Tensor:
        logits: Tensor = model(inputs)
        labels, mask = (each.to(logits.device) for each in (batch.targets[TASK], batch.positions[TASK]))
        nats = supervised_nats(logits, labels, mask)
        return torch.stack([nats, mask.sum(dim=1).to(nats.dtype)], dim=1)

    def measure(self, scores: Scores, examples: Examples, view: AnyView) -> Measured:
        assert isinstance(view, TextView)
        nats, tokens = scores.logits.double().numpy().T
        texts = texts_of(examples).columns[view.columns[0]]
        num_bytes = np.array([_predicted(text, view) for text in texts])
        counted = num_bytes > 0
        if not counted.any():
            raise DataError(
                f"none of {len(texts)} texts has a byte that could be predicted; each needs two tokens or more"
            )
        values = np.zeros(len(nats))  # a text without anything to predict costs nothing, whatever the model
        values[counted] = bits_per_byte(nats[counted], num_bytes[counted])
        metrics = language_model_metrics(nats[counted], tokens[counted].astype(np.int64), num_bytes[counted])
        likelihood = float(nats.sum() / max(tokens.sum(), 1))
        return Measured(values, {**metrics, self.metric: float(values.mean()), "negative_log_likelihood": likelihood})


def _predicted(text: str, view: TextView) -> int:
    (encoding,) = view.encodings({view.columns[0]: [text]})
    mask = [True] * (len(encoding.ids) - 1) + [False]
    return predicted_bytes(text, encoding.offsets, mask)


class MaskedLanguageModel(Task):
    """The tokens of a text that are masked."""

    metric = masked_language_modelling.METRIC
    head = "masked-lm"
    answers_for_tokens = True
    evaluation_batch = 32

    def __init__(self, config: MaskedLanguageModelConfig) -> None:
        self._config = config

    def num_outputs(self, examples: Examples) -> None:  # noqa: ARG002
        return None

    def targets(self, read: Read) -> Targets:
        view = next(iter(read.views.values()))
        assert isinstance(view, TextView)
        inputs = _student_inputs(read)
        special = view.special_tokens(texts_of(read.examples).columns, inputs["input_ids"].shape[1])
        made = mask_tokens(
            inputs["input_ids"],
            inputs["attention_mask"],
            special,
            read.examples.ids,
            seed=EVALUATION_SEED if read.pass_seed is None else read.pass_seed,
            epoch=0,
            probability=self._config.probability,
            mask_id=view.mask_id,
            vocabulary_size=view.tokenizer.get_vocab_size(),
        )
        hidden = {name: {**_tokens(each), "input_ids": made.input_ids} for name, each in read.inputs.items()}
        return Targets(values=made.labels, present=made.mask, positions=made.mask, inputs=hidden)

    def ask(self, model: nn.Module, inputs: Inputs, batch: Batch) -> Tensor:
        logits: Tensor = model(inputs)
        labels, mask = (each.to(logits.device) for each in (batch.targets[TASK], batch.positions[TASK]))
        nats = supervised_nats(logits, labels, mask)
        return torch.stack([num_right(logits, labels, mask).to(nats.dtype), nats, mask.sum(dim=1).to(nats.dtype)], 1)

    def measure(self, scores: Scores, examples: Examples, view: AnyView) -> Measured:  # noqa: ARG002
        right, nats, tokens = scores.logits.double().numpy().T
        right, tokens = right.astype(np.int64), tokens.astype(np.int64)
        metrics = masked_language_model_metrics(right, nats, tokens)
        likelihood = float(nats.sum() / max(tokens.sum(), 1))
        return Measured(masked_accuracy(right, tokens), {**metrics, "negative_log_likelihood": likelihood})


class TokenClassification(Task):
    """A tag for each word."""

    metric = token_classification.ENTITY_METRIC
    head = "token-classes"
    answers_for_tokens = True

    def __init__(self, config: TokenClassificationConfig) -> None:
        if config.tags == "plain":
            self.metric = token_classification.TAG_METRIC

    def num_outputs(self, examples: Examples) -> int:
        return examples.num_classes

    def targets(self, read: Read) -> Targets:
        view = next(iter(read.views.values()))
        assert isinstance(view, TextView)
        length = _student_inputs(read)["input_ids"].shape[1]
        rows = self._rows(read.examples, view)
        mask = _filled([row.mask for row in rows], length).bool()
        labelled = (read.examples.labels >= 0).unsqueeze(1)
        return Targets(_filled([row.labels for row in rows], length), present=mask & labelled, positions=mask)

    def ask(self, model: nn.Module, inputs: Inputs, batch: Batch) -> Tensor:  # noqa: ARG002
        return model(inputs).argmax(dim=-1)

    def measure(self, scores: Scores, examples: Examples, view: AnyView) -> Measured:
        assert isinstance(view, TextView)
        rows, names = self._rows(examples, view), examples.class_names
        said = zip(rows, scores.logits.long(), strict=True)
        predicted = [tag_names(each[: len(row.mask)], row.mask, names) for row, each in said]
        true = [tag_names(row.labels, row.mask, names) for row in rows]
        if has_entities(names) != (self.metric == token_classification.ENTITY_METRIC):
            found = "are" if has_entities(names) else "are not"
            raise DataError(f"task.tags: the classes ({', '.join(names[:6])}) {found} entities (O, B-TYPE, I-TYPE)")
        lost = float(sum(row.num_lost_words for row in rows))
        return Measured(tag_values(true, predicted, names), {**tag_metrics(true, predicted, names), "lost_words": lost})

    def _rows(self, examples: Examples, view: TextView) -> list[WordTargets]:
        encodings = view.encodings(texts_of(examples).columns)
        return [
            word_targets(encoding, tags)
            for encoding, tags in zip(encodings, wanted(examples, "labels", "label"), strict=True)
        ]


class QuestionAnswering(Task):
    """Start and end of the answer, among the tokens of all windows of a context: two answers an example."""

    metric = question_answering.METRIC
    head = "spans"
    fixed_length = True
    evaluation_batch = 8

    def __init__(self, config: QuestionAnsweringConfig) -> None:
        self._config = config
        self.overlap = config.stride

    def num_outputs(self, examples: Examples) -> None:  # noqa: ARG002
        return None

    def targets(self, read: Read) -> Targets:
        view = next(iter(read.views.values()))
        assert isinstance(view, TextView)
        texts, answers = texts_of(read.examples).columns, wanted(read.examples, "answers", "answers")
        found = [
            _place(windows, answer, view.max_length, context)
            for windows, answer, context in zip(view.windows(texts), answers, texts[view.columns[1]], strict=True)
        ]
        known = torch.tensor([place is not None for place in found]) & read.examples.labelled
        values = torch.tensor([place or (0, 0) for place in found])
        positions = torch.ones(len(found), 2, dtype=torch.bool)
        return Targets(values, present=known.unsqueeze(1) & positions, positions=positions)

    def measure(self, scores: Scores, examples: Examples, view: AnyView) -> Measured:
        assert isinstance(view, TextView)
        texts = texts_of(examples).columns
        answers = [list(each["text"]) for each in wanted(examples, "answers", "answers")]
        contexts = texts[view.columns[1]]
        said = [
            self._answer(windows, logits, context, view.max_length)
            for windows, logits, context in zip(view.windows(texts), scores.logits, contexts, strict=True)
        ]
        language = self._config.language
        values = answer_values(said, answers, language=language)
        return Measured(values, answer_metrics(said, answers, language=language))

    def _answer(self, windows: list[Any], logits: Tensor, context: str, length: int) -> str:
        read = [
            Window(
                logits[0, number * length : number * length + len(encoding.ids)],
                logits[1, number * length : number * length + len(encoding.ids)],
                encoding.offsets,
                context_mask(encoding),
            )
            for number, encoding in enumerate(windows)
        ]
        spans = best_spans(read, max_answer_tokens=self._config.max_answer_tokens)
        return context[spans[0].start : spans[0].end]


def _place(windows: list[Any], answer: Any, length: int, context: str) -> tuple[int, int] | None:
    """Where an answer is in the first window that holds all of it, counted over all windows."""
    require_answer(context, answer["answer_start"][0], answer["text"][0])
    for number, encoding in enumerate(windows):
        found = answer_positions(encoding, answer["answer_start"][0], answer["text"][0])
        if found is not None:
            return number * length + found[0], number * length + found[1]
    return None


def _student_inputs(read: Read) -> dict[str, Tensor]:
    return _tokens(next(iter(read.inputs.values())))


def _tokens(inputs: Inputs) -> dict[str, Tensor]:
    assert not isinstance(inputs, Tensor)
    return dict(inputs)


def _filled(rows: list[Tensor], length: int) -> Tensor:
    return torch.stack([torch.nn.functional.pad(row.long(), (0, length - len(row))) for row in rows])
