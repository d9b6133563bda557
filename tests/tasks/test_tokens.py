"""Tasks that answer for tokens: what should be said at which place, and measures by hand."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from distil.core.errors import DataError
from distil.data.example import TextExamples
from distil.data.feed import Read, Targets
from distil.data.text_view import TextView
from distil.knowledge.teacher import FrozenTeacher
from distil.tasks.config import MaskedLanguageModelConfig, QuestionAnsweringConfig, TokenClassificationConfig
from distil.tasks.score import Scores, score
from distil.tasks.task import Task
from distil.tasks.tokens import CausalLanguageModel, MaskedLanguageModel, QuestionAnswering, TokenClassification
from tests.data.texts import BLUE, END, GREEN, MASK, NEW, OLD, PIECE, RED, START, VOCABULARY, make_texts, view

pytest.importorskip("tokenizers")


def targets_of(
    task: Task, examples: TextExamples, reader: TextView, *, pass_seed: int | None = None, **more: TextView
) -> Targets:
    views = {"student": reader, **more}
    made = {name: each(examples.columns) for name, each in views.items()}
    return task.targets(Read(examples, views, made, pass_seed))


def scores(answers: Any) -> Scores:
    logits = torch.as_tensor(answers, dtype=torch.float32)
    return Scores(torch.arange(len(logits)), logits, torch.zeros(len(logits), dtype=torch.int64))


def mask_of(found: Targets) -> Tensor:
    assert found.positions is not None
    return found.positions


class Says(nn.Module):
    """Logits that do not depend on the text: row by row those that are given, or random ones."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, inputs: Any) -> Tensor:
        return self.logits


def random_logits(batch: int, tokens: int, *, seed: int = 0) -> Tensor:
    return torch.randn(batch, tokens, len(VOCABULARY), generator=torch.Generator().manual_seed(seed))


# the next token

TEXTS = make_texts({"text": ["red blue", "smaller", "old green new", ""]})


def test_10_each_place_should_say_the_next_token() -> None:
    found = targets_of(CausalLanguageModel(), TEXTS, view(max_length=6, fixed=True))
    assert found.values.tolist() == [
        [RED, BLUE, END, 0, 0, 0],
        [VOCABULARY["small"], PIECE, END, 0, 0, 0],
        [OLD, GREEN, NEW, END, 0, 0],
        [END, 0, 0, 0, 0, 0],
    ]
    assert mask_of(found).sum(dim=1).tolist() == [3, 3, 4, 1]
    assert torch.equal(found.present, mask_of(found))
    assert found.inputs is None


def test_36_bits_per_byte_are_those_by_hand() -> None:
    """[CLS] is read first, so every byte is said; the end is said and has no bytes."""
    task, reader = CausalLanguageModel(), view(max_length=6, fixed=True)
    examples = make_texts({"text": ["red blue", "smaller", "old green new"]})
    (batch,) = task.batches(examples, {"model": reader})
    logits = random_logits(3, 6)
    answers = task.ask(Says(logits), batch.inputs["model"], batch)
    found = task.measure(scores(answers.float()), examples, reader)
    said = [[RED, BLUE, END], [VOCABULARY["small"], PIECE, END], [OLD, GREEN, NEW, END]]
    nats = [
        sum(F.cross_entropy(logits[row, place], torch.tensor(token)).item() for place, token in enumerate(tokens))
        for row, tokens in enumerate(said)
    ]
    num_bytes = [len("red blue"), len("smaller"), len("old green new")]
    bits = [each / (math.log(2) * size) for each, size in zip(nats, num_bytes, strict=True)]
    np.testing.assert_allclose(found.values, bits, rtol=1e-5)
    assert found.metrics["document_bits_per_byte"] == pytest.approx(sum(bits) / 3, rel=1e-5)
    assert found.metrics["bits_per_byte"] == pytest.approx(sum(nats) / sum(num_bytes) / math.log(2), rel=1e-5)
    assert found.metrics["nats_per_token"] == pytest.approx(sum(nats) / 10, rel=1e-5)
    assert found.metrics["negative_log_likelihood"] == pytest.approx(sum(nats) / 10, rel=1e-5)


