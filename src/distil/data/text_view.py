"""A view of texts: one model's token ids made by its own tokenizer, cut to its length and padded to the batch's."""

import functools
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from distil.core.errors import CompatibilityError, DataError

MASKS = ("[MASK]", "<mask>")

Row = tuple[Any, ...]


@dataclass(frozen=True, eq=False)
class TextView:
    """How texts become token ids.

    Attributes:
        tokenizer: of the `tokenizers` library, with its special tokens in its post-processor.
        columns: the texts that are read: one, or two that are read as a pair.
        max_length: tokens; longer texts are cut at the end, of a pair the longer one.
        type_ids: whether the model is told which text of a pair a token is of.
        apart: the columns are read one by one and not as a pair, as [batch, columns, tokens].
        fixed: padded to ``max_length`` and not to the longest of the batch.
        overlap: context tokens that two windows of a long pair share, as [batch, windows, tokens]; None: it is cut.
        pad_id: stands where there is no token.
        start_id: from which a decoder starts.
        end_id: that ends what is written.
    """

    tokenizer: Any
    columns: tuple[str, ...]
    max_length: int
    type_ids: bool = False
    apart: bool = False
    fixed: bool = False
    overlap: int | None = None
    pad_id: int = 0
    start_id: int = 0
    end_id: int = 0
    _known: dict[Row, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        special = self.tokenizer.num_special_tokens_to_add(len(self.columns) == 2 and not self.apart)
        if self.max_length <= special:
            raise CompatibilityError(
                f"inputs.max_length is {self.max_length}, and the tokenizer adds {special} special tokens, so nothing "
                "of a text would be read; give it more"
            )
        self.tokenizer.no_padding()
        if self.overlap is None:
            self.tokenizer.enable_truncation(self.max_length)
        else:
            self.tokenizer.enable_truncation(self.max_length, stride=self.overlap, strategy="only_second")

    def __repr__(self) -> str:
        how = (self.columns, self.max_length, self.type_ids, self.apart, self.fixed, self.overlap)
        return f"TextView({self.digest[:16]}, {how})"

    @property
    def digest(self) -> str:
        """sha256 of the tokenizer: views of equal digest and length read texts alike."""
        return hashlib.sha256(self.tokenizer.to_str().encode()).hexdigest()

    @functools.cached_property
    def uncut(self) -> Any:
        """A copy of the tokenizer that takes texts whole."""
        copy = type(self.tokenizer).from_str(self.tokenizer.to_str())
        copy.no_truncation()
        return copy

    def reads_like(self, other: "TextView") -> bool:
        """Whether the two give the same tokens for the same example."""
        return (self.digest, self.columns, self.max_length) == (other.digest, other.columns, other.max_length)

    @property
    def mask_id(self) -> int:
        """The token that hides another.

        Raises:
            CompatibilityError: the tokenizer has none.
        """
        found = next((i for name in MASKS if (i := self.tokenizer.token_to_id(name)) is not None), None)
        if found is None:
            raise CompatibilityError(f"the tokenizer has none of {', '.join(MASKS)}; masked-lm needs one")
        return found

    def encodings(self, texts: Mapping[str, Sequence[Any]]) -> list[Any]:
        """What the tokenizer says about each example; of columns read apart, one after the other."""
        return [encoding for row in self.windows(texts) for encoding in row]

    def windows(self, texts: Mapping[str, Sequence[Any]]) -> list[list[Any]]:
        """What the tokenizer says about each example: one encoding, or one for each window or column."""
        return [self._encode(row) for row in self._rows(texts)]

    def special_tokens(self, texts: Mapping[str, Sequence[Any]], length: int) -> Tensor:
        """1 for each token that stands for no text, and for padding."""
        rows = [encoding.special_tokens_mask for encoding in self.encodings(texts)]
        return torch.tensor([row + [1] * (length - len(row)) for row in rows], dtype=torch.int64)

    def __call__(self, texts: Mapping[str, Sequence[Any]]) -> dict[str, Tensor]:
        """The model's input."""
        rows = self.windows(texts)
        most = max(len(row) for row in rows)
        length = self.max_length if self.fixed else max(len(encoding.ids) for row in rows for encoding in row)
        fill = functools.partial(self._filled, rows, most, length)
        inputs = {
            "input_ids": fill(lambda encoding: encoding.ids, self.pad_id),
            "attention_mask": fill(lambda encoding: encoding.attention_mask, 0),
        }
        if self.type_ids:
            inputs["token_type_ids"] = fill(lambda encoding: encoding.type_ids, 0)
        if self.overlap is not None:
            inputs["context_mask"] = fill(lambda encoding: [int(each == 1) for each in encoding.sequence_ids], 0)
        return inputs

    def describe(self, class_names: Sequence[str]) -> dict[str, object]:
        """The content of ``labels_and_preprocessing.json``: all that a program without distil needs to feed it."""
        names = ["input_ids", "attention_mask", *(["token_type_ids"] if self.type_ids else [])]
        return {
            "format": 1,
            "class_names": list(class_names),
            "input": {
                "kind": "text",
                "names": names,
                "dtype": "int64",
                "layout": "[batch, tokens]",
                "max_length": self.max_length,
                "pad_id": self.pad_id,
            },
            "preprocessing": {
                "tokenizer": "tokenizer.json",
                "max_length": self.max_length,
                "padding": "longest",
                "truncation": True,
                "columns": list(self.columns),
            },
            "output": {"name": "logits"},
        }

    def _rows(self, texts: Mapping[str, Sequence[Any]]) -> list[Row]:
        require_columns(self.columns, texts)
        columns = [[tuple(v) if isinstance(v, list) else v for v in texts[name]] for name in self.columns]
        return list(zip(*columns, strict=True))

    def _encode(self, row: Row) -> list[Any]:
        if row not in self._known:
            if self.apart:
                self._known[row] = [self.tokenizer.encode(text) for text in row]
            else:
                if self.overlap is not None:
                    self._refuse_no_room(row)
                encoding = self.tokenizer.encode(*row, is_pretokenized=not isinstance(row[0], str))
                self._known[row] = [encoding, *(encoding.overflowing if self.overlap is not None else ())]
        return self._known[row]

    def _refuse_no_room(self, row: Row) -> None:
        """The library would panic, past any ``except``."""
        plain = self.uncut
        question, context = (len(plain.encode(text, add_special_tokens=False).ids) for text in row)
        room = self.max_length - plain.num_special_tokens_to_add(True) - question
        if self.overlap is not None and room < context and room <= self.overlap:
            raise DataError(
                f"a question has {question} tokens and leaves room for {max(room, 0)} of its context in a window of "
                f"{self.max_length}; windows that share {self.overlap} need more. Raise inputs.max_length or lower "
                f"task.stride. The question: {row[0]!r}"
            )

    def _filled(
        self, rows: list[list[Any]], most: int, length: int, part: Callable[[Any], list[int]], filling: int
    ) -> Tensor:
        """[batch, tokens], or [batch, windows, tokens] where an example has several encodings."""
        flat: list[list[int]] = []
        for row in rows:
            found = [part(encoding) for encoding in row] + [[]] * (most - len(row))
            flat += [each + [filling] * (length - len(each)) for each in found]
        filled = torch.tensor(flat, dtype=torch.int64)
        return filled.unflatten(0, (-1, most)) if self.apart or self.overlap is not None else filled


def require_columns(columns: Sequence[str], texts: Mapping[str, Sequence[Any]]) -> None:
    """Raises CompatibilityError where a column that is to be read is not among the texts."""
    missing = [name for name in columns if name not in texts]
    if missing:
        raise CompatibilityError(f"inputs.columns: the data have no text {missing[0]!r}; they have {sorted(texts)}")
