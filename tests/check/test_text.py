"""What texts lose on their way through a tokenizer, counted by hand."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from distil.check.finding import Finding
from distil.check.text import check_texts, without_empty
from distil.data.example import Sealed, Splits, TextExamples
from distil.data.text_view import TextView
from distil.data.tokenizer import character_tokenizer
from distil.tasks.choice import make_task
from distil.tasks.classification import Classification
from distil.tasks.config import (
    CausalLanguageModelConfig,
    MaskedLanguageModelConfig,
    QuestionAnsweringConfig,
    TokenClassificationConfig,
)
from distil.tasks.task import Task

from .conftest import about

LETTERS = "abcdefgh "


def examples(columns: dict[str, Sequence[Any]], **wanted: Sequence[Any]) -> TextExamples:
    size = len(next(iter(columns.values())))
    return TextExamples(
        ids=torch.arange(size),
        labels=torch.zeros(size, dtype=torch.int64),
        class_names=("O", "B-A"),
        columns={name: tuple(texts) for name, texts in columns.items()},
        wanted={name: tuple(values) for name, values in wanted.items()},
    )


def splits_of(train: TextExamples, validation: TextExamples | None = None) -> Splits:
    return Splits("texts", train, train, validation, Sealed(train))


def view_of(max_length: int, columns: tuple[str, ...] = ("text",), **more: Any) -> TextView:
    """A token a character; [CLS] and [SEP] are added."""
    return TextView(character_tokenizer([LETTERS], size=20), columns, max_length, **more)


def looked_at(train: TextExamples, view: TextView, task: Task, validation: TextExamples | None = None) -> list[Finding]:
    return list(check_texts(splits_of(train, validation), {"the student": view}, task))


def of_length(*lengths: int) -> TextExamples:
    return examples({"text": ["a" * length for length in lengths]})


def test_lengths_are_those_of_whole_texts_and_more_than_a_tenth_cut_is_suspicious() -> None:
    ten, eleven = of_length(*[3] * 9, 7), of_length(*[3] * 8, 7, 6)
    (fine,) = about(looked_at(ten, view_of(7), Classification()), "at the median")
    assert fine.level == "fine"
    assert fine.what.endswith("5 tokens at the median, 9 at most; 10.0% are cut at max_length 7")
    (finding,) = about(looked_at(eleven, view_of(7), Classification()), "at the median")
    assert finding.level == "suspicious"
    assert "20.0% are cut" in finding.what
    assert "max_length" in finding.remedy


def test_looking_at_whole_texts_leaves_the_view_as_it_was() -> None:
    view = view_of(7)
    looked_at(of_length(30), view, Classification())
    assert len(view.tokenizer.encode("a" * 30).ids) == 7


@pytest.mark.parametrize(("known", "level"), [(100, "fine"), (99, "suspicious")])
def test_more_than_one_in_a_hundred_unknown_is_suspicious(known: int, level: str) -> None:
    texts = examples({"text": ["a" * (known - 1), "\u4e2d"]})
    (finding,) = about(looked_at(texts, view_of(256), Classification()), "are unknown")
    assert finding.what.startswith("texts as read by the student: ")
    assert f"{1 / known:.2%}" in finding.what
    assert finding.level == level


def test_empty_texts_are_found_in_every_split_that_may_be_seen_and_are_looked_at_no_further() -> None:
    train, validation = examples({"text": ["a", " ", "b"]}), examples({"text": ["", "a\n"]})
    assert without_empty(train).ids.tolist() == [0, 2]
    finding = looked_at(train, view_of(8), Classification(), validation)[0]
    assert finding.what == "empty texts: 1 training and 1 validation examples have one"
    assert finding.level == "suspicious"
    masked = make_task(MaskedLanguageModelConfig())
    assert looked_at(train, view_of(8), masked, validation)[0].level == "wrong"
    assert looked_at(without_empty(train), view_of(8), masked)[0].what == "no text is empty"  # type: ignore[arg-type]


def test_a_pair_with_one_empty_text_and_words_that_are_all_empty_are_empty() -> None:
    pairs = examples({"first": ["a", "a"], "second": ["b", ""]})
    assert without_empty(pairs).ids.tolist() == [0]
    assert without_empty(examples({"words": [["a"], [], [" "]]})).ids.tolist() == [0]


def test_equal_views_are_looked_at_once_and_others_by_themselves() -> None:
    splits = splits_of(of_length(3, 4))
    views = {"the student": view_of(8), "the teacher": view_of(8), "the teacher big": view_of(9)}
    findings = list(check_texts(splits, views, Classification()))
    assert len(about(findings, "texts as read by the student, the teacher: ")) == 2
    assert len(about(findings, "texts as read by the teacher big: ")) == 2


def test_a_word_with_a_tag_that_is_cut_off_is_wrong() -> None:
    words = examples({"words": [["ab", "cd"], ["ab", "cd", "ef"]]}, labels=[[0, 1], [0, 1, 1]])
    task = make_task(TokenClassificationConfig())
    (fine,) = about(looked_at(words, view_of(8, ("words",)), task), "words with a tag")
    assert (fine.level, fine.what.split(": ")[1]) == ("fine", "0 of 5 words with a tag are cut off")
    (lost,) = about(looked_at(words, view_of(6, ("words",)), task), "words with a tag")
    assert (lost.level, lost.what.split(": ")[1]) == ("wrong", "1 of 5 words with a tag are cut off")


def test_an_answer_that_no_window_holds_is_wrong() -> None:
    columns = {"question": ["a", "a"], "context": ["abcdefgh" * 3, "abcdefgh" * 3]}
    short, long = {"text": ["efg"], "answer_start": [4]}, {"text": ["abcdefgh" * 2], "answer_start": [0]}
    task = make_task(QuestionAnsweringConfig(stride=4))
    view = view_of(14, ("question", "context"), fixed=True, overlap=4)
    (found,) = about(looked_at(examples(columns, answers=[short, short]), view, task), "answers are cut off")
    assert found.level == "fine"
    assert about(looked_at(examples(columns, answers=[short, short]), view, task), "100.0% are read in several windows")
    (lost,) = about(looked_at(examples(columns, answers=[short, long]), view, task), "answers are cut off")
    assert (lost.level, lost.what.split(": ")[1]) == ("wrong", "1 of 2 answers are cut off")


def test_the_share_that_is_supervised_is_that_of_real_tokens() -> None:
    # [CLS] and 3, 5 or 8 characters and [SEP]: of n tokens, n - 1 are said from those before them
    task = make_task(CausalLanguageModelConfig())
    findings = looked_at(of_length(3, 5, 8), view_of(16, fixed=True), task)
    assert about(findings, f"{(4 + 6 + 9) / (5 + 7 + 10):.1%} of the tokens are supervised")[0].level == "fine"


def test_nothing_to_learn_from_is_wrong() -> None:
    alone = view_of(16, fixed=True)
    alone.tokenizer.post_processor = type(alone.tokenizer.post_processor)([])
    (finding,) = about(looked_at(of_length(1, 1), replace(alone), make_task(CausalLanguageModelConfig())), "supervised")
    assert (finding.level, finding.why) == ("wrong", "there is nothing to learn from")
