"""Fewer tokens: a tokenizer and its model, cut together to the tokens that real texts use."""

import copy
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice, pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from distil.core.errors import CompatibilityError, DataError, MissingExtraError, ModelError
from distil.models.shrink_architecture import architecture_of, sizes_of
from distil.models.shrink_width import Kept, rebuild

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedModel
else:  # optional, so the checks at run time take any tokenizer and any network
    Tokenizer, PreTrainedModel = Any, nn.Module

TEXTS_AT_ONCE = 1000
_LISTS_OF_TOKENS = (  # settings of generation that hold token numbers in shapes of their own
    "bad_words_ids",
    "begin_suppress_tokens",
    "force_words_ids",
    "forced_decoder_ids",
    "sequence_bias",
    "suppress_tokens",
)


def count_tokens(tokenizer: Tokenizer, texts: Iterable[str]) -> Counter[int]:
    """How often each token is in the texts, by its number; without truncation, padding and added special tokens."""
    plain = _from_json(tokenizer.to_str())
    plain.no_truncation()
    plain.no_padding()
    counts: Counter[int] = Counter()
    remaining = iter(texts)
    while some := list(islice(remaining, TEXTS_AT_ONCE)):
        for encoding in plain.encode_batch(some, add_special_tokens=False):
            counts.update(encoding.ids)
    return counts


def shrink_vocabulary(
    model: PreTrainedModel, tokenizer: Tokenizer, *, counts: Mapping[int, int], size: int | None = None
) -> tuple[PreTrainedModel, Tokenizer]:
    """A model and its tokenizer with the most frequent tokens, numbered anew in the same order.

    What stays besides: every special and added token, those that the configuration names, every single character (of a
    tokenizer that falls back to bytes, every byte), and all that a kept token is merged from. So a text whose tokens
    all stay is cut as before, and others are cut into smaller pieces. None becomes unknown, if the vocabulary has each
    of its characters alone, at the start of a word and inside of one; a token with a character that it has not, stays.

    Args:
        model: of transformers. It is not changed.
        tokenizer: the model's own, of the kind WordPiece or BPE. It is not changed.
        counts: how often each token occurs, by its number; from ``count_tokens`` on texts like those to come.
        size: number of tokens that stay; among equally frequent ones the lower number goes first. None: those that
            occur, and what stays besides.

    Returns:
        The model and the tokenizer. Truncation and padding of the tokenizer are as before.

    Raises:
        ModelError: the model or the tokenizer is of a kind that cannot be cut, or the size does not fit.
        CompatibilityError: tokenizer and model do not belong together.
        DataError: a count is of a token that does not exist, or nothing was counted.
    """
    content = json.loads(tokenizer.to_str())
    tokens = {number: token for token, number in tokenizer.get_vocab(with_added_tokens=True).items()}
    _require_fitting(model, tokens, counts)
    parts = _Parts(content["model"])
    required = _required(model, content, tokens, parts)
    kept = _choose(tokens, counts, size, required=required, parts=parts)
    numbers = {old: new for new, old in enumerate(sorted(kept))}
    smaller = _from_json(json.dumps(_renumbered(content, numbers)))
    if smaller.get_vocab(with_added_tokens=True) != {tokens[old]: new for old, new in numbers.items()}:
        raise ModelError("the tokenizer numbers its added tokens by a rule of its own, so it cannot be cut")
    config = _with_numbers(model.config, numbers)
    config.vocab_size = len(numbers)
    student = rebuild(
        model, config, Kept(tuple(range(sizes_of(model).layers)), {"vocabulary": torch.tensor(list(numbers))})
    )
    if getattr(student, "generation_config", None) is not None:
        student.generation_config = _with_numbers(student.generation_config, numbers)
    return student, smaller


