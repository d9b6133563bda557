import doctest
import sys
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models
from torch import Tensor, nn

from distil.core.errors import CompatibilityError, DataError, MissingExtraError, ModelError
from distil.tasks import sequence_to_sequence
from distil.tasks.sequence_to_sequence import (
    METRIC,
    decoder_targets,
    generate,
    writing_quality,
    written_texts,
)


def test_12_a_terminating_end_is_supervised_where_padding_has_the_same_id() -> None:
    ids, mask = torch.tensor([[7, 8, 9, 2], [7, 2, 2, 2]]), torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    targets = decoder_targets(ids, mask, start_id=0, pad_id=2)
    assert targets.input_ids.tolist() == [[0, 7, 8, 9], [0, 7, 2, 2]]
    assert targets.labels.tolist() == [[7, 8, 9, 2], [7, 2, 0, 0]]
    assert targets.mask.int().tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]


def test_11_longer_padding_adds_no_target() -> None:
    ids, mask = torch.tensor([[7, 8, 2]]), torch.tensor([[1, 1, 1]])
    short = decoder_targets(ids, mask, start_id=0, pad_id=1)
    long = decoder_targets(
        nn.functional.pad(ids, (0, 3), value=1), nn.functional.pad(mask, (0, 3)), start_id=0, pad_id=1
    )
    for one, other in zip(short, long, strict=True):
        assert torch.equal(one, other[:, :3])
    assert not long.mask[:, 3:].any()
    assert long.input_ids[0, 3:].tolist() == [1, 1, 1]


def test_10_what_is_read_at_a_place_is_what_was_to_be_said_before_it() -> None:
    ids = torch.randint(3, 50, (4, 9), generator=torch.Generator().manual_seed(0))
    targets = decoder_targets(ids, torch.ones_like(ids), start_id=0, pad_id=1)
    assert torch.equal(targets.input_ids[:, 1:], targets.labels[:, :-1])
    assert (targets.input_ids[:, 0] == 0).all()


def test_targets_that_are_padded_on_the_left_are_refused() -> None:
    with pytest.raises(ValueError, match="padded on the right"):
        decoder_targets(torch.tensor([[1, 7, 2]]), torch.tensor([[0, 1, 1]]), start_id=0, pad_id=1)


def test_36_the_metrics_by_hand() -> None:
    # n-grams right: 5 of 6, 3 of 5, 2 of 4, 1 of 3; equal lengths
    found = writing_quality(["the cat sat on the mat"], ["the cat sat on a mat"])
    assert found.metrics["bleu"] == pytest.approx((5 / 6 * 3 / 5 * 2 / 4 * 1 / 3) ** 0.25)
    # characters: precision 1 and 1, recall 2/3 and 1/2, no longer n-grams; F with recall twice as important
    precision, recall = 1.0, (2 / 3 + 1 / 2) / 2
    expected = 5 * precision * recall / (4 * precision + recall)
    found = writing_quality(["ab"], ["abc"])
    assert found.values.tolist() == pytest.approx([expected])
    assert found.metrics["chrf"] == found.metrics[METRIC] == pytest.approx(expected)


def test_the_headline_is_the_mean_over_sentences_and_the_corpus_s_is_not() -> None:
    found = writing_quality(["ab", "ein langer Satz, ganz richtig"], ["xy", "ein langer Satz, ganz richtig"])
    assert found.values.tolist() == pytest.approx([0.0, 1.0])
    assert next(iter(found.metrics)) == METRIC
    assert found.metrics[METRIC] == pytest.approx(0.5)
    assert found.metrics["chrf"] > 0.9


def test_the_signatures_say_how_it_was_computed() -> None:
    from sacrebleu import __version__

    found = writing_quality(["我 喜欢 你"], ["我喜欢你。"], tokenisation="zh")
    assert set(found.signatures) == set(found.metrics)
    assert f"tok:zh|smooth:exp|version:{__version__}" in found.signatures["bleu"]
    assert "nc:6|nw:0" in found.signatures[METRIC]


