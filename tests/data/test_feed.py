import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from distil.data.augmentation import augment
from distil.data.batch import Batch
from distil.data.config import FlipConfig, ShiftConfig
from distil.data.example import Examples
from distil.data.feed import Feed, evaluation_batches, make_inputs
from distil.data.view import View, to_pixels

from .examples import make

PLAIN = View(channels=1, height=5, width=6, mean=(0.0,), std=(1.0,))
NORMAL = View(channels=3, height=5, width=6, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
CHAIN = (ShiftConfig(pixels=2), FlipConfig())


def feed(examples: Examples, *, seed: int = 3, batch_size: int = 8, augmentation: tuple[object, ...] = ()) -> Feed:
    views = {"student": PLAIN, "teacher": NORMAL}
    return Feed(examples, views=views, batch_size=batch_size, augmentation=augmentation, seed=seed)  # type: ignore[arg-type]


def same(first: Batch, second: Batch) -> bool:
    pairs = [(first.ids, second.ids), *((first.inputs[view], second.inputs[view]) for view in first.inputs)]
    pairs += [(first.targets["main"], second.targets["main"]), (first.present["main"], second.present["main"])]
    return all(torch.equal(one, other) for one, other in pairs)


@settings(deadline=None, max_examples=30)
@given(steps=st.lists(st.integers(0, 30), min_size=1, max_size=6))
def test_31_a_batch_is_a_function_of_its_step_alone(steps: list[int]) -> None:
    once = feed(make(37), augmentation=CHAIN)
    for step in steps:  # in any order, again and again, over the edges of epochs
        assert same(once.batch(step), feed(make(37), augmentation=CHAIN).batch(step))


def test_an_epoch_shows_every_example_once_in_an_order_of_its_own() -> None:
    source = feed(make(37))
    epochs = []
    for epoch in range(3):
        steps = range(epoch * source.steps_per_epoch, (epoch + 1) * source.steps_per_epoch)
        epochs.append([example for step in steps for example in source.batch(step).ids.tolist()])
    assert source.steps_per_epoch == 5
    assert all(sorted(ids) == list(range(37)) for ids in epochs)
    assert len({tuple(ids) for ids in epochs}) == 3


def test_images_and_labels_belong_to_the_ids() -> None:
    examples = make(37, first_id=1000)
    batch = feed(examples).batch(6)
    rows = batch.ids - 1000
    assert torch.equal(batch.targets["main"], examples.labels[rows])
    assert torch.equal(batch.inputs["student"], examples.images[rows].float() / 255)


def test_11_labels_that_may_not_be_seen_are_absent() -> None:
    examples = make(16).hide_labels(keep=torch.arange(16) < 5)
    batch = feed(examples, batch_size=16).batch(0)
    assert torch.equal(batch.present["main"], batch.ids < 5)
    held = next(iter(evaluation_batches(examples, views={"student": PLAIN})))
    assert torch.equal(held.present["main"], held.ids < 5)


def test_all_models_see_the_same_change_and_each_epoch_another() -> None:
    examples = make(16)
    source = feed(examples, batch_size=16, augmentation=CHAIN)
    first, second = source.batch(0), source.batch(1)
    for epoch, batch in enumerate((first, second)):
        pixels = to_pixels(examples.images[batch.ids])
        changed = augment(pixels, batch.ids, chain=CHAIN, seed=3, epoch=epoch)
        assert torch.equal(batch.inputs["student"], changed)
        assert torch.equal(batch.inputs["teacher"], NORMAL(changed))
    by_id = [batch.inputs["student"][batch.ids.argsort()] for batch in (first, second)]
    assert not torch.equal(by_id[0], by_id[1])


def test_21_each_model_gets_its_own_view_and_equal_views_are_made_once() -> None:
    pixels = to_pixels(make(4).images)
    inputs = make_inputs(pixels, {"student": PLAIN, "teacher": NORMAL, "other": View(3, 5, 6, NORMAL.mean, NORMAL.std)})
    assert inputs["student"].shape == (4, 1, 5, 6)
    assert inputs["teacher"].shape == (4, 3, 5, 6)
    assert inputs["other"] is inputs["teacher"]
    assert torch.equal(inputs["teacher"], NORMAL(pixels))


def test_evaluation_shows_all_examples_once_unchanged_in_order() -> None:
    examples = make(11)
    batches = list(evaluation_batches(examples, views={"student": PLAIN}, batch_size=4))
    assert [len(batch) for batch in batches] == [4, 4, 3]
    assert torch.equal(torch.cat([batch.ids for batch in batches]), examples.ids)
    assert torch.equal(torch.cat([batch.inputs["student"] for batch in batches]), examples.images.float() / 255)


def test_20_two_feeds_do_not_share_state() -> None:
    examples = make(20)
    images = examples.images.clone()
    first, second = feed(examples, augmentation=CHAIN), feed(examples, seed=4, augmentation=CHAIN)
    before = first.batch(0)
    second.batch(7)
    assert same(first.batch(0), before)
    assert torch.equal(examples.images, images)