class _Parts:
    """What a tokenizer's model needs to build a token, by the tokenizer's kind."""

    def __init__(self, content: Mapping[str, Any]) -> None:
        kind, self.prefix = content["type"], content.get("continuing_subword_prefix") or ""
        marked = kind == "BPE" and bool(self.prefix or content.get("end_of_word_suffix"))
        if kind not in ("WordPiece", "BPE") or marked:
            raise ModelError(
                f"the tokenizer is of the kind {kind}{' with marks on its pieces' if marked else ''}; vocabularies are "
                "cut of WordPiece, and of BPE without continuing_subword_prefix and end_of_word_suffix"
            )
        self.vocabulary: Mapping[str, int] = content["vocab"]
        self.falls_back_to_bytes = bool(content.get("byte_fallback"))
        self.ranks = {pair: rank for rank, pair in enumerate(_pairs(content))}

    def smallest(self) -> Iterator[str]:
        """The tokens without which some text could no longer be cut."""
        if self.falls_back_to_bytes:
            yield from (token for token in self.vocabulary if re.fullmatch("<0x[0-9A-F]{2}>", token))
        else:
            yield from (token for token in self.vocabulary if not self.is_spelled_by_others(token))

    def is_spelled_by_others(self, token: str) -> bool:
        """Whether there are shorter tokens for all its characters, where they stand."""
        starts = not self.prefix or token == self.prefix or not token.startswith(self.prefix)
        characters = token if starts else token.removeprefix(self.prefix)
        spelling = {c if starts and place == 0 else self.prefix + c for place, c in enumerate(characters)}
        return token not in spelling and spelling <= self.vocabulary.keys()

    def of(self, token: str) -> set[str]:
        """The token with all that it is merged from, as the tokenizer merges it; itself alone where it never does."""
        pieces, used = list(token), {*token, token}
        while len(pieces) > 1:
            rank, place = min((self.ranks.get(pair, len(self.ranks)), i) for i, pair in enumerate(pairwise(pieces)))
            if rank == len(self.ranks):
                return {token}
            pieces[place : place + 2] = [pieces[place] + pieces[place + 1]]
            used.add(pieces[place])
        return used


def _choose(
    tokens: Mapping[int, str], counts: Mapping[int, int], size: int | None, *, required: set[int], parts: _Parts
) -> set[int]:
    """The numbers of the tokens that stay: what is required, then by frequency, each with its parts."""
    of = {token: number for number, token in tokens.items()}

    def closed(number: int) -> set[int]:
        return {of[part] for part in parts.of(tokens[number]) if part in of}

    kept = set().union(*(closed(number) for number in required))
    if size is None:
        return kept.union(*(closed(number) for number, count in counts.items() if count > 0))
    if not len(kept) <= size <= len(tokens):
        raise ModelError(
            f"the vocabulary is to have {size} tokens; this tokenizer has {len(tokens)}, of which {len(kept)} must "
            "stay (special tokens, single characters and what they need). Give a size between the two"
        )
    for number in sorted(tokens, key=lambda number: (-counts.get(number, 0), number)):
        if len(kept) == size:
            break
        added = closed(number) - kept
        if len(kept) + len(added) <= size:
            kept |= added
    return kept


def _required(model: PreTrainedModel, content: Mapping[str, Any], tokens: Mapping[int, str], parts: _Parts) -> set[int]:
    """The numbers of the tokens that stay whatever the texts are."""
    of = {token: number for number, token in tokens.items()}
    required = {of[token] for token in [*parts.smallest(), content["model"].get("unk_token")] if token in of}

    def note(number: int) -> int:
        required.add(number)
        return number

    _change_numbers(content, note)
    for config in (model.config, getattr(model, "generation_config", None)):
        named = {} if config is None else _named_tokens(config)
        for key, numbers in named.items():
            homeless = [number for number in numbers if number not in tokens]
            if homeless:
                raise CompatibilityError(
                    f"{key} of the model's configuration is {homeless[0]} and the tokenizer has no such token; set it "
                    "to a token of the tokenizer, or to None, before cutting"
                )
            required |= set(numbers)
    if architecture_of(model).positions_from_padding:  # so that the padding token keeps its number
        required |= {number for number in tokens if number < model.config.pad_token_id}
    return required