def test_36_a_model_that_knows_nothing_costs_the_logarithm_of_its_vocabulary() -> None:
    task, reader = CausalLanguageModel(), view(max_length=5, fixed=True)
    examples = make_texts({"text": ["red", "old old old old old"]})  # the second is cut to three words
    (batch,) = task.batches(examples, {"model": reader})
    answers = task.ask(Says(torch.zeros(2, 5, len(VOCABULARY))), batch.inputs["model"], batch)
    found = task.measure(scores(answers.float()), examples, reader)
    bits = math.log2(len(VOCABULARY))
    np.testing.assert_allclose(found.values, [2 * bits / 3, 4 * bits / len("old old old")], rtol=1e-6)
    assert found.metrics["token_perplexity"] == pytest.approx(len(VOCABULARY), rel=1e-5)


def test_11_what_is_said_at_padding_changes_nothing() -> None:
    task, examples = CausalLanguageModel(), make_texts({"text": ["red blue", "old"]})
    answers = []
    for length in (5, 8):
        (batch,) = task.batches(examples, {"model": view(max_length=length, fixed=True)})
        logits = random_logits(2, 8)[:, :length]
        answers.append(task.ask(Says(logits), batch.inputs["model"], batch))
    torch.testing.assert_close(answers[0], answers[1])


def test_a_text_without_anything_to_say_has_a_value_all_the_same() -> None:
    """All models must have as many values as there are texts; its own end alone has no byte."""
    task, reader = CausalLanguageModel(), view(max_length=6, fixed=True)
    (batch,) = task.batches(TEXTS, {"model": reader})
    found = task.measure(
        scores(task.ask(Says(random_logits(4, 6)), batch.inputs["model"], batch).float()), TEXTS, reader
    )
    assert found.values.shape == (4,)
    assert found.values[3] == 0
    assert found.metrics["document_bits_per_byte"] == pytest.approx(found.values.mean())


def test_36_the_headline_is_the_mean_of_the_values_also_with_an_empty_text() -> None:
    task, reader = CausalLanguageModel(), view(max_length=6, fixed=True)
    answers = [[8.0, 4.0], [8.0, 4.0], [8.0, 4.0], [2.0, 1.0]]
    found = task.measure(scores(answers), TEXTS, reader)
    assert found.values.mean() == pytest.approx(found.metrics["document_bits_per_byte"])


def test_texts_of_which_none_has_a_byte_to_say_are_refused() -> None:
    with pytest.raises(DataError, match="none of 1 texts has a byte that could be predicted"):
        CausalLanguageModel().measure(scores([[2.0, 1.0]]), make_texts({"text": [""]}), view(fixed=True))


# hidden tokens

LONG = make_texts({"text": ["red blue green old new small large is what now red blue"] * 3}, first_id=5)
WIDE = view(max_length=16)
MASKED = MaskedLanguageModel(MaskedLanguageModelConfig(probability=0.5))


def test_hidden_tokens_are_said_and_neither_special_ones_nor_padding() -> None:
    examples = make_texts({"text": ["red blue green old new small", "red"]})
    found = targets_of(MASKED, examples, WIDE, pass_seed=1)
    mask = mask_of(found)
    assert mask.sum(dim=1).tolist() == [3, 1]
    assert torch.equal(found.present, mask)
    plain = WIDE(examples.columns)["input_ids"]
    assert torch.equal(found.values[mask], plain[mask])
    assert not mask[:, 0].any()
    assert not (mask & (plain < MASK)).any()
    assert found.inputs is not None
    read: Any = found.inputs["student"]
    assert torch.equal(read["input_ids"][~mask], plain[~mask])
    assert torch.equal(read["attention_mask"], WIDE(examples.columns)["attention_mask"])


def test_all_networks_read_the_same_hidden_text() -> None:
    found: Any = targets_of(MASKED, LONG, WIDE, pass_seed=1, teacher=view(max_length=16, type_ids=True)).inputs
    assert torch.equal(found["student"]["input_ids"], found["teacher"]["input_ids"])
    assert "token_type_ids" in found["teacher"]
    assert bool((found["student"]["input_ids"] == MASK).any())


def test_31_equal_passes_hide_the_same_and_each_pass_something_else() -> None:
    one, again, other = (targets_of(MASKED, LONG, WIDE, pass_seed=seed) for seed in (3, 3, 4))
    read: list[Any] = [each.inputs for each in (one, again)]
    assert torch.equal(mask_of(one), mask_of(again))
    assert torch.equal(read[0]["student"]["input_ids"], read[1]["student"]["input_ids"])
    assert not torch.equal(mask_of(one), mask_of(other))
    rows = mask_of(one)
    assert not torch.equal(rows[0], rows[1]), "equal texts of other examples hide other tokens"


