"""Examples: images or texts in memory with their labels, and the splits that a run is allowed to see."""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import torch
from jaxtyping import Bool, Int, UInt8
from torch import Tensor

NO_LABEL = -1

Own = TypeVar("Own", bound="Examples")


@dataclass(frozen=True, eq=False)
class Examples(ABC):
    """Rows of data with their labels, all in memory.

    Attributes:
        ids: a number for each example, unique in its source; order and augmentation are drawn from it.
        labels: class numbers; ``NO_LABEL`` where the label may not be seen; 0 for tasks without classes.
        class_names: the class of each number; none for tasks without classes.
    """

    ids: Int[Tensor, " examples"]
    labels: Int[Tensor, " examples"]
    class_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def labelled(self) -> Bool[Tensor, " examples"]:
        return self.labels != NO_LABEL

    @abstractmethod
    def select(self: Own, rows: Tensor) -> Own:
        """The examples in these rows, in this order."""

    @abstractmethod
    def contents(self) -> Iterator[bytes]:
        """What each example is without its label, to be compared bit for bit."""

    def hide_labels(self: Own, keep: Bool[Tensor, " examples"]) -> Own:
        """The same examples with the labels gone where ``keep`` is False."""
        return replace(self, labels=torch.where(keep, self.labels, NO_LABEL))

    def count_shared(self, other: "Examples") -> int:
        """How many of these examples stand, bit for bit, among the others too."""
        known = set(other.contents())
        return sum(each in known for each in self.contents())

    def fingerprint(self) -> str:
        """sha256 of contents, labels, ids and class names."""
        digest = hashlib.sha256("\x1f".join(self.class_names).encode())
        for tensor in (self.ids, self.labels):
            digest.update(str(tuple(tensor.shape)).encode())
            digest.update(tensor.contiguous().numpy().data)
        self._update(digest)
        return digest.hexdigest()

    @abstractmethod
    def _update(self, digest: Any) -> None: ...


@dataclass(frozen=True, eq=False)
class ImageExamples(Examples):
    """Images, decoded once: pixels 0..255."""

    images: UInt8[Tensor, "examples channels height width"]

    @property
    def image_shape(self) -> tuple[int, int, int]:
        channels, height, width = self.images.shape[1:]
        return channels, height, width

    def select(self, rows: Tensor) -> "ImageExamples":
        return replace(self, ids=self.ids[rows], images=self.images[rows], labels=self.labels[rows])

    def contents(self) -> Iterator[bytes]:
        return (image.tobytes() for image in self.images.numpy())

    def _update(self, digest: Any) -> None:
        digest.update(str(tuple(self.images.shape)).encode())
        digest.update(self.images.contiguous().numpy().data)


@dataclass(frozen=True, eq=False)
class TextExamples(Examples):
    """Texts and whatever belongs to them.

    Attributes:
        columns: the texts by the column's name; of token classification, lists of words.
        wanted: what a task needs beside a class: ``labels`` (a list of classes or of tags), ``target``, ``answers``,
            ``score``.
        groups: of each example, such as the question that it is a candidate for; None: each stands for itself.
    """

    columns: Mapping[str, tuple[Any, ...]]
    wanted: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    groups: tuple[str, ...] | None = None

    def select(self, rows: Tensor) -> "TextExamples":
        chosen = rows.tolist()
        return replace(
            self,
            ids=self.ids[rows],
            labels=self.labels[rows],
            columns={name: tuple(values[row] for row in chosen) for name, values in self.columns.items()},
            wanted={name: tuple(values[row] for row in chosen) for name, values in self.wanted.items()},
            groups=None if self.groups is None else tuple(self.groups[row] for row in chosen),
        )

    def contents(self) -> Iterator[bytes]:
        return (json.dumps(row, ensure_ascii=False).encode() for row in zip(*self.columns.values(), strict=True))

    def _update(self, digest: Any) -> None:
        for name, values in [*self.columns.items(), *self.wanted.items()]:
            digest.update(name.encode())
            for value in values:
                digest.update(json.dumps(value, ensure_ascii=False, sort_keys=True).encode() + b"\x1f")
        digest.update(repr(self.groups).encode())


@dataclass(frozen=True, eq=False)
class Sealed:
    """The test split. Nothing but the final evaluation and parity opens it, and each says so."""

    _examples: Examples = field(repr=False)

    def open_for_final_evaluation(self) -> Examples:
        return self._examples

    def open_for_parity(self, count: int) -> Examples:
        return self._examples.select(torch.arange(min(count, len(self._examples))))

    def count_shared(self, other: Examples) -> int:
        """How many examples of the test split stand among the others; for the check that splits are apart."""
        return self._examples.count_shared(other)

    def __len__(self) -> int:
        return len(self._examples)

    def fingerprint(self) -> str:
        return self._examples.fingerprint()


@dataclass(frozen=True, eq=False)
class Splits:
    """What a run works on. ``train`` has every label; ``students`` is the same with only the labels they may see."""

    source: str
    train: Examples
    students: Examples
    validation: Examples | None
    test: Sealed

    def fingerprint(self) -> str:
        parts = [self.students.fingerprint(), self.train.fingerprint(), self.test.fingerprint()]
        parts.append(self.validation.fingerprint() if self.validation is not None else "none")
        return hashlib.sha256(" ".join(parts).encode()).hexdigest()
