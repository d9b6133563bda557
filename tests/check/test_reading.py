"""Examples in words: all of a text is there, and what is supervised is what the loss takes."""

from pathlib import Path
from typing import Any

import pytest

from distil.check.finding import Finding, Piece
from distil.check.reading import MOST_TOKENS, show_examples
from distil.data.example import TextExamples
from distil.data.split import load_splits
from distil.data.text_view import TextView
from distil.recipe.resolve import resolve
from distil.tasks.choice import make_task
from distil.tasks.classification import Classification
from distil.tasks.config import CausalLanguageModelConfig, QuestionAnsweringConfig
from distil.tasks.task import Task
from distil.tasks.text_network import text_view

from .test_text import examples, view_of
from .text_fixture import recipe_of


def shown(task: Task, view: TextView, texts: TextExamples) -> list[list[tuple[str, str]]]:
    finding = show_examples("the student", view, texts, task)
    return [[(piece.text, piece.mark) for piece in pieces] for pieces in finding.texts]


def of_recipe(kind: str, folder: Path, *overrides: str) -> Finding:
    resolved = resolve(recipe_of(kind, folder, *overrides))
    task, splits, config = make_task(resolved.tasks["main"]), load_splits(resolved.data), resolved.teachers["teacher"]
    assert isinstance(splits.train, TextExamples)
    view = text_view(config.model, config.inputs, examples=splits.train, task=task)
    return show_examples("the student", view, splits.train, task)


def marked(finding: Finding, mark: str) -> list[list[str]]:
    return [[piece.text for piece in pieces if piece.mark == mark] for pieces in finding.texts]


def test_a_text_for_one_answer_is_read_with_special_tokens_and_shows_what_is_cut_and_padded() -> None:
    texts = examples({"text": ["ab cd", "abcdefgh"]})
    assert shown(Classification(), view_of(8), texts) == [
        [("[CLS] ab cd [SEP]", "read"), (" +1 of padding", "dropped")],
        [("[CLS] abcdef [SEP]", "read"), ("gh", "dropped")],
    ]


def test_of_a_pair_both_texts_show_where_they_are_cut() -> None:
    pair = examples({"first": ["abcdef"], "second": ["fedcba"]})
    (pieces,) = shown(Classification(), view_of(9, ("first", "second")), pair)
    assert pieces == [("[CLS] abc [SEP] fed [SEP]", "read"), ("defcba", "dropped")]


def test_texts_that_are_read_apart_are_shown_apart() -> None:
    pair = examples({"first": ["ab"], "second": ["cd"]})
    (pieces,) = shown(Classification(), view_of(9, ("first", "second"), apart=True), pair)
    assert pieces == [("[CLS] ab [SEP]", "read"), (" | ", "dropped"), ("[CLS] cd [SEP]", "read")]


def test_10_12_of_a_language_model_every_token_but_the_first_is_supervised_and_padding_is_not() -> None:
    task = make_task(CausalLanguageModelConfig())
    (pieces,) = shown(task, view_of(8, fixed=True), examples({"text": ["ab c"]}))
    assert pieces == [("[CLS]", "read"), (" ab c [SEP]", "supervised"), (" +2 of padding", "dropped")]


def test_of_a_masked_model_what_is_read_and_what_is_to_be_said_stand_together(tmp_path: Path) -> None:
    finding = of_recipe("masked-lm", tmp_path, "task={kind: masked-lm, probability: 0.4}")
    said = [text for texts in marked(finding, "supervised") for text in texts]
    assert sum(text.startswith("[MASK]=") for text in said) > len(said) / 2
    whole = ["".join(piece.text.split("=")[-1] for piece in pieces) for pieces in finding.texts]
    assert whole[0].startswith("[CLS] dora says number 0 of berlin is dull [SEP]")


def test_of_tagged_words_the_first_piece_has_the_tag(tmp_path: Path) -> None:
    finding = of_recipe("token-classification", tmp_path)
    assert marked(finding, "supervised")[1] == ["anna/B-PER", "goes/O", "to/O", "berlin/B-LOC", "1/O"]
    assert "3 [SEP]" in marked(finding, "read")[1]  # the second piece of 13


def test_of_a_question_the_answer_is_supervised_in_its_window() -> None:
    columns = {"question": ["a"], "context": ["abcdefgh" * 3]}
    answers = [{"text": ["fgh"], "answer_start": [21]}]
    view = view_of(14, ("question", "context"), fixed=True, overlap=4)
    task = make_task(QuestionAnsweringConfig(stride=4))
    (pieces,) = shown(task, view, examples(columns, answers=answers))
    assert [text for text, mark in pieces if mark == "supervised"] == ["fgh"]
    assert pieces[0] == ("window 4 of 4: ", "dropped")
    assert [text for text, mark in pieces if mark == "read"] == ["[CLS] a [SEP] cde", " [SEP]"]


def test_of_an_answer_that_is_in_no_window_nothing_is_supervised() -> None:
    columns = {"question": ["a"], "context": ["abcdefgh" * 3]}
    answers = [{"text": ["abcdefgh" * 2], "answer_start": [0]}]
    view = view_of(14, ("question", "context"), fixed=True, overlap=4)
    (pieces,) = shown(make_task(QuestionAnsweringConfig(stride=4)), view, examples(columns, answers=answers))
    assert "supervised" not in [mark for _, mark in pieces]


def test_a_text_to_write_stands_behind_the_one_that_is_read() -> None:
    task = make_task_of({"kind": "sequence-to-sequence", "max_target_tokens": 4})
    texts = examples({"text": ["ab"]}, target=["cdefg"])
    (pieces,) = shown(task, view_of(8), texts)
    assert pieces[0] == ("[CLS] ab [SEP] -> ", "read")
    assert [mark for _, mark in pieces] == ["read", "supervised", "dropped"]
    assert "".join(text for text, _ in pieces[1:]) == "[CLS] cdefg [SEP]"


def make_task_of(config: dict[str, Any]) -> Task:
    from pydantic import TypeAdapter

    from distil.tasks.config import TaskConfig

    return make_task(TypeAdapter(TaskConfig).validate_python(config))


def test_the_middle_of_a_long_text_is_left_out() -> None:
    texts = examples({"text": ["a" * 60 + "b" * 60]})
    (pieces,) = shown(Classification(), view_of(200), texts)
    assert [mark for _, mark in pieces] == ["read", "dropped", "read"]
    assert pieces[1][0] == " ... "
    assert pieces[0][0] == "[CLS] " + "a" * (MOST_TOKENS // 2 - 1)
    assert pieces[2][0] == "b" * (MOST_TOKENS // 2 - 1) + " [SEP]"


def test_a_character_of_several_tokens_is_shown_once() -> None:
    from distil.data.tokenizer import bpe_tokenizer

    view = TextView(bpe_tokenizer(["ab"], size=300), ("text",), 32)
    (pieces,) = shown(Classification(), view, examples({"text": ["a\u4e2d\u6587b"]}))
    assert pieces == [("[CLS] a\u4e2d\u6587b [SEP]", "read")]


@pytest.mark.parametrize("count", [1, 3, 7])
def test_three_examples_at_most(count: int) -> None:
    finding = show_examples("the student", view_of(8), examples({"text": ["a"] * count}), Classification())
    assert len(finding.texts) == min(count, 3)
    assert finding.what == f"{min(count, 3)} training examples as read by the student; all of it is for one answer"
    assert finding.texts[0] == (Piece("[CLS] a [SEP]", "read"),)
