import sys
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms import InterpolationMode, v2

from distil.core.errors import MissingExtraError, RecipeError
from distil.data.augmentation import augment, warp
from distil.data.config import AffineConfig, AugmentationConfig, FlipConfig, ShiftConfig, TorchvisionConfig

GENERATOR = torch.Generator().manual_seed(0)
PIXELS = (torch.rand(12, 3, 8, 10, generator=GENERATOR) * 255).round() / 255
IDS = torch.arange(12) * 7 + 3
AFFINE = AffineConfig(degrees=30, translate=0.2, scale=(0.8, 1.25), shear=15)
TORCHVISION = {
    "AugMix": {},
    "ColorJitter": {"brightness": 0.4, "hue": 0.1},
    "ElasticTransform": {"sigma": 1.0},
    "GaussianBlur": {"kernel_size": 3},
    "RandAugment": {},
    "RandomAdjustSharpness": {"sharpness_factor": 2},
    "RandomAffine": {"degrees": 20},
    "RandomAutocontrast": {},
    "RandomCrop": {"padding": 2},
    "RandomEqualize": {},
    "RandomErasing": {},
    "RandomGrayscale": {"p": 0.5},
    "RandomInvert": {},
    "RandomPerspective": {},
    "RandomPosterize": {"bits": 3},
    "RandomResizedCrop": {},
    "RandomRotation": {"degrees": 20},
    "RandomSolarize": {"threshold": 128},
    "RandomVerticalFlip": {},
    "TrivialAugmentWide": {},
}
CHAINS: dict[str, tuple[AugmentationConfig, ...]] = {
    "shift": (ShiftConfig(pixels=2),),
    "flip": (FlipConfig(),),
    "affine": (AFFINE,),
    "all": (ShiftConfig(pixels=1), FlipConfig(), AFFINE),
    "torchvision": (TorchvisionConfig(name="RandomAffine", settings={"degrees": 20}), FlipConfig()),
}


def change(
    chain: tuple[AugmentationConfig, ...],
    rows: list[int],
    *,
    seed: int = 5,
    epoch: int = 2,
    pixels: torch.Tensor = PIXELS,
) -> torch.Tensor:
    return augment(pixels[rows], IDS[rows], chain=chain, seed=seed, epoch=epoch)


@pytest.mark.parametrize("name", CHAINS)
@settings(deadline=None, max_examples=20)
@given(rows=st.lists(st.integers(0, 11), min_size=1, max_size=8, unique=True))
def test_31_a_change_replays_for_any_order_and_company(name: str, rows: list[int]) -> None:
    everything = change(CHAINS[name], list(range(12)))
    assert torch.equal(change(CHAINS[name], rows), everything[rows])


@pytest.mark.parametrize("name", CHAINS)
def test_31_seeds_and_epochs_change_it_and_torch_s_generator_does_not(name: str) -> None:
    everything = list(range(12))
    torch.manual_seed(0)
    first = change(CHAINS[name], everything)
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    assert torch.equal(change(CHAINS[name], everything), first)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert not torch.equal(change(CHAINS[name], everything, epoch=3), first)
    assert not torch.equal(change(CHAINS[name], everything, seed=6), first)


@pytest.mark.parametrize("name", CHAINS)
def test_the_images_themselves_are_not_changed(name: str) -> None:
    before = PIXELS.clone()
    change(CHAINS[name], list(range(12)))
    assert torch.equal(PIXELS, before)


def test_two_changes_of_one_kind_draw_differently() -> None:
    image = torch.zeros(200, 1, 9, 9)
    image[:, :, 4, 4] = 1
    once, twice = (ShiftConfig(pixels=1),), (ShiftConfig(pixels=1), ShiftConfig(pixels=1))
    moved = augment(image, torch.arange(200), chain=twice, seed=0, epoch=0)
    farthest = {abs(int(place[2]) - 4) for place in moved.nonzero()}
    assert farthest == {0, 1, 2}
    alone = augment(image, torch.arange(200), chain=once, seed=0, epoch=0)
    assert {abs(int(place[2]) - 4) for place in alone.nonzero()} == {0, 1}