def _renumbered(content: Mapping[str, Any], numbers: Mapping[int, int]) -> dict[str, Any]:
    """The tokenizer's JSON with the kept tokens only, under their new numbers."""
    content = copy.deepcopy(dict(content))
    part = content["model"]
    part["vocab"] = {token: numbers[old] for token, old in part["vocab"].items() if old in numbers}
    if "merges" in part:
        part["merges"] = [[a, b] for a, b in _pairs(part) if {a, b, a + b} <= part["vocab"].keys()]
    _change_numbers(content, numbers.__getitem__)
    return content


def _change_numbers(content: Mapping[str, Any], change: Callable[[int], int]) -> None:
    """Puts ``change`` of it in place of every token number outside the vocabulary."""
    for added in content["added_tokens"]:
        added["id"] = change(added["id"])
    if content.get("padding"):
        content["padding"]["pad_id"] = change(content["padding"]["pad_id"])
    processors = [content["post_processor"]] if content.get("post_processor") else []
    for processor in processors:
        match processor["type"]:
            case "Sequence":
                processors.extend(processor["processors"])
            case "TemplateProcessing":
                for special in processor["special_tokens"].values():
                    special["ids"] = [change(number) for number in special["ids"]]
            case "BertProcessing" | "RobertaProcessing":
                for end in (processor["sep"], processor["cls"]):
                    end[1] = change(end[1])
            case "ByteLevel":
                pass
            case other:
                raise ModelError(f"the tokenizer has the post-processor {other}, whose tokens are not renumbered")


def _pairs(content: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The merges of BPE; in older files a merge is one string."""
    merges = (each.split(" ") if isinstance(each, str) else each for each in content.get("merges", ()))
    return [(left, right) for left, right in merges]


def _named_tokens(config: Any) -> dict[str, list[int]]:
    """The token numbers that a configuration names, by their keys."""
    held = [key for key in _LISTS_OF_TOKENS if getattr(config, key, None)]
    if held:
        raise ModelError(
            f"the generation configuration has {', '.join(held)}, whose tokens are not renumbered; unset it"
        )
    values = {key: value for key, value in vars(config).items() if key.endswith("_token_id") and value is not None}
    return {key: value if isinstance(value, list) else [value] for key, value in values.items()}


def _with_numbers(config: Any, numbers: Mapping[int, int]) -> Any:
    config = copy.deepcopy(config)
    for key, old in _named_tokens(config).items():
        new = [numbers[number] for number in old]
        setattr(config, key, new if isinstance(getattr(config, key), list) else new[0])
    return config


def _require_fitting(model: PreTrainedModel, tokens: Mapping[int, str], counts: Mapping[int, int]) -> None:
    architecture_of(model)
    homeless = [number for number in tokens if number >= model.config.vocab_size]
    if homeless:
        raise CompatibilityError(
            f"the model has {model.config.vocab_size} tokens and the tokenizer gives {tokens[homeless[0]]!r} the "
            f"number {homeless[0]}; take the model's own tokenizer, or resize the model's embeddings"
        )
    strange = [number for number in counts if number not in tokens]
    if strange:
        raise DataError(
            f"token {strange[0]} was counted and the tokenizer has no such token; count with this tokenizer"
        )
    if not any(counts.values()):
        raise DataError("no token was counted; count_tokens needs texts like those that the student will see")


def _from_json(text: str) -> Tokenizer:
    try:
        from tokenizers import Tokenizer as AnyTokenizer
    except ImportError:
        raise MissingExtraError("tokenizers", extra="text", purpose="cutting a vocabulary") from None
    return AnyTokenizer.from_str(text)
