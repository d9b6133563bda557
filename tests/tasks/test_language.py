"""Tasks on whole texts: what should be said of a batch, and measures by hand."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from distil.core.errors import DataError
from distil.data.example import ImageExamples, TextExamples
from distil.data.feed import Read, Targets
from distil.data.text_view import TextView
from distil.tasks.config import RankingConfig, SentenceEmbeddingConfig, SequenceToSequenceConfig
from distil.tasks.language import (
    MultiLabel,
    Ranking,
    SentenceEmbedding,
    SequenceToSequence,
    several_labels,
    texts_of,
    wanted,
)
from distil.tasks.score import Scores, score
from distil.tasks.task import Task
from tests.data.texts import BLUE, END, GREEN, NEW, OLD, PAD, RED, START, make_texts, view
from tests.tasks.networks import network

pytest.importorskip("tokenizers")


def scores(logits: Any, labels: Any = None) -> Scores:
    answers = torch.tensor(logits, dtype=torch.float32)
    size = len(answers)
    return Scores(torch.arange(size), answers, torch.zeros(size, dtype=torch.int64) if labels is None else labels)


def targets_of(task: Task, examples: TextExamples, reader: TextView | None = None) -> Targets:
    read_by = reader if reader is not None else view(*examples.columns)
    return task.targets(Read(examples, {"model": read_by}, {"model": read_by(examples.columns)}))


def unlabelled(examples: TextExamples, *rows: int) -> TextExamples:
    keep = torch.tensor([row not in rows for row in range(len(examples))])
    return examples.hide_labels(keep)


def test_images_are_refused_by_tasks_on_texts() -> None:
    pixels = torch.zeros(1, 1, 2, 2, dtype=torch.uint8)
    images = ImageExamples(ids=torch.arange(1), images=pixels, labels=torch.zeros(1).long(), class_names=("a",))
    with pytest.raises(DataError, match="this task is for texts, and the data are images; use data of kind text"):
        texts_of(images)
    with pytest.raises(DataError, match="the data are images"):
        Ranking(RankingConfig()).measure(scores([[0.0, 1.0]]), images, view())


def test_what_a_task_needs_and_the_recipe_does_not_name_is_said_with_its_key() -> None:
    examples = make_texts({"text": ["red"]}, target=["blue"])
    assert wanted(examples, "target", "target") == ("blue",)
    with pytest.raises(DataError, match=r"data\.answers: this task needs it; name the column"):
        wanted(examples, "answers", "answers")


# several labels


def test_35_several_labels_have_a_probability_each_in_what_is_shipped() -> None:
    task, reader = MultiLabel(), view()
    described = task.describe(reader, ["a", "b"])
    assert described["output"] == {"name": "logits", "activation": "sigmoid"}
    assert {**described, "output": {"name": "logits"}} == reader.describe(["a", "b"])
    assert SequenceToSequence(SequenceToSequenceConfig()).describe(reader, ()) == reader.describe(())


LABELLED = replace(
    make_texts({"text": ["red", "blue", "old", "new"]}, class_names=("a", "b", "c")),
    wanted={"labels": ([0, 2], [], [0], [2])},
)
LOGITS = [[2.0, -1.0, 3.0], [-1.0, -1.0, -2.0], [1.0, 0.5, -2.0], [-1.0, 4.0, -3.0]]


def test_several_labels_are_a_row_of_ones_and_zeros() -> None:
    assert several_labels(LABELLED).tolist() == [[1, 0, 1], [0, 0, 0], [1, 0, 0], [0, 0, 1]]
    found = targets_of(MultiLabel(), LABELLED)
    assert torch.equal(found.values, several_labels(LABELLED))
    assert found.positions is None
    with pytest.raises(DataError, match=r"data\.label: this task needs it"):
        several_labels(make_texts({"text": ["red"]}))


def test_11_examples_whose_labels_may_not_be_seen_are_absent() -> None:
    assert targets_of(MultiLabel(), unlabelled(LABELLED, 1, 3)).present.tolist() == [True, False, True, False]


def test_36_several_labels_are_measured_by_hand() -> None:
    found = MultiLabel().measure(scores(LOGITS), LABELLED, view())
    # said a c, nothing, a b, b; held a c, nothing, a, c
    np.testing.assert_allclose(found.values, [1, 1, 2 / 3, 0])
    assert next(iter(found.metrics)) == MultiLabel.metric
    assert found.metrics["example_f1"] == pytest.approx((1 + 1 + 2 / 3) / 4)
    held = [[1, 0, 1], [0, 0, 0], [1, 0, 0], [0, 0, 1]]
    nats = [
        math.log(1 + math.exp(-value if yes else value))
        for row, answers in zip(LOGITS, held, strict=True)
        for value, yes in zip(row, answers, strict=True)
    ]
    assert found.metrics["negative_log_likelihood"] == pytest.approx(sum(nats) / 4)  # summed over classes


# ranking

CANDIDATES = make_texts(
    {"question": ["what"] * 3 + ["old"] * 2, "candidate": ["red", "blue", "green", "new", "old"]},
    labels=[0, 1, 0, 1, 0],
    class_names=("other", "answer"),
    groups=["q0", "q0", "q0", "q1", "q1"],
)
RANKED = [[0.0, 1.0], [2.0, 2.5], [0.0, -3.0], [1.0, 4.0], [0.0, 2.0]]  # differences 1, 0.5, -3 and 3, 2


def test_36_ranking_is_measured_by_hand() -> None:
    found = Ranking(RankingConfig()).measure(scores(RANKED, CANDIDATES.labels), CANDIDATES, view())
    np.testing.assert_allclose(found.values, [0, 1])
    assert found.metrics["hit_at_1"] == 0.5
    assert found.metrics["mean_reciprocal_rank"] == pytest.approx((1 / 2 + 1) / 2)
    differences, right = [1.0, 0.5, -3.0, 3.0, 2.0], [0, 1, 0, 1, 0]
    nats = [math.log(1 + math.exp(-d if yes else d)) for d, yes in zip(differences, right, strict=True)]
    assert found.metrics["negative_log_likelihood"] == pytest.approx(sum(nats) / 5)


def test_ranking_has_a_value_for_each_group_and_a_class_for_each_pair() -> None:
    assert Ranking.values_of_groups
    assert not Ranking.one_class
    found = targets_of(Ranking(RankingConfig()), unlabelled(CANDIDATES, 0, 4))
    assert found.values[1:4].tolist() == [1, 0, 1]
    assert found.present.tolist() == [False, True, True, True, False]
    assert Ranking(RankingConfig()).num_outputs(CANDIDATES) == 2


def test_candidates_without_groups_or_of_other_classes_are_refused() -> None:
    alone = replace(CANDIDATES, groups=None)
    with pytest.raises(DataError, match=r"groups of candidates of two classes: set data\.layout or data\.group"):
        Ranking(RankingConfig()).measure(scores(RANKED, CANDIDATES.labels), alone, view())
    three = [[*row, 0.0] for row in RANKED]
    with pytest.raises(DataError, match="two classes"):
        Ranking(RankingConfig()).measure(scores(three, CANDIDATES.labels), CANDIDATES, view())


# embeddings

PAIRS = make_texts({"text": ["red", "blue", "green"], "other": ["old", "new", "small"]}, score=[0.1, 0.9, 0.5])
PAIR_VIEW = view("text", "other", apart=True)


def sides(first: list[list[float]], second: list[list[float]]) -> Scores:
    return scores([[*one, *other] for one, other in zip(first, second, strict=True)])


def test_36_retrieval_is_measured_by_hand() -> None:
    first = [[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]
    second = [[2.0, 0.1], [3.0, 0.2], [1.0, 1.0]]
    # the first text is nearest to its own; the second to the third, then to its own; the third to its own
    found = SentenceEmbedding(SentenceEmbeddingConfig()).measure(sides(first, second), PAIRS, PAIR_VIEW)
    np.testing.assert_allclose(found.values, [1, 1 / 2, 1])
    assert found.metrics == {
        "mean_reciprocal_rank": pytest.approx(2.5 / 3),
        "hit_at_1": pytest.approx(2 / 3),
        "hit_at_5": 1.0,
        "hit_at_10": 1.0,
    }


def test_36_texts_that_are_equal_are_one_candidate() -> None:
    """Two of four ask for the same text: it is right for both, and no rival of itself."""
    texts = ["old", "new", "old", "small"]
    pairs = make_texts({"text": ["red", "blue", "green", "large"], "other": texts})
    second = [[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [-1.0, 0.0]]
    first = [[1.0, 0.1], [0.1, 1.0], [0.9, 1.0], [1.0, 0.2]]
    found = SentenceEmbedding(SentenceEmbeddingConfig()).measure(sides(first, second), pairs, PAIR_VIEW)
    # candidates are old, new, small; the third text is nearer to new than to old, the last is farthest from its own
    np.testing.assert_allclose(found.values, [1, 1, 1 / 2, 1 / 3])


def test_36_the_order_of_pairs_is_measured_against_scores_by_hand() -> None:
    task = SentenceEmbedding(SentenceEmbeddingConfig(measure="spearman"))
    first = [[1.0, 0.0]] * 3
    second = [[0.0, 1.0], [1.0, 1.0], [1.0, 0.0]]  # cosines 0, 0.71, 1 against scores 0.1, 0.9, 0.5
    found = task.measure(sides(first, second), PAIRS, PAIR_VIEW)
    assert found.metrics == {"spearman": pytest.approx(1 - 6 * 2 / (3 * 8))}
    assert found.values.mean() == pytest.approx(0.5)
    with pytest.raises(DataError, match=r"data\.score: this task needs it"):
        task.measure(sides(first, second), replace(PAIRS, wanted={}), PAIR_VIEW)


def test_embeddings_are_measured_on_pairs_also_where_a_teacher_reads_one_text() -> None:
    task = SentenceEmbedding(SentenceEmbeddingConfig())
    one = view("text", apart=True)
    with pytest.raises(DataError, match=r"measured on pairs of texts; set data\.text to two columns"):
        task.measure(scores([[1.0, 0.0]] * 3), PAIRS, one)
    both = task.test_view(one, PAIRS)
    assert isinstance(both, TextView)
    assert both.columns == ("text", "other")
    assert one.columns == ("text",)
    assert both(PAIRS.columns)["input_ids"].shape == (3, 2, 3)
    assert one(PAIRS.columns)["input_ids"].shape == (3, 1, 3)


def test_every_pair_is_a_target_and_the_network_has_its_own_width() -> None:
    task = SentenceEmbedding(SentenceEmbeddingConfig(features=7))
    assert task.num_outputs(PAIRS) is None
    assert task.features == 7
    found = targets_of(task, PAIRS, PAIR_VIEW)
    assert found.present.tolist() == [True] * 3
    assert found.positions is None


# texts that are written

WRITTEN = make_texts({"text": ["red blue", "old", "new red"]}, target=["blue red", "green", "red new old"])


def writer(max_target_tokens: int = 8, **settings: Any) -> SequenceToSequence:
    return SequenceToSequence(SequenceToSequenceConfig(max_target_tokens=max_target_tokens, **settings))


def decoding(**changes: Any) -> TextView:
    return view(start_id=PAD, end_id=END, **changes)


def test_12_a_decoder_reads_from_its_start_and_says_the_target_with_its_end() -> None:
    found = targets_of(writer(), WRITTEN, decoding())
    assert found.values.tolist() == [
        [START, BLUE, RED, END, 0],
        [START, GREEN, END, 0, 0],
        [START, RED, NEW, OLD, END],
    ]
    assert found.positions is not None
    assert found.positions.tolist() == [[True] * 4 + [False], [True] * 3 + [False] * 2, [True] * 5]
    assert torch.equal(found.present, found.positions)
    assert found.inputs is not None
    read: Any = found.inputs["model"]
    assert read["decoder_input_ids"].tolist() == [
        [PAD, START, BLUE, RED, PAD],
        [PAD, START, GREEN, PAD, PAD],
        [PAD, START, RED, NEW, OLD],
    ]
    assert read["input_ids"].tolist() == [[START, RED, BLUE, END], [START, OLD, END, PAD], [START, NEW, RED, END]]


def test_all_networks_read_the_same_targets_beside_their_own_inputs() -> None:
    student, teacher = decoding(), decoding(max_length=3)
    made = {"student": student(WRITTEN.columns), "teacher": teacher(WRITTEN.columns)}
    found: Any = writer().targets(Read(WRITTEN, {"student": student, "teacher": teacher}, made)).inputs
    assert torch.equal(found["student"]["decoder_input_ids"], found["teacher"]["decoder_input_ids"])
    assert found["teacher"]["input_ids"].shape == (3, 3)
    assert "decoder_input_ids" not in made["student"]


def test_12_a_long_target_is_cut_and_keeps_its_end() -> None:
    found = targets_of(writer(4), WRITTEN, decoding())
    assert found.values.tolist() == [[START, BLUE, RED, END], [START, GREEN, END, 0], [START, RED, NEW, END]]


def test_a_target_may_be_longer_than_what_is_read() -> None:
    found = targets_of(writer(8), WRITTEN, decoding(max_length=4))
    assert found.values[2].tolist() == [START, RED, NEW, OLD, END]


def test_11_targets_that_may_not_be_seen_are_absent() -> None:
    found = targets_of(writer(), unlabelled(WRITTEN, 1), decoding())
    assert found.present.any(dim=1).tolist() == [True, False, True]


def kept(*rows: list[int]) -> Scores:
    """What is kept of generated ids: one more, so that 0 can fill up."""
    length = max(map(len, rows))
    return scores([[*(number + 1 for number in row), *[0] * (length - len(row))] for row in rows])


def test_36_a_text_that_is_its_reference_is_worth_1_and_none_0() -> None:
    reader, references = decoding(), make_texts({"text": ["a", "b", "c"]}, target=["blue red", "green", "old new"])
    said = kept([START, BLUE, RED, END, GREEN], [START, RED, END], [END, OLD, NEW])
    found = writer().measure(said, references, reader)
    assert found.values[0] == 1  # what stands behind the end is not written
    assert found.values[1] < 0.5
    assert found.values[2] == 0
    assert found.metrics["sentence_chrf"] == pytest.approx(found.values.mean())
    assert {"chrf", "bleu"} <= set(found.metrics)


def test_11_what_fills_up_a_shorter_text_is_not_written() -> None:
    references = make_texts({"text": ["a", "b"]}, target=["blue red", "green old new small"])
    said = kept([START, BLUE, RED], [START, GREEN, OLD, NEW, NEW])
    found = writer().measure(said, references, decoding())
    assert found.values[0] == 1


class Writer(nn.Module):
    """Writes the ids that it reads, and one pad before that, which is its start."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[dict[str, Any]] = []

    @property
    def pretrained(self) -> nn.Module:
        return self

    def generate(self, **asked: Any) -> Tensor:
        self.asked.append(asked)
        return nn.functional.pad(asked["input_ids"], (1, 0))


