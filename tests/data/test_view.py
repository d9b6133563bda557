import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from distil.core.errors import CompatibilityError
from distil.data.config import InputsConfig
from distil.data.view import View, make_view, to_pixels

PIXELS = torch.rand(4, 3, 9, 7, generator=torch.Generator().manual_seed(0))
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


@pytest.mark.parametrize("size", [(9, 7), (18, 14), (4, 3), (5, 20)])
def test_21_a_view_is_torchvision_s_resize_and_normalise(size: tuple[int, int]) -> None:
    view = View(channels=3, height=size[0], width=size[1], **IMAGENET)
    resized = v2.functional.resize(PIXELS, list(size), antialias=True)
    expected = v2.functional.normalize(resized, list(IMAGENET["mean"]), list(IMAGENET["std"]))
    torch.testing.assert_close(view(PIXELS), expected, atol=1e-6, rtol=0)


def test_normalisation_by_hand() -> None:
    view = View(channels=1, height=1, width=2, mean=(0.5,), std=(0.25,))
    assert view(torch.tensor([[[[0.0, 1.0]]]])).flatten().tolist() == [-2.0, 2.0]


def test_grey_becomes_three_equal_channels_and_comes_back() -> None:
    grey = PIXELS[:, :1]
    colour = View(channels=3, height=9, width=7, mean=(0.0,) * 3, std=(1.0,) * 3)(grey)
    assert torch.equal(colour, grey.expand(4, 3, 9, 7))
    back = View(channels=1, height=9, width=7, mean=(0.0,), std=(1.0,))(colour)
    torch.testing.assert_close(back, grey, atol=1e-6, rtol=0)


def test_colour_becomes_grey_as_pillow_does() -> None:
    images = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    grey = View(channels=1, height=9, width=7, mean=(0.0,), std=(1.0,))
    found = grey(to_pixels(torch.from_numpy(images.transpose(2, 0, 1)[None].copy())))[0, 0] * 255
    expected = np.asarray(Image.fromarray(images).convert("L"), dtype=np.float32)
    assert np.abs(found.numpy() - expected).max() <= 0.51  # Pillow rounds to whole numbers


def test_an_image_that_fits_is_left_as_it_is() -> None:
    assert View(channels=3, height=9, width=7, mean=(0.0,) * 3, std=(1.0,) * 3)(PIXELS) is PIXELS


def test_a_view_does_not_change_its_pixels() -> None:
    before = PIXELS.clone()
    View(channels=1, height=4, width=4, mean=(0.5,), std=(0.5,))(PIXELS)
    assert torch.equal(PIXELS, before)


def test_pixels_are_bytes_divided_by_255() -> None:
    images = torch.tensor([[[[0, 51, 255]]]], dtype=torch.uint8)
    assert to_pixels(images).flatten().tolist() == pytest.approx([0.0, 0.2, 1.0])
    assert images.flatten().tolist() == [0, 51, 255]


def test_the_recipe_goes_before_the_model_s_wish_and_that_before_the_image() -> None:
    image_shape = (1, 28, 30)
    assert make_view(InputsConfig(), image_shape=image_shape, own={}) == View(1, 28, 30, (0.0,), (1.0,))
    own = {"channels": 3, "size": 224, **IMAGENET}
    assert make_view(InputsConfig(), image_shape=image_shape, own=own) == View(3, 224, 224, **IMAGENET)
    chosen = make_view(InputsConfig(size=(32, 48), mean=0.5), image_shape=image_shape, own=own)
    assert chosen == View(3, 32, 48, (0.5,) * 3, IMAGENET["std"])


def test_moments_for_other_channels_are_refused() -> None:
    with pytest.raises(CompatibilityError, match=r"inputs\.mean has 3 numbers, and the input has 1 channels"):
        make_view(InputsConfig(mean=(0.1, 0.2, 0.3)), image_shape=(1, 8, 8), own={})


def test_the_description_is_enough_to_make_the_input_without_distil() -> None:
    view = View(channels=3, height=5, width=4, **IMAGENET)
    described = view.describe(["cat", "dog"])
    assert described["class_names"] == ["cat", "dog"]
    assert described["input"] == {
        "name": "images", "layout": "NCHW", "dtype": "float32", "channels": 3, "height": 5, "width": 4
    }  # fmt: skip
    images = np.random.default_rng(0).integers(0, 256, (5, 4, 3), dtype=np.uint8)
    rules = described["preprocessing"]
    assert isinstance(rules, dict)
    image = np.asarray(Image.fromarray(images).convert(rules["mode"]), dtype=np.float32) * rules["scale"]
    by_hand = ((image - np.array(rules["mean"])) / np.array(rules["std"])).transpose(2, 0, 1)
    ours = view(to_pixels(torch.from_numpy(images.transpose(2, 0, 1)[None].copy())))[0]
    np.testing.assert_allclose(ours.numpy(), by_hand, atol=1e-6)
    assert View(1, 5, 4, (0.0,), (1.0,)).describe([])["preprocessing"]["mode"] == "L"  # type: ignore[index]
