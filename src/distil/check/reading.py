"""Examples as a network reads them, to be looked at: what has to be said, what is only read, and what is cut off."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor

from distil.check.finding import Finding, Mark, Piece
from distil.check.sample import spread
from distil.check.text import encode_row, rows_of, whole, without_empty
from distil.core.seeds import derive
from distil.data.batch import Batch
from distil.data.example import Examples, TextExamples
from distil.data.feed import TASK, make_batch, raw_of
from distil.data.text_view import TextView
from distil.tasks.language import SequenceToSequence, wanted
from distil.tasks.task import Task
from distil.tasks.tokens import CausalLanguageModel, MaskedLanguageModel, QuestionAnswering, TokenClassification

SHOWN = 3
MOST_TOKENS = 80  # of an example; more are left out in its middle, or around its answer
MOST_DROPPED = 160  # characters of what is cut off
VIEW = "student"
LEFT_OUT = Piece(" ... ", "dropped")

Around = tuple[str, str]  # what is put before and after the characters of a token

_MEANINGS: tuple[tuple[type[Task], str], ...] = (
    (CausalLanguageModel, "supervised is each token that is to be said from those before it"),
    (MaskedLanguageModel, "supervised is what is read = what is to be said"),
    (TokenClassification, "supervised is the first piece of each word, with its tag"),
    (QuestionAnswering, "supervised is the answer, whose first and last token are to be found"),
    (SequenceToSequence, "supervised is the text to write, after the one that is read"),
)


def show_examples(who: str, view: TextView, examples: Examples, task: Task) -> Finding:
    """Three examples in words: for tasks on tokens with what is supervised, for others as they are read.

    What is drawn anew in each pass, as masked tokens are, is that of one pass.
    """
    chosen = spread(without_empty(examples), SHOWN)
    assert isinstance(chosen, TextExamples)
    batch = make_batch(chosen, raw_of(chosen), {VIEW: view}, task.targets, pass_seed=derive("check", "pass"))
    texts = tuple(tuple(_merged(_example(row, view, chosen, batch, task))) for row in range(len(chosen)))
    meaning = next((text for kind, text in _MEANINGS if isinstance(task, kind)), "all of it is for one answer")
    return Finding("fine", f"{len(chosen)} training examples as read by {who}; {meaning}", texts=texts)


def _example(row: int, view: TextView, examples: TextExamples, batch: Batch, task: Task) -> Iterator[Piece]:
    texts, encodings = rows_of(view, examples)[row], view.windows(_columns(examples, row))[0]
    if isinstance(task, QuestionAnswering):
        yield from _window_with_answer(row, view, texts, encodings, batch)
        return
    uncut = encode_row(whole(view), view, texts)
    for side, (encoding, entire) in enumerate(zip(encodings, uncut, strict=True)):
        if side:
            yield Piece(" | ", "dropped")
        of_side = texts[side : side + 1] if view.apart else texts
        supervised = _supervised(row, batch, task)
        marks = ["supervised" if place in supervised else "read" for place in range(len(encoding.ids))]
        yield from _pieces(encoding, of_side, marks, around=_around(row, view, supervised, batch, task, examples))
        if len(entire.ids) > len(encoding.ids):
            yield from _rests(encoding, of_side)
    length = _inputs(batch)["input_ids"][row].numel()
    if padding := length - sum(len(each.ids) for each in encodings):
        yield Piece(f" +{padding} of padding", "dropped")
    if isinstance(task, SequenceToSequence):
        asked, entire = int(batch.positions[TASK][row].sum()), whole(view).encode(target := _target(examples, row))
        yield Piece(" -> ", "read")
        yield from _pieces(entire, [target], ["supervised"] * asked + ["dropped"] * (len(entire.ids) - asked))


def _supervised(row: int, batch: Batch, task: Task) -> list[int]:
    """The places of tokens that are to be said, or whose class is."""
    if not task.answers_for_tokens or isinstance(task, SequenceToSequence):
        return []
    asked = (batch.positions[TASK] & batch.present[TASK])[row].nonzero().flatten().tolist()
    return [place + 1 for place in asked] if isinstance(task, CausalLanguageModel) else asked


def _around(
    row: int, view: TextView, places: Iterable[int], batch: Batch, task: Task, examples: TextExamples
) -> dict[int, Around]:
    """What is to be seen of supervised tokens beside their characters."""
    if isinstance(task, TokenClassification):
        labels = batch.targets[TASK][row]
        return {place: ("", f"/{examples.class_names[int(labels[place])]}") for place in places}
    if isinstance(task, MaskedLanguageModel):
        ids = _inputs(batch)["input_ids"][row]
        return {place: (f"{view.tokenizer.id_to_token(int(ids[place]))}=", "") for place in places}
    return {}


def _window_with_answer(
    row: int, view: TextView, texts: Sequence[str], windows: Sequence[Any], batch: Batch
) -> Iterator[Piece]:
    """Of the windows of a context the one whose tokens are the answer; the first where none is."""
    first, last = batch.targets[TASK][row].tolist()
    is_known = bool(batch.present[TASK][row].all())
    number = first // view.max_length if is_known else 0
    encoding = windows[number]
    answer = range(first % view.max_length, last % view.max_length + 1) if is_known else range(0)
    marks = ["supervised" if place in answer else "read" for place in range(len(encoding.ids))]
    yield Piece(f"window {number + 1} of {len(windows)}: ", "dropped")
    yield from _pieces(encoding, texts, marks, centre=first % view.max_length if is_known else None)


def _pieces(
    encoding: Any,
    texts: Sequence[Any],
    marks: Sequence[str],
    *,
    around: Mapping[int, Around] | None = None,
    centre: int | None = None,
) -> Iterator[Piece]:
    """The tokens of an encoding, by the characters of the texts that they stand for."""
    shown = _shown(len(encoding.ids), centre)
    for place, (gap, own) in enumerate(_characters(encoding, texts)):
        mark: Mark = marks[place]  # type: ignore[assignment] - made of marks
        if place not in shown:
            if place == 0 or place - 1 in shown:
                yield LEFT_OUT
        elif around and place in around:
            before, after = around[place]
            yield from (Piece(gap, "read"), Piece(f"{before}{own}{after}", mark))
        else:
            yield Piece(gap + own, mark)


def _shown(count: int, centre: int | None) -> set[int]:
    half = MOST_TOKENS // 2
    if count <= MOST_TOKENS:
        return set(range(count))
    if centre is None:
        return {*range(half), *range(count - half, count)}
    return set(range(max(0, centre - half), centre + half))


def _characters(encoding: Any, texts: Sequence[Any]) -> Iterator[tuple[str, str]]:
    """For each token what stands before it and belongs to none, and its own characters."""
    ends: dict[tuple[int, int | None], int] = {}  # of what was seen of each text, or of each of its words
    tokens = zip(encoding.tokens, encoding.sequence_ids, encoding.word_ids, encoding.offsets, strict=True)
    after_special = False
    for position, (token, number, word, (start, end)) in enumerate(tokens):
        if number is None:
            yield " " if position else "", token
            after_special = True
            continue
        text = texts[number]
        in_words = not isinstance(text, str)
        place = (number, word if in_words else None)
        content = text[word] if in_words else text
        before = ends.get(place, start)  # a window begins in the middle of its text
        space = " " if after_special or (in_words and place not in ends) else ""
        ends[place], after_special = max(end, before), False
        yield space + content[before:start], content[max(start, before) : end]  # of several tokens: shown once


def _rests(encoding: Any, texts: Sequence[Any]) -> Iterator[Piece]:
    """What of the texts comes after their last token."""
    for number, text in enumerate(texts):
        places = [place for place, sequence in enumerate(encoding.sequence_ids) if sequence == number]
        if isinstance(text, str):
            rest = text[encoding.offsets[places[-1]][1] if places else 0 :]
        else:
            rest = " ".join(["", *text[encoding.word_ids[places[-1]] + 1 if places else 0 :]])
        if rest.strip():
            more = f" ... {len(rest) - MOST_DROPPED} characters more" if len(rest) > MOST_DROPPED else ""
            yield Piece(rest[:MOST_DROPPED] + more, "dropped")


def _merged(pieces: Iterable[Piece]) -> Iterator[Piece]:
    """Neighbours of one mark as one piece."""
    open_piece: Piece | None = None
    for piece in pieces:
        if open_piece is not None and piece.mark == open_piece.mark:
            open_piece = Piece(open_piece.text + piece.text, piece.mark)
            continue
        if open_piece is not None:
            yield open_piece
        open_piece = piece if piece.text else None
    if open_piece is not None:
        yield open_piece


def _columns(examples: TextExamples, row: int) -> dict[str, tuple[Any, ...]]:
    return {name: values[row : row + 1] for name, values in examples.columns.items()}


def _inputs(batch: Batch) -> Mapping[str, Tensor]:
    inputs = batch.inputs[VIEW]
    assert not isinstance(inputs, Tensor)
    return inputs


def _target(examples: TextExamples, row: int) -> str:
    return wanted(examples, "target", "target")[row]
