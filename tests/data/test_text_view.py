import re
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from distil.core.errors import CompatibilityError, DataError
from distil.data.text_view import TextView

from .texts import BLUE, END, GREEN, IS, MASK, NEW, OLD, PAD, PIECE, RED, SMALL, START, WHAT, view, word_tokenizer

PAIRS = {"question": ["what is red", "what"], "context": ["old", "blue green"]}


def windows_of(question: str, context: str, *, max_length: int, overlap: int) -> list[list[str]]:
    reader = view("question", "context", max_length=max_length, overlap=overlap)
    (found,) = reader.windows({"question": [question], "context": [context]})
    return [encoding.tokens for encoding in found]


# texts


def test_21_texts_are_padded_to_the_longest_of_the_batch_and_the_mask_says_where() -> None:
    inputs = view()({"text": ["red", "blue green old", ""]})
    assert list(inputs) == ["input_ids", "attention_mask"]
    assert inputs["input_ids"].tolist() == [
        [START, RED, END, PAD, PAD],
        [START, BLUE, GREEN, OLD, END],
        [START, END, PAD, PAD, PAD],
    ]
    assert inputs["attention_mask"].tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1], [1, 1, 0, 0, 0]]
    assert {value.dtype for value in inputs.values()} == {torch.int64}


def test_long_texts_are_cut_at_the_end_and_keep_their_separator() -> None:
    inputs = view(max_length=4)({"text": ["red blue green old", "red"]})
    assert inputs["input_ids"].tolist() == [[START, RED, BLUE, END], [START, RED, END, PAD]]


def test_of_a_long_pair_the_longer_text_is_cut() -> None:
    inputs = view("question", "context", max_length=6)(
        {"question": ["what is red", "what"], "context": ["old", "blue green old red"]}
    )
    assert inputs["input_ids"].tolist() == [
        [START, WHAT, IS, END, OLD, END],
        [START, WHAT, END, BLUE, GREEN, END],
    ]


def test_fixed_length_is_the_view_s_whatever_the_texts() -> None:
    inputs = view(max_length=6, fixed=True, pad_id=MASK)({"text": ["red"]})
    assert inputs["input_ids"].tolist() == [[START, RED, END, MASK, MASK, MASK]]
    assert inputs["attention_mask"].tolist() == [[1, 1, 1, 0, 0, 0]]


def test_21_types_say_which_text_of_a_pair_a_token_is_of() -> None:
    inputs = view("question", "context", type_ids=True)(PAIRS)
    assert inputs["input_ids"].tolist() == [
        [START, WHAT, IS, RED, END, OLD, END],
        [START, WHAT, END, BLUE, GREEN, END, PAD],
    ]
    assert inputs["token_type_ids"].tolist() == [[0, 0, 0, 0, 0, 1, 1], [0, 0, 0, 1, 1, 1, 0]]


def test_a_view_reads_its_own_columns_in_its_own_order() -> None:
    assert view("context")(PAIRS)["input_ids"].tolist() == [[START, OLD, END, PAD], [START, BLUE, GREEN, END]]
    swapped = view("context", "question")({name: values[1:] for name, values in PAIRS.items()})
    assert swapped["input_ids"].tolist() == [[START, BLUE, GREEN, END, WHAT, END]]


def test_a_column_that_the_data_do_not_have_is_refused() -> None:
    with pytest.raises(CompatibilityError, match=r"the data have no text 'body'; they have \['context', 'question'\]"):
        view("question", "body")(PAIRS)


def test_words_are_read_as_words() -> None:
    reader = view()
    inputs = reader({"text": [["smaller", "red"], ["newer"]]})
    assert inputs["input_ids"].tolist() == [[START, SMALL, PIECE, RED, END], [START, NEW, PIECE, END, PAD]]
    assert [encoding.word_ids for encoding in reader.encodings({"text": [["smaller", "red"]]})] == [
        [None, 0, 0, 1, None]
    ]


def test_special_tokens_and_padding_are_marked() -> None:
    marked = view().special_tokens({"text": ["red", "blue green old"]}, 6)
    assert marked.tolist() == [[1, 0, 1, 1, 1, 1], [1, 0, 0, 0, 1, 1]]


