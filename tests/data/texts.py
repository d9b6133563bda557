"""Small made-up texts for tests: a tokenizer whose every token is known, and examples."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch

from distil.data.example import TextExamples
from distil.data.text_view import TextView

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
WORDS = ("red", "blue", "green", "old", "new", "small", "large", "is", "what", "now", "##er", "．", ".", "?")
VOCABULARY = {token: number for number, token in enumerate((*SPECIAL, *WORDS))}
PAD, UNKNOWN, START, END, MASK, RED, BLUE, GREEN, OLD, NEW, SMALL, LARGE, IS, WHAT, NOW, PIECE = range(16)


def word_tokenizer(*, mask: bool = True) -> Any:
    """[CLS] words [SEP], and of pairs [CLS] words [SEP] words [SEP]; smaller and larger are of two pieces."""
    library = pytest.importorskip("tokenizers")
    vocabulary = {token: number for token, number in VOCABULARY.items() if mask or token != "[MASK]"}
    tokenizer = library.Tokenizer(library.models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = library.pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens([token for token in SPECIAL if token in vocabulary])
    tokenizer.post_processor = library.processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", START), ("[SEP]", END)],
    )
    tokenizer.enable_padding(pad_id=PAD, pad_token="[PAD]")
    return tokenizer


def view(*columns: str, max_length: int = 8, **changes: Any) -> TextView:
    return TextView(word_tokenizer(), columns or ("text",), max_length, **changes)


def make_texts(
    columns: Mapping[str, Sequence[Any]],
    *,
    labels: Sequence[int] | None = None,
    class_names: Sequence[str] = (),
    first_id: int = 0,
    groups: Sequence[str] | None = None,
    **wanted: Sequence[Any],
) -> TextExamples:
    """Examples of these texts; without labels they have no classes."""
    size = len(next(iter(columns.values())))
    return TextExamples(
        ids=torch.arange(first_id, first_id + size),
        labels=torch.zeros(size, dtype=torch.int64) if labels is None else torch.tensor(labels),
        class_names=tuple(class_names),
        columns={name: tuple(values) for name, values in columns.items()},
        wanted={name: tuple(values) for name, values in wanted.items()},
        groups=None if groups is None else tuple(groups),
    )