def test_13_what_an_example_hides_does_not_depend_on_its_batch() -> None:
    whole = targets_of(MASKED, LONG, WIDE, pass_seed=3)
    alone = targets_of(MASKED, LONG.select(torch.tensor([2])), WIDE, pass_seed=3)
    assert torch.equal(mask_of(alone)[0], mask_of(whole)[2])


def test_36_all_models_are_asked_for_the_same_hidden_tokens_in_evaluation() -> None:
    first, second = (targets_of(MASKED, LONG, WIDE) for _ in range(2))
    assert torch.equal(mask_of(first), mask_of(second))
    assert not torch.equal(mask_of(first), mask_of(targets_of(MASKED, LONG, WIDE, pass_seed=3)))


def test_36_the_share_that_is_right_is_that_by_hand() -> None:
    examples = make_texts({"text": ["red blue green old", "new small", "large is what now"]})
    (batch,) = MASKED.batches(examples, {"model": WIDE})
    values, mask = batch.targets["main"], batch.positions["main"]
    assert mask.sum(dim=1).tolist() == [2, 1, 2]
    logits = torch.zeros(*mask.shape, len(VOCABULARY))
    row, place = mask.nonzero()[0].tolist()
    logits[row, place, values[row, place]] = 2.0  # one of two is right in the first
    row, place = mask.nonzero()[2].tolist()
    logits[row, place, values[row, place]] = 2.0  # the only one in the second
    logits[2, :, START] = 2.0  # all are wrong in the third
    answers = MASKED.ask(Says(logits), batch.inputs["model"], batch)
    found = MASKED.measure(scores(answers.float()), examples, WIDE)
    np.testing.assert_allclose(found.values, [1 / 2, 1, 0])
    assert found.metrics["example_masked_accuracy"] == pytest.approx(0.5)
    assert found.metrics["masked_accuracy"] == pytest.approx(2 / 5)
    size = len(VOCABULARY)
    total = math.log(size - 1 + math.e**2)  # of each place where one token has 2 and all others 0
    nats = 2 * (total - 2) + math.log(size) + 2 * total
    assert found.metrics["negative_log_likelihood"] == pytest.approx(nats / 5, rel=1e-5)
    assert found.metrics["masked_token_perplexity"] == pytest.approx(math.exp(nats / 5), rel=1e-5)


# tags of words

NAMES = ("O", "B-N", "I-N")
TAGGED = replace(
    make_texts({"text": [["smaller", "red"], ["old"], ["blue", "newer", "green"]]}, class_names=NAMES),
    wanted={"labels": ([1, 2], [0], [0, 1, 0])},
)
ENTITIES = TokenClassification(TokenClassificationConfig())
SHORT = view(max_length=8)  # [CLS] small ##er red [SEP]; [CLS] old [SEP]; [CLS] blue new ##er green [SEP]


def test_11_the_first_piece_of_a_word_answers_for_it() -> None:
    found = targets_of(ENTITIES, TAGGED, SHORT)
    assert mask_of(found).int().tolist() == [[0, 1, 0, 1, 0, 0], [0, 1, 0, 0, 0, 0], [0, 1, 1, 0, 1, 0]]
    assert found.values.tolist() == [[0, 1, 0, 2, 0, 0], [0] * 6, [0, 0, 1, 0, 0, 0]]
    assert torch.equal(found.present, mask_of(found))


def test_11_tags_that_may_not_be_seen_are_absent_and_their_places_still_answer() -> None:
    hidden = TAGGED.hide_labels(torch.tensor([True, False, True]))
    found = targets_of(ENTITIES, hidden, SHORT)
    assert found.present.any(dim=1).tolist() == [True, False, True]
    assert torch.equal(mask_of(found), mask_of(targets_of(ENTITIES, TAGGED, SHORT)))


def said(rows: Sequence[Sequence[int]]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float32)


def test_36_entities_are_measured_by_hand() -> None:
    # right: B-N I-N; nothing there, one said; B-N found beside a false one
    answers = said([[0, 1, 2, 2, 0, 0], [0, 1, 0, 0, 0, 0], [0, 1, 1, 2, 0, 1]])
    found = ENTITIES.measure(scores(answers), TAGGED, SHORT)
    np.testing.assert_allclose(found.values, [1, 0, 2 * 1 / (2 + 1)])
    assert found.metrics["sentence_entity_f1"] == pytest.approx((1 + 0 + 2 / 3) / 3)
    assert found.metrics["entity_f1"] == pytest.approx(2 * 2 / (4 + 2))
    assert found.metrics["tag_accuracy"] == pytest.approx(4 / 6)
    assert found.metrics["lost_words"] == 0