def test_a_network_writes_without_seeing_the_target_and_short_texts_are_filled_up() -> None:
    task, reader, model = writer(6, num_beams=2), decoding(), Writer()
    copies = make_texts({"text": ["red", "blue green old"]}, target=["red", "blue green old"])
    task.evaluation_batch = 1  # type: ignore[misc]
    said = score(model, task.batches(copies, {"model": reader}), view="model", ask=task.ask)
    assert [set(asked) - {"do_sample"} for asked in model.asked] == [
        {"input_ids", "attention_mask", "max_new_tokens", "num_beams"}
    ] * 2
    assert {(asked["max_new_tokens"], asked["num_beams"]) for asked in model.asked} == {(6, 2)}
    assert said.logits.tolist() == [
        [START + 1, RED + 1, END + 1, 0, 0],
        [START + 1, BLUE + 1, GREEN + 1, OLD + 1, END + 1],
    ]
    assert task.measure(said, copies, reader).values.tolist() == [1, 1]


def test_a_tiny_network_of_transformers_writes_and_is_measured() -> None:
    pytest.importorskip("transformers")
    task = writer(5)
    made = network(task, WRITTEN, "t5")
    said = score(made.model, task.batches(WRITTEN, {"model": made.view}), view="model", ask=task.ask)
    assert said.logits.shape[0] == 3
    assert said.logits.shape[1] <= 5
    found = task.measure(said, WRITTEN, made.view)
    assert found.values.shape == (3,)
    assert bool(((found.values >= 0) & (found.values <= 1)).all())
