"""How texts come through a tokenizer: what is cut, unknown, empty, and how much of it has to be said."""

from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import Any

import torch

from distil.check.finding import Finding
from distil.check.sample import spread
from distil.data.example import Examples, Splits, TextExamples
from distil.data.feed import TASK
from distil.data.text_view import TextView
from distil.data.tokenizer import share_unknown
from distil.tasks.language import wanted
from distil.tasks.question_answering import answer_positions
from distil.tasks.task import Task
from distil.tasks.token_classification import word_targets
from distil.tasks.tokens import MaskedLanguageModel, QuestionAnswering, TokenClassification

EXAMPLES = 1_000
MOST_CUT, MOST_UNKNOWN = 0.10, 0.01  # shares that are still fine
VIEW = "text"


def check_texts(splits: Splits, views: Mapping[str, TextView], task: Task) -> Iterator[Finding]:
    """Empty texts of the splits that may be seen, then what each tokenizer makes of training texts.

    Args:
        splits: of texts.
        views: by who reads so; equal ones are looked at once.
        task: that they are read for.
    """
    yield _empty(splits, task)
    examples = spread(without_empty(splits.train), EXAMPLES)
    assert isinstance(examples, TextExamples)
    for names, view in _different(views):
        yield from _check_view(f"texts as read by {names}", view, examples, task)


def without_empty(examples: Examples) -> Examples:
    """Those whose texts all have something in them."""
    if not isinstance(examples, TextExamples):
        return examples
    rows = [row for row, texts in enumerate(_rows(examples)) if not _is_empty(texts)]
    return examples.select(torch.tensor(rows, dtype=torch.int64))


def whole(view: TextView) -> Any:
    """A tokenizer that reads as the view does, and cuts nothing."""
    tokenizer = type(view.tokenizer).from_str(view.tokenizer.to_str())
    tokenizer.no_truncation()
    return tokenizer


def encode_row(tokenizer: Any, view: TextView, row: Sequence[Any]) -> list[Any]:
    """One encoding for an example, or one for each of texts that are read apart."""
    if view.apart:
        return [tokenizer.encode(text) for text in row]
    words = not isinstance(row[0], str)
    return [tokenizer.encode(*(list(each) if words else each for each in row), is_pretokenized=words)]


def rows_of(view: TextView, examples: TextExamples) -> list[tuple[Any, ...]]:
    """The texts that a view reads, an example each."""
    return list(zip(*(examples.columns[name] for name in view.columns), strict=True))


def _different(views: Mapping[str, TextView]) -> Iterator[tuple[str, TextView]]:
    left = dict(views)
    while left:
        view = next(iter(left.values()))
        names = [name for name, other in left.items() if view.reads_like(other)]
        left = {name: other for name, other in left.items() if name not in names}
        yield ", ".join(names), view


def _check_view(who: str, view: TextView, examples: TextExamples, task: Task) -> Iterator[Finding]:
    yield _cut(who, view, examples)
    yield from _lost(who, view, examples, task)
    yield _unknown(who, view, examples)
    if task.answers_for_tokens and task.head != "seq2seq":
        yield _supervised(who, view, examples, task)


def _cut(who: str, view: TextView, examples: TextExamples) -> Finding:
    tokenizer = whole(view)
    lengths = [len(each.ids) for row in rows_of(view, examples) for each in encode_row(tokenizer, view, row)]
    longer = sum(length > view.max_length for length in lengths) / len(lengths)
    said = f"{who}: {median(lengths):.0f} tokens at the median, {max(lengths)} at most; "
    if view.overlap is not None:
        return Finding("fine", f"{said}{longer:.1%} are read in several windows of {view.max_length}")
    said += f"{longer:.1%} are cut at max_length {view.max_length}"
    if longer <= MOST_CUT:
        return Finding("fine", said)
    return Finding(
        "suspicious",
        said,
        why="what is cut off is not read, and it may be what the answer depends on",
        remedy="raise inputs.max_length, or make the texts shorter on purpose",
    )


def _lost(who: str, view: TextView, examples: TextExamples, task: Task) -> Iterator[Finding]:
    """Answers and tagged words that no token stands for."""
    if isinstance(task, TokenClassification):
        tags = wanted(examples, "labels", "label")
        pairs = zip(view.encodings(examples.columns), tags, strict=True)
        lost, there = sum(word_targets(encoding, row).num_lost_words for encoding, row in pairs), sum(map(len, tags))
        what, loss = "words with a tag", "they are neither learnt nor scored, so the score looks better than it is"
    elif isinstance(task, QuestionAnswering):
        pairs = zip(view.windows(examples.columns), wanted(examples, "answers", "answers"), strict=True)
        found = [
            any(answer_positions(each, answer["answer_start"][0], answer["text"][0]) is not None for each in windows)
            for windows, answer in pairs
        ]
        lost, there = found.count(False), len(found)
        what, loss = "answers", "no window holds them whole, so they are not learnt, and cannot be found"
    else:
        return
    said = f"{who}: {lost} of {there} {what} are cut off"
    if not lost:
        yield Finding("fine", said)
        return
    yield Finding("wrong", said, why=loss, remedy="raise inputs.max_length, or shorten the texts around them")


def _unknown(who: str, view: TextView, examples: TextExamples) -> Finding:
    texts = [each if isinstance(each, str) else " ".join(each) for row in rows_of(view, examples) for each in row]
    share = share_unknown(view.tokenizer, texts)
    said = f"{who}: {share:.2%} of the tokens are unknown"
    if share <= MOST_UNKNOWN:
        return Finding("fine", said)
    return Finding(
        "suspicious",
        said,
        why="an unknown token says nothing: its text is lost, and all such texts are the same to the model",
        remedy="take a tokenizer that was made for this language, or one of bytes (kind: bpe)",
    )


def _supervised(who: str, view: TextView, examples: TextExamples, task: Task) -> Finding:
    supervised = real = 0
    for batch in task.batches(examples, {VIEW: view}):
        inputs = batch.inputs[VIEW]
        assert not isinstance(inputs, torch.Tensor)
        supervised += int((batch.positions[TASK] & batch.present[TASK]).sum())
        real += int(inputs["attention_mask"].sum())
    said = f"{who}: {supervised / max(real, 1):.1%} of the tokens are supervised"
    if supervised:
        return Finding("fine", said)
    return Finding(
        "wrong",
        said,
        why="there is nothing to learn from",
        remedy="look whether texts are longer than one token, and labels are where the task looks for them",
    )


def _empty(splits: Splits, task: Task) -> Finding:
    seen = {"training": splits.train} | ({"validation": splits.validation} if splits.validation is not None else {})
    found = {name: len(examples) - len(without_empty(examples)) for name, examples in seen.items()}
    empty = [f"{count} {name}" for name, count in found.items() if count]
    if not empty:
        return Finding("fine", "no text is empty")
    said = f"empty texts: {' and '.join(empty)} examples have one"
    remedy = "remove these rows from the source"
    if isinstance(task, MaskedLanguageModel):
        return Finding("wrong", said, why="nothing of them can be masked, so they have no score", remedy=remedy)
    return Finding("suspicious", said, why="a text without words says nothing, and its label is noise", remedy=remedy)


def _rows(examples: TextExamples) -> Iterator[tuple[Any, ...]]:
    return zip(*examples.columns.values(), strict=True)


def _is_empty(texts: Sequence[Any]) -> bool:
    return any(not (text.strip() if isinstance(text, str) else any(map(str.strip, text))) for text in texts)
