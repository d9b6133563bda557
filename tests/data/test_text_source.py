import doctest
import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from distil.core.errors import DataError
from distil.data import text_source as module
from distil.data.config import TextConfig, ValidationConfig
from distil.data.example import TextExamples
from distil.data.text_source import CANDIDATE, cut, read_texts, require_answer, split_sentences

datasets = pytest.importorskip("datasets")

MIXED = st.text(alphabet="ab .\n\t" + "房间很好，。" + "é😀", max_size=120)


def read(
    monkeypatch: pytest.MonkeyPatch,
    rows: Sequence[dict[str, Any]],
    *,
    test: Sequence[dict[str, Any]] | None = None,
    features: Any = None,
    **settings: Any,
) -> dict[str, TextExamples]:
    """The splits of a data set of these rows; ``test`` is the same rows unless given."""
    table = {"train": rows, "test": rows if test is None else test}
    made = {name: datasets.Dataset.from_list(list(each), features=features) for name, each in table.items()}
    monkeypatch.setattr(module, "load_dataset", lambda *_, **__: (made, "colours"))
    name, splits = read_texts(TextConfig(path="colours", **settings))
    assert name == "colours"
    return splits


# sentences


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("One. Two! Three?", ["One.", "Two!", "Three?"]),
        ("He came. (He left.) 3 stayed.", ["He came.", "(He left.) 3 stayed."]),
        ("It costs 3.50 and more. e.g. this.", ["It costs 3.50 and more. e.g. this."]),
        ("房间很好。服务呢？差！再见；完", ["房间很好。", "服务呢？", "差！", "再见；", "完"]),
        ("第一。 第二。\nThird. Fourth.", ["第一。", "第二。", "Third.", "Fourth."]),
        ("", []),
        (" \n ", []),
    ],
)
def test_sentences_of_english_and_chinese(text: str, sentences: list[str]) -> None:
    assert [sentence for _, sentence in split_sentences(text)] == sentences


@settings(deadline=None, max_examples=200)
@given(text=st.text(alphabet="aB .!?\n" + "好。；", max_size=60))
def test_sentences_leave_out_nothing_but_space(text: str) -> None:
    pieces = split_sentences(text)
    assert "".join("".join(sentence.split()) for _, sentence in pieces) == "".join(text.split())
    starts = [start for start, _ in pieces]
    assert starts == sorted(set(starts))
    for start, sentence in pieces:
        assert text[start:].lstrip().startswith(sentence)


@pytest.mark.parametrize("text", [" One. Two.", "第一。 第二。"])
def test_the_place_of_a_sentence_is_that_of_its_first_character(text: str) -> None:
    for start, sentence in split_sentences(text):
        assert text[start : start + len(sentence)] == sentence


# pieces of a long text


@settings(deadline=None, max_examples=300)
@given(text=MIXED, size=st.integers(4, 40))
def test_pieces_joined_are_the_text_and_none_is_too_long(text: str, size: int) -> None:
    pieces = list(cut(text, size))
    assert "".join(pieces) == text
    assert all(0 < len(piece.encode()) <= size for piece in pieces)
    for piece, following in pairwise(pieces):
        assert len((piece + following).encode()) > size, "they would fit into one"


@settings(deadline=None, max_examples=300)
@given(text=MIXED, size=st.integers(4, 40))
def test_only_a_word_that_is_too_long_is_cut_itself(text: str, size: int) -> None:
    end = 0
    for piece in list(cut(text, size))[:-1]:
        end += len(piece)
        if not text[end - 1].isspace() and not text[end].isspace():
            word = next(found for found in re.finditer(r"\S+", text) if found.start() < end < found.end())
            assert len(word.group().encode()) > size


def test_a_text_is_cut_at_whitespace_and_a_chinese_one_between_characters() -> None:
    assert list(cut("one two  three four", 10)) == ["one two  ", "three four"]
    assert list(cut("一二三四五", 7)) == ["一二", "三四", "五"]
    assert list(cut("", 8)) == []


def test_rows_are_joined_and_cut_into_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"text": "the first line of all"}, {"text": ""}, {"text": "the second, 很好"}]
    splits = read(monkeypatch, rows, chunk_bytes=16)
    pieces = splits["train"].columns["text"]
    assert "".join(pieces) == "the first line of all\n\nthe second, 很好"
    assert all(len(piece.encode()) <= 16 for piece in pieces)
    assert splits["train"].ids.tolist() == list(range(len(pieces)))
    assert int(splits["test"].ids[0]) == len(pieces)


