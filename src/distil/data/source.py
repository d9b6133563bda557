"""Sources: where images and labels are read from. Each gives training examples, and a test split where it has one."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from distil.core.errors import DataError
from distil.data.config import ArraysConfig, DataConfig, DigitsConfig, HuggingFaceConfig, TextConfig, ValidationConfig
from distil.data.example import Examples, ImageExamples
from distil.data.hub import load_dataset
from distil.data.text_source import read_texts


@dataclass(frozen=True, eq=False)
class Source:
    """What was read: ``name`` says where; ``test`` and ``validation`` are None where the source has no such split."""

    name: str
    train: Examples
    validation: Examples | None = None
    test: Examples | None = None


def read_source(config: DataConfig) -> Source:
    """Reads and decodes all images once.

    Raises:
        DataError: a file, split or column is missing, an image cannot be used, or a label is not a class.
        MissingExtraError: the source needs a package that is not installed.
    """
    match config:
        case DigitsConfig():
            return _digits()
        case HuggingFaceConfig():
            return _hugging_face(config)
        case TextConfig():
            return _texts(config)
        case ArraysConfig():
            return _arrays(config)


def _digits() -> Source:
    from sklearn.datasets import load_digits

    bunch: Any = load_digits()
    pixels = np.round(bunch.images * (255 / 16)).astype(np.uint8)[:, None]  # the values are 0..16
    examples = make_examples(pixels, bunch.target, class_names=[str(name) for name in bunch.target_names])
    return Source(name="scikit-learn digits", train=examples)


def _arrays(config: ArraysConfig) -> Source:
    return Source(
        name="arrays in memory",
        train=make_examples(config.images, config.labels_of_images, class_names=config.class_names),
    )


def _texts(config: TextConfig) -> Source:
    name, splits = read_texts(config)
    validation = config.validation.split if isinstance(config.validation, ValidationConfig) else None
    return Source(
        name=name,
        train=splits[config.train],
        validation=splits[validation] if validation is not None else None,
        test=splits[config.test] if isinstance(config.test, str) else None,
    )


def make_examples(
    images: np.ndarray, labels: np.ndarray, *, class_names: Sequence[str], first_id: int = 0, where: str = "data"
) -> ImageExamples:
    """Examples from arrays, after a look at their types, shapes and values."""
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise DataError(
            f"{where}: images have shape {list(images.shape)}; expected [examples, 1 or 3 channels, height, width]"
        )
    if images.dtype != np.uint8:
        images = as_bytes(images, where=where)
    if len(images) != len(labels):
        raise DataError(f"{where}: {len(images)} images and {len(labels)} labels; each image needs one label")
    labels = np.asarray(labels)
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise DataError(
            f"{where}: labels are {labels.dtype} of shape {list(labels.shape)}; expected one whole number an example"
        )
    labels = labels.astype(np.int64)
    wrong = np.flatnonzero((labels < 0) | (labels >= len(class_names)))
    if len(wrong):
        raise DataError(
            f"{where}: example {wrong[0]} has label {labels[wrong[0]]}, and there are {len(class_names)} classes (0 to "
            f"{len(class_names) - 1}); {len(wrong)} examples have such a label. Remove them or name their classes"
        )
    return ImageExamples(
        ids=torch.arange(first_id, first_id + len(images)),
        images=torch.from_numpy(np.ascontiguousarray(images)),
        labels=torch.from_numpy(labels),
        class_names=tuple(class_names),
    )


def as_bytes(pixels: np.ndarray, *, where: str) -> np.ndarray:
    """Pixels of another type as 0..255: floats in 0..1 or 0..255, whole numbers in 0..255, booleans."""
    if pixels.dtype == np.bool_:
        return pixels.astype(np.uint8) * np.uint8(255)
    _refuse_not_finite(pixels, where=where)
    low, high = float(pixels.min(initial=0)), float(pixels.max(initial=0))
    if low < 0 or high > 255:
        raise DataError(
            f"{where}: pixels reach from {low:g} to {high:g}; expected 0 to 255, or 0 to 1. Rescale them first"
        )
    if np.issubdtype(pixels.dtype, np.floating) and high <= 1:
        pixels = pixels * 255
    return np.round(pixels).astype(np.uint8)


def _refuse_not_finite(pixels: np.ndarray, *, where: str) -> None:
    if not np.isfinite(pixels).all():
        place = tuple(int(axis[0]) for axis in np.nonzero(~np.isfinite(pixels)))
        raise DataError(f"{where}: pixel {place} is {pixels[place]}, not a number. Repair or remove the image")


def _hugging_face(config: HuggingFaceConfig) -> Source:
    table, name = load_dataset(config, extra="vision")
    wanted = [config.train]
    if isinstance(config.test, str):
        wanted.append(config.test)
    if isinstance(config.validation, ValidationConfig) and config.validation.split is not None:
        wanted.append(config.validation.split)
    missing = [split for split in wanted if split not in table]
    if missing:
        remedy = " Set data.test to a share, such as 0.2, to split one off." if config.test in missing else ""
        raise DataError(f"{name}: no split {missing[0]!r}; it has {sorted(table)}.{remedy}")
    class_names = _class_names(table[config.train], config, name)
    splits: dict[str, Examples] = {}
    first_id = 0
    for split in wanted:
        splits[split] = _decode(table[split], config, class_names, first_id=first_id, where=f"{name}, split {split}")
        first_id += len(splits[split])
    validation = config.validation.split if isinstance(config.validation, ValidationConfig) else None
    return Source(
        name=name,
        train=splits[config.train],
        validation=splits[validation] if validation is not None else None,
        test=splits[config.test] if isinstance(config.test, str) else None,
    )


def _class_names(split: Any, config: HuggingFaceConfig, name: str) -> list[str]:
    for column in (config.image, config.label):
        if column not in split.column_names:
            raise DataError(
                f"{name}: no column {column!r}; it has {split.column_names}. Set data.image and data.label; a folder "
                "of images needs a folder for each of two or more classes"
            )
    feature = split.features[config.label]
    if hasattr(feature, "names"):
        return [str(class_name) for class_name in feature.names]
    values = set(split[config.label])
    other = sorted({type(value).__name__ for value in values if not isinstance(value, int)})
    if other:
        raise DataError(f"{name}: column {config.label!r} holds {' and '.join(other)}, not class numbers")
    return [str(value) for value in range(max(values, default=-1) + 1)]


def _decode(
    split: Any, config: HuggingFaceConfig, class_names: Sequence[str], *, first_id: int, where: str
) -> ImageExamples:
    import datasets

    if len(split) == 0:
        raise DataError(f"{where}: it is empty; a split needs at least one example")
    column = split.select_columns([config.image]).cast_column(config.image, datasets.Image(decode=False))
    images: list[np.ndarray] = []
    for row, item in enumerate(column):
        image = _decode_image(item[config.image], config.size, where=f"{where}, row {row}")
        if images:
            _refuse_mismatch(image, images[0], where=f"{where}, row {row}")
        images.append(image)
    channels = max(image.shape[0] for image in images)  # grey images among coloured ones become coloured
    return make_examples(
        np.stack([np.broadcast_to(image, (channels, *image.shape[1:])) for image in images]),
        np.asarray(split[config.label]),
        class_names=class_names,
        first_id=first_id,
        where=where,
    )


def _refuse_mismatch(image: np.ndarray, first: np.ndarray, *, where: str) -> None:
    if image.shape[1:] != first.shape[1:]:
        sizes = f"{list(image.shape[1:])} and row 0 is {list(first.shape[1:])} [height, width]"
        raise DataError(f"{where}: the image is {sizes}. Set data.size")
    if image.dtype != first.dtype:
        kinds = f"{image.dtype} and those of row 0 are {first.dtype}"
        raise DataError(f"{where}: the pixels are {kinds}; their scales may differ. Save all images in one format")


def _decode_image(item: Any, size: tuple[int, int] | None, *, where: str) -> np.ndarray:
    from io import BytesIO

    from PIL import Image, ImageOps

    try:
        content = item["bytes"] if item["bytes"] is not None else Path(item["path"]).read_bytes()
        image = Image.open(BytesIO(content))
        image = ImageOps.exif_transpose(image)  # phones store a turned picture with a note that it is turned
    except Exception as error:
        raise DataError(f"{where}: the image cannot be decoded: {error}. Repair or remove it") from error
    is_scientific = image.mode[0] in "FI"  # numbers that are not bytes; their scale is that of the whole split
    if is_scientific:
        _refuse_not_finite(np.asarray(image), where=where)
    else:
        image = image.convert("L" if image.mode in ("1", "L", "LA") else "RGB")
    if size is not None and image.size != (size[1], size[0]):
        image = image.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    pixels = np.asarray(image)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
