"""Rows that share their tokens: none is lost or cut, and a network answers each as if it were alone."""

import copy
import doctest
import itertools
import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from distil.core.errors import DataError
from distil.data import packing
from distil.data.packing import (
    PADDING,
    Packed,
    additive_mask,
    block_diagonal_mask,
    pack,
    pack_rows,
    pack_values,
    unpack_values,
)

LENGTH = 12
VOCABULARY = 23


def documents(*lengths: int, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(1, VOCABULARY, (length,), generator=generator) for length in lengths]


@st.composite
def lengths_and_room(draw: st.DrawFn) -> tuple[list[int], int]:
    length = draw(st.integers(1, 40))
    return draw(st.lists(st.integers(1, length), max_size=60)), length


def first_fit_by_looking_at_every_row(lengths: list[int], length: int) -> list[list[int]]:
    rows: list[list[int]] = []
    for document in sorted(range(len(lengths)), key=lambda number: (-lengths[number], number)):
        fitting = [row for row in rows if sum(lengths[other] for other in row) + lengths[document] <= length]
        if not fitting:
            rows.append([])
        (fitting or rows[-1:])[0].append(document)
    return [sorted(row) for row in rows]


@given(lengths_and_room())
def test_every_document_is_in_one_row_and_no_row_overflows(case: tuple[list[int], int]) -> None:
    lengths, length = case
    rows = pack_rows(lengths, length)
    assert sorted(itertools.chain(*rows)) == list(range(len(lengths)))
    sizes = [sum(lengths[document] for document in row) for row in rows]
    assert all(0 < size <= length for size in sizes)
    assert all(one + other > length for one, other in itertools.combinations(sizes, 2))  # no two rows could be one
    assert rows == pack_rows(lengths, length)


@given(lengths_and_room())
def test_the_rows_are_those_of_first_fit_decreasing_done_the_slow_way(case: tuple[list[int], int]) -> None:
    assert [list(row) for row in pack_rows(*case)] == first_fit_by_looking_at_every_row(*case)


def test_a_hundred_thousand_documents_are_packed_well_and_without_looking_at_every_row() -> None:
    lengths = torch.randint(1, 513, (100_000,), generator=torch.Generator().manual_seed(0)).tolist()
    rows = pack_rows(lengths, 2048)
    assert len(rows) <= math.ceil(1.01 * sum(lengths) / 2048)


def test_rows_by_hand() -> None:
    # from the longest: 4 opens a row and 3 another (3 + 4 > 6); then 2 joins the first, the 1s the second and a third
    assert pack_rows([2, 1, 4, 3, 2, 1], 6) == ((0, 2), (1, 3, 4), (5,))
    assert pack_rows([], 6) == ()
    assert pack_rows([3, 3, 3], 3) == ((0,), (1,), (2,))


@pytest.mark.parametrize(
    ("lengths", "length", "words"),
    [
        ([3, 9, 2], 8, "1 documents do not fit into rows of 1 to 8 tokens: document 1 has 9. Truncate"),
        ([3, 0], 8, "document 1 has 0.*leave out empty ones"),
        ([-1], 8, "document 0 has -1"),
        ([1], 0, "length is 0"),
    ],
)
def test_what_does_not_fit_is_refused_and_never_cut(lengths: list[int], length: int, words: str) -> None:
    with pytest.raises(DataError, match=words):
        pack_rows(lengths, length)


def test_packed_rows_by_hand() -> None:
    packed = pack([torch.tensor([5, 6]), torch.tensor([7, 8, 9]), torch.tensor([4, 4])], length=6, pad_id=0)
    assert packed.input_ids.tolist() == [[5, 6, 7, 8, 9], [4, 4, 0, 0, 0]]
    assert packed.attention_mask.tolist() == [[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]]
    assert packed.position_ids.tolist() == [[0, 1, 0, 1, 2], [0, 1, 0, 0, 0]]
    assert packed.document_ids.tolist() == [[0, 0, 1, 1, 1], [2, 2, PADDING, PADDING, PADDING]]
    assert all(values.dtype == torch.int64 for values in packed)


def test_11_padding_is_known_by_its_place_and_not_by_its_id() -> None:
    """Defect 12 as well: where pad is eos, the eos that ends a document is no padding."""
    packed = pack([torch.tensor([5, 2]), torch.tensor([6, 7, 8, 2])], length=4, pad_id=2)
    assert packed.attention_mask.tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]


