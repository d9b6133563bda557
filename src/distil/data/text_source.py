"""Texts read from a data set: rows as they are, cut into pieces, or sentences that may answer a question."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from distil.core.errors import DataError
from distil.data.config import TextConfig, ValidationConfig
from distil.data.example import TextExamples
from distil.data.hub import load_dataset

CANDIDATE = "sentence"  # the column of layout answer-sentences beside the question
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[\"'(\[A-Z0-9])|(?<=[。！？；])")


def read_texts(config: TextConfig) -> tuple[str, dict[str, TextExamples]]:
    """Where the texts are from, and the examples of each split that the configuration names.

    Raises:
        DataError: a folder, split or column is missing, or a value cannot be used.
        MissingExtraError: `datasets` is not installed.
    """
    table, name = load_dataset(config, extra="text", subset=config.subset)
    validation = config.validation.split if isinstance(config.validation, ValidationConfig) else None
    wanted = [split for split in (config.train, config.test, validation) if isinstance(split, str)]
    missing = [split for split in wanted if split not in table]
    if missing:
        remedy = " Set data.test to a share, such as 0.2, to split one off." if config.test in missing else ""
        raise DataError(f"{name}: no split {missing[0]!r}; it has {sorted(table)}.{remedy}")
    class_names = _class_names(table[config.train], config, name)
    splits: dict[str, TextExamples] = {}
    first_id = 0
    for split in dict.fromkeys(wanted):
        splits[split] = _examples(table[split], config, class_names, first_id, where=f"{name}, split {split}")
        first_id += len(splits[split])
    return name, splits


def split_sentences(text: str) -> list[tuple[int, str]]:
    """The sentences of a text with the place of their first character: English and Chinese, by their punctuation.

    >>> split_sentences("One. Two!")
    [(0, 'One.'), (5, 'Two!')]
    """
    pieces: list[tuple[int, str]] = []
    start = 0
    for end, following in [match.span() for match in _SENTENCE_END.finditer(text)] + [(len(text), len(text))]:
        piece = text[start:end]
        if sentence := piece.strip():
            pieces.append((start + len(piece) - len(piece.lstrip()), sentence))
        start = following
    return pieces


def require_answer(context: str, answer_start: int, answer_text: str) -> None:
    """Raises DataError where the answer does not stand in the context at its place, counted in code points."""
    found = context[answer_start : answer_start + len(answer_text)] if answer_start >= 0 else ""
    if not answer_text.strip() or found != answer_text:
        raise DataError(
            f"an answer should be {answer_text!r} at character {answer_start} of its context, where {found!r} stands; "
            "answer_start counts characters (Unicode code points) from 0, not bytes or words"
        )


def cut(text: str, size: int) -> Iterator[str]:
    """A text in pieces of at most ``size`` bytes (UTF-8), each ending after whitespace; a longer word is cut itself.

    Joined again, the pieces are the text.
    """
    piece, used = [], 0
    for word in re.findall(r"\S+\s*|\s+", text):
        for part in _parts(word, size):
            length = len(part.encode())
            if used + length > size:
                yield "".join(piece)
                piece, used = [], 0
            piece.append(part)
            used += length
    if piece:
        yield "".join(piece)


def _parts(word: str, size: int) -> Iterator[str]:
    if len(word.encode()) <= size:
        yield word
        return
    part = ""
    for character in word:
        if len((part + character).encode()) > size:
            yield part
            part = ""
        part += character
    yield part


def _examples(split: Any, config: TextConfig, class_names: Sequence[str], first_id: int, *, where: str) -> TextExamples:
    values = _values(split, config, where=where)
    labels: list[int] = []
    groups: list[str] | None = None
    texts = {name: values[name] for name in config.text_columns}
    roles = {"target": config.target, "answers": config.answers, "score": config.score}
    wanted = {role: values[name] for role, name in roles.items() if name is not None}
    if config.chunk_bytes is not None:
        (name,) = texts
        texts = {name: list(cut("\n".join(texts[name]), config.chunk_bytes))}
    elif config.layout == "answer-sentences":
        texts, labels, groups = _answer_sentences(values, config, where=where)
        wanted = {}
    else:
        groups = None if config.group is None else [str(value) for value in values[config.group]]
        rows = values[config.label] if config.label is not None else []
        if rows and isinstance(rows[0], list):
            wanted["labels"] = [_numbers(row, class_names, f"{where}, row {at}") for at, row in enumerate(rows)]
        else:
            labels = [_numbers([row], class_names, f"{where}, row {at}")[0] for at, row in enumerate(rows)]
    size = len(next(iter(texts.values())))
    return TextExamples(
        ids=torch.arange(first_id, first_id + size),
        labels=torch.tensor(labels, dtype=torch.int64) if labels else torch.zeros(size, dtype=torch.int64),
        class_names=tuple(class_names),
        columns={name: tuple(each) for name, each in texts.items()},
        wanted={name: tuple(each) for name, each in wanted.items()},
        groups=None if groups is None else tuple(groups),
    )


def _values(split: Any, config: TextConfig, *, where: str) -> dict[str, list[Any]]:
    """The columns that the configuration names, once they are seen to be there and to hold texts."""
    used = (config.label, config.target, config.answers, config.score, config.group)
    names = dict.fromkeys([*config.text_columns, *(name for name in used if name is not None)])
    for name in names:
        if name not in split.column_names:
            raise DataError(f"{where}: no column {name!r}; it has {split.column_names}. Set data.text and the others")
    if len(split) == 0:
        raise DataError(f"{where}: it is empty; a split needs at least one example")
    values = {name: list(split[name]) for name in names}
    for name in config.text_columns:
        _refuse_no_text(values[name], f"{where}, column {name}")
    return values


def _answer_sentences(
    columns: Mapping[str, Sequence[Any]], config: TextConfig, *, where: str
) -> tuple[dict[str, list[Any]], list[int], list[str]]:
    """For each question a candidate for every sentence of its context; class 1 where the first answer starts."""
    question_column, context_column = config.text_columns
    assert config.answers is not None
    questions: list[str] = []
    sentences: list[str] = []
    labels: list[int] = []
    groups: list[str] = []
    rows = zip(columns[question_column], columns[context_column], columns[config.answers], strict=True)
    for row, (question, context, answers) in enumerate(rows):
        if not answers.get("answer_start"):
            raise DataError(f"{where}, row {row}: no answer; layout answer-sentences needs one for every question")
        place, text = answers["answer_start"][0], answers["text"][0]
        try:
            require_answer(context, place, text)
        except DataError as error:
            raise DataError(f"{where}, row {row}: {error}") from error
        place += len(text) - len(text.lstrip())
        starts = split_sentences(context)
        right = max(index for index, (start, _) in enumerate(starts) if start <= place)
        for index, (_, sentence) in enumerate(starts):
            questions.append(question)
            sentences.append(sentence)
            labels.append(int(index == right))
            groups.append(f"question-{row}")
    return {question_column: questions, CANDIDATE: sentences}, labels, groups


def _refuse_no_text(values: Sequence[Any], where: str) -> None:
    for row, value in enumerate(values):
        is_words = isinstance(value, list) and all(isinstance(word, str) for word in value)
        if not isinstance(value, str) and not is_words:
            raise DataError(f"{where}, row {row}: {type(value).__name__} is no text; remove the row or fill it in")


def _class_names(split: Any, config: TextConfig, name: str) -> tuple[str, ...]:
    if config.layout == "answer-sentences":
        return ("other", "answer")
    if config.class_names is not None:
        return config.class_names
    if config.label is None:
        return ()
    if config.label not in split.column_names:
        raise DataError(f"{name}: no column {config.label!r}; it has {split.column_names}. Set data.label")
    feature = split.features[config.label]
    feature = getattr(feature, "feature", feature)
    if hasattr(feature, "names"):
        return tuple(str(each) for each in feature.names)
    values = split[config.label]
    flat = [each for value in values for each in (value if isinstance(value, list) else [value])]
    if all(isinstance(value, int) for value in flat):
        return tuple(str(number) for number in range(max(flat, default=-1) + 1))
    if all(isinstance(value, str) for value in flat):
        return tuple(sorted(set(flat)))
    found = " and ".join(sorted({type(value).__name__ for value in flat}))
    raise DataError(f"{name}: column {config.label!r} holds {found}, not class numbers or names")


def _numbers(values: Sequence[Any], class_names: Sequence[str], where: str) -> list[int]:
    """Class numbers of numbers or names."""
    by_name = {name: number for number, name in enumerate(class_names)}
    numbers = [by_name.get(value, -1) if isinstance(value, str) else value for value in values]
    for value, number in zip(values, numbers, strict=True):
        if not isinstance(number, int) or not 0 <= number < len(class_names):
            raise DataError(
                f"{where}: the label is {value!r}, and there are {len(class_names)} classes "
                f"({', '.join(class_names[:8])}); remove the row or name its class"
            )
    return numbers
