from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn

from distil.tasks.side import BiEncoder, KnownTokens, Sides, Windows


class Sum(nn.Module):
    """Of each text two features: the sum of its real ids and how many there are."""

    pretrained = "a model of transformers"

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        real = inputs["attention_mask"]
        assert inputs["input_ids"].ndim == 2
        return torch.stack([(inputs["input_ids"] * real).sum(dim=1), real.sum(dim=1)], dim=1).float()


PAIRS = {
    "input_ids": torch.tensor([[[1, 2, 9], [4, 5, 6]], [[7, 9, 9], [8, 1, 9]]]),
    "attention_mask": torch.tensor([[[1, 1, 0], [1, 1, 1]], [[1, 0, 0], [1, 1, 0]]]),
}


def test_each_text_is_embedded_and_they_stand_in_the_order_of_the_columns() -> None:
    sides = Sides(Sum(), width=2, features=2)
    assert sides(PAIRS).tolist() == [[3, 2, 15, 3], [7, 1, 9, 2]]
    swapped = {name: value.flip(1) for name, value in PAIRS.items()}
    assert sides(swapped).tolist() == [[15, 3, 3, 2], [9, 2, 7, 1]]
    one = {name: value[:, :1] for name, value in PAIRS.items()}
    assert sides(one).tolist() == [[3, 2], [7, 1]]


def test_the_same_projection_meets_another_number_of_features() -> None:
    torch.manual_seed(0)
    sides = Sides(Sum(), width=2, features=3)
    assert isinstance(sides.projection, nn.Linear)
    found = sides(PAIRS)
    assert found.shape == (2, 6)
    plain = Sides(Sum(), width=2, features=2)(PAIRS)
    for side in (0, 1):
        expected = sides.projection(plain[:, 2 * side : 2 * side + 2])
        torch.testing.assert_close(found[:, 3 * side : 3 * side + 3], expected)


def test_no_projection_is_learned_where_the_widths_agree() -> None:
    assert list(Sides(Sum(), width=2, features=2).parameters()) == []


def test_two_texts_belong_together_by_the_cosine_of_their_embeddings() -> None:
    model = BiEncoder(Sides(Sum(), width=2, features=2))
    assert {name for name, _ in model.named_parameters()} == {"scale", "bias"}
    with torch.no_grad():
        model.scale.fill_(4.0)
        model.bias.fill_(-1.0)
    found = model(PAIRS)
    first = (3 * 15 + 2 * 3) / (13**0.5 * 234**0.5)  # (3, 2) and (15, 3)
    second = (7 * 9 + 1 * 2) / (50**0.5 * 85**0.5)  # (7, 1) and (9, 2)
    torch.testing.assert_close(found, torch.tensor([[0, 4 * first - 1], [0, 4 * second - 1]]))
    found[:, 1].sum().backward()
    assert model.scale.grad is not None
    torch.testing.assert_close(model.scale.grad, torch.tensor(first + second))


class Scores(nn.Module):
    """Start and end scores that are the ids themselves, and twice that."""

    pretrained = "a model of transformers"

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        assert set(inputs) == {"input_ids", "attention_mask"}, "a mask of the context is none of its inputs"
        ids = inputs["input_ids"].float()
        return torch.stack([ids, 2 * ids], dim=-1).requires_grad_()


WINDOWS = {
    "input_ids": torch.tensor([[[2, 5, 3], [2, 6, 3]], [[2, 4, 3], [50, 50, 50]]]),  # the last window is padding
    "attention_mask": torch.tensor([[[1, 1, 1], [1, 1, 1]], [[1, 1, 1], [0, 0, 0]]]),
    "context_mask": torch.tensor([[[0, 1, 0], [0, 1, 1]], [[0, 1, 0], [0, 0, 0]]]),
}
LOW = -torch.inf


def test_scores_of_all_windows_stand_in_one_row_and_only_the_context_s_count() -> None:
    assert Windows(Scores())(WINDOWS).tolist() == [
        [[LOW, 5, LOW, LOW, 6, 3], [LOW, 10, LOW, LOW, 12, 6]],
        [[LOW, 4, LOW, LOW, LOW, LOW], [LOW, 8, LOW, LOW, LOW, LOW]],
    ]


def test_11_a_window_that_is_padding_never_wins_and_gets_no_gradient() -> None:
    found = Windows(Scores())(WINDOWS)
    assert found[1].softmax(dim=-1).tolist() == [[0, 1, 0, 0, 0, 0]] * 2
    assert found.argmax(dim=-1).tolist() == [[4, 4], [1, 1]]
    leaf = torch.zeros(4, 3, 2, requires_grad=True)

    class Leaf(Scores):
        def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
            return leaf

    Windows(Leaf())(WINDOWS).log_softmax(dim=-1)[:, :, 1].sum().backward()
    assert leaf.grad is not None
    assert torch.equal(
        leaf.grad.abs().sum(dim=-1).view(2, 2, 3) > 0,
        torch.tensor([[[False, True, False], [False, True, True]], [[False] * 3, [False] * 3]]),
    )


def test_11_one_more_window_of_padding_changes_no_answer() -> None:
    wider = {name: nn.functional.pad(value, (0, 0, 0, 1)) for name, value in WINDOWS.items()}
    before, after = Windows(Scores())(WINDOWS), Windows(Scores())(wider)
    assert torch.equal(after[:, :, :6], before)
    assert bool((after[:, :, 6:] == LOW).all())


class Vocabulary(nn.Module):
    pretrained = "a model of transformers"

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        return torch.arange(2 * 3 * 8.0).view(2, 3, 8) + inputs["input_ids"].sum()


@pytest.mark.parametrize("num_tokens", [8, 5, 1])
def test_24_places_that_no_token_stands_for_are_left_out_and_not_made_zero(num_tokens: int) -> None:
    inputs = {"input_ids": torch.zeros(2, 3, dtype=torch.int64)}
    whole = Vocabulary()(inputs)
    found = KnownTokens(Vocabulary(), num_tokens=num_tokens)(inputs)
    assert torch.equal(found, whole[:, :, :num_tokens])
    torch.testing.assert_close(found.softmax(dim=-1).sum(dim=-1), torch.ones(2, 3))


def test_the_model_inside_can_be_asked_for() -> None:
    for wrapped in (Sides(Sum(), width=2, features=2), Windows(Scores()), KnownTokens(Vocabulary(), num_tokens=5)):
        assert wrapped.pretrained == "a model of transformers"
