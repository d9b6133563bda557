"""A feed: the batch of every step of a training, as a function of the step alone."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, assert_never

import torch
from jaxtyping import Bool
from torch import Tensor

from distil.core.errors import CompatibilityError
from distil.core.inputs import Inputs
from distil.core.seeds import derive, uniform
from distil.data.augmentation import augment
from distil.data.balanced import balanced_order
from distil.data.batch import Batch
from distil.data.bucketed import bucketed_order
from distil.data.config import (
    AugmentationConfig,
    BalancedOrderConfig,
    BucketedOrderConfig,
    OrderConfig,
    ShuffledOrderConfig,
    TransferConfig,
)
from distil.data.example import Examples, ImageExamples, TextExamples
from distil.data.order import batch_bounds, epoch_order
from distil.data.text_augmentation import transfer_variant
from distil.data.text_view import TextView
from distil.data.view import View, to_pixels

TASK = "main"
SHUFFLED = ShuffledOrderConfig()

AnyView = View | TextView


@dataclass(frozen=True, eq=False)
class Targets:
    """What should be said about a batch.

    Attributes:
        values: class numbers, or whatever the task compares with.
        present: where that is known.
        positions: the tokens whose answers count, of tasks that answer for tokens.
        inputs: of the views, where the task changes them, as masking does.
    """

    values: Tensor
    present: Bool[Tensor, "batch *tokens"]
    positions: Bool[Tensor, "batch tokens"] | None = None
    inputs: Mapping[str, Inputs] | None = None


@dataclass(frozen=True, eq=False)
class Read:
    """Examples as they were read for a batch: by each view, and in which pass over the data; None: in evaluation."""

    examples: Examples
    views: Mapping[str, AnyView]
    inputs: Mapping[str, Inputs]
    pass_seed: int | None = None


TargetMaker = Callable[[Read], Targets]


def class_targets(read: Read) -> Targets:
    """The class of each example, where it is known."""
    labels = read.examples.labels
    return Targets(values=labels, present=labels >= 0)


class Feed:
    """Batches of examples by step. Nothing of it needs saving: equal (seed, step) give equal batches.

    Args:
        examples: what to train on; labels that may not be seen are absent from it.
        views: for each name, the model input to make.
        batch_size: examples in a step.
        order: of the examples in an epoch.
        augmentation: changes made to images or texts before the views, so that all models see the same change.
        targets: what should be said about examples.
        seed: of order and augmentation.
    """

    def __init__(
        self,
        examples: Examples,
        *,
        views: Mapping[str, AnyView],
        batch_size: int,
        augmentation: Sequence[AugmentationConfig] = (),
        order: OrderConfig = SHUFFLED,
        targets: TargetMaker = class_targets,
        seed: int,
    ) -> None:
        self._examples, self._views, self._chain, self._seed = examples, dict(views), tuple(augmentation), seed
        self._order_config, self._targets, self._batch_size = order, targets, batch_size
        self._epoch_of_order, self._rows = -1, torch.empty(0, dtype=torch.int64)
        self._bounds = batch_bounds(len(self._order(0)), batch_size)
        for config in self._chain:
            if isinstance(config, TransferConfig) and config.mask > 0:
                _require_mask(config, self._views)

    @property
    def steps_per_epoch(self) -> int:
        return len(self._bounds)

    def batch(self, step: int) -> Batch:
        """The batch of a step, counted from 0 over all epochs."""
        epoch, position = divmod(step, self.steps_per_epoch)
        start, end = self._bounds[position]
        rows = self._order(epoch)[start:end]
        examples = self._examples.select(rows)
        raw = changed(examples, self._chain, seed=self._seed, epoch=epoch)
        batch = make_batch(examples, raw, self._views, self._targets, pass_seed=derive("pass", self._seed, epoch))
        if self._chain and batch.positions:
            raise _places_move(self._chain[0].kind)
        return batch

    def _order(self, epoch: int) -> Tensor:
        if self._epoch_of_order != epoch:
            self._rows = self._new_order(epoch)
            self._epoch_of_order = epoch
        return self._rows

    def _new_order(self, epoch: int) -> Tensor:
        match self._order_config:
            case ShuffledOrderConfig():
                return epoch_order(len(self._examples), seed=self._seed, epoch=epoch)
            case BalancedOrderConfig(classes_per_batch=classes, examples_per_class=number):
                return balanced_order(
                    self._examples.labels,
                    classes_per_batch=classes,
                    examples_per_class=number,
                    seed=self._seed,
                    epoch=epoch,
                )
            case BucketedOrderConfig(batches=batches):
                return bucketed_order(
                    self._lengths(), batch_size=self._batch_size, batches=batches, seed=self._seed, epoch=epoch
                )
            case _:
                assert_never(self._order_config)

    def _lengths(self) -> list[int]:
        """Tokens of each example, as the first view reads it."""
        view = next(iter(self._views.values()))
        if not isinstance(self._examples, TextExamples) or not isinstance(view, TextView):
            raise CompatibilityError("training.order: bucketed sorts texts by length, and the data are images")
        return [sum(len(each.ids) for each in row) for row in view.windows(self._examples.columns)]


def evaluation_batches(
    examples: Examples,
    *,
    views: Mapping[str, AnyView],
    batch_size: int = 512,
    targets: TargetMaker = class_targets,
) -> Iterator[Batch]:
    """All examples once, unchanged, in their own order."""
    for start in range(0, len(examples), batch_size):
        piece = examples.select(torch.arange(start, min(start + batch_size, len(examples))))
        yield make_batch(piece, raw_of(piece), views, targets)


def make_batch(
    examples: Examples,
    raw: Any,
    views: Mapping[str, AnyView],
    targets: TargetMaker,
    *,
    pass_seed: int | None = None,
) -> Batch:
    """The batch of examples whose pixels or texts are ``raw``."""
    read = Read(examples, views, make_inputs(raw, views), pass_seed)
    wanted = targets(read)
    return Batch(
        ids=examples.ids,
        inputs=wanted.inputs if wanted.inputs is not None else read.inputs,
        targets={TASK: wanted.values},
        present={TASK: wanted.present},
        positions={} if wanted.positions is None else {TASK: wanted.positions},
    )


def raw_of(examples: Examples) -> Any:
    """What views read: pixels in 0..1, or texts by column."""
    if isinstance(examples, ImageExamples):
        return to_pixels(examples.images)
    assert isinstance(examples, TextExamples)
    return examples.columns


def changed(examples: Examples, chain: Sequence[AugmentationConfig], *, seed: int, epoch: int) -> Any:
    """What views read, after each change of the chain."""
    raw = raw_of(examples)
    if not chain:
        return raw
    for_texts = [each for each in chain if isinstance(each, TransferConfig)]
    for_images = [each for each in chain if not isinstance(each, TransferConfig)]
    if isinstance(examples, ImageExamples) and not for_texts:
        return augment(raw, examples.ids, chain=for_images, seed=seed, epoch=epoch)
    if isinstance(examples, TextExamples) and not for_images:
        if any(isinstance(values[0], list) for values in examples.columns.values()):
            raise _places_move(for_texts[0].kind)
        for position, config in enumerate(for_texts):
            raw = _transferred(raw, examples.ids, config, seed=derive("augmentation", seed, epoch, position))
        return raw
    wrong = for_images[0].kind if isinstance(examples, TextExamples) else for_texts[0].kind
    found = "texts" if isinstance(examples, TextExamples) else "images"
    raise CompatibilityError(f"training.augmentation: {wrong} does not change {found}; remove it")


def _require_mask(config: TransferConfig, views: Mapping[str, AnyView]) -> None:
    """A name that the tokenizer does not know is cut into pieces like any word, and hides nothing."""
    for name, view in views.items():
        if isinstance(view, TextView) and len(view.uncut.encode(config.mask_token, add_special_tokens=False).ids) != 1:
            raise CompatibilityError(
                f"training.augmentation: {config.kind} puts {config.mask_token} in place of words, which is no token "
                f"for the tokenizer of {name!r}; set mask_token to its own mask or unknown token, or mask to 0"
            )


def _places_move(kind: str) -> CompatibilityError:
    return CompatibilityError(
        f"training.augmentation: {kind} moves the words of a text, and the targets of this task are places in it; "
        "remove it"
    )


def make_inputs(raw: Any, views: Mapping[str, AnyView]) -> dict[str, Inputs]:
    """The input of each view; equal views share one tensor."""
    made: dict[AnyView, Inputs] = {}
    for view in views.values():
        if view not in made:
            made[view] = view(raw)
    return {name: made[view] for name, view in views.items()}


def _transferred(
    texts: Mapping[str, Sequence[str]], ids: Tensor, config: TransferConfig, *, seed: int
) -> dict[str, list[str]]:
    """The first text of some examples changed; the second of a pair stays."""
    first, *others = texts
    is_changed = uniform(seed, ids.numpy()) < config.probability
    found = [
        _variant(text, example, config, seed) if chosen else text
        for text, example, chosen in zip(texts[first], ids.tolist(), is_changed.tolist(), strict=True)
    ]
    return {first: found, **{name: list(texts[name]) for name in others}}


def _variant(text: str, example: int, config: TransferConfig, seed: int) -> str:
    return transfer_variant(
        text,
        example_id=example,
        seed=seed,
        variant=0,
        mask_probability=config.mask,
        ngram_probability=config.ngram,
        mask_token=config.mask_token,
    )