def test_words_that_were_cut_off_are_counted() -> None:
    reader = view(max_length=4)  # [CLS] small ##er [SEP]; [CLS] blue new [SEP]
    found = ENTITIES.measure(scores(said([[0, 1, 2, 0], [0, 0, 0, 0], [0, 0, 1, 0]])), TAGGED, reader)
    assert found.metrics["lost_words"] == 1 + 1
    np.testing.assert_allclose(found.values, [1, 1, 1])


def test_plain_tags_are_measured_by_the_share_that_is_right_and_not_taken_for_entities() -> None:
    task = TokenClassification(TokenClassificationConfig(tags="plain"))
    plain = replace(TAGGED, class_names=("noun", "verb", "other"))
    found = task.measure(scores(said([[0, 1, 0, 0, 0, 0], [0] * 6, [0, 0, 1, 0, 2, 0]])), plain, SHORT)
    np.testing.assert_allclose(found.values, [1 / 2, 1, 2 / 3])
    assert next(iter(found.metrics)) == "sentence_tag_accuracy"
    answers = scores(said([[0] * 6] * 3))
    with pytest.raises(DataError, match=r"task\.tags: the classes \(noun, verb, other\) are not entities"):
        ENTITIES.measure(answers, plain, SHORT)
    with pytest.raises(DataError, match=r"task\.tags: the classes \(O, B-N, I-N\) are entities"):
        task.measure(answers, TAGGED, SHORT)


def test_the_class_of_each_token_is_kept_of_an_answer() -> None:
    (batch,) = ENTITIES.batches(TAGGED, {"model": SHORT})
    logits = F.one_hot(torch.tensor([[0, 1, 2, 2, 0, 0], [2] * 6, [1] * 6]), 3).float()
    assert ENTITIES.ask(Says(logits), batch.inputs["model"], batch).tolist() == [[0, 1, 2, 2, 0, 0], [2] * 6, [1] * 6]
    assert ENTITIES.num_outputs(TAGGED) == 3


def test_11_answers_of_batches_of_other_lengths_are_measured_alike() -> None:
    task = TokenClassification(TokenClassificationConfig())
    task.evaluation_batch = 1  # type: ignore[misc]

    class Tags(nn.Module):
        def forward(self, inputs: Any) -> Tensor:
            ids = inputs["input_ids"]
            return F.one_hot((ids == VOCABULARY["small"]) * 1 + (ids == RED) * 2 + (ids == NEW) * 1, 3).float()

    kept = score(Tags(), task.batches(TAGGED, {"model": SHORT}), view="model", ask=task.ask)
    assert kept.logits.shape == (3, 6)
    np.testing.assert_allclose(task.measure(kept, TAGGED, SHORT).values, [1, 1, 1])


# answers in a context

CONTEXTS = ["red blue green old new small large", "old new", "red blue green old new now"]
ANSWERS = [
    {"text": ["new small"], "answer_start": [19]},
    {"text": ["old"], "answer_start": [0]},
    {"text": ["blue green old new now"], "answer_start": [4]},
]
ASKED = make_texts({"question": ["what", "what is", "is"], "context": CONTEXTS}, answers=ANSWERS)
ANSWERING = QuestionAnswering(QuestionAnsweringConfig(stride=2))
WINDOWED = view("question", "context", max_length=8, overlap=2, fixed=True)
# windows of the first: red blue green old | green old new small | new small large, behind [CLS] what [SEP]


def test_an_answer_s_place_is_counted_over_all_windows_in_the_first_that_holds_it() -> None:
    found = targets_of(ANSWERING, ASKED, WINDOWED)
    assert found.values.tolist()[:2] == [[8 + 5, 8 + 6], [4, 4]]
    assert found.present.tolist() == [[True, True], [True, True], [False, False]]  # no window holds the last whole
    assert found.positions is not None
    assert found.positions.tolist() == [[True, True]] * 3
    assert int(found.values.max()) < 3 * 8


