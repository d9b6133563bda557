from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from distil.core.errors import CompatibilityError
from distil.data.augmentation import augment
from distil.data.batch import Batch
from distil.data.config import BucketedOrderConfig, FlipConfig, ShiftConfig, TransferConfig
from distil.data.example import Examples
from distil.data.feed import Feed, Read, Targets, changed, evaluation_batches, make_inputs
from distil.data.text_view import TextView
from distil.data.view import View, to_pixels
from distil.tasks.choice import make_task
from distil.tasks.config import MaskedLanguageModelConfig, TokenClassificationConfig

from .examples import make
from .texts import MASK, PAD, make_texts, view, word_tokenizer

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


# texts

WORDS = ("red", "blue", "green", "old", "new", "small", "large")
SENTENCES = [" ".join(WORDS[(row + step) % 7] for step in range(1 + row % 5)) for row in range(20)]
TEXTS = make_texts({"text": SENTENCES}, labels=[row % 2 for row in range(20)], class_names="ab", first_id=30)
HALF = TransferConfig(probability=0.5, mask=0.4, ngram=0.3)


def text_feed(views: dict[str, TextView] | None = None, **settings: Any) -> Feed:
    return Feed(TEXTS, views=views or {"student": view()}, **{"batch_size": 5, "seed": 3, **settings})


def ids_of(batch: Batch, name: str = "student") -> torch.Tensor:
    inputs = batch.inputs[name]
    assert not isinstance(inputs, torch.Tensor)
    return inputs["input_ids"]


def test_texts_and_labels_belong_to_the_ids_and_are_padded_to_the_batch() -> None:
    batch = text_feed().batch(2)
    texts = [SENTENCES[int(number) - 30] for number in batch.ids]
    assert torch.equal(ids_of(batch), view()({"text": texts})["input_ids"])
    assert torch.equal(batch.targets["main"], TEXTS.labels[batch.ids - 30])
    assert batch.positions == {}


def test_21_each_network_reads_a_text_by_its_own_view() -> None:
    views = {"student": view(max_length=4), "teacher": view(max_length=7, type_ids=True)}
    batch = text_feed(views).batch(0)
    assert ids_of(batch).shape[1] == 4
    assert 4 < ids_of(batch, "teacher").shape[1] <= 7
    assert "token_type_ids" in batch.inputs["teacher"]
    shared = make_inputs({"text": ("red", "blue")}, {"student": views["student"], "teacher": views["student"]})
    assert shared["student"] is shared["teacher"]


def test_bucketed_batches_have_texts_of_like_length_and_all_of_them() -> None:
    source, plain = text_feed(order=BucketedOrderConfig(batches=4)), text_feed()
    spread = []
    for each in (source, plain):
        batches = [each.batch(step) for step in range(each.steps_per_epoch)]
        assert sorted(torch.cat([batch.ids for batch in batches]).tolist()) == list(range(30, 50))
        spread.append(sum(int((ids_of(batch) == PAD).sum()) for batch in batches))
    assert spread[0] == 4 + 3 + 2 + 1  # four texts of each of five lengths, in order, in batches of five
    assert spread[1] > spread[0]


def test_bucketed_order_is_for_texts() -> None:
    with pytest.raises(
        CompatibilityError, match=r"training\.order: bucketed sorts texts by length, and the data are im"
    ):
        Feed(make(8), views={"student": PLAIN}, batch_size=4, order=BucketedOrderConfig(), seed=0)


# changed texts


def changed_texts(*, epoch: int = 0, examples: Any = TEXTS, **settings: Any) -> list[str]:
    config = HALF.model_copy(update=settings)
    return list(changed(examples, [config], seed=3, epoch=epoch)["text"])


def test_some_texts_are_changed_and_others_in_each_epoch() -> None:
    first, again, second = changed_texts(), changed_texts(), changed_texts(epoch=1)
    assert first == again
    assert first != second
    same = [one == other for one, other in zip(first, SENTENCES, strict=True)]
    assert 0 < sum(same) < len(same)
    everywhere = changed_texts(probability=1.0, mask=1.0, ngram=0.0)
    assert everywhere == [" ".join(["[MASK]"] * len(text.split())) for text in SENTENCES]