# candidates for a question

SQUAD = [
    {
        "question": "Who came?",
        "context": "Nobody was there. Then Ada came. She left.",
        "answers": {"text": ["Ada"], "answer_start": [23]},
    },
    {
        "question": "房间呢？",
        "context": "早餐差。房间很好！再见。",
        "answers": {"text": ["很好"], "answer_start": [6]},
    },
]


def test_the_right_candidate_is_the_sentence_in_which_the_answer_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    settings: dict[str, Any] = {"text": ("question", "context"), "answers": "answers", "layout": "answer-sentences"}
    train = read(monkeypatch, SQUAD, **settings)["train"]
    assert train.columns == {
        "question": ("Who came?",) * 3 + ("房间呢？",) * 3,
        CANDIDATE: ("Nobody was there.", "Then Ada came.", "She left.", "早餐差。", "房间很好！", "再见。"),
    }
    assert train.labels.tolist() == [0, 1, 0, 0, 1, 0]
    assert train.groups == ("question-0",) * 3 + ("question-1",) * 3
    assert train.class_names == ("other", "answer")
    assert dict(train.wanted) == {}


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_right_sentence_holds_the_answer_of_every_real_question(language: str, data_folder: Path) -> None:
    folder = data_folder / f"xquad-{language}"
    table = datasets.load_dataset(str(folder))
    config = TextConfig(
        path=folder.name, text=("question", "context"), answers="answers", layout="answer-sentences", train="validation"
    )
    _, splits = read_texts(config)
    for name in ("validation", "test"):
        candidates, groups = splits[name].columns[CANDIDATE], splits[name].groups
        assert groups is not None
        right = dict.fromkeys(groups, "")
        for row in splits[name].labels.nonzero().flatten().tolist():
            assert right[groups[row]] == "", "a question has one right sentence"
            right[groups[row]] = candidates[row]
        assert len(right) == len(table[name])
        for sentence, answers in zip(right.values(), table[name]["answers"], strict=True):
            # an answer may go on into the next sentence, and then only its start is in this one
            assert answers["text"][0][:2] in sentence


@pytest.mark.parametrize(
    "answers", [{"text": [], "answer_start": []}, {"text": None, "answer_start": None}], ids=["empty", "null"]
)
def test_a_question_without_an_answer_is_named(answers: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [SQUAD[0], {**SQUAD[1], "answers": answers}]
    with pytest.raises(DataError, match=r"colours, split train, row 1: no answer; layout answer-sentences"):
        read(monkeypatch, rows, text=("question", "context"), answers="answers", layout="answer-sentences")


def test_a_context_without_a_sentence_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [SQUAD[0], {**SQUAD[1], "context": " "}]
    with pytest.raises(DataError, match="row 1"):
        read(monkeypatch, rows, text=("question", "context"), answers="answers", layout="answer-sentences")


def test_an_answer_that_does_not_stand_at_its_place_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [SQUAD[0], {**SQUAD[1], "answers": {"text": ["很好"], "answer_start": [60]}}]
    with pytest.raises(DataError, match="row 1"):
        read(monkeypatch, rows, text=("question", "context"), answers="answers", layout="answer-sentences")


def test_an_answer_that_is_not_where_it_should_be_is_refused() -> None:
    context = "Ada Lovelace wrote it in London."
    require_answer(context, 25, "London")
    for start, text, found in [(24, "London", "' Londo'"), (-6, "ondon.", "''"), (25, "", "''")]:
        with pytest.raises(DataError, match=rf"at character {start} of its context, where {found} stands"):
            require_answer(context, start, text)


def test_an_answer_with_a_space_before_it_is_in_the_sentence_of_its_words(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        {"question": "Who?", "context": " One came. Ada left.", "answers": {"text": [" Ada"], "answer_start": [10]}}
    ]
    settings: dict[str, Any] = {"text": ("question", "context"), "answers": "answers", "layout": "answer-sentences"}
    assert read(monkeypatch, rows, **settings)["train"].labels.tolist() == [0, 1]
    rows[0]["answers"] = {"text": [" One"], "answer_start": [0]}
    assert read(monkeypatch, rows, **settings)["train"].labels.tolist() == [1, 0]


# classes


def test_class_names_of_numbers_names_and_of_the_column_s_own(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = read(monkeypatch, [{"text": "a", "label": 2}, {"text": "b", "label": 0}], label="label")["train"]
    assert (numbers.class_names, numbers.labels.tolist()) == (("0", "1", "2"), [2, 0])
    rows = [{"text": "a", "label": "good"}, {"text": "b", "label": "bad"}]
    names = read(monkeypatch, rows, label="label")["train"]
    assert (names.class_names, names.labels.tolist()) == (("bad", "good"), [1, 0])
    own = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["z", "y"])})
    rows = [{"text": "a", "label": 1}, {"text": "b", "label": 0}]
    labelled = read(monkeypatch, rows, features=own, label="label")["train"]
    assert (labelled.class_names, labelled.labels.tolist()) == (("z", "y"), [1, 0])
    given = read(monkeypatch, rows, label="label", class_names=("bad", "good", "so"))["train"]
    assert (given.class_names, given.labels.tolist()) == (("bad", "good", "so"), [1, 0])


