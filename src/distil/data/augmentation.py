"""Random changes of images. Each draw is a function of (seed, epoch, example): any order and any restart replays it."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from distil.core.errors import MissingExtraError, RecipeError
from distil.core.seeds import derive, seeded, uniform
from distil.data.config import AffineConfig, FlipConfig, ImageAugmentationConfig, ShiftConfig, TorchvisionConfig

Pixels = Float[Tensor, "batch channels height width"]


def augment(
    pixels: Pixels, ids: Int[Tensor, " batch"], *, chain: Sequence[ImageAugmentationConfig], seed: int, epoch: int
) -> Pixels:
    """The images after each change of the chain, in its order. Pixels are numbers in 0..1."""
    for position, config in enumerate(chain):
        draws = _Draws(ids.numpy(), derive("augmentation", seed, epoch, position))
        match config:
            case ShiftConfig():
                pixels = _shift(pixels, draws, config)
            case FlipConfig():
                pixels = _flip(pixels, draws, config)
            case AffineConfig():
                pixels = _affine(pixels, draws, config)
            case TorchvisionConfig():
                pixels = _torchvision(pixels, draws, config)
    return pixels


class _Draws:
    """Numbers in [0, 1) for each example, a new set at every call."""

    def __init__(self, ids: np.ndarray, seed: int) -> None:
        self._ids, self._seed, self._calls = ids, seed, 0

    def __call__(self, low: float = 0.0, high: float = 1.0) -> np.ndarray:
        self._calls += 1
        return low + (high - low) * uniform(derive(self._seed, self._calls), self._ids)

    def seeds(self) -> list[int]:
        return [derive(self._seed, int(example)) for example in self._ids]


def _shift(pixels: Pixels, draws: _Draws, config: ShiftConfig) -> Pixels:
    margin = config.pixels
    steps = 2 * margin + 1
    height, width = pixels.shape[-2:]
    padded = F.pad(pixels, (margin, margin, margin, margin))
    top = torch.from_numpy((draws() * steps).astype(np.int64))
    left = torch.from_numpy((draws() * steps).astype(np.int64))
    rows = top[:, None] + torch.arange(height)
    columns = left[:, None] + torch.arange(width)
    flat = (rows[:, :, None] * padded.shape[-1] + columns[:, None, :]).flatten(1)
    gathered = padded.flatten(2).gather(2, flat[:, None, :].expand(-1, pixels.shape[1], -1))
    return gathered.view_as(pixels)


def _flip(pixels: Pixels, draws: _Draws, config: FlipConfig) -> Pixels:
    mirrored = torch.from_numpy(draws() < config.probability).view(-1, 1, 1, 1)
    return torch.where(mirrored, pixels.flip(-1), pixels)


def _affine(pixels: Pixels, draws: _Draws, config: AffineConfig) -> Pixels:
    return warp(
        pixels,
        degrees=draws(-config.degrees, config.degrees),
        shear=draws(-config.shear, config.shear),
        scale=draws(*config.scale),
        right=draws(-config.translate, config.translate),
        down=draws(-config.translate, config.translate),
    )


def warp(
    pixels: Pixels, *, degrees: np.ndarray, shear: np.ndarray, scale: np.ndarray, right: np.ndarray, down: np.ndarray
) -> Pixels:
    """Each image sheared along x, scaled and turned clockwise about its centre, then moved; bilinear, black outside.

    Args:
        pixels: the images.
        degrees: to turn, for each image.
        shear: degrees between the sheared and the upright columns, for each image.
        scale: above 1 enlarges, for each image.
        right: share of the width to move by, for each image.
        down: share of the height to move by, for each image.
    """
    angle, slope = np.radians(degrees), np.tan(np.radians(shear))
    cos, sin = np.cos(angle) / scale, np.sin(angle) / scale
    aspect = pixels.shape[-2] / pixels.shape[-1]
    # grid_sample asks where each output pixel comes from, in units of half the size: the inverse of the change itself
    inverse = np.stack([cos - slope * sin, (sin + slope * cos) * aspect, -sin / aspect, cos], axis=1).reshape(-1, 2, 2)
    moved = np.stack([2 * right, 2 * down], axis=1)[:, :, None]
    matrix = np.concatenate([inverse, -inverse @ moved], axis=2)
    grid = F.affine_grid(torch.from_numpy(matrix).to(pixels.dtype), list(pixels.shape), align_corners=False)
    return F.grid_sample(pixels, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def _torchvision(pixels: Pixels, draws: _Draws, config: TorchvisionConfig) -> Pixels:
    transform = _torchvision_transform(config, height=pixels.shape[-2], width=pixels.shape[-1])
    changed = []
    for image, seed in zip(pixels.mul(255).round().to(torch.uint8), draws.seeds(), strict=True):
        with seeded(seed):
            changed.append(_apply(transform, image, config.name))
    if any(image.shape != pixels.shape[1:] for image in changed):
        raise RecipeError(
            f"augmentation {config.name}: it changes the size of the images; choose settings that keep it"
        )
    return torch.stack(changed).to(pixels.dtype).div_(255.0)


def _apply(transform: Any, image: Tensor, name: str) -> Tensor:
    try:
        return transform(image)
    except (TypeError, ValueError, RuntimeError) as error:
        raise RecipeError(
            f"augmentation {name}: it cannot change images of shape {list(image.shape)}: {error}"
        ) from error


def _torchvision_transform(config: TorchvisionConfig, *, height: int, width: int) -> Any:
    try:
        from torchvision.transforms import v2
    except ImportError as error:
        raise MissingExtraError("torchvision", extra="vision", purpose=f"the augmentation {config.name}") from error
    settings = dict(config.settings)
    if config.name in ("RandomCrop", "RandomResizedCrop"):
        settings.setdefault("size", [height, width])
    try:
        return getattr(v2, config.name)(**settings)
    except (TypeError, ValueError) as error:
        raise RecipeError(f"augmentation {config.name}: settings {config.settings} are refused: {error}") from error
