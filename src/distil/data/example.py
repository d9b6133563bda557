"""Examples: images in memory with their labels, and the splits that a run is allowed to see."""

import hashlib
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Bool, Int, UInt8
from torch import Tensor

NO_LABEL = -1


@dataclass(frozen=True, eq=False)
class Examples:
    """Images, decoded once, with their labels.

    Attributes:
        ids: a number for each example, unique in its source; order and augmentation are drawn from it.
        images: pixels 0..255.
        labels: class numbers; ``NO_LABEL`` where the label may not be seen.
        class_names: the class of each number.
    """

    ids: Int[Tensor, " examples"]
    images: UInt8[Tensor, "examples channels height width"]
    labels: Int[Tensor, " examples"]
    class_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        channels, height, width = self.images.shape[1:]
        return channels, height, width

    @property
    def labelled(self) -> Bool[Tensor, " examples"]:
        return self.labels != NO_LABEL

    def select(self, rows: Tensor) -> "Examples":
        """The examples in these rows, in this order."""
        return replace(self, ids=self.ids[rows], images=self.images[rows], labels=self.labels[rows])

    def hide_labels(self, keep: Bool[Tensor, " examples"]) -> "Examples":
        """The same examples with the labels gone where ``keep`` is False."""
        return replace(self, labels=torch.where(keep, self.labels, NO_LABEL))

    def count_shared_images(self, other: "Examples") -> int:
        """How many of these images stand, pixel for pixel, among the others too."""
        known = {image.tobytes() for image in other.images.numpy()}
        return sum(image.tobytes() in known for image in self.images.numpy())

    def fingerprint(self) -> str:
        """sha256 of pixels, labels, ids and class names."""
        digest = hashlib.sha256("\x1f".join(self.class_names).encode())
        for tensor in (self.ids, self.images, self.labels):
            digest.update(str(tuple(tensor.shape)).encode())
            digest.update(tensor.contiguous().numpy().data)
        return digest.hexdigest()


@dataclass(frozen=True, eq=False)
class Sealed:
    """The test split. Nothing but the final evaluation and parity opens it, and each says so."""

    _examples: Examples = field(repr=False)

    def open_for_final_evaluation(self) -> Examples:
        return self._examples

    def open_for_parity(self, count: int) -> Examples:
        return self._examples.select(torch.arange(min(count, len(self._examples))))

    def count_shared_images(self, other: Examples) -> int:
        """How many images of the test split stand among the others; for the check that splits are apart."""
        return self._examples.count_shared_images(other)

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