def test_the_mask_is_found_by_its_name_or_refused() -> None:
    assert view().mask_id == MASK
    without = TextView(word_tokenizer(mask=False), ("text",), 8)
    with pytest.raises(CompatibilityError, match=r"the tokenizer has none of \[MASK\], <mask>; masked-lm needs one"):
        _ = without.mask_id


# sides


def test_texts_that_are_read_apart_stand_side_by_side() -> None:
    reader = view("question", "context", apart=True, type_ids=True)
    inputs = reader(PAIRS)
    assert inputs["input_ids"].tolist() == [
        [[START, WHAT, IS, RED, END], [START, OLD, END, PAD, PAD]],
        [[START, WHAT, END, PAD, PAD], [START, BLUE, GREEN, END, PAD]],
    ]
    assert inputs["attention_mask"].sum(dim=2).tolist() == [[5, 3], [3, 4]]
    assert int(inputs["token_type_ids"].abs().sum()) == 0
    assert [len(row) for row in reader.windows(PAIRS)] == [2, 2]


def test_one_text_read_apart_keeps_its_axis() -> None:
    assert view("context", apart=True)(PAIRS)["input_ids"].shape == (2, 1, 4)


# windows


def test_a_long_context_is_read_in_windows_that_overlap_and_all_have_the_question() -> None:
    # 8 tokens: 3 special, 1 of the question, so 4 of the context, of which 2 are shared with the window before
    found = windows_of("what", "red blue green old new small large", max_length=8, overlap=2)
    assert found == [
        ["[CLS]", "what", "[SEP]", "red", "blue", "green", "old", "[SEP]"],
        ["[CLS]", "what", "[SEP]", "green", "old", "new", "small", "[SEP]"],
        ["[CLS]", "what", "[SEP]", "new", "small", "large", "[SEP]"],
    ]
    assert windows_of("what", "red", max_length=8, overlap=2) == [["[CLS]", "what", "[SEP]", "red", "[SEP]"]]


def test_11_windows_of_an_example_with_fewer_are_padding_alone() -> None:
    reader = view("question", "context", max_length=7, overlap=1, fixed=True, type_ids=True)
    inputs = reader({"question": ["what", "what"], "context": ["red", "red blue green old new"]})
    assert set(inputs) == {"input_ids", "attention_mask", "token_type_ids", "context_mask"}
    assert {tuple(value.shape) for value in inputs.values()} == {(2, 2, 7)}
    assert inputs["input_ids"][0].tolist() == [[START, WHAT, END, RED, END, PAD, PAD], [PAD] * 7]
    assert int(inputs["attention_mask"][0, 1].sum()) == 0
    assert inputs["context_mask"].tolist() == [
        [[0, 0, 0, 1, 0, 0, 0], [0] * 7],
        [[0, 0, 0, 1, 1, 1, 0], [0, 0, 0, 1, 1, 1, 0]],
    ]


@settings(deadline=None, max_examples=100)
@given(
    question=st.integers(0, 3),
    words=st.lists(st.sampled_from(["red", "blue", "old", "larger"]), max_size=20),
    max_length=st.integers(6, 14),
    overlap=st.integers(1, 4),
)
def test_windows_leave_no_token_of_the_context_out(
    question: int, words: list[str], max_length: int, overlap: int
) -> None:
    asked, context = " ".join(["what"] * question), " ".join(words)
    reader = view("question", "context", max_length=max_length, overlap=overlap)
    (alone,) = view("context", max_length=100).encodings({"context": [context]})
    whole = alone.tokens[1:-1]
    room = max_length - 3 - question
    if room < len(whole) and room <= overlap:
        with pytest.raises(DataError, match=f"leaves room for {max(room, 0)} of its context"):
            reader({"question": [asked], "context": [context]})
        return
    (found,) = reader.windows({"question": [asked], "context": [context]})
    seen: list[str] = []
    for number, encoding in enumerate(found):
        assert len(encoding.ids) <= max_length
        of_context = [t for t, of in zip(encoding.tokens, encoding.sequence_ids, strict=True) if of == 1]
        shared = overlap if number else 0
        assert of_context[:shared] == seen[len(seen) - shared :]
        seen += of_context[shared:]
    assert seen == whole


