import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from distil.core.errors import DataError
from distil.tasks.causal_language_modelling import supervised_nats
from distil.tasks.masked_language_modelling import (
    METRIC,
    MaskedTokens,
    mask_tokens,
    masked_accuracy,
    masked_language_model_metrics,
    num_right,
)

MASK, SIZE = 4, 1000


def texts(rows: int, tokens: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Ids from 10 on with a special token at each end, all real."""
    ids = torch.randint(10, SIZE, (rows, tokens), generator=torch.Generator().manual_seed(0))
    ids[:, 0], ids[:, -1] = 2, 3
    special = torch.zeros_like(ids)
    special[:, 0] = special[:, -1] = 1
    return ids, torch.ones_like(ids), special, torch.arange(rows) * 7


def masked(ids: Tensor, real: Tensor, special: Tensor, numbers: Tensor, **changes: float) -> MaskedTokens:
    settings = {"seed": 0, "epoch": 0, "mask_id": MASK, "vocabulary_size": SIZE, **changes}
    return mask_tokens(ids, real, special, numbers, **settings)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(("tokens", "expected"), [(102, 15), (42, 6), (12, 2), (5, 1), (3, 1)])
def test_36_a_share_of_the_tokens_is_chosen_and_at_least_one(tokens: int, expected: int) -> None:
    found = masked(*texts(8, tokens))
    assert found.mask.sum(dim=1).tolist() == [expected] * 8  # 0.15 of 100, 40, 10, 3 and 1


def test_36_of_the_chosen_8_in_10_are_masked_1_in_10_is_another_token_and_1_in_10_stays() -> None:
    ids, *others = texts(400, 202)
    found = masked(ids, *others)
    chosen = int(found.mask.sum())
    assert chosen == 400 * 30
    new, old = found.input_ids[found.mask], ids[found.mask]
    for share, expected in (((new == MASK), 0.8), ((new == old), 0.1), (((new != MASK) & (new != old)), 0.1)):
        error = math.sqrt(expected * (1 - expected) / chosen)
        assert share.double().mean().item() == pytest.approx(expected, abs=4 * error)
    drawn = new[(new != MASK) & (new != old)].double()
    assert drawn.mean().item() == pytest.approx(SIZE / 2, abs=4 * SIZE / math.sqrt(12 * len(drawn)))
    assert drawn.min() < 10  # from the whole vocabulary
    assert drawn.max() >= SIZE - 10


def test_labels_are_the_true_tokens_and_nothing_else_is_changed() -> None:
    ids, *others = texts(20, 30)
    found = masked(ids, *others)
    assert torch.equal(found.labels[found.mask], ids[found.mask])
    assert not found.labels[~found.mask].any()
    assert torch.equal(found.input_ids[~found.mask], ids[~found.mask])


def test_11_special_tokens_and_padding_are_never_chosen() -> None:
    ids, real, special, numbers = texts(50, 20)
    real[:, 12:] = 0
    found = masked(ids, real, special, numbers, probability=1.0)
    assert found.mask[0].int().tolist() == [0] + [1] * 11 + [0] * 8
    assert torch.equal(found.mask, (real.bool() & ~special.bool()))


@pytest.mark.parametrize("left", [0, 3])
def test_13_the_choice_depends_on_neither_batch_nor_padding(left: int) -> None:
    together = masked(*texts(6, 25))
    for row in (0, 4):
        one = [value[row : row + 1] for value in texts(6, 25)]
        padded = [F.pad(value, (left, 5)) for value in one[:3]]
        alone = masked(*padded, one[3])
        for found, expected in zip(alone, together, strict=True):
            assert torch.equal(found[0, left : left + 25], expected[row])
            assert not found[0, :left].any()
            assert not found[0, left + 25 :].any()


def test_31_equal_seed_epoch_and_example_choose_alike_and_others_do_not() -> None:
    first = masked(*texts(6, 60))
    assert all(torch.equal(one, other) for one, other in zip(first, masked(*texts(6, 60)), strict=True))
    for change in ({"seed": 1}, {"epoch": 1}):
        assert (masked(*texts(6, 60), **change).mask != first.mask).any(dim=1).all()
    ids, real, special, _ = texts(6, 60)
    same = masked(ids[:1].expand(6, -1), real, special, torch.arange(6))
    assert len({tuple(row.tolist()) for row in same.mask}) == 6  # equal texts of different examples


def test_20_torch_s_and_numpy_s_generators_are_left_alone() -> None:
    before, other = torch.random.get_rng_state(), np.random.get_state()[1]
    masked(*texts(6, 25))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert np.array_equal(np.random.get_state()[1], other)


def test_a_text_of_special_tokens_alone_has_no_target() -> None:
    found = masked(*texts(2, 2))
    assert not found.mask.any()


@pytest.mark.parametrize("probability", [0.0, -0.1, 1.1, math.nan])
def test_a_probability_outside_its_domain_is_refused(probability: float) -> None:
    with pytest.raises(ValueError, match="must be above 0 and at most 1"):
        masked(*texts(2, 5), probability=probability)


def test_a_mask_outside_the_vocabulary_is_refused() -> None:
    with pytest.raises(ValueError, match="mask_id is 1000; it must be an id of the vocabulary, 0 to 999"):
        masked(*texts(2, 5), mask_id=SIZE)


def test_36_the_metrics_by_hand() -> None:
    logits = torch.tensor([[[2.0, 0.0], [0.0, 2.0], [5.0, 0.0]], [[0.0, 2.0], [0.0, 0.0], [0.0, 9.0]]])
    labels, mask = torch.tensor([[0, 0, 0], [1, 0, 0]]), torch.tensor([[True, True, False], [True, False, False]])
    right = num_right(logits, labels, mask)
    assert right.tolist() == [1, 1]  # of two, and of one
    nats = supervised_nats(logits, labels, mask)
    sure, wrong = math.log(1 + math.exp(-2)), math.log(1 + math.exp(2))
    assert nats.tolist() == pytest.approx([sure + wrong, sure])
    found = masked_language_model_metrics(right.numpy(), nats.numpy(), mask.sum(dim=1).numpy())
    assert next(iter(found)) == METRIC
    assert found == {
        "example_masked_accuracy": pytest.approx(0.75),
        "masked_accuracy": pytest.approx(2 / 3),
        "masked_token_perplexity": pytest.approx(math.exp((2 * sure + wrong) / 3)),
    }
    assert masked_accuracy(right.numpy(), mask.sum(dim=1).numpy()).tolist() == [0.5, 1.0]


def test_an_example_without_a_target_cannot_be_scored() -> None:
    with pytest.raises(DataError, match="1 of 2 examples have no token that could be masked"):
        masked_accuracy(np.array([1, 0]), np.array([2, 0]))