def test_an_answer_in_two_windows_is_that_of_the_first() -> None:
    examples = make_texts(
        {"question": ["what"], "context": CONTEXTS[:1]}, answers=[{"text": ["green"], "answer_start": [9]}]
    )
    assert targets_of(ANSWERING, examples, WINDOWED).values.tolist() == [[5, 5]]


def test_an_answer_that_does_not_stand_at_its_place_is_refused() -> None:
    wrong = replace(ASKED, wanted={"answers": ({"text": ["red"], "answer_start": [3]}, *ANSWERS[1:])})
    with pytest.raises(DataError, match="an answer should be 'red' at character 3 of its context"):
        targets_of(ANSWERING, wrong, WINDOWED)


def test_11_answers_that_may_not_be_seen_are_absent() -> None:
    hidden = ASKED.hide_labels(torch.tensor([False, True, True]))
    assert targets_of(ANSWERING, hidden, WINDOWED).present.any(dim=1).tolist() == [False, True, False]


def spans(*places: tuple[int, int], windows: int = 3) -> Tensor:
    """Start and end scores with a peak for each example."""
    logits = torch.zeros(len(places), 2, 8 * windows)
    for row, (start, end) in enumerate(places):
        logits[row, 0, start] = logits[row, 1, end] = 5.0
    return logits


def test_36_answers_are_measured_by_hand() -> None:
    # new small, in the third window; new in place of old; green old of five words, in the second window
    found = ANSWERING.measure(scores(spans((16 + 3, 16 + 4), (5, 5), (8 + 3, 8 + 4))), ASKED, WINDOWED)
    np.testing.assert_allclose(found.values, [1, 0, 2 * (2 / 2) * (2 / 5) / (2 / 2 + 2 / 5)])
    assert found.metrics["answer_f1"] == pytest.approx(found.values.mean())
    assert found.metrics["exact_match"] == pytest.approx(1 / 3)


def test_11_an_answer_is_never_read_from_windows_that_are_not_there_or_from_the_question() -> None:
    logits = spans((4, 4), (4, 4), (3, 7))
    logits[1, :, 8:] = 100.0  # of windows that only other examples have
    logits[1, :, :4] = 100.0  # [CLS] what is [SEP]
    logits[1, :, 6:8] = 100.0  # [SEP] and padding
    found = ANSWERING.measure(scores(logits), ASKED, WINDOWED)
    assert found.values[1] == 1


def test_11_answers_of_batches_with_other_windows_are_measured_alike() -> None:
    task = QuestionAnswering(QuestionAnsweringConfig(stride=2))
    task.evaluation_batch = 1  # type: ignore[misc]
    values = {0: (8 + 5, 8 + 6), 1: (4, 4), 2: (4, 4)}

    class Peaks(nn.Module):
        def forward(self, inputs: Any) -> Tensor:
            context, windows = inputs["context_mask"], inputs["input_ids"].shape[1]
            row = {3: 0, 1: 1, 2: 2}[windows]
            hidden = ~context.bool().flatten(1).unsqueeze(1)
            return spans(values[row], windows=windows).masked_fill(hidden, -torch.inf)

    kept = score(Peaks(), task.batches(ASKED, {"model": WINDOWED}), view="model", ask=task.ask)
    assert kept.logits.shape == (3, 2, 24)
    assert task.measure(kept, ASKED, WINDOWED).values[:2].tolist() == [1, 1]


def test_what_a_teacher_says_of_contexts_of_other_lengths_is_kept() -> None:
    task = QuestionAnswering(QuestionAnsweringConfig(stride=2))
    task.evaluation_batch = 1  # type: ignore[misc]

    class Flat(nn.Module):
        def forward(self, inputs: Any) -> Tensor:
            return torch.zeros(1, 2, inputs["input_ids"][0].numel())

    kept = FrozenTeacher("teacher", Flat()).keep(task.batches(ASKED, {"teacher": WINDOWED}), ())
    assert kept.ids.tolist() == [0, 1, 2]
    assert kept.outputs.logits.isfinite().sum(dim=2).tolist() == [[24, 24], [8, 8], [16, 16]]


def test_chinese_answers_are_compared_by_characters() -> None:
    task = QuestionAnswering(QuestionAnsweringConfig(stride=2, language="zh"))
    examples = make_texts(
        {"question": ["what"], "context": ["red . old"]}, answers=[{"text": ["red ."], "answer_start": [0]}]
    )
    found = task.measure(scores(spans((3, 3), windows=1)), examples, WINDOWED)
    assert found.values.tolist() == [1]  # without its punctuation
