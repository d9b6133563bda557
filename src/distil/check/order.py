"""Does a network read texts in their order? The same tokens shuffled must cost a language model more."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from distil.check.finding import Finding
from distil.check.sample import spread
from distil.check.teacher import FEW_TEXTS, Candidate
from distil.core.seeds import derive
from distil.data.batch import Batch
from distil.data.example import Examples, TextExamples
from distil.data.feed import TASK
from distil.data.text_view import TextView
from distil.objective.config import Term
from distil.objective.objective import Objective
from distil.recipe.resolve import label_term
from distil.tasks.causal_language_modelling import next_token_targets
from distil.tasks.config import TaskConfig
from distil.tasks.task import Task
from distil.tasks.tokens import CausalLanguageModel, MaskedLanguageModel, QuestionAnswering

EXAMPLES = 64  # of a teacher that has weights; a few show whether order changes anything at all
FEW_EXAMPLES = 8
SHARE = 4  # of the examples that a teacher can be asked about in a few seconds, one in so many
ROUNDING = 1e-6  # of a loss: a sum over the same tokens in another order
UNMOVED = 1e-3  # of the spread of outputs over texts: what rounding makes of it where nothing changes


@dataclass(frozen=True, eq=False)
class Said:
    """What a teacher says about texts.

    Attributes:
        loss: on the true labels, in nats.
        accuracy: of tasks of one class.
        outputs: for whole texts, [texts, ...]; None: they are for tokens.
    """

    loss: float
    accuracy: float | None
    outputs: Tensor | None


def check_order(candidate: Candidate, examples: Examples, task: Task, config: TaskConfig) -> Iterator[Finding]:
    """The teacher's loss on texts, and on the same with the tokens of each text in another order.

    What is to be said goes with its token where it is for a token, and is the next token of the new order where it is
    the next. Answers that are spans of a text have no place in a shuffled one, so nothing is said about them.
    """
    if not isinstance(examples, TextExamples) or isinstance(task, QuestionAnswering):
        return
    view = task.test_view(candidate.network.view, examples)
    assert isinstance(view, TextView)
    term = label_term(config)
    most = max(FEW_EXAMPLES, min(EXAMPLES, len(examples) // SHARE))
    chosen = spread(examples, most if candidate.has_weights else FEW_EXAMPLES)
    pieces = list(_batches(chosen, view, task))
    plain = _ask(candidate, [batch for _, batch in pieces], term, task)
    other = _ask(candidate, [shuffled(batch, part, view, task) for part, batch in pieces], term, task)
    yield from _finding(candidate, plain, other, task)


def token_order(view: TextView, examples: TextExamples, shape: tuple[int, int]) -> Int[Tensor, "rows tokens"]:
    """For each place the one whose token it gets: a text's own in random order; special tokens and padding stay.

    The order is a function of the example alone.
    """
    rows, tokens = shape
    order = torch.arange(tokens).repeat(rows, 1)
    encodings = view.encodings(examples.columns)
    for row, encoding in enumerate(encodings):
        example = int(examples.ids[row * len(examples) // rows])
        generator = torch.Generator().manual_seed(derive("check", "order", example))
        for places in _places_of_texts(encoding).values():
            chosen = torch.tensor(places)
            order[row, chosen] = chosen[torch.randperm(len(places), generator=generator)]
    return order


def shuffled(batch: Batch, examples: TextExamples, view: TextView, task: Task) -> Batch:
    """The batch with the tokens of each text in another order, and what is to be said of them."""
    ((name, inputs),) = batch.inputs.items()
    assert not isinstance(inputs, Tensor)
    ids = inputs["input_ids"]
    order = token_order(view, examples, (ids.shape[:-1].numel(), ids.shape[-1]))
    changed = {**inputs, "input_ids": ids.flatten(0, -2).gather(1, order).reshape(ids.shape)}
    batch = replace(batch, inputs={name: changed})
    if isinstance(task, CausalLanguageModel):
        labels, mask = next_token_targets(changed["input_ids"], inputs["attention_mask"])
        return replace(batch, targets={TASK: labels}, present={TASK: mask}, positions={TASK: mask})
    if task.answers_for_tokens and "decoder_input_ids" not in inputs:
        moved = {part: _gathered(getattr(batch, part), order) for part in ("targets", "present", "positions")}
        return replace(batch, **moved)
    return batch


def _places_of_texts(encoding: Any) -> Mapping[int, list[int]]:
    """Of one encoding the places of the tokens of its first and of its second text."""
    found: dict[int, list[int]] = {}
    marks = zip(encoding.sequence_ids, encoding.special_tokens_mask, strict=True)
    for place, (sequence, special) in enumerate(marks):
        if sequence is not None and not special:
            found.setdefault(sequence, []).append(place)
    return found


def _gathered(by_task: Mapping[str, Tensor], order: Tensor) -> dict[str, Tensor]:
    return {name: value.gather(1, order) for name, value in by_task.items()}


def _batches(examples: Examples, view: TextView, task: Task) -> Iterator[tuple[TextExamples, Batch]]:
    """Few at once where a vocabulary of scores is held for each token."""
    size = FEW_TEXTS if task.answers_for_tokens else task.evaluation_batch
    for start in range(0, len(examples), size):
        part = examples.select(torch.arange(start, min(start + size, len(examples))))
        assert isinstance(part, TextExamples)
        yield part, next(task.batches(part, {"model": view}))


def _ask(candidate: Candidate, batches: list[Batch], term: Term, task: Task) -> Said:
    objective = Objective({"labels": term}, view=candidate.name).bind(candidate.network.description)
    total = right = 0.0
    units, outputs = 0, []
    for each in batches:
        batch = replace(each, inputs={candidate.name: each.inputs["model"]})
        logits, counts = candidate.frozen(batch), objective.counts(batch)
        total += objective(logits, {}, batch, counts).total.item() * counts["labels"]
        units += counts["labels"]
        if task.one_class:
            right += (logits.argmax(dim=-1) == batch.targets[TASK]).sum().item()
        if not task.answers_for_tokens:
            outputs.append(logits)
    accuracy = right / sum(map(len, batches)) if task.one_class else None
    return Said(total / max(units, 1), accuracy, torch.cat(outputs) if outputs else None)


def _is_unmoved(plain: Said, other: Said) -> bool:
    """Whether another order changes nothing, beside what a sum in another order does."""
    if plain.outputs is None or other.outputs is None:
        return abs(other.loss - plain.loss) <= ROUNDING * max(1.0, abs(plain.loss))
    spread_over_texts = plain.outputs.std(dim=0).max().item()
    return (other.outputs - plain.outputs).abs().max().item() <= UNMOVED * spread_over_texts


def _finding(candidate: Candidate, plain: Said, other: Said, task: Task) -> Iterator[Finding]:
    said = (
        f"teacher {candidate.name}: with the tokens of each text shuffled its loss goes from "
        f"{plain.loss:.4f} to {other.loss:.4f}"
    )
    if plain.accuracy is not None and other.accuracy is not None:
        said += f", its accuracy from {plain.accuracy:.4f} to {other.accuracy:.4f}"
    is_language_model = isinstance(task, (CausalLanguageModel, MaskedLanguageModel))
    if _is_unmoved(plain, other):
        yield Finding(
            "suspicious",
            f"{said}: it does not change at all",
            why="it is a bag of words, or its positions or its attention mask are broken",
            remedy="look whether it is given positions and a mask of tokens; a bag of words may be meant, "
            "and then its student needs no order either",
        )
    elif not candidate.has_weights:
        return
    elif is_language_model and other.loss < plain.loss:
        yield Finding(
            "suspicious",
            f"{said}: disorder is easier for it",
            why="a language model knows which token follows, and must be worse where none does",
            remedy="look whether the texts are of its language and kind, and whether the tokenizer is its own",
        )
    else:
        yield Finding("fine", said)