def rolled(image: np.ndarray, down: int, right: int, margin: int) -> np.ndarray:
    padded = np.pad(image, ((0, 0), (margin, margin), (margin, margin)))
    moved = np.roll(padded, (down, right), axis=(1, 2))
    return moved[:, margin:-margin, margin:-margin]


@pytest.mark.parametrize("margin", [1, 2, 5])
def test_a_shift_moves_the_content_exactly_and_black_moves_in(margin: int) -> None:
    moved = change((ShiftConfig(pixels=margin),), list(range(12)))
    moves = range(-margin, margin + 1)
    for image, found in zip(PIXELS.numpy(), moved.numpy(), strict=True):
        fits = [(d, r) for d in moves for r in moves if np.array_equal(rolled(image, d, r, margin), found)]
        assert len(fits) == 1


def test_a_shift_is_uniform_over_all_moves() -> None:
    margin, count = 2, 20_000
    image = torch.zeros(count, 1, 9, 9)
    image[:, :, 4, 4] = 1
    moved = augment(image, torch.arange(count), chain=(ShiftConfig(pixels=margin),), seed=1, epoch=0)
    places = Counter((int(row) - 4, int(column) - 4) for _, _, row, column in moved.nonzero())
    expected = count / 25
    assert set(places) == {(d, r) for d in range(-2, 3) for r in range(-2, 3)}
    assert sum((found - expected) ** 2 / expected for found in places.values()) < 51.2  # chi-square, 24 degrees, 0.999


def test_a_flip_mirrors_left_to_right_with_its_probability() -> None:
    image = torch.arange(3.0).view(1, 1, 1, 3).expand(10_000, 1, 2, 3)
    flipped = augment(image, torch.arange(10_000), chain=(FlipConfig(probability=0.3),), seed=0, epoch=0)
    mirrored = flipped[:, 0, 0, 0] == 2
    assert torch.equal(flipped[mirrored], image.flip(-1)[mirrored])
    assert torch.equal(flipped[~mirrored], image[~mirrored])
    assert abs(mirrored.double().mean().item() - 0.3) < 0.015  # three standard deviations
    always = augment(PIXELS, IDS, chain=(FlipConfig(probability=1.0),), seed=0, epoch=0)
    assert torch.equal(always, PIXELS.flip(-1))


def warped(pixels: torch.Tensor, **change: float) -> torch.Tensor:
    still = {"degrees": 0.0, "shear": 0.0, "scale": 1.0, "right": 0.0, "down": 0.0, **change}
    return warp(pixels, **{name: np.full(len(pixels), value) for name, value in still.items()})


def test_a_warp_by_nothing_is_the_image() -> None:
    torch.testing.assert_close(warped(PIXELS), PIXELS, atol=1e-5, rtol=0)


def test_a_quarter_turn_is_clockwise() -> None:
    square = PIXELS[..., :8]
    torch.testing.assert_close(warped(square, degrees=90), torch.rot90(square, -1, (2, 3)), atol=1e-4, rtol=0)
    torch.testing.assert_close(warped(square, degrees=-90), torch.rot90(square, 1, (2, 3)), atol=1e-4, rtol=0)
    torch.testing.assert_close(warped(PIXELS, degrees=180), PIXELS.flip(-1, -2), atol=1e-4, rtol=0)


def test_moving_by_whole_pixels_goes_right_and_down() -> None:
    moved = warped(PIXELS, right=2 / 10, down=1 / 8)
    torch.testing.assert_close(moved[..., 1:, 2:], PIXELS[..., :-1, :-2], atol=1e-4, rtol=0)
    assert moved[..., 0, :].abs().max() < 1e-4
    assert moved[..., :2].abs().max() < 1e-4


