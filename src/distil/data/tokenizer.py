"""Tokenizers: small vocabularies made from the training texts, those of published models, and what they do to texts.

Every tokenizer here is a ``tokenizers.Tokenizer``. Equal texts give equal vocabularies, in any process and with any
number of threads. It carries its padding token as its padding setting; no length is set in it.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64

from distil.core.errors import DataError, IntegrityError, MissingExtraError, ModelError, RecipeError

PAD, UNKNOWN, FIRST, SEPARATOR, MASK = SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
PADDING_NAMES = (PAD, "<pad>", "<|pad|>")
CONTINUES = "##"  # before a piece that is not the first of its word
LEAST_COUNT = 2  # pairs that occur less often are not merged: they would learn single words by heart
HUB_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")

Texts = Sequence[str] | Sequence[tuple[str, str]]


def character_tokenizer(texts: Iterable[str], *, size: int, nfkc: bool = True, lowercase: bool = True) -> Any:
    """A tokenizer that takes every character for a token, spaces and line ends included.

    Args:
        texts: the training texts.
        size: entries of the vocabulary at most, the five special tokens counted; the rest are the most frequent
            characters, of equally frequent ones the first by code point. Others are unknown.
        nfkc: forms of one character become one (Unicode NFKC): full width, ligatures, circled digits.
        lowercase: after that, upper case becomes lower case.

    Raises:
        RecipeError: ``size`` leaves no room for a character.
        DataError: the texts have no character.
    """
    lib = _tokenizers("a character tokenizer")
    _check_size(size, least=len(SPECIAL_TOKENS) + 1, why="the special tokens and one character")
    steps = ([lib.normalizers.NFKC()] if nfkc else []) + ([lib.normalizers.Lowercase()] if lowercase else [])
    normalizer = lib.normalizers.Sequence(steps)
    counts = Counter(character for text in texts for character in normalizer.normalize_str(text))
    _check_found(counts)
    kept = _by_frequency(counts)[: size - len(SPECIAL_TOKENS)]
    vocabulary = {token: number for number, token in enumerate((*SPECIAL_TOKENS, *kept))}
    tokenizer = lib.Tokenizer(lib.models.WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = lib.pre_tokenizers.Split(lib.Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = lib.decoders.Fuse()
    return _finished(tokenizer, lib)


def wordpiece_tokenizer(texts: Iterable[str], *, size: int, lowercase: bool = True) -> Any:
    """A tokenizer with words and pieces of words as BERT has them; Chinese characters stand alone.

    Words end at whitespace and around punctuation. Accents stay, unlike in BERT's lower-cased models: in many
    languages they tell words apart.

    Args:
        texts: the training texts.
        size: entries of the vocabulary at most, the five special tokens counted. Characters come first, the most
            frequent ones where there is no room for all; then pieces, from pairs that occur at least twice.
        lowercase: upper case becomes lower case.

    Raises:
        RecipeError: ``size`` leaves no room for a character.
        DataError: the texts have no word.

    Source: Schuster, Nakajima 2012, and Devlin et al. 2019, arXiv:1810.04805, for how words are read. The pieces are
    chosen by the frequency of pairs (Sennrich et al. 2016, arXiv:1508.07909), as in the `tokenizers` library.
    """
    lib = _tokenizers("a word-piece tokenizer")
    _check_size(size, least=len(SPECIAL_TOKENS) + 2, why="the special tokens and a character at both places of a word")
    normalizer = lib.normalizers.BertNormalizer(lowercase=lowercase, strip_accents=False)
    pre_tokenizer = lib.pre_tokenizers.BertPreTokenizer()
    texts = list(texts)
    words = Counter(
        word for text in texts for word, _ in pre_tokenizer.pre_tokenize_str(normalizer.normalize_str(text))
    )
    characters, continuing = _alphabet(words, room=size - len(SPECIAL_TOKENS))
    learner = lib.Tokenizer(lib.models.BPE(continuing_subword_prefix=CONTINUES))
    learner.normalizer, learner.pre_tokenizer = normalizer, pre_tokenizer
    # The library numbers continuing characters in the order of a hash table, which differs from process to process, and
    # breaks ties between pairs by these numbers. Told beforehand, as if they were special, they have fixed numbers; and
    # an alphabet as large as its limit is not cut by it, which would break ties by that order too.
    trainer = lib.trainers.BpeTrainer(
        vocab_size=size,
        min_frequency=LEAST_COUNT,
        special_tokens=[*SPECIAL_TOKENS, *continuing],
        initial_alphabet=characters,
        limit_alphabet=len(characters),
        continuing_subword_prefix=CONTINUES,
        show_progress=False,
    )
    learner.train_from_iterator(texts, trainer)
    tokenizer = lib.Tokenizer(lib.models.WordPiece(learner.get_vocab(), unk_token=UNKNOWN))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, pre_tokenizer
    tokenizer.decoder = lib.decoders.WordPiece(prefix=CONTINUES)
    return _finished(tokenizer, lib)


def bpe_tokenizer(texts: Iterable[str], *, size: int, lowercase: bool = False) -> Any:
    """A tokenizer of merged bytes: nothing is unknown to it, and its text comes back as it was.

    Args:
        texts: the training texts.
        size: entries of the vocabulary at most, the five special tokens and the 256 bytes counted; then pieces, from
            pairs that occur at least twice.
        lowercase: upper case becomes lower case; then the case does not come back.

    Raises:
        RecipeError: ``size`` leaves no room for the bytes.
        DataError: the texts are empty.

    Source: Radford et al. 2019, "Language Models are Unsupervised Multitask Learners", section 2.2.
    """
    lib = _tokenizers("a byte-level tokenizer")
    alphabet = sorted(lib.pre_tokenizers.ByteLevel.alphabet())
    _check_size(size, least=len(SPECIAL_TOKENS) + len(alphabet), why="the special tokens and every byte")
    texts = list(texts)
    _check_found(any(texts))
    tokenizer = lib.Tokenizer(lib.models.BPE())
    if lowercase:
        tokenizer.normalizer = lib.normalizers.Lowercase()
    tokenizer.pre_tokenizer = lib.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = lib.decoders.ByteLevel()
    trainer = lib.trainers.BpeTrainer(
        vocab_size=size,
        min_frequency=LEAST_COUNT,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=alphabet,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return _finished(tokenizer, lib, before=[lib.processors.ByteLevel(trim_offsets=True)])


def load_tokenizer(source: str | Path, *, revision: str | None = None, gguf_file: str | None = None) -> Any:
    """The tokenizer of a published model; its own lengths are taken off, and its padding is on the right.

    A local ``tokenizer.json`` is read as it is. Everything else goes through transformers, which never runs code that
    comes with a model.

    Args:
        source: a folder, a ``tokenizer.json``, or an id on the hub.
        revision: branch, tag or commit on the hub.
        gguf_file: a GGUF file there that holds the tokenizer.

    Raises:
        ModelError: there is no such tokenizer, or none of the `tokenizers` library.
        IntegrityError: the file is not a tokenizer.
        RecipeError: ``revision`` for something local, or ``gguf_file`` beside a file instead of a folder.
        MissingExtraError: a package is not installed.
    """
    place = Path(source).expanduser()
    if revision is not None and place.exists():
        raise RecipeError(f"tokenizer {source}: revision {revision!r} is for the hub, and this is local; leave it out")
    if place.is_file():
        if gguf_file is not None:
            raise RecipeError(f"tokenizer {source}: gguf_file {gguf_file!r} needs the folder that it is in")
        return _from_json(place)
    if place.is_dir():
        if gguf_file is None and (place / "tokenizer.json").is_file():
            return _from_json(place / "tokenizer.json")
        if gguf_file is not None and not (place / gguf_file).is_file():
            raise ModelError(f"tokenizer {source}: no file {gguf_file}; {_contents(place)}")
    elif HUB_ID.fullmatch(str(source)) is None:
        raise ModelError(f"tokenizer {source}: no such folder; {_contents(_nearest(place))}")
    return _from_transformers(source, revision=revision, gguf_file=gguf_file)


def encode(
    tokenizer: Any, texts: Texts, *, max_length: int, pad_to: int | None = None
) -> dict[str, Int64[np.ndarray, "texts tokens"]]:
    """Token ids of texts or pairs, with the mask that is 1 on tokens and 0 on padding, and the text each token is of.

    Padding stands on the right, whatever side the tokenizer prefers. Its settings are as before afterwards.

    Args:
        tokenizer: of the `tokenizers` library.
        texts: at least one; texts, or pairs of texts.
        max_length: tokens, special ones counted. Longer texts lose their end, and of a pair the longer text loses more.
        pad_to: tokens of every row, at least ``max_length``; None: those of the longest text.

    Raises:
        RecipeError: ``max_length`` leaves no room beside the special tokens, or ``pad_to`` is shorter.

    Returns:
        ``input_ids``, ``attention_mask`` and ``token_type_ids``.
    """
    special = tokenizer.num_special_tokens_to_add(not isinstance(texts[0], str))
    if max_length <= special:  # the library would cut all of a text, or nothing of a pair
        raise RecipeError(f"max_length is {max_length}, and the tokenizer adds {special} special tokens; give it more")
    if pad_to is not None and pad_to < max_length:
        raise RecipeError(f"pad_to is {pad_to}, less than max_length, {max_length}; longer texts would not fit")
    with _cut_to(tokenizer, max_length):
        encodings = tokenizer.encode_batch(texts)
    width = pad_to or max(len(encoding.ids) for encoding in encodings)
    return {
        "input_ids": _filled([encoding.ids for encoding in encodings], width, pad_id(tokenizer)),
        "attention_mask": _filled([encoding.attention_mask for encoding in encodings], width, 0),
        "token_type_ids": _filled([encoding.type_ids for encoding in encodings], width, 0),
    }


def pad_id(tokenizer: Any) -> int:
    """The number that stands where there is no token.

    That of the padding setting, else of a token named as padding. A tokenizer may have neither; then it is 0, which the
    attention mask hides.
    """
    if tokenizer.padding is not None:
        return tokenizer.padding["pad_id"]
    return next((number for name in PADDING_NAMES if (number := tokenizer.token_to_id(name)) is not None), 0)


def share_truncated(tokenizer: Any, texts: Texts, *, max_length: int) -> float:
    """Which share of texts or pairs, 0..1, has more tokens than ``max_length``, special ones counted."""
    with _cut_to(tokenizer, None):
        encodings = tokenizer.encode_batch(texts)
    return float(np.mean([len(encoding.ids) > max_length for encoding in encodings]))


def share_unknown(tokenizer: Any, texts: Texts) -> float:
    """Which share of the tokens, 0..1, is unknown; of whole texts, special tokens that were added left out.

    Raises:
        DataError: the texts have no token.
    """
    with _cut_to(tokenizer, None):
        encodings = tokenizer.encode_batch(texts)
    numbers = np.concatenate([np.asarray(encoding.ids, dtype=np.int64) for encoding in encodings])
    added = np.concatenate([np.asarray(encoding.special_tokens_mask, dtype=bool) for encoding in encodings])
    if added.all():
        raise DataError(f"none of {len(encodings)} texts has a token; there is no share of unknown ones")
    unknown = _unknown_id(tokenizer)
    return 0.0 if unknown is None else float((numbers[~added] == unknown).mean())


def tokenizer_digest(tokenizer: Any) -> str:
    """sha256 of what decides which tokens a text has: all of the tokenizer but its padding and truncation."""
    content = json.loads(tokenizer.to_str()) | {"padding": None, "truncation": None}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _tokenizers(purpose: str) -> Any:
    try:
        import tokenizers
    except ImportError as error:
        raise MissingExtraError("tokenizers", extra="text", purpose=purpose) from error
    return tokenizers


def _check_size(size: int, *, least: int, why: str) -> None:
    if size < least:
        raise RecipeError(f"tokenizer: a vocabulary of size {size} has no room for {why}; give it at least {least}")


def _check_found(found: object) -> None:
    if not found:
        raise DataError("tokenizer: the training texts are empty, and a vocabulary is made from them")


def _by_frequency(counts: Counter[str]) -> list[str]:
    return sorted(counts, key=lambda character: (-counts[character], character))


def _alphabet(words: Counter[str], *, room: int) -> tuple[list[str], list[str]]:
    """The most frequent characters, and their forms inside of words, as far as both find room."""
    _check_found(words)
    counts: Counter[str] = Counter()
    inside: set[str] = set()
    for word, count in words.items():
        inside.update(word[1:])
        for character in word:
            counts[character] += count
    kept: list[str] = []
    for character in _by_frequency(counts):
        room -= 2 if character in inside else 1
        if room < 0:
            break
        kept.append(character)
    return sorted(kept), [CONTINUES + character for character in sorted(kept) if character in inside]


def _finished(tokenizer: Any, lib: Any, *, before: Sequence[Any] = ()) -> Any:
    """With special tokens, which text itself can contain too, around one text or between two."""
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    template = lib.processors.TemplateProcessing(
        single=f"{FIRST} $A {SEPARATOR}",
        pair=f"{FIRST} $A {SEPARATOR} $B:1 {SEPARATOR}:1",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in (FIRST, SEPARATOR)],
    )
    tokenizer.post_processor = lib.processors.Sequence([*before, template])
    tokenizer.enable_padding(pad_id=tokenizer.token_to_id(PAD), pad_token=PAD)
    return tokenizer


def _from_json(file: Path) -> Any:
    lib = _tokenizers(f"the tokenizer {file}")
    try:
        tokenizer = lib.Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises nothing narrower
        raise IntegrityError(f"{file}: not a readable tokenizer: {error}") from error
    own = tokenizer.padding
    return _without_lengths(tokenizer, own["pad_token"] if own else _named_padding(file.parent))


def _named_padding(folder: Path) -> str | None:
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        if (folder / name).is_file():
            token = json.loads((folder / name).read_text(encoding="utf-8")).get("pad_token")
            if token is not None:
                return token["content"] if isinstance(token, dict) else token
    return None


def _from_transformers(source: str | Path, *, revision: str | None, gguf_file: str | None) -> Any:
    try:
        from transformers import AutoTokenizer
    except ImportError as error:
        raise MissingExtraError("transformers", extra="text", purpose=f"the tokenizer {source}") from error
    settings = {"revision": revision, "gguf_file": gguf_file}
    given = {name: value for name, value in settings.items() if value is not None}
    try:
        loaded = AutoTokenizer.from_pretrained(str(source), use_fast=True, trust_remote_code=False, **given)
    except (ImportError, OSError, ValueError, KeyError, AttributeError) as error:
        if isinstance(error, ImportError) and gguf_file is not None:
            raise MissingExtraError("gguf", extra="text", purpose=f"the tokenizer in {gguf_file}") from error
        place = Path(source).expanduser()
        there = _contents(place) if place.is_dir() else "there is no such folder here, and the hub did not give it"
        raise ModelError(f"tokenizer {source}: it cannot be loaded; {there}. It says: {error}") from error
    if not loaded.is_fast:
        raise ModelError(
            f"tokenizer {source}: {type(loaded).__name__} is not of the tokenizers library, and no tokenizer.json can "
            "be made from it; choose a model with a fast tokenizer"
        )
    return _without_lengths(loaded.backend_tokenizer, loaded.pad_token)


def _without_lengths(tokenizer: Any, pad_token: str | None) -> Any:
    tokenizer.no_truncation()
    tokenizer.no_padding()
    number = tokenizer.token_to_id(pad_token) if pad_token is not None else None
    if number is not None:
        tokenizer.enable_padding(pad_id=number, pad_token=pad_token)
    return tokenizer


def _contents(folder: Path) -> str:
    names = sorted(path.name + "/" * path.is_dir() for path in folder.iterdir())
    shown = ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
    return f"{folder} holds {shown or 'nothing'}"


def _nearest(place: Path) -> Path:
    return next(parent for parent in place.absolute().parents if parent.is_dir())


@contextmanager
def _cut_to(tokenizer: Any, max_length: int | None) -> Iterator[None]:
    """Inside, texts are cut to this length and not padded; outside, the tokenizer's settings are as before."""
    truncation, padding = tokenizer.truncation, tokenizer.padding
    tokenizer.no_padding()
    tokenizer.no_truncation()
    if max_length is not None:
        tokenizer.enable_truncation(max_length, strategy="longest_first", direction="right")
    try:
        yield
    finally:
        tokenizer.no_truncation()
        if truncation is not None:
            tokenizer.enable_truncation(**truncation)
        if padding is not None:
            tokenizer.enable_padding(**padding)


def _filled(rows: list[list[int]], width: int, filling: int) -> np.ndarray:
    filled = np.full((len(rows), width), filling, dtype=np.int64)
    for row, values in zip(filled, rows, strict=True):
        row[: len(values)] = values
    return filled


def _unknown_id(tokenizer: Any) -> int | None:
    model = json.loads(tokenizer.to_str())["model"]
    if "unk_id" in model:  # a unigram model has a number, the others a name
        return model["unk_id"]
    return None if model["unk_token"] is None else tokenizer.token_to_id(model["unk_token"])
