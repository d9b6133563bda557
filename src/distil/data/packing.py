"""Short texts side by side in one row of tokens, so that little is padding, and no text sees another."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from distil.core.errors import DataError

PADDING = -1  # the document of a place that no document fills


class Packed(NamedTuple):
    """Rows of tokens with several documents each. What is right of the last document of a row is padding.

    Attributes:
        input_ids: tokens, [rows, tokens].
        attention_mask: 1 at a token, 0 at padding, [rows, tokens]. It does not part documents; the mask of
            ``block_diagonal_mask`` does.
        position_ids: place of a token in its document, from 0, [rows, tokens]; 0 at padding.
        document_ids: which of the documents given a token is of, [rows, tokens]; -1 at padding.
    """

    input_ids: Tensor
    attention_mask: Tensor
    position_ids: Tensor
    document_ids: Tensor


def pack_rows(lengths: Sequence[int], length: int) -> tuple[tuple[int, ...], ...]:
    """Which documents share a row, such that no row is longer than it may be and few rows are needed.

    First-fit decreasing: from the longest document to the shortest, and the first where they are equally long, each
    goes to the first row that has room. It needs at most 11/9 of the fewest rows possible, and one more.

    Args:
        lengths: tokens of each document.
        length: tokens that a row may have.

    Returns:
        Rows of numbers of documents, each document once; within a row in their order. The first rows have the longest
        documents, so shuffle the rows before training on them.

    Raises:
        DataError: a document is empty or longer than a row, or a row may have no tokens.

    Source: Johnson 1973, Near-optimal bin packing algorithms; the bound is Dósa's of 2007.

    >>> pack_rows([2, 5, 3, 1], 6)
    ((1, 3), (0, 2))
    """
    if length < 1:
        raise DataError(f"length is {length}; a row must have room for at least 1 token")
    wrong = [f"document {row} has {size:,}" for row, size in enumerate(lengths) if not 1 <= size <= length]
    if wrong:
        raise DataError(
            f"{len(wrong):,} documents do not fit into rows of 1 to {length:,} tokens: {', '.join(wrong[:5])}. "
            "Truncate them or raise the length; leave out empty ones"
        )
    room = _Room(len(lengths), length)
    rows: dict[int, list[int]] = {}
    for document in sorted(range(len(lengths)), key=lambda number: -lengths[number]):  # stable: equal ones in order
        rows.setdefault(room.take(lengths[document]), []).append(document)
    return tuple(tuple(sorted(rows[row])) for row in sorted(rows))


def pack(documents: Sequence[Int[Tensor, " _"]], *, length: int, pad_id: int) -> Packed:
    """Documents packed into rows by ``pack_rows``.

    Args:
        documents: token ids of each; all of them are used, none is cut.
        length: tokens that a row may have.
        pad_id: the id at padding.

    Returns:
        Rows as long as the fullest of them.

    Raises:
        DataError: there are no documents, or one does not fit into a row.

    >>> pack([torch.tensor([7, 8]), torch.tensor([9])], length=4, pad_id=0).document_ids
    tensor([[0, 0, 1]])
    """
    if not documents:
        raise DataError("there are no documents to pack")
    rows = pack_rows([len(document) for document in documents], length)
    fullest = max(sum(len(documents[number]) for number in row) for row in rows)
    document_ids = torch.full((len(rows), fullest), PADDING, device=documents[0].device)
    position_ids = torch.zeros_like(document_ids)
    for row, numbers in enumerate(rows):
        start = 0
        for number in numbers:
            end = start + len(documents[number])
            document_ids[row, start:end] = number
            position_ids[row, start:end] = torch.arange(end - start)
            start = end
    input_ids = pack_values(documents, document_ids, fill=pad_id)
    return Packed(input_ids, (document_ids != PADDING).long(), position_ids, document_ids)


def pack_values(
    values: Sequence[Shaped[Tensor, "_ *features"]], document_ids: Int[Tensor, "rows tokens"], *, fill: int | float
) -> Shaped[Tensor, "rows tokens *features"]:
    """Values of each token, such as labels or which tokens count, at the places of their tokens in packed rows.

    Args:
        values: of each document, one a token.
        document_ids: of the packed rows.
        fill: the value at padding.

    Raises:
        DataError: a document has another number of values than tokens.
    """
    order, sizes = _documents_in_rows(document_ids)
    found, expected = [len(row) for row in values], [size for _, size in sorted(zip(order, sizes, strict=True))]
    if found != expected:
        raise DataError(
            f"the documents have {found} values, and {expected} tokens in the packed rows; give one value a token of "
            "every document, in the documents' order"
        )
    packed = values[0].new_full((*document_ids.shape, *values[0].shape[1:]), fill)
    packed[document_ids != PADDING] = torch.cat([values[number] for number in order])
    return packed


def unpack_values(
    packed: Shaped[Tensor, "rows tokens *features"], document_ids: Int[Tensor, "rows tokens"]
) -> tuple[Shaped[Tensor, "_ *features"], ...]:
    """What stands at the tokens of each document, in the documents' order; gradient flows through.

    >>> unpack_values(torch.tensor([[5, 6, 7]]), torch.tensor([[1, 0, 0]]))
    (tensor([6, 7]), tensor([5]))
    """
    order, sizes = _documents_in_rows(document_ids)
    rows = packed[document_ids != PADDING].split(sizes)
    return tuple(row for _, row in sorted(zip(order, rows, strict=True), key=lambda pair: pair[0]))


def block_diagonal_mask(document_ids: Int[Tensor, "rows tokens"]) -> Bool[Tensor, "rows 1 tokens tokens"]:
    """Which tokens (last axis) each token may look at: those of its document up to itself.

    Padding looks at padding, so that no line of the mask is empty, which would make a softmax undefined.

    >>> block_diagonal_mask(torch.tensor([[0, 0, 1]])).long()
    tensor([[[[1, 0, 0],
              [1, 1, 0],
              [0, 0, 1]]]])
    """
    same = document_ids.unsqueeze(-1) == document_ids.unsqueeze(-2)
    return same.tril().unsqueeze(1)


def additive_mask(
    mask: Bool[Tensor, "rows 1 tokens tokens"], dtype: torch.dtype
) -> Float[Tensor, "rows 1 tokens tokens"]:
    """The same mask to be added to scores: 0 where a token may look, the lowest number where it may not.

    Attention that is written out adds the mask it is given, and would add 1 for True.
    """
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(~mask, torch.finfo(dtype).min)


def _documents_in_rows(document_ids: Tensor) -> tuple[list[int], list[int]]:
    """Numbers of the documents as they stand in the rows, one row after the other, and the tokens of each."""
    order, sizes = document_ids[document_ids != PADDING].unique_consecutive(return_counts=True)
    return order.tolist(), sizes.tolist()


class _Room:
    """Rows yet to be filled, and the first of them that has room for so many tokens, in logarithmic time."""

    def __init__(self, num_rows: int, length: int) -> None:
        self.num_leaves = 1 << max(num_rows - 1, 0).bit_length()
        self.most = [length] * (2 * self.num_leaves)  # a heap: each node has the most room below it, leaves last

    def take(self, size: int) -> int:
        node = 1
        while node < self.num_leaves:
            node = 2 * node if self.most[2 * node] >= size else 2 * node + 1
        row = node - self.num_leaves
        self.most[node] -= size
        while node > 1:
            node //= 2
            self.most[node] = max(self.most[2 * node], self.most[2 * node + 1])
        return row
