from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from distil.data.batch import Batch
from distil.tasks.score import score


def batches(sizes: tuple[int, ...] = (3, 4, 1)) -> Iterator[Batch]:
    generator = torch.Generator().manual_seed(0)
    first = 0
    for size in sizes:
        ids = torch.arange(first, first + size) * 10
        inputs = {name: torch.randn(size, 6, generator=generator) for name in ("student", "teacher")}
        yield Batch(ids=ids, inputs=inputs, targets={"main": ids % 3}, present={"main": ids >= 0})
        first += size


class Net(nn.Module):
    """Dropout and batch normalisation, so that the mode shows in the output."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.dropout, self.head = nn.BatchNorm1d(6), nn.Dropout(0.5), nn.Linear(6, 3)
        self.gradients: list[bool] = []

    def forward(self, inputs: Tensor) -> Tensor:
        self.gradients.append(torch.is_grad_enabled())
        return self.head(self.dropout(self.norm(inputs)))


def test_the_scores_are_the_model_s_answers_in_evaluation_mode() -> None:
    model = Net()
    found = score(model, batches(), view="teacher")
    model.eval()
    with torch.no_grad():
        expected = torch.cat([model(batch.inputs["teacher"]) for batch in batches()])
    assert torch.equal(found.logits, expected)
    assert found.ids.tolist() == [0, 10, 20, 30, 40, 50, 60, 70]
    assert found.labels.tolist() == [example % 3 for example in found.ids.tolist()]


def test_15_the_state_of_the_model_is_bit_identical_afterwards() -> None:
    model = Net().train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    score(model, batches(), view="student")
    after = model.state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())


@pytest.mark.parametrize("training", [True, False])
def test_17_every_submodule_is_in_its_own_mode_again(training: bool) -> None:
    model = Net().train(training)
    model.norm.eval()  # as somebody who freezes batch normalisation does
    score(model, batches(), view="student")
    assert (model.training, model.dropout.training, model.norm.training) == (training, training, False)


def test_17_the_modes_are_restored_after_an_error() -> None:
    model = Net().train()
    with pytest.raises(KeyError):
        score(model, batches(), view="nobody's")
    assert model.training
    assert model.dropout.training


def test_no_gradient_is_kept_and_the_scores_can_take_part_in_one() -> None:
    model = Net()
    found = score(model, batches(), view="student")
    assert model.gradients == [False] * 3
    assert not found.logits.requires_grad
    assert not found.logits.is_inference()
    weight = torch.ones(3, requires_grad=True)
    (found.logits * weight).sum().backward()  # refused for tensors made in inference mode
    assert weight.grad is not None


def test_half_precision_answers_are_kept_in_float32() -> None:
    model = Net().to(torch.bfloat16)
    half = (
        Batch(batch.ids, {"student": batch.inputs["student"].bfloat16()}, batch.targets, batch.present)
        for batch in batches()
    )
    assert score(model, half, view="student").logits.dtype == torch.float32


def test_20_scoring_twice_gives_equal_bits_and_leaves_torch_s_generator() -> None:
    model = Net().train()
    before = torch.random.get_rng_state()
    first, second = (score(model, batches(), view="student") for _ in range(2))
    assert torch.equal(first.logits, second.logits)
    assert torch.equal(torch.random.get_rng_state(), before)