def test_31_how_a_text_is_changed_does_not_depend_on_its_batch() -> None:
    rows = torch.tensor([7, 3, 11])
    assert changed_texts(examples=TEXTS.select(rows)) == [changed_texts()[row] for row in rows.tolist()]


def test_of_a_pair_the_second_text_stays() -> None:
    pairs = make_texts({"text": SENTENCES, "other": SENTENCES[::-1]})
    found = changed(pairs, [HALF], seed=3, epoch=0)
    assert list(found) == ["text", "other"]
    assert list(found["other"]) == SENTENCES[::-1]
    assert list(found["text"]) != SENTENCES


def test_all_networks_read_the_same_change() -> None:
    views = {"student": view(), "teacher": view(max_length=12)}
    batch = text_feed(views, augmentation=(TransferConfig(probability=1.0, mask=0.6),)).batch(0)
    assert bool((ids_of(batch) == MASK).any())
    assert torch.equal(ids_of(batch), ids_of(batch, "teacher"))


def test_changes_of_images_and_of_texts_are_not_taken_for_each_other() -> None:
    with pytest.raises(CompatibilityError, match=r"training\.augmentation: flip does not change texts; remove it"):
        text_feed(augmentation=(FlipConfig(),)).batch(0)
    with pytest.raises(CompatibilityError, match=r"training\.augmentation: transfer does not change images; remove it"):
        feed(make(8), augmentation=(HALF,)).batch(0)
    with pytest.raises(CompatibilityError, match="flip does not change texts"):
        text_feed(augmentation=(HALF, FlipConfig())).batch(0)


@pytest.mark.parametrize("kind", ["masked-lm", "token-classification"])
def test_a_change_of_texts_is_refused_where_targets_are_places_in_them(kind: str) -> None:
    words = make_texts({"text": [text.split() for text in SENTENCES]}, class_names=("O", "B-N"))
    cases: dict[str, Any] = {
        "masked-lm": (TEXTS, MaskedLanguageModelConfig()),
        "token-classification": (words, TokenClassificationConfig()),
    }
    examples, config = cases[kind]
    always = TransferConfig(probability=1.0, mask=0.0, ngram=0.9)
    with pytest.raises(CompatibilityError, match="transfer moves the words of a text"):
        Feed(
            examples,
            views={"student": view()},
            batch_size=20,
            augmentation=(always,),
            targets=make_task(config).targets,
            seed=0,
        ).batch(0)


def test_a_mask_that_is_no_token_of_a_network_s_tokenizer_is_refused() -> None:
    without = TextView(word_tokenizer(mask=False), ("text",), 8)
    with pytest.raises(
        CompatibilityError, match=r"puts \[MASK\] in place of words, .* tokenizer of 'teacher'; set mask_token"
    ):
        text_feed({"student": view(), "teacher": without}, augmentation=(HALF,))
    for config in (TransferConfig(mask=0.0), TransferConfig(mask_token="[UNK]")):
        assert text_feed({"student": without}, augmentation=(config,)).steps_per_epoch > 0


# targets


def test_targets_are_asked_with_one_seed_for_each_pass_and_none_in_evaluation() -> None:
    seeds: list[int | None] = []

    def targets(read: Read) -> Targets:
        seeds.append(read.pass_seed)
        positions = torch.ones(len(read.examples), 2, dtype=torch.bool)
        inputs = {"student": {"input_ids": torch.full((len(read.examples), 2), 7)}}
        return Targets(read.examples.labels, present=positions, positions=positions, inputs=inputs)

    source = text_feed(targets=targets)
    batches = [source.batch(step) for step in range(2 * source.steps_per_epoch)]
    first, second = seeds[: source.steps_per_epoch], seeds[source.steps_per_epoch :]
    assert len(set(first)) == len(set(second)) == 1
    assert first[0] != second[0]
    assert ids_of(batches[0]).tolist() == [[7, 7]] * 5, "what a task changes is what networks read"
    assert batches[0].positions["main"].shape == (5, 2)
    seeds.clear()
    list(evaluation_batches(TEXTS, views={"student": view()}, targets=targets))
    assert seeds == [None]