def test_no_documents_are_refused() -> None:
    with pytest.raises(DataError, match="no documents"):
        pack([], length=4, pad_id=0)


@given(st.lists(st.integers(1, LENGTH), min_size=1, max_size=20))
def test_packing_and_unpacking_give_back_each_document(lengths: list[int]) -> None:
    rows = documents(*lengths)
    packed = pack(rows, length=LENGTH, pad_id=0)
    for row, again in zip(rows, unpack_values(packed.input_ids, packed.document_ids), strict=True):
        assert torch.equal(row, again)
    assert int(packed.attention_mask.sum()) == sum(lengths)
    for positions, length in zip(unpack_values(packed.position_ids, packed.document_ids), lengths, strict=True):
        assert positions.tolist() == list(range(length))
    scores = [torch.stack([row, -row], dim=-1).double() for row in rows]
    placed = pack_values(scores, packed.document_ids, fill=7.0)
    assert bool((placed[packed.attention_mask == 0] == 7).all())
    for row, again in zip(scores, unpack_values(placed, packed.document_ids), strict=True):
        assert torch.equal(row, again)


def test_values_of_other_lengths_or_of_too_few_documents_are_refused() -> None:
    ids = pack(documents(3, 2), length=LENGTH, pad_id=0).document_ids
    with pytest.raises(DataError, match=r"have \[2, 3\] values, and \[3, 2\] tokens"):
        pack_values(documents(2, 3), ids, fill=0)
    with pytest.raises(DataError, match=r"have \[3\] values, and \[3, 2\] tokens"):
        pack_values(documents(3), ids, fill=0)


def test_the_mask_is_one_of_blocks_below_the_diagonal() -> None:
    mask = block_diagonal_mask(torch.tensor([[0, 0, 1, PADDING], [2, 2, 2, 3]]))
    assert mask.shape == (2, 1, 4, 4)
    assert mask[0, 0].int().tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
    assert mask[1, 0].int().tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [0, 0, 0, 1]]
    added = additive_mask(mask, torch.float32)
    assert added[0, 0, 1].tolist() == [0, 0, torch.finfo(torch.float32).min, torch.finfo(torch.float32).min]


NAMES = ["llama", "gpt2"]


def language_model(name: str, attention: str = "sdpa") -> nn.Module:
    transformers = pytest.importorskip("transformers")
    configs = {
        "llama": lambda: transformers.LlamaConfig(
            hidden_size=16,
            intermediate_size=24,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            vocab_size=VOCABULARY,
            max_position_embeddings=32,
        ),
        "gpt2": lambda: transformers.GPT2Config(
            n_embd=16, n_layer=2, n_head=2, vocab_size=VOCABULARY, n_positions=32, bos_token_id=0, eos_token_id=0
        ),
    }
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = transformers.AutoModelForCausalLM.from_config(configs[name](), attn_implementation=attention)
        for parameter in model.parameters():  # the usual initial weights are so small that all tokens look alike
            nn.init.normal_(parameter, std=0.3)
    return model.double().eval()


def packed_logits(model: nn.Module, packed: Packed, mask: Tensor | None = None) -> Tensor:
    mask = block_diagonal_mask(packed.document_ids) if mask is None else mask
    output: Any = model(input_ids=packed.input_ids, attention_mask=mask, position_ids=packed.position_ids)
    return output.logits


def logits_alone(model: nn.Module, document: Tensor) -> Tensor:
    output: Any = model(input_ids=document.unsqueeze(0))
    return output.logits[0]


@pytest.mark.parametrize("name", NAMES)
def test_13_each_document_is_answered_as_if_it_were_alone(name: str) -> None:
    model, rows = language_model(name), documents(5, 3, 7, 4, 2, 1, 12)
    packed = pack(rows, length=LENGTH, pad_id=0)
    assert len(packed.input_ids) == 3
    with torch.no_grad():
        answers = unpack_values(packed_logits(model, packed), packed.document_ids)
        for row, answer in zip(rows, answers, strict=True):
            torch.testing.assert_close(answer, logits_alone(model, row), atol=1e-9, rtol=0)
        # without the mask of blocks, or without positions that start again, they are other answers
        causal = torch.ones_like(packed.input_ids)
        plain = unpack_values(packed_logits(model, packed, causal), packed.document_ids)
        assert max(float((one - other).abs().max()) for one, other in zip(plain, answers, strict=True)) > 1e-3
        moved = packed._replace(position_ids=torch.arange(LENGTH).expand_as(packed.position_ids))
        if name == "gpt2":  # rotary positions are relative, so that for the other model only differences count
            shifted = unpack_values(packed_logits(model, moved), packed.document_ids)
            assert max(float((one - other).abs().max()) for one, other in zip(shifted, answers, strict=True)) > 1e-3