def test_texts_without_labels_have_no_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    train = read(monkeypatch, [{"text": "a"}, {"text": "b"}])["train"]
    assert train.class_names == ()
    assert train.labels.tolist() == [0, 0]


def test_a_class_number_is_that_of_the_training_split_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"text": "a", "label": "good"}, {"text": "b", "label": "bad"}]
    splits = read(monkeypatch, rows, test=[{"text": "c", "label": "good"}], label="label")
    assert splits["test"].labels.tolist() == [1]
    assert splits["test"].class_names == ("bad", "good")


@pytest.mark.parametrize(("label", "shown"), [("so", "'so'"), ("", "''")], ids=["another", "empty"])
def test_a_label_that_is_no_class_is_named_with_its_row(
    label: str, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"text": "a", "label": "good"}, {"text": "b", "label": "bad"}]
    test = [rows[0], {"text": "c", "label": label}]
    with pytest.raises(
        DataError, match=rf"split test, row 1: the label is {shown}, and there are 2 classes \(bad, good\); remove"
    ):
        read(monkeypatch, rows, test=test, label="label")


@pytest.mark.parametrize("label", [3, -1])
def test_a_number_that_is_no_class_is_named_with_its_row(label: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"text": "a", "label": 0}, {"text": "b", "label": 1}]
    with pytest.raises(DataError, match=rf"split test, row 1: the label is {label}, and there are 2 classes"):
        read(monkeypatch, rows, test=[rows[0], {"text": "c", "label": label}], label="label")


def test_labels_of_another_kind_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="column 'label' holds float, not class numbers or names"):
        read(monkeypatch, [{"text": "a", "label": 0.5}], label="label")
    with pytest.raises(DataError, match=r"column 'label' holds NoneType and str, not class numbers or names"):
        read(monkeypatch, [{"text": "a", "label": "good"}, {"text": "b", "label": None}], label="label")


# several labels, tags, and what else tasks want


def test_several_labels_are_lists_of_class_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"text": "a", "label": ["warm", "red"]}, {"text": "b", "label": []}, {"text": "c", "label": ["red"]}]
    train = read(monkeypatch, rows, label="label")["train"]
    assert train.class_names == ("red", "warm")
    assert train.wanted == {"labels": ([1, 0], [], [0])}
    assert train.labels.tolist() == [0, 0, 0]
    numbers = read(monkeypatch, [{"text": "a", "label": [2]}, {"text": "b", "label": [0, 1]}], label="label")["train"]
    assert (numbers.class_names, numbers.wanted) == (("0", "1", "2"), {"labels": ([2], [0, 1])})


def test_words_have_a_tag_each(monkeypatch: pytest.MonkeyPatch) -> None:
    tags = datasets.ClassLabel(names=["O", "B-N"])
    features = datasets.Features({"words": datasets.List(datasets.Value("string")), "tags": datasets.List(tags)})
    rows = [{"words": ["in", "1906"], "tags": [0, 1]}, {"words": ["red"], "tags": [0]}]
    train = read(monkeypatch, rows, features=features, text="words", label="tags")["train"]
    assert train.columns == {"words": (["in", "1906"], ["red"])}
    assert train.class_names == ("O", "B-N")
    assert train.wanted == {"labels": ([0, 1], [0])}


