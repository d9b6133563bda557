import sys

import numpy as np
import pytest
import torch
from nervaluate import Evaluator
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from distil.core.errors import DataError, MissingExtraError
from distil.tasks.token_classification import (
    ENTITY_METRIC,
    TAG_METRIC,
    entity_counts,
    has_entities,
    tag_metrics,
    tag_names,
    tag_values,
    word_targets,
)

NAMES = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")


def word_pieces() -> Tokenizer:
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "ada", "love", "##lace", "was", "in", "lon", "##don", "北", "京"]
    tokenizer = Tokenizer(
        models.WordPiece({token: number for number, token in enumerate(vocabulary)}, unk_token="[UNK]")
    )
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return tokenizer


def test_11_only_the_first_piece_of_each_word_is_supervised() -> None:
    tokenizer = word_pieces()
    tokenizer.enable_padding(length=10)
    encoding = tokenizer.encode(["Ada", "Lovelace", "was", "in", "London"], is_pretokenized=True)
    assert encoding.tokens == ["[CLS]", "ada", "love", "##lace", "was", "in", "lon", "##don", "[SEP]", "[PAD]"]
    targets = word_targets(encoding, [1, 2, 0, 0, 3])
    assert targets.labels.tolist() == [0, 1, 2, 0, 0, 0, 3, 0, 0, 0]
    assert targets.mask.int().tolist() == [0, 1, 1, 0, 1, 1, 1, 0, 0, 0]
    assert targets.num_lost_words == 0
    assert tag_names(targets.labels, targets.mask, NAMES) == ["B-PER", "I-PER", "O", "O", "B-LOC"]


def test_11_padding_on_the_left_supervises_the_same_words() -> None:
    tokenizer = word_pieces()
    tokenizer.enable_padding(direction="left", length=10)
    targets = word_targets(tokenizer.encode(["Ada", "Lovelace"], is_pretokenized=True), [1, 2])
    assert tag_names(targets.labels, targets.mask, NAMES) == ["B-PER", "I-PER"]
    assert not targets.mask[:6].any()  # five of padding, and the start


def test_words_that_are_cut_off_are_counted_and_not_scored() -> None:
    tokenizer = word_pieces()
    tokenizer.enable_truncation(5)
    targets = word_targets(
        tokenizer.encode(["Ada", "Lovelace", "was", "in", "London"], is_pretokenized=True), [1, 2, 0, 0, 3]
    )
    assert tag_names(targets.labels, targets.mask, NAMES) == ["B-PER", "I-PER"]
    assert targets.num_lost_words == 3


def test_a_word_in_the_middle_that_no_token_stands_for_moves_no_tag() -> None:
    encoding = word_pieces().encode(["Ada", "\u200b", "London"], is_pretokenized=True)
    targets = word_targets(encoding, [1, 0, 3])
    assert tag_names(targets.labels, targets.mask, NAMES) == ["B-PER", "B-LOC"]
    assert targets.num_lost_words == 1


def test_a_chinese_word_of_several_characters_is_supervised_at_its_first() -> None:
    targets = word_targets(word_pieces().encode(["北京", "was"], is_pretokenized=True), [3, 0])
    assert targets.mask.int().tolist() == [0, 1, 0, 1, 0]
    assert targets.labels.tolist() == [0, 3, 0, 0, 0]


def test_a_text_that_is_not_split_as_its_tags_are_is_refused() -> None:
    with pytest.raises(DataError, match="has 2 tags, and the tokenizer saw at least 4 words"):
        word_targets(word_pieces().encode("Ada was in London"), [1, 0])


def test_11_labels_can_be_used_in_arithmetic_everywhere() -> None:
    """No -100: a label where nothing is supervised is a class like any other, and only the mask says so."""
    targets = word_targets(word_pieces().encode(["Lovelace"], is_pretokenized=True), [2])
    logits = torch.randn(len(targets.labels), 5, generator=torch.Generator().manual_seed(0), requires_grad=True)
    loss = torch.nn.functional.cross_entropy(logits, targets.labels, reduction="none")[targets.mask].sum()
    loss.backward()
    assert logits.grad is not None
    assert logits.grad.abs().sum(dim=1).ne(0).int().tolist() == [0, 1, 0, 0]


TRUE = [
    ["B-PER", "I-PER", "O", "B-LOC"],
    ["O", "O"],
    ["O", "O", "O"],
    ["B-LOC", "B-LOC", "O", "O"],
]
SAID = [
    ["B-PER", "I-PER", "O", "B-PER"],  # right, and right bounds with the wrong type
    ["O", "O"],
    ["O", "I-LOC", "O"],  # an entity too many, which an I- begins
    ["B-LOC", "I-LOC", "O", "B-LOC"],  # two made one, and one too many
]


