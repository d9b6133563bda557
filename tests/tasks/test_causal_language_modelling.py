import doctest
import math

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics.functional.text import perplexity as torchmetrics_perplexity

from distil.core.errors import DataError
from distil.tasks import causal_language_modelling
from distil.tasks.causal_language_modelling import (
    METRIC,
    bits_per_byte,
    bytes_of,
    language_model_metrics,
    next_token_targets,
    perplexity,
    predicted_bytes,
    supervised_nats,
)

VOCABULARY = 11


class RunningSum(nn.Module):
    """A causal model that sees real tokens only: the output depends on the sum of the embeddings so far."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.embedding = nn.Parameter(torch.randn(VOCABULARY, 4, generator=generator, dtype=torch.float64))
        self.head = nn.Parameter(torch.randn(4, VOCABULARY, generator=generator, dtype=torch.float64))

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return (self.embedding[input_ids] * attention_mask[..., None]).cumsum(dim=1) @ self.head


def ragged(rows: list[list[int]], *, side: str, pad: int) -> tuple[Tensor, Tensor]:
    length = max(len(row) for row in rows) + 2
    ids, mask = [], []
    for row in rows:
        padding = length - len(row)
        left = padding if side == "left" else 0
        ids.append([pad] * left + row + [pad] * (padding - left))
        mask.append([0] * left + [1] * len(row) + [0] * (padding - left))
    return torch.tensor(ids), torch.tensor(mask)


ROWS = [[3, 4, 5, 6, 2], [7, 2], [8, 9, 10, 2]]  # 2 ends a text


def test_10_the_output_at_each_place_is_for_the_token_at_the_next() -> None:
    ids, real = torch.tensor([[3, 4, 5, 6]]), torch.ones(1, 4, dtype=torch.int64)
    labels, mask = next_token_targets(ids, real)
    assert labels.tolist() == [[4, 5, 6, 0]]
    assert mask.int().tolist() == [[1, 1, 1, 0]]


@pytest.mark.parametrize("place", [1, 2, 4])
def test_10_where_one_token_is_supervised_only_the_logits_before_it_have_a_gradient(place: int) -> None:
    ids, real = torch.tensor([[3, 4, 5, 6, 2]]), torch.ones(1, 5, dtype=torch.int64)
    real[0, place + 1 :] = 0
    labels, mask = next_token_targets(ids, real, torch.tensor([place]))
    logits = torch.randn(1, 5, VOCABULARY, generator=torch.Generator().manual_seed(0), requires_grad=True)
    supervised_nats(logits, labels, mask).sum().backward()
    assert logits.grad is not None
    assert logits.grad.abs().sum(dim=-1).ne(0).nonzero().tolist() == [[0, place - 1]]
    assert logits.grad[0, place - 1].argmin() == ids[0, place]  # and it is this token that is pulled up


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("pad", [0, 2])
def test_12_padding_on_either_side_and_an_end_with_the_same_id_agree_with_unbatched(side: str, pad: int) -> None:
    model = RunningSum()
    ids, real = ragged(ROWS, side=side, pad=pad)
    labels, mask = next_token_targets(ids, real)
    assert mask.sum(dim=1).tolist() == [4, 1, 3]
    assert [row[of][-1].item() for row, of in zip(labels, mask, strict=True)] == [2, 2, 2]  # the end is supervised
    nats = supervised_nats(model(ids, real), labels, mask)
    together = torch.autograd.grad(nats.sum(), model.head)[0]
    alone, gradient = [], torch.zeros_like(together)
    for row in ROWS:
        one = torch.tensor([row])
        logits = model(one, torch.ones_like(one))
        alone.append(F.cross_entropy(logits[0, :-1], one[0, 1:], reduction="sum"))
        gradient += torch.autograd.grad(alone[-1], model.head)[0]
    torch.testing.assert_close(nats, torch.stack(alone))
    torch.testing.assert_close(together, gradient)


@pytest.mark.parametrize("side", ["left", "right"])
def test_11_prompts_add_no_loss_and_no_gradient(side: str) -> None:
    ids, real = ragged(ROWS, side=side, pad=0)
    labels, mask = next_token_targets(ids, real, torch.tensor([3, 0, 1]))
    said = [row[of].tolist() for row, of in zip(labels, mask, strict=True)]
    assert said == [[6, 2], [2], [9, 10, 2]]
    logits = torch.randn(*ids.shape, VOCABULARY, generator=torch.Generator().manual_seed(0), requires_grad=True)
    supervised_nats(logits, labels, mask).sum().backward()
    assert logits.grad is not None
    assert torch.equal(logits.grad.abs().sum(dim=-1) > 0, mask)


def test_11_a_row_without_a_target_is_0_with_a_live_graph() -> None:
    logits = torch.randn(2, 3, VOCABULARY, generator=torch.Generator().manual_seed(0), requires_grad=True)
    labels, mask = next_token_targets(torch.tensor([[5, 0, 0], [5, 6, 7]]), torch.tensor([[1, 0, 0], [1, 1, 1]]))
    assert supervised_nats(logits, labels, mask)[0].item() == 0.0
    nothing = supervised_nats(logits[:1], labels[:1], mask[:1]).sum()
    nothing.backward()
    assert nothing.item() == 0.0
    assert logits.grad is not None
    assert not logits.grad.any()


def test_11_what_stands_at_places_that_do_not_count_may_be_anything() -> None:
    labels, mask = next_token_targets(*ragged(ROWS, side="right", pad=0))
    logits = torch.zeros(*mask.shape, VOCABULARY)
    logits[~mask] = math.nan
    assert supervised_nats(logits, labels, mask).tolist() == pytest.approx(
        [n * math.log(VOCABULARY) for n in (4, 1, 3)]
    )


def test_36_the_metrics_by_hand() -> None:
    nats = np.array([math.log(16.0), math.log(4.0)])  # 4 bits and 2 bits
    found = language_model_metrics(nats, num_tokens=np.array([2, 1]), num_bytes=np.array([2, 4]))
    assert next(iter(found)) == METRIC
    assert found == {
        "document_bits_per_byte": pytest.approx((4 / 2 + 2 / 4) / 2),
        "bits_per_byte": pytest.approx(6 / 6),
        "byte_perplexity": pytest.approx(2.0),
        "token_perplexity": pytest.approx(4.0),  # 6 bits in 3 tokens
        "nats_per_token": pytest.approx(2 * math.log(2)),
    }
    assert bits_per_byte(nats, np.array([2, 4])).tolist() == pytest.approx([2.0, 0.5])


def test_36_the_perplexity_of_a_batch_is_torchmetrics_s() -> None:
    ids, real = ragged(ROWS, side="right", pad=2)
    labels, mask = next_token_targets(ids, real)
    logits = RunningSum()(ids, real).detach().float()
    nats = supervised_nats(logits, labels, mask)
    expected = torchmetrics_perplexity(logits, labels.masked_fill(~mask, -100), ignore_index=-100)
    assert perplexity(nats.sum().item(), int(mask.sum())) == pytest.approx(expected.item(), rel=1e-5)


def test_36_a_model_that_knows_nothing_costs_the_logarithm_of_its_vocabulary() -> None:
    labels, mask = next_token_targets(*ragged(ROWS, side="right", pad=0))
    nats = supervised_nats(torch.zeros(*mask.shape, VOCABULARY, dtype=torch.bfloat16), labels, mask)
    assert nats.dtype == torch.float64
    assert perplexity(nats.sum().item(), int(mask.sum())) == pytest.approx(VOCABULARY, rel=1e-6)


def test_a_perplexity_beyond_all_numbers_is_infinite() -> None:
    assert perplexity(1e6, 1) == math.inf


@pytest.mark.parametrize(("text", "expected"), [("", 0), ("abc", 3), ("é", 2), ("你好", 6), ("𠮷", 4), ("a\n", 2)])
def test_36_bytes_are_those_of_utf_8(text: str, expected: int) -> None:
    assert bytes_of(text) == expected


def test_only_the_bytes_that_were_to_be_said_are_counted() -> None:
    text = "你好 ab c"
    offsets = [(0, 1), (1, 2), (3, 5), (6, 7)]
    everything = [True, True, True, False]  # of outputs: the first token is said by none
    assert predicted_bytes(text, offsets, everything) == bytes_of("好 ab c") == 8
    assert predicted_bytes(text, [(0, 0), *offsets, (0, 0)], [True] * 5 + [False]) == bytes_of(
        text
    )  # start and end tokens
    assert predicted_bytes(text, offsets, [False, True, True, False]) == bytes_of("ab c")  # a prompt of two tokens
    assert predicted_bytes(text, offsets[:3], [True, True, False]) == bytes_of("好 ab")  # cut off
    assert predicted_bytes(text, [(0, 0), *offsets], [False] * 5) == 0


def test_a_character_that_is_split_over_several_tokens_is_counted_once() -> None:
    tokenizer = Tokenizer(
        models.BPE({token: n for n, token in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}, [])
    )
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    text = "a你好"
    encoding = tokenizer.encode(text)
    assert len(encoding.ids) == 7  # a byte each
    assert predicted_bytes(text, encoding.offsets, [True] * 6 + [False]) == 6


def test_the_same_text_in_more_tokens_costs_the_same_per_byte() -> None:
    """Perplexity per token depends on the tokenizer, what a byte costs does not."""
    coarse = language_model_metrics(np.array([10.0]), num_tokens=np.array([2]), num_bytes=np.array([8]))
    fine = language_model_metrics(np.array([10.0]), num_tokens=np.array([8]), num_bytes=np.array([8]))
    assert coarse[METRIC] == fine[METRIC]
    assert coarse["token_perplexity"] > fine["token_perplexity"]


def test_a_document_without_bytes_is_refused() -> None:
    with pytest.raises(DataError, match="1 of 2 documents have no byte that could be predicted"):
        bits_per_byte(np.array([1.0, 0.0]), np.array([3, 0]))


def test_the_examples_in_the_docstrings_are_true() -> None:
    results = doctest.testmod(causal_language_modelling)
    assert results.attempted >= 2
    assert results.failed == 0