def test_one_of_several_labels_that_is_no_class_is_named_with_its_row(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"text": "a", "label": ["red"]}, {"text": "b", "label": ["warm"]}]
    with pytest.raises(DataError, match="split test, row 1: the label is 'cold'"):
        read(monkeypatch, rows, test=[rows[0], {"text": "c", "label": ["cold"]}], label="label")


def test_targets_answers_scores_and_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        {"text": "a", "to": "A", "found": {"text": ["a"], "answer_start": [0]}, "alike": 0.5, "article": 7},
        {"text": "b", "to": "B", "found": {"text": ["b"], "answer_start": [0]}, "alike": 1.0, "article": 8},
    ]
    train = read(monkeypatch, rows, target="to", answers="found", score="alike", group="article")["train"]
    assert train.wanted == {
        "target": ("A", "B"),
        "answers": ({"text": ["a"], "answer_start": [0]}, {"text": ["b"], "answer_start": [0]}),
        "score": (0.5, 1.0),
    }
    assert train.groups == ("7", "8")


# what is wrong


def test_a_column_that_is_not_there_is_named_with_those_that_are(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=r"split train: no column 'sentence'; it has \['text'\]\. Set data\.text"):
        read(monkeypatch, [{"text": "a"}], text="sentence")
    with pytest.raises(DataError, match=r"colours: no column 'label'; it has \['text'\]\. Set data\.label"):
        read(monkeypatch, [{"text": "a"}], label="label")
    for role in ("target", "answers", "score", "group"):
        with pytest.raises(DataError, match=rf"no column '{role}'"):
            read(monkeypatch, [{"text": "a"}], test=None, **{role: role})


@pytest.mark.parametrize(("value", "found"), [(None, "NoneType"), (3, "int"), (["a", None], "list")])
def test_what_is_no_text_is_named_with_its_row(value: Any, found: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first = {"NoneType": "a", "int": 4, "list": ["a"]}[found]
    row = 0 if found == "int" else 1  # a column has values of one kind
    with pytest.raises(DataError, match=rf"split train, column text, row {row}: {found} is no text; remove the row"):
        read(monkeypatch, [{"text": first}, {"text": value}])


def test_a_split_that_is_not_there_or_empty_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=r"colours: no split 'dev'; it has \['test', 'train'\]\.$"):
        read(monkeypatch, [{"text": "a"}], validation=ValidationConfig(split="dev"))
    with pytest.raises(DataError, match=r"no split 'held'; it has .* Set data.test to a share, such as 0.2"):
        read_texts(TextConfig(path="colours", test="held"))
    empty = {"train": datasets.Dataset.from_dict({"text": ["a"]}), "test": datasets.Dataset.from_dict({"text": []})}
    monkeypatch.setattr(module, "load_dataset", lambda *_, **__: (empty, "colours"))
    with pytest.raises(DataError, match="split test: it is empty; a split needs at least one example"):
        read_texts(TextConfig(path="colours"))


@pytest.mark.parametrize(
    "settings",
    [
        {"chunk_bytes": 16, "label": "label"},
        {"chunk_bytes": 16, "target": "to"},
        {"chunk_bytes": 16, "group": "article"},
        {"chunk_bytes": 16, "text": ("text", "to")},
        {"layout": "answer-sentences", "text": ("text", "to"), "answers": "answers", "group": "article"},
        {"layout": "answer-sentences", "text": ("text", "to"), "answers": "answers", "label": "label"},
        {"layout": "answer-sentences", "text": ("text", "to"), "answers": "answers", "chunk_bytes": 16},
        {"layout": "answer-sentences", "text": ("text", "to"), "answers": "answers", "class_names": ("a", "b")},
    ],
)
def test_a_setting_without_effect_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(
        ValidationError, match=r"; remove (label|target|group|answers, layout|class_names)|text must be one column"
    ):
        TextConfig(path="colours", **settings)


def test_ids_go_on_from_split_to_split(monkeypatch: pytest.MonkeyPatch) -> None:
    splits = read(monkeypatch, [{"text": "a"}, {"text": "b"}], test=[{"text": "c"}])
    assert torch.cat([each.ids for each in splits.values()]).tolist() == [0, 1, 2]


def test_the_example_in_the_docstring_is_true() -> None:
    results = doctest.testmod(module)
    assert results.attempted >= 1
    assert results.failed == 0