def test_36_entities_by_hand() -> None:
    assert entity_counts(TRUE, SAID).tolist() == [[1, 2, 2], [0, 0, 0], [0, 1, 0], [0, 2, 2]]
    assert tag_values(TRUE, SAID, NAMES).tolist() == [0.5, 1.0, 0.0, 0.0]
    found = tag_metrics(TRUE, SAID, NAMES)
    assert next(iter(found)) == ENTITY_METRIC
    assert found == {
        "sentence_entity_f1": 0.375,
        "entity_f1": pytest.approx(2 / 9),
        "entity_precision": pytest.approx(1 / 5),
        "entity_recall": pytest.approx(1 / 4),
        "sentence_tag_accuracy": pytest.approx((3 / 4 + 1 + 2 / 3 + 2 / 4) / 4),
        "tag_accuracy": pytest.approx(9 / 13),
    }


def test_entity_f1_is_not_the_mean_over_sentences() -> None:
    found = tag_metrics(TRUE, SAID, NAMES)
    assert abs(found["entity_f1"] - found[ENTITY_METRIC]) > 0.1


def test_36_entity_metrics_are_nervaluate_s_strict_ones() -> None:
    random = np.random.default_rng(0)
    true = [random.choice(NAMES, size=random.integers(1, 12)).tolist() for _ in range(60)]
    said = [[tag if random.random() < 0.7 else str(random.choice(NAMES)) for tag in sentence] for sentence in true]
    found = tag_metrics(true, said, NAMES)
    expected = Evaluator(true, said, tags=["PER", "LOC"], loader="list").evaluate()["overall"]["strict"]
    assert found["entity_f1"] == pytest.approx(expected.f1)
    assert found["entity_precision"] == pytest.approx(expected.precision)
    assert found["entity_recall"] == pytest.approx(expected.recall)
    assert found[ENTITY_METRIC] == pytest.approx(tag_values(true, said, NAMES).mean())


def test_the_headline_is_the_mean_of_the_values_of_the_sentences() -> None:
    for names in (NAMES, ("NOUN", "VERB")):
        true, said = (TRUE, SAID) if names == NAMES else ([["NOUN", "VERB"], ["VERB"]], [["NOUN", "NOUN"], ["VERB"]])
        metrics = tag_metrics(true, said, names)
        assert metrics[next(iter(metrics))] == pytest.approx(tag_values(true, said, names).mean())


def test_plain_tags_have_no_entities() -> None:
    true, said = [["NOUN", "VERB", "NOUN", "VERB"], ["VERB"]], [["NOUN", "NOUN", "NOUN", "NOUN"], ["VERB"]]
    assert tag_metrics(true, said, ("NOUN", "VERB")) == {TAG_METRIC: 0.75, "tag_accuracy": pytest.approx(3 / 5)}
    assert tag_values(true, said, ("NOUN", "VERB")).tolist() == [0.5, 1.0]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (NAMES, True),
        (("B-A",), True),
        (("O",), False),
        (("NOUN", "VERB"), False),
        (("O", "B-A", "E-A"), False),  # BIOES is not read as BIO
        (("O", "B-"), False),
    ],
)
def test_entities_are_known_by_the_names_of_the_tags(names: tuple[str, ...], expected: bool) -> None:
    assert has_entities(names) is expected


def test_where_no_entity_is_right_the_metrics_are_0_and_not_an_error() -> None:
    found = tag_metrics([["O"]], [["O"]], NAMES)
    assert (found["entity_f1"], found["entity_precision"], found["entity_recall"]) == (0.0, 0.0, 0.0)
    assert found[ENTITY_METRIC] == 1.0


def test_sentences_that_cannot_be_scored_are_refused() -> None:
    with pytest.raises(DataError, match="sentence 1 has 0 words to score"):
        tag_metrics([["O"], []], [["O"], []], NAMES)
    with pytest.raises(DataError, match="sentence 0 has 2 words to score and 1 predicted"):
        tag_metrics([["O", "O"]], [["O"]], NAMES)
    with pytest.raises(DataError, match="no sentence"):
        tag_metrics([], [], NAMES)


def test_a_missing_library_names_the_pip_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nervaluate", None)
    with pytest.raises(MissingExtraError, match=r"distil\[text\]"):
        entity_counts(TRUE, SAID)