def test_a_question_without_room_for_its_context_is_an_error_and_no_panic() -> None:
    reader = view("question", "context", max_length=8, overlap=2)
    rows = {"question": ["what is red old"], "context": ["blue green old new"]}
    with pytest.raises(DataError, match=re.escape("a question has 4 tokens and leaves room for 1 of its context")):
        reader(rows)
    with pytest.raises(DataError, match=r"Raise inputs.max_length or lower task.stride. The question: 'what is"):
        reader(rows)
    longer = {"question": ["what is red old new small large"], "context": ["blue green"]}
    with pytest.raises(DataError, match="a question has 7 tokens and leaves room for 0"):
        reader(longer)


# views of one tokenizer


def test_20_views_of_copies_of_a_tokenizer_do_not_disturb_each_other() -> None:
    tokenizer = word_tokenizer()
    copies = [type(tokenizer).from_str(tokenizer.to_str()) for _ in range(2)]
    short, long = TextView(copies[0], ("text",), 4), TextView(copies[1], ("text",), 7)
    texts = {"text": ["red blue green old new"]}
    assert short(texts)["input_ids"].shape == (1, 4)
    assert long(texts)["input_ids"].shape == (1, 7)
    assert short({"text": ["new old green blue red"]})["input_ids"].shape == (1, 4)
    assert tokenizer.truncation is None
    assert tokenizer.padding is not None


def test_two_views_of_equal_tokenizers_have_equal_digests() -> None:
    assert view().digest == view().digest
    assert view().digest != view(max_length=6).digest
    assert view().digest != TextView(word_tokenizer(mask=False), ("text",), 8).digest
    assert view().digest[:16] in repr(view())
    assert repr(view()) == repr(view())
    assert repr(view()) != repr(view("other"))


def test_views_read_alike_where_tokenizer_columns_and_length_are_equal() -> None:
    assert view().reads_like(view())
    assert view("question", "context").reads_like(view("question", "context"))
    for other in (view("other"), view(max_length=6), TextView(word_tokenizer(mask=False), ("text",), 8)):
        assert not view().reads_like(other)


def test_a_view_of_windows_does_not_read_like_one_that_cuts() -> None:
    assert not view("question", "context").reads_like(view("question", "context", overlap=1))


def test_what_a_text_was_read_as_is_remembered_and_right_the_second_time() -> None:
    reader = view()
    first = reader({"text": ["red", "blue green"]})
    again = reader({"text": ["blue green", "red"]})
    assert torch.equal(again["input_ids"], first["input_ids"].flip(0))


@pytest.mark.parametrize(("columns", "added"), [(("text",), 2), (("question", "context"), 3)])
def test_a_length_that_special_tokens_fill_is_refused(columns: tuple[str, ...], added: int) -> None:
    with pytest.raises(
        CompatibilityError, match=rf"inputs\.max_length is {added}, and the tokenizer adds {added} special"
    ):
        view(*columns, max_length=added)
    assert view(*columns, max_length=added + 1).max_length == added + 1
    assert view("question", "context", max_length=3, apart=True).max_length == 3  # each text stands alone


def test_texts_are_taken_whole_beside_the_view_s_length() -> None:
    reader = view(max_length=4)
    assert len(reader.uncut.encode("red blue green old").ids) == 6
    assert reader({"text": ["red blue green old"]})["input_ids"].shape == (1, 4)


# facts for others


def test_35_facts_for_a_program_without_this_library() -> None:
    described = view("question", "context", max_length=9, type_ids=True, pad_id=PAD).describe(["bad", "good"])
    assert described == {
        "format": 1,
        "class_names": ["bad", "good"],
        "input": {
            "kind": "text",
            "names": ["input_ids", "attention_mask", "token_type_ids"],
            "dtype": "int64",
            "layout": "[batch, tokens]",
            "max_length": 9,
            "pad_id": 0,
        },
        "preprocessing": {
            "tokenizer": "tokenizer.json",
            "max_length": 9,
            "padding": "longest",
            "truncation": True,
            "columns": ["question", "context"],
        },
        "output": {"name": "logits"},
    }
    names: Sequence[str] = view().describe(())["input"]["names"]  # type: ignore[index]
    assert names == ["input_ids", "attention_mask"]
