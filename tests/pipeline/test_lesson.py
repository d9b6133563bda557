"""Lessons: each answer is asked for once, is that of the right example, and is kept only where that is right."""

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn

from distil.core.errors import CompatibilityError
from distil.data.example import Examples, ImageExamples
from distil.data.feed import evaluation_batches
from distil.data.view import View
from distil.knowledge.response import KeptKnowledge, LiveKnowledge, NoKnowledge, PermutedKnowledge
from distil.knowledge.teacher import FrozenTeacher
from distil.models.builtin import ConvNet, Mlp
from distil.models.describe import describe_model
from distil.models.tap import Outputs, Tap
from distil.objective.objective import Requires
from distil.pipeline import lesson as module
from distil.pipeline.lesson import Lectern
from distil.tasks.network import Network

VIEW = View(channels=1, height=6, width=6, mean=(0.5,), std=(0.25,))
OTHER_VIEW = View(channels=1, height=4, width=4, mean=(0.0,), std=(1.0,))


class Counting(nn.Module):
    """Counts the examples that it is asked about."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.asked = inner, 0

    def forward(self, images: Tensor) -> Tensor:
        self.asked += len(images)
        return self.inner(images)


def examples(count: int = 30) -> Examples:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 1, 6, 6), dtype=torch.uint8, generator=generator)
    ids = torch.randperm(2 * count, generator=generator)[:count]
    return ImageExamples(ids=ids, images=images, labels=ids % 3, class_names=("a", "b", "c"))


def teacher(name: str, view: View, *, num_classes: int = 3) -> tuple[Network, FrozenTeacher]:
    torch.manual_seed(len(name))
    inner: nn.Module = ConvNet(channels=1, widths=(4, 5), num_classes=num_classes, dropout=0.5)
    if view is OTHER_VIEW:
        inner = Mlp(num_inputs=16, widths=(4,), num_classes=num_classes, dropout=0.5, input_dropout=0.1)
    model = Counting(inner)
    description = describe_model(model, torch.zeros(1, 1, view.height, view.width))
    model.asked = 0
    return Network(model, view, description), FrozenTeacher(name, model)


Teachers = Mapping[str, tuple[Network, FrozenTeacher]]


@pytest.fixture
def teachers() -> Teachers:
    return {"big": teacher("big", VIEW), "small": teacher("small", OTHER_VIEW)}


@pytest.fixture
def lectern(teachers: Teachers) -> Lectern:
    return Lectern(teachers, examples=examples(), device="cpu")


def requires(**taps: tuple[str, ...]) -> Requires:
    opened = {name: tuple(Tap(tap) for tap in each) for name, each in taps.items()}
    return Requires(frozenset(opened), labels=True, teacher_taps=opened)


BODY = ("inner.body.2", "inner.body.6")


def answers(
    lectern: Lectern, needed: Requires, rows: list[int], *, views_change: bool = False
) -> Mapping[str, Outputs]:
    lesson = lectern.lesson(needed, views_change=views_change)
    (batch,) = evaluation_batches(examples().select(torch.tensor(rows)), views=lesson.views)
    return lesson.knowledge(batch)


def asked(teachers: Teachers) -> dict[str, int]:
    return {name: network.model.asked for name, (network, _) in teachers.items()}


def same(one: Outputs, other: Outputs) -> None:
    assert one.taps.keys() == other.taps.keys()
    torch.testing.assert_close(one.logits, other.logits)
    for tap, value in one.taps.items():
        torch.testing.assert_close(value, other.taps[tap])


def test_a_stage_without_teachers_is_told_nothing_and_asks_nobody(lectern: Lectern, teachers: Teachers) -> None:
    lesson = lectern.lesson(requires(), views_change=True)
    assert isinstance(lesson.knowledge, NoKnowledge)
    assert lesson.views == {}
    assert asked(teachers) == {"big": 0, "small": 0}


def test_21_kept_answers_and_layers_are_the_live_ones_of_each_example(lectern: Lectern) -> None:
    needed, rows = requires(big=BODY, small=()), [4, 29, 0, 4]
    kept, live = answers(lectern, needed, rows), answers(lectern, needed, rows, views_change=True)
    assert kept.keys() == live.keys() == {"big", "small"}
    for name, said in kept.items():
        same(said, live[name])
    assert kept["big"].taps[Tap(BODY[1])].shape == (4, 5, 3, 3)


def test_views_are_made_for_teachers_only_where_they_are_asked_live(lectern: Lectern) -> None:
    kept = lectern.lesson(requires(big=()), views_change=False)
    live = lectern.lesson(requires(big=()), views_change=True)
    assert (kept.views, dict(live.views)) == ({}, {"big": VIEW})
    assert isinstance(kept.knowledge, KeptKnowledge)
    assert isinstance(live.knowledge, LiveKnowledge)
    both = lectern.lesson(requires(small=(), big=()), views_change=True)
    assert dict(both.views) == {"big": VIEW, "small": OTHER_VIEW}


def test_every_answer_is_computed_once_for_all_arms(lectern: Lectern, teachers: Teachers) -> None:
    for _ in range(3):
        answers(lectern, requires(big=()), [0, 1])
    assert asked(teachers) == {"big": 30, "small": 0}
    answers(lectern, requires(big=BODY), [0])
    assert asked(teachers)["big"] == 60  # its layers were not captured the first time
    answers(lectern, requires(big=BODY[1:]), [0])
    answers(lectern, requires(big=(), small=()), [0])
    assert asked(teachers) == {"big": 60, "small": 30}


def test_each_lesson_gets_its_own_layers(lectern: Lectern) -> None:
    answers(lectern, requires(big=BODY), [0])
    assert answers(lectern, requires(big=BODY[:1]), [3])["big"].taps.keys() == {Tap(BODY[0])}
    assert answers(lectern, requires(big=()), [3])["big"].taps == {}


def test_layers_that_do_not_fit_into_memory_are_asked_for_live(
    lectern: Lectern, teachers: Teachers, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = 4 * 30 * 4 * 6 * 6
    monkeypatch.setattr(module, "KEPT_BYTES", size)
    assert isinstance(lectern.lesson(requires(big=BODY[:1]), views_change=False).knowledge, KeptKnowledge)
    monkeypatch.setattr(module, "KEPT_BYTES", size - 1)
    lesson = lectern.lesson(requires(big=BODY[:1], small=()), views_change=False)
    assert isinstance(lesson.knowledge, LiveKnowledge)
    assert set(lesson.views) == {"big", "small"}
    assert isinstance(lectern.lesson(requires(big=()), views_change=False).knowledge, KeptKnowledge)


def test_layers_of_earlier_lessons_make_room_and_their_lessons_go_on(
    lectern: Lectern, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "KEPT_BYTES", 4 * 30 * 4 * 6 * 6)
    first = lectern.lesson(requires(big=BODY[:1]), views_change=False)
    expected = answers(lectern, requires(big=BODY[:1]), [7, 2])["big"]
    second = answers(lectern, requires(big=BODY[1:]), [7, 2])["big"]
    assert set(lectern._values) == {("big", Tap(BODY[1]))}
    (batch,) = evaluation_batches(examples().select(torch.tensor([7, 2])), views={})
    same(first.knowledge(batch)["big"], expected)
    same(answers(lectern, requires(big=BODY[1:]), [7, 2], views_change=True)["big"], second)
    same(answers(lectern, requires(big=BODY[:1]), [7, 2])["big"], expected)


def test_two_teachers_make_no_room_at_each_other_s_cost_inside_one_lesson(
    lectern: Lectern, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "KEPT_BYTES", 4 * 30 * (5 * 3 * 3 + 4))
    answers(lectern, requires(small=("inner.body.0",)), [0])
    said = answers(lectern, requires(big=BODY[1:], small=("inner.body.3",)), [5, 6])
    assert [list(each.taps) for each in said.values()] == [[Tap(BODY[1])], [Tap("inner.body.3")]]


def test_15_a_teacher_is_asked_in_evaluation_mode_and_without_gradient(lectern: Lectern, teachers: Teachers) -> None:
    for views_change in (False, True):
        teachers["big"][0].model.train()
        said = answers(lectern, requires(big=BODY), [0, 1], views_change=views_change)["big"]
        assert not said.logits.requires_grad
        assert not any(value.requires_grad for value in said.taps.values())
        same(answers(lectern, requires(big=BODY), [0, 1], views_change=views_change)["big"], said)


def test_the_permuted_control_shuffles_and_refuses_layers(lectern: Lectern) -> None:
    lesson = lectern.lesson(requires(big=()), views_change=False, permute=3)
    assert isinstance(lesson.knowledge, PermutedKnowledge)
    with pytest.raises(CompatibilityError, match="shuffles classes, and the objective also compares layers"):
        lectern.lesson(requires(big=BODY), views_change=False, permute=3)
    assert isinstance(lectern.lesson(requires(), views_change=False, permute=3).knowledge, NoKnowledge)


def test_of_two_classes_there_is_nothing_to_shuffle() -> None:
    two = Lectern({"big": teacher("big", VIEW, num_classes=2)}, examples=examples(), device="cpu")
    with pytest.raises(CompatibilityError, match="of two, only one is wrong and there is nothing to shuffle"):
        two.lesson(requires(big=()), views_change=False, permute=0)


def test_what_is_known_about_the_teachers(lectern: Lectern, teachers: Teachers) -> None:
    assert lectern.descriptions == {name: network.description for name, (network, _) in teachers.items()}
