"""Terms on labels, bound: values, the noise, and a smoothing that follows validation, also when interrupted."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from distil.core.config import PlacementConfig
from distil.core.errors import Preempted
from distil.core.events import read_events
from distil.core.interruption import Interruption
from distil.core.placement import Placement, place
from distil.data.batch import Batch
from distil.data.example import ImageExamples
from distil.data.feed import Feed
from distil.data.view import View
from distil.knowledge.response import NoKnowledge
from distil.models.describe import ModelDescription
from distil.models.tap import Outputs
from distil.objective.config import TrueLabels
from distil.objective.label import bind_label
from distil.objective.label_config import BinaryLabels, SmoothedLabels
from distil.objective.objective import Objective
from distil.objective.term import Binding, BoundTerm, TermInput
from distil.train.config import TrainingConfig
from distil.train.loop import Trained, Training, train

VIEW = View(channels=1, height=2, width=2, mean=(0.0,), std=(1.0,))


def bound(num_classes: int = 4, **settings: Any) -> BoundTerm:
    return bind_label(SmoothedLabels(**settings), Binding("labels", ModelDescription(num_classes=num_classes)))


def said(labels: list[int], num_classes: int = 4, seed: int = 0) -> TermInput:
    logits = torch.randn(len(labels), num_classes, generator=torch.Generator().manual_seed(seed))
    return TermInput(
        Outputs(logits.requires_grad_()), None, torch.tensor(labels, dtype=torch.int64), torch.arange(len(labels))
    )


def test_constant_noise_by_hand() -> None:
    given = said([2, 0])
    logs = torch.log_softmax(given.student.logits.detach(), dim=-1).tolist()
    expected = [
        -sum((0.7 if c == label else 0.1) * row[c] for c in range(4)) for label, row in zip([2, 0], logs, strict=True)
    ]
    assert bound(smoothing=0.3)(given).tolist() == pytest.approx(expected, rel=1e-5)


def test_without_smoothing_it_is_the_cross_entropy() -> None:
    given = said([1, 3, 0])
    expected = F.cross_entropy(given.student.logits, given.labels, reduction="none")
    torch.testing.assert_close(bound(smoothing=0.0)(given), expected)
    torch.testing.assert_close(bound(smoothing=0.0, noise="sampled")(given), expected)


def test_13_the_value_of_an_example_does_not_depend_on_its_batch() -> None:
    term, whole = bound(smoothing=0.2), said([1, 3, 0])
    alone = TermInput(whole.student.rows(torch.tensor([False, True, False])), None, whole.labels[1:2], whole.ids[1:2])
    torch.testing.assert_close(term(alone), term(whole)[1:2])
    assert term(said([])).shape == (0,)


def test_sampled_noise_is_drawn_anew_from_torch_s_state_and_has_the_constant_one_as_mean() -> None:
    term, given = bound(smoothing=0.3, noise="sampled"), said([2])
    torch.manual_seed(3)
    first, second = term(given), term(given)
    torch.manual_seed(3)
    assert torch.equal(term(given), first)
    assert not torch.equal(first, second)
    many = TermInput(
        Outputs(given.student.logits.detach().repeat(20_000, 1)), None, torch.full((20_000,), 2), torch.arange(20_000)
    )
    assert term(many).mean().item() == pytest.approx(bound(smoothing=0.3)(given).item(), rel=0.02)


def test_constant_noise_leaves_torch_s_state_alone() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    bound()(said([1, 2]))
    assert torch.equal(torch.get_rng_state(), before)


def test_18_a_term_that_adapts_has_its_state_in_buffers_and_learns_nothing() -> None:
    term = bound(adapt=0.05)
    assert list(term.parameters()) == []
    assert set(term.state_dict()) == {"smoothing", "losses", "num_losses"}


def test_it_follows_validation_step_by_step() -> None:
    term = bound(smoothing=0.1, adapt=0.05, most=0.2)
    found = [term.observe(loss)["smoothing"] for loss in (1.0, 1.5, 1.6, 1.7, 1.2, 1.2, 0.5, 0.4, 0.3, 0.2)]
    assert found == pytest.approx([0.1, 0.15, 0.2, 0.2, 0.15, 0.15, 0.1, 0.05, 0.0, 0.0])
    term.observe(9.0)
    given = said([1])
    torch.testing.assert_close(term(given), bound(smoothing=0.05)(given))


def test_without_adapt_nothing_is_observed() -> None:
    term = bound(smoothing=0.1)
    before = {name: tensor.clone() for name, tensor in term.state_dict().items()}
    assert term.observe(1.0) == term.observe(2.0) == {}
    assert all(torch.equal(tensor, before[name]) for name, tensor in term.state_dict().items())


@settings(deadline=None, max_examples=60)
@given(
    losses=st.lists(st.floats(0, 10, allow_nan=False), min_size=1, max_size=30),
    step=st.floats(1e-6, 1.0),
    most=st.floats(0, 0.99),
    start=st.floats(0, 1),
    cut=st.integers(0, 30),
)
def test_31_it_never_leaves_its_range_and_goes_on_from_its_state_to_the_last_bit(
    losses: list[float], step: float, most: float, start: float, cut: int
) -> None:
    settings = {"smoothing": start * most, "adapt": step, "most": most}
    unbroken = bound(**settings)
    expected = [unbroken.observe(loss)["smoothing"] for loss in losses]
    assert all(0 <= smoothing <= most for smoothing in expected)
    first, second = bound(**settings), bound(**settings)
    found = [first.observe(loss)["smoothing"] for loss in losses[:cut]]
    second.load_state_dict(first.state_dict())
    found += [second.observe(loss)["smoothing"] for loss in losses[cut:]]
    assert found == expected


@pytest.fixture
def placement() -> Iterator[Placement]:
    with place(PlacementConfig(device="cpu", threads=1)) as made:
        yield made


def work(folder: Path, placement: Placement, interruption: Interruption, noise: str) -> Trained:
    """A training whose validation loss goes up and down, so that the smoothing does."""
    images = torch.arange(40 * 4, dtype=torch.uint8).reshape(40, 1, 2, 2)
    examples = ImageExamples(
        ids=torch.arange(40), images=images, labels=torch.arange(40) % 3, class_names=("a", "b", "c")
    )
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    terms = {
        "true": TrueLabels(weight=0.1),
        "smooth": SmoothedLabels.model_validate({"smoothing": 0.1, "adapt": 0.04, "noise": noise}),
    }

    def validate(candidate: nn.Module) -> dict[str, float]:
        total = float(sum(parameter.detach().double().sum() for parameter in candidate.parameters()))
        return {"accuracy": 0.5, "negative_log_likelihood": abs(total * 1000) % 1.0}

    config = TrainingConfig.model_validate({"epochs": 8, "batch_size": 16, "keep": "last"})
    training = Training(
        config=config, model=model, view="student", objective=Objective(terms).bind(3), knowledge=NoKnowledge(),
        feed=Feed(examples, views={"student": VIEW}, batch_size=16, seed=0), validate=validate, placement=placement,
        seed=1, folder=folder, identity="labels",
    )  # fmt: skip
    return train(training, interruption)


class StopAfter(Interruption):
    def __init__(self, steps: int) -> None:
        self._left = steps

    @property
    def requested(self) -> bool:
        self._left -= 1
        return self._left <= 0


def adapted(folder: Path) -> list[float]:
    return [
        event["adapted"]["smooth.smoothing"]
        for event in read_events(folder / "events.jsonl")
        if event["event"] == "epoch"
    ]


@pytest.mark.parametrize("noise", ["constant", "sampled"])
def test_31_a_training_that_is_interrupted_twice_goes_on_with_the_smoothing_it_had(
    noise: str, placement: Placement, tmp_path: Path
) -> None:
    unbroken = work(tmp_path / "unbroken", placement, Interruption(), noise)
    for steps in (7, 8):
        with pytest.raises(Preempted):
            work(tmp_path / "broken", placement, StopAfter(steps), noise)
    resumed = work(tmp_path / "broken", placement, Interruption(), noise)
    assert all(torch.equal(resumed.weights[name], tensor) for name, tensor in unbroken.weights.items())
    assert adapted(tmp_path / "broken") == adapted(tmp_path / "unbroken")
    assert len(set(adapted(tmp_path / "unbroken"))) > 1
    assert set(resumed.weights) == {"1.weight", "1.bias"}


# sigmoids of 1/2 and 3/4, then of 1/4 and 1/2
ODDS = torch.tensor([[0.0, math.log(3)], [-math.log(3), 0.0]])
YES_NO = torch.tensor([[1.0, 0.0], [0.0, 0.0]])


def test_binary_labels_by_hand() -> None:
    term = bind_label(BinaryLabels(), Binding("labels", ModelDescription(num_classes=2)))
    found = term(TermInput(Outputs(ODDS), None, YES_NO, torch.arange(2)))
    assert found.tolist() == pytest.approx([math.log(8), math.log(8 / 3)])


def test_07_binary_labels_do_not_compete() -> None:
    term = bind_label(BinaryLabels(), Binding("labels", ModelDescription(num_classes=2)))
    higher = ODDS + torch.tensor([0.0, 5.0])
    (of_first,) = torch.autograd.grad(
        term(TermInput(Outputs(higher.requires_grad_()), None, YES_NO, torch.arange(2))).sum(), higher
    )
    assert of_first[:, 0].tolist() == pytest.approx([-1 / 2, 1 / 4])  # sigmoid less label, whatever the other says


def test_11_13_binary_labels_count_the_examples_whose_labels_are_known() -> None:
    objective = Objective({"labels": BinaryLabels(weight=2.0)}).bind(2)
    present = torch.tensor([False, True])
    batch = Batch(torch.arange(2), {"student": torch.zeros(2, 1)}, {"main": YES_NO}, {"main": present})
    logits = ODDS.clone().requires_grad_()
    loss = objective(logits, {}, batch, objective.counts(batch))
    loss.total.backward()
    assert objective.counts(batch) == {"labels": 1}
    assert loss.total.item() == pytest.approx(2 * math.log(8 / 3))
    assert logits.grad is not None
    assert logits.grad[0].tolist() == [0.0, 0.0]
    assert logits.grad[1].tolist() == pytest.approx([2 / 4, 2 / 2])