@pytest.mark.parametrize("size", [(8, 10), (10, 8), (9, 9)])
@pytest.mark.parametrize(
    "settings",
    [
        {"degrees": 25.0},
        {"scale": 1.3},
        {"scale": 0.6},
        {"shear": 20.0},
        {"right": 0.2, "down": -0.5},
        {"degrees": -40.0, "scale": 1.2, "shear": -15.0, "right": -0.2, "down": 0.5},
        {"degrees": 70.0, "scale": 0.7, "shear": 30.0, "right": 0.4},
    ],
)
def test_a_warp_is_torchvision_s_affine(size: tuple[int, int], settings: dict[str, float]) -> None:
    height, width = size
    pixels = torch.rand(2, 1, height, width, generator=torch.Generator().manual_seed(1))
    whole = {"right": settings.get("right", 0.0) * width, "down": settings.get("down", 0.0) * height}
    expected = v2.functional.affine(
        pixels,
        angle=settings.get("degrees", 0.0),
        translate=[whole["right"], whole["down"]],  # type: ignore[list-item]
        scale=settings.get("scale", 1.0),
        shear=[settings.get("shear", 0.0), 0.0],
        interpolation=InterpolationMode.BILINEAR,
    )
    torch.testing.assert_close(warped(pixels, **settings), expected, atol=2e-4, rtol=0)


def test_an_affine_draws_within_its_bounds_and_each_part_by_itself() -> None:
    seen: list[dict[str, np.ndarray]] = []

    def spy(pixels: torch.Tensor, **drawn: np.ndarray) -> torch.Tensor:
        seen.append(drawn)
        return pixels

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("distil.data.augmentation.warp", spy)
        augment(torch.zeros(5000, 1, 2, 2), torch.arange(5000), chain=(AFFINE,), seed=0, epoch=0)
    bounds = {"degrees": (-30, 30), "shear": (-15, 15), "scale": (0.8, 1.25), "right": (-0.2, 0.2), "down": (-0.2, 0.2)}
    assert set(seen[0]) == set(bounds)
    for name, (low, high) in bounds.items():
        drawn = (seen[0][name] - low) / (high - low)
        assert drawn.min() >= 0
        assert drawn.max() <= 1
        assert abs(drawn.mean() - 0.5) < 0.02
        assert abs(drawn.std() - 12**-0.5) < 0.02
    correlations = np.corrcoef(np.stack(list(seen[0].values()))) - np.eye(5)
    assert np.abs(correlations).max() < 0.06


@pytest.mark.parametrize("name", TORCHVISION)
def test_31_a_torchvision_transform_replays(name: str) -> None:
    chain = (TorchvisionConfig(name=name, settings=TORCHVISION[name]),)  # type: ignore[arg-type]
    pixels = (torch.rand(12, 3, 20, 24, generator=torch.Generator().manual_seed(1)) * 150).round() / 255
    everything = change(chain, list(range(12)), pixels=pixels)
    assert everything.shape == pixels.shape
    assert everything.min() >= 0
    assert everything.max() <= 1
    assert torch.equal(change(chain, [9, 2, 5], pixels=pixels), everything[[9, 2, 5]])
    assert not torch.equal(everything, pixels)
    assert not torch.equal(change(chain, list(range(12)), epoch=3, pixels=pixels), everything)


def test_every_transform_that_can_be_named_is_tested() -> None:
    allowed = TorchvisionConfig.model_fields["name"].annotation.__args__  # type: ignore[union-attr]
    assert set(allowed) == set(TORCHVISION)


def test_settings_that_torchvision_refuses_are_shown() -> None:
    with pytest.raises(RecipeError, match=r"augmentation GaussianBlur: settings \{'size': 3\} are refused"):
        change((TorchvisionConfig(name="GaussianBlur", settings={"size": 3}),), [0])


def test_a_transform_that_cannot_take_the_images_says_so() -> None:
    with pytest.raises(
        RecipeError, match=r"ElasticTransform: it cannot change images of shape \[3, 8, 10\]: .*Padding"
    ):
        change((TorchvisionConfig(name="ElasticTransform"),), [0])


def test_a_transform_that_changes_the_size_is_refused() -> None:
    with pytest.raises(RecipeError, match="RandomCrop: it changes the size"):
        change((TorchvisionConfig(name="RandomCrop", settings={"size": 4}),), [0])


def test_without_the_package_the_pip_line_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision.transforms", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'distil\[vision\]'"):
        change((TorchvisionConfig(name="RandomInvert"),), [0])
