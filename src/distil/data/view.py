"""A view: one model's input made from an image, with that model's own resolution, channels and normalisation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional as F

from distil.core.errors import CompatibilityError
from distil.data.config import InputsConfig

LUMINANCE = (0.299, 0.587, 0.114)  # ITU-R BT.601, as image libraries convert to grey


@dataclass(frozen=True)
class View:
    """How pixels in 0..1 become a model's input. Equal views of one batch are computed once."""

    channels: int
    height: int
    width: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, pixels: Float[Tensor, "batch channels height width"]) -> Tensor:
        """The model's input: channels, then size, then normalisation."""
        pixels = self._with_channels(pixels)
        if pixels.shape[-2:] != (self.height, self.width):
            size = (self.height, self.width)
            pixels = F.interpolate(pixels, size=size, mode="bilinear", antialias=True, align_corners=False)
        if self._is_identity:
            return pixels
        mean, std = self._moments
        return (pixels - mean) / std

    def describe(self, class_names: Sequence[str]) -> dict[str, object]:
        """The content of ``labels_and_preprocessing.json``: all that a program without distil needs to feed it."""
        return {
            "format": 1,
            "class_names": list(class_names),
            "input": {
                "name": "images",
                "layout": "NCHW",
                "dtype": "float32",
                "channels": self.channels,
                "height": self.height,
                "width": self.width,
            },
            "preprocessing": {
                "mode": "L" if self.channels == 1 else "RGB",
                "scale": 1 / 255,
                "mean": list(self.mean),
                "std": list(self.std),
            },
            "output": {"name": "logits"},
        }

    @cached_property
    def _is_identity(self) -> bool:
        return set(self.mean) == {0.0} and set(self.std) == {1.0}

    @cached_property
    def _moments(self) -> tuple[Tensor, Tensor]:
        return torch.tensor(self.mean).view(-1, 1, 1), torch.tensor(self.std).view(-1, 1, 1)

    def _with_channels(self, pixels: Tensor) -> Tensor:
        if pixels.shape[1] == self.channels:
            return pixels
        if pixels.shape[1] == 1:
            return pixels.expand(-1, self.channels, -1, -1)
        return (pixels * torch.tensor(LUMINANCE).view(-1, 1, 1)).sum(dim=1, keepdim=True)


def make_view(config: InputsConfig, *, image_shape: tuple[int, int, int], own: Mapping[str, object]) -> View:
    """The view of a model: what the recipe says, else what the model asks for (``own``), else the image as it is."""
    if config.of_texts:
        raise CompatibilityError(f"inputs.{config.of_texts[0]} is for texts, and the data are images; remove it")
    own_config = InputsConfig.model_validate(own)
    merged = own_config.model_copy(update=config.model_dump(exclude_none=True))
    channels = merged.channels or image_shape[0]
    size = merged.size or image_shape[1:]
    height, width = (size, size) if isinstance(size, int) else size
    mean = _per_channel(merged.mean, channels, default=0.0, name="mean")
    std = _per_channel(merged.std, channels, default=1.0, name="std")
    return View(channels=channels, height=height, width=width, mean=mean, std=std)


def to_pixels(images: UInt8[Tensor, "batch channels height width"]) -> Float[Tensor, "batch channels height width"]:
    """Pixels 0..255 as numbers in 0..1."""
    return images.to(torch.float32).div_(255.0)


def _per_channel(
    value: Sequence[float] | float | None, channels: int, *, default: float, name: str
) -> tuple[float, ...]:
    if value is None:
        return (default,) * channels
    if isinstance(value, (int, float)):
        return (float(value),) * channels
    if len(value) != channels:
        raise CompatibilityError(f"inputs.{name} has {len(value)} numbers, and the input has {channels} channels")
    return tuple(float(number) for number in value)