def test_36_chinese_is_compared_by_characters_where_it_is_said_so() -> None:
    written, known = ["今天天气很好"], ["今天天气真好"]
    assert writing_quality(written, known).metrics["bleu"] == 0.0  # one word, and a wrong one
    # 5 of 6, 3 of 5, 2 of 4, 1 of 3
    expected = (5 / 6 * 3 / 5 * 2 / 4 * 1 / 3) ** 0.25
    assert writing_quality(written, known, tokenisation="zh").metrics["bleu"] == pytest.approx(expected)


def test_texts_that_cannot_be_scored_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CompatibilityError, match="2 predictions and 1 references"):
        writing_quality(["a", "b"], ["a"])
    with pytest.raises(DataError, match="reference 1 is empty"):
        writing_quality(["a", "b"], ["a", " "])
    with pytest.raises(DataError, match="no references"):
        writing_quality([], [])
    monkeypatch.setitem(sys.modules, "sacrebleu.metrics", None)
    with pytest.raises(MissingExtraError, match=r"distil\[text\]"):
        writing_quality(["a"], ["a"])


@pytest.fixture(scope="module")
def writer() -> Any:
    from transformers import T5Config, T5ForConditionalGeneration

    torch.manual_seed(0)
    sizes = {"vocab_size": 40, "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2}
    tokens = {"decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": 1}
    return T5ForConditionalGeneration(T5Config(**sizes, **tokens)).eval()


def test_greedy_writing_takes_the_likeliest_token_at_each_step(writer: Any) -> None:
    inputs = {"input_ids": torch.tensor([[5, 6, 7, 1]]), "attention_mask": torch.ones(1, 4, dtype=torch.int64)}
    expected: list[int] = []
    with torch.no_grad():
        while len(expected) < 6 and (not expected or expected[-1] != 1):
            read = torch.tensor([[0, *expected]])
            expected.append(int(writer(**inputs, decoder_input_ids=read).logits[0, -1].argmax()))
    assert generate(writer, inputs, max_new_tokens=6).tolist() == [expected]


def test_more_beams_find_a_text_that_is_at_least_as_likely(writer: Any) -> None:
    inputs = {"input_ids": torch.tensor([[5, 6, 7, 1]]), "attention_mask": torch.ones(1, 4, dtype=torch.int64)}

    def log_likelihood(text: Tensor) -> float:
        read = nn.functional.pad(text[:, :-1], (1, 0), value=0)
        with torch.no_grad():
            logs = writer(**inputs, decoder_input_ids=read).logits.log_softmax(dim=-1)
        return logs.gather(-1, text[..., None]).sum().item()

    greedy, beams = (generate(writer, inputs, max_new_tokens=4, num_beams=number) for number in (1, 8))
    assert greedy.shape == beams.shape  # else the likelihoods cannot be compared
    assert log_likelihood(beams) >= log_likelihood(greedy) - 1e-6


def test_15_a_model_in_training_mode_and_one_that_cannot_write_are_refused(writer: Any) -> None:
    writer.encoder.train()
    try:
        with pytest.raises(ModelError, match="training mode"):
            generate(writer, {"input_ids": torch.tensor([[5, 1]])}, max_new_tokens=2)
    finally:
        writer.eval()
    with pytest.raises(ModelError, match="Linear has no generate"):
        generate(nn.Linear(1, 1), {}, max_new_tokens=2)


def test_12_what_is_written_ends_at_its_first_end_also_where_padding_has_the_same_id() -> None:
    vocabulary = {word: number for number, word in enumerate(["<s>", "</s>", "good", "morning", "evening"])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<s>"))
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens(["<s>", "</s>"])
    rows = torch.tensor([[2, 3, 1, 1], [2, 4, 1, 3], [2, 3, 2, 4]])
    assert written_texts(tokenizer, rows, end_id=1) == ["good morning", "good evening", "good morning good evening"]


def test_the_examples_in_the_docstrings_are_true() -> None:
    results = doctest.testmod(sequence_to_sequence)
    assert results.attempted >= 2
    assert results.failed == 0