@pytest.mark.parametrize("name", NAMES)
def test_13_attention_that_is_written_out_needs_the_mask_in_numbers(name: str) -> None:
    model, rows = language_model(name, attention="eager"), documents(5, 3, 4)
    packed = pack(rows, length=LENGTH, pad_id=0)
    mask = block_diagonal_mask(packed.document_ids)
    with torch.no_grad():
        answers = unpack_values(packed_logits(model, packed, additive_mask(mask, torch.float64)), packed.document_ids)
        for row, answer in zip(rows, answers, strict=True):
            torch.testing.assert_close(answer, logits_alone(model, row), atol=1e-9, rtol=0)
        added = unpack_values(packed_logits(model, packed, mask), packed.document_ids)
        assert float((added[1] - answers[1]).abs().max()) > 1e-3


@pytest.mark.parametrize("name", NAMES)
def test_13_gradients_are_those_of_the_documents_one_by_one(name: str) -> None:
    """The loss is that of the next token; a token at position 0 has none before it in its document: defect 10."""
    model, rows = language_model(name), documents(5, 3, 7, 4, 2, 1)
    alone = copy.deepcopy(model)
    for row in rows:
        if len(row) > 1:
            F.cross_entropy(logits_alone(alone, row)[:-1], row[1:], reduction="sum").backward()
    packed = pack(rows, length=LENGTH, pad_id=0)
    counts = (packed.position_ids > 0)[:, 1:]
    logits = packed_logits(model, packed)[:, :-1]
    F.cross_entropy(logits[counts], packed.input_ids[:, 1:][counts], reduction="sum").backward()
    for one, other in zip(model.parameters(), alone.parameters(), strict=True):
        assert one.grad is not None
        assert other.grad is not None
        torch.testing.assert_close(one.grad, other.grad, atol=1e-9, rtol=1e-9)
    assert sum(float(parameter.grad.abs().sum()) for parameter in model.parameters() if parameter.grad is not None) > 1


@pytest.mark.parametrize("name", NAMES)
def test_11_no_token_of_one_document_and_no_padding_changes_another(name: str) -> None:
    model, rows = language_model(name), documents(5, 3, 2, 6, 4)
    packed = pack(rows, length=LENGTH, pad_id=0)
    with torch.no_grad():
        before = packed_logits(model, packed)
        for number in (PADDING, *range(len(rows))):
            changed = packed.input_ids.where(packed.document_ids != number, VOCABULARY - 1)
            after = packed_logits(model, packed._replace(input_ids=changed))
            own = packed.document_ids == number
            assert torch.equal(after[~own], before[~own])
            assert not torch.equal(after[own], before[own])
        assert bool(torch.isfinite(before).all())


@pytest.mark.parametrize("name", NAMES)
def test_11_the_gradient_of_one_document_reaches_no_token_of_another(name: str) -> None:
    model, rows = language_model(name), documents(5, 3, 2)
    packed = pack(rows, length=LENGTH, pad_id=0)
    embeddings = model.get_input_embeddings()(packed.input_ids).detach().requires_grad_()  # pyright: ignore[reportCallIssue]
    output: Any = model(
        inputs_embeds=embeddings,
        attention_mask=block_diagonal_mask(packed.document_ids),
        position_ids=packed.position_ids,
    )
    output.logits[packed.document_ids == 1].square().sum().backward()
    assert embeddings.grad is not None
    reached = embeddings.grad.abs().sum(dim=-1) > 0
    assert torch.equal(reached, packed.document_ids == 1)


def test_the_examples_in_the_docstrings_are_true() -> None:
    results = doctest.testmod(packing)
    assert results.attempted >= 4
    assert results.failed == 0
