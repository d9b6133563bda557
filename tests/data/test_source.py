import io
import os
from collections.abc import Sequence
from pathlib import Path

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from distil.core.errors import DataError, MissingExtraError
from distil.data.config import ArraysConfig, DigitsConfig, HuggingFaceConfig, ValidationConfig
from distil.data.source import as_bytes, make_examples, read_source
from distil.data.split import load_splits

GENERATOR = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def picture(mode: str = "L", size: tuple[int, int] = (8, 6)) -> Image.Image:
    channels = {"L": (), "RGB": (3,), "RGBA": (4,), "LA": (2,)}[mode]
    return Image.fromarray(GENERATOR.integers(0, 256, (size[1], size[0], *channels), dtype=np.uint8))


def parquet(folder: Path, split: str, images: Sequence[Image.Image], labels: Sequence[int], names: list[str]) -> None:
    folder.mkdir(exist_ok=True)
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=names)})
    table = datasets.Dataset.from_dict({"image": list(images), "label": list(labels)}, features=features)
    table.to_parquet(folder / f"{split}-00000-of-00001.parquet")


def image_folder(folder: Path, *, suffix: str = "png", count: int = 4, size: tuple[int, int] = (8, 6)) -> Path:
    for split in ("train", "test"):
        for name in ("cat", "dog"):
            (folder / split / name).mkdir(parents=True)
            for number in range(count):
                picture("RGB", size).save(folder / split / name / f"{number}.{suffix}")
    return folder


def read(folder: Path, **settings: object) -> object:
    return read_source(HuggingFaceConfig(path=str(folder), **settings))  # type: ignore[arg-type]


def test_digits_are_scikit_learn_s() -> None:
    source = read_source(DigitsConfig())
    digits = load_digits()
    assert source.train.image_shape == (1, 8, 8)
    assert torch.equal(source.train.labels, torch.from_numpy(digits.target))
    back = source.train.images.double().numpy()[:, 0] * 16 / 255
    assert np.array_equal(np.round(back), digits.images)
    assert source.train.images.max() == 255
    assert (source.test, source.validation) == (None, None)
    assert source.train.class_names == tuple("0123456789")


def test_arrays_are_taken_as_they_are() -> None:
    images = GENERATOR.integers(0, 256, (5, 3, 4, 2), dtype=np.uint8)
    source = read_source(
        ArraysConfig(images=images, labels_of_images=np.array([0, 1, 1, 0, 1]), class_names=("x", "y"))
    )
    assert np.array_equal(source.train.images.numpy(), images)
    assert source.train.labels.tolist() == [0, 1, 1, 0, 1]
    assert source.train.ids.tolist() == [0, 1, 2, 3, 4]


def test_floats_in_0_to_1_and_in_0_to_255_give_the_same_bytes() -> None:
    pixels = np.array([0, 1, 128, 254, 255])
    assert as_bytes(pixels / 255, where="x").tolist() == pixels.tolist()
    assert as_bytes(pixels.astype(np.float64), where="x").tolist() == pixels.tolist()
    assert as_bytes(pixels.astype(np.int32), where="x").tolist() == pixels.tolist()
    assert as_bytes(np.array([0, 1], np.int16), where="x").tolist() == [0, 1]
    assert as_bytes(np.array([False, True]), where="x").tolist() == [0, 255]
    assert as_bytes(pixels, where="x").dtype == np.uint8


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (np.zeros((3, 4, 4), np.uint8), [0, 1, 0], r"shape \[3, 4, 4\]; expected \[examples, 1 or 3 channels"),
        (np.zeros((3, 4, 4, 3), np.uint8), [0, 1, 0], r"shape \[3, 4, 4, 3\]"),
        (np.zeros((3, 1, 4, 4), np.uint8), [0, 1], "3 images and 2 labels"),
        (np.zeros((3, 1, 4, 4), np.uint8), [0, 1, 2], r"example 2 has label 2, and there are 2 classes \(0 to 1\)"),
        (np.zeros((3, 1, 4, 4), np.uint8), [0, -1, 1], "example 1 has label -1"),
        (np.zeros((3, 1, 4, 4), np.uint8), [0.0, 0.5, 1.0], "labels are float64"),
        (np.zeros((3, 1, 4, 4), np.uint8), [[0], [1], [1]], r"shape \[3, 1\]"),
        (np.zeros((3, 1, 4, 4), np.uint8), ["a", "b", "a"], "expected one whole number an example"),
        (np.full((3, 1, 4, 4), 300.0), [0, 1, 0], "pixels reach from 0 to 300.*Rescale"),
        (np.full((3, 1, 4, 4), -1), [0, 1, 0], "pixels reach from -1 to 0"),
    ],
)
def test_arrays_that_are_no_labelled_images_are_refused(images: np.ndarray, labels: list[object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        make_examples(images, np.array(labels), class_names=["a", "b"])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_pixel_that_is_no_number_is_named(value: float) -> None:
    images = np.zeros((3, 1, 4, 4), np.float32)
    images[2, 0, 1, 3] = value
    with pytest.raises(DataError, match=rf"data: pixel \(2, 0, 1, 3\) is {value}, not a number. Repair"):
        make_examples(images, np.array([0, 1, 0]), class_names=["a", "b"])


def test_a_parquet_folder_is_read_with_its_splits_and_order(tmp_path: Path) -> None:
    images = {"train": [picture() for _ in range(5)], "test": [picture() for _ in range(3)]}
    parquet(tmp_path / "set", "train", images["train"], [2, 0, 1, 1, 0], ["x", "y", "z"])
    parquet(tmp_path / "set", "test", images["test"], [1, 1, 2], ["x", "y", "z"])
    source = read_source(HuggingFaceConfig(path=str(tmp_path / "set")))
    assert source.test is not None
    assert source.train.class_names == ("x", "y", "z")
    assert source.train.labels.tolist() == [2, 0, 1, 1, 0]
    assert source.test.labels.tolist() == [1, 1, 2]
    for split, examples in (("train", source.train), ("test", source.test)):
        assert np.array_equal(examples.images.numpy()[:, 0], np.stack([np.asarray(image) for image in images[split]]))
    assert source.train.ids.tolist() + source.test.ids.tolist() == list(range(8))


def test_a_validation_split_of_the_source_is_used(tmp_path: Path) -> None:
    for split in ("train", "validation", "test"):
        parquet(tmp_path / "set", split, [picture() for _ in range(4)], [0, 1, 0, 1], ["x", "y"])
    config = HuggingFaceConfig(path=str(tmp_path / "set"), validation=ValidationConfig(split="validation"))
    splits = load_splits(config)
    assert splits.validation is not None
    ids = [*splits.train.ids.tolist(), *splits.validation.ids.tolist()]
    ids += splits.test.open_for_final_evaluation().ids.tolist()
    assert sorted(ids) == list(range(12))


def test_a_folder_of_images_by_class_is_read(tmp_path: Path) -> None:
    source = read_source(HuggingFaceConfig(path=str(image_folder(tmp_path / "set"))))
    assert source.test is not None
    assert source.train.class_names == ("cat", "dog")
    assert source.train.image_shape == (3, 6, 8)
    assert sorted(source.train.labels.tolist()) == [0] * 4 + [1] * 4
    row = int((source.train.labels == 1).nonzero()[0])
    with Image.open(tmp_path / "set" / "train" / "dog" / "0.png") as image:
        assert np.array_equal(source.train.images[row].numpy(), np.asarray(image).transpose(2, 0, 1))


def test_the_shared_data_folder_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parquet(tmp_path / "set", "train", [picture() for _ in range(4)], [0, 1, 0, 1], ["x", "y"])
    monkeypatch.setenv("DISTIL_DATA", str(tmp_path))
    assert len(read_source(HuggingFaceConfig(path="set", test=0.5)).train) == 4


def test_a_missing_folder_lists_where_it_was_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTIL_DATA", str(tmp_path))
    with pytest.raises(DataError, match=rf"no folder {tmp_path}/nowhere and nowhere.*DISTIL_DATA.*data\.hub"):
        read_source(HuggingFaceConfig(path="nowhere"))


def test_an_empty_folder_is_refused_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    with pytest.raises(DataError, match=rf"data: cannot read {tmp_path}/set: "):
        read(tmp_path / "set")


def test_a_missing_split_or_column_is_refused_with_what_there_is(tmp_path: Path) -> None:
    parquet(tmp_path / "set", "train", [picture() for _ in range(4)], [0, 1, 0, 1], ["x", "y"])
    with pytest.raises(DataError, match=r"no split 'test'; it has \['train'\]\. Set data\.test to a share"):
        read(tmp_path / "set")
    with pytest.raises(DataError, match=r"no column 'digit'; it has \['image', 'label'\]"):
        read(tmp_path / "set", test=0.5, label="digit")


def test_labels_without_names_are_numbered(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    table = datasets.Dataset.from_dict({"image": [picture() for _ in range(3)], "label": [2, 0, 0]}, features=features)
    table.to_parquet(tmp_path / "set" / "train-00000-of-00001.parquet")
    assert read_source(HuggingFaceConfig(path=str(tmp_path / "set"), test=0.5)).train.class_names == ("0", "1", "2")


@pytest.mark.parametrize(("values", "kind"), [(["cat", "dog"], "str"), ([0, None], "NoneType"), ([0.5, 1.0], "float")])
def test_labels_that_are_no_class_numbers_are_refused(tmp_path: Path, values: list[object], kind: str) -> None:
    (tmp_path / "set").mkdir()
    table = datasets.Dataset.from_dict({"image": [picture(), picture()], "label": values})
    table.cast_column("image", datasets.Image()).to_parquet(tmp_path / "set" / "train-00000-of-00001.parquet")
    with pytest.raises(DataError, match=f"column 'label' holds {kind}, not class numbers"):
        read(tmp_path / "set", test=0.5)


def test_an_empty_split_is_refused(tmp_path: Path) -> None:
    parquet(tmp_path / "set", "train", [picture() for _ in range(4)], [0, 1, 0, 1], ["x", "y"])
    parquet(tmp_path / "set", "test", [], [], ["x", "y"])
    with pytest.raises(DataError, match=r"cannot read .*\"test\" corresponds to no data"):
        read(tmp_path / "set")


def test_a_corrupt_image_is_refused_with_its_row(tmp_path: Path) -> None:
    folder = image_folder(tmp_path / "set")
    path = folder / "train" / "cat" / "2.png"
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(DataError, match=r"split train, row 2: the image cannot be decoded.*Repair or remove"):
        read(folder)


def tiff(path: Path, pixels: np.ndarray) -> None:
    path.unlink(missing_ok=True)
    Image.fromarray(pixels).save(path.with_suffix(".tiff"))


def test_a_nan_pixel_in_a_tiff_is_refused_with_row_and_pixel(tmp_path: Path) -> None:
    folder = image_folder(tmp_path / "set")
    pixels = np.full((6, 8), 0.25, np.float32)
    pixels[4, 7] = np.nan
    tiff(folder / "train" / "dog" / "1.png", pixels)
    with pytest.raises(DataError, match=r"split train, row 5: pixel \(4, 7\) is nan, not a number"):
        read(folder)


def test_the_scale_of_float_images_is_that_of_the_split_not_of_each(tmp_path: Path) -> None:
    folder = image_folder(tmp_path / "set", count=2)
    for path in sorted(folder.rglob("*.png")):
        dark = path.name == "0.png"
        tiff(path, np.full((6, 8), 1.0 if dark else 200.0, np.float32))
    source = read_source(HuggingFaceConfig(path=str(folder)))
    assert source.train.images[:, 0, 0, 0].tolist() == [1, 200, 1, 200]


@pytest.mark.parametrize("dtype", [np.float32, np.int32, np.uint16])
@pytest.mark.parametrize("size", [None, (3, 4)])
def test_scientific_images_within_bytes_are_read(tmp_path: Path, dtype: type, size: tuple[int, int] | None) -> None:
    folder = image_folder(tmp_path / "set", count=1)
    for path in folder.rglob("*.png"):
        tiff(path, np.full((6, 8), 200, dtype))
    examples = read_source(HuggingFaceConfig(path=str(folder), size=size)).train
    assert examples.image_shape == (1, *(size or (6, 8)))
    assert (examples.images == 200).all()


def test_scientific_images_beyond_bytes_are_refused(tmp_path: Path) -> None:
    folder = image_folder(tmp_path / "set", count=1)
    for path in folder.rglob("*.png"):
        tiff(path, np.full((6, 8), 4000, np.uint16))
    with pytest.raises(DataError, match="pixels reach from 0 to 4000"):
        read(folder)


def test_bytes_and_floats_in_one_split_are_refused(tmp_path: Path) -> None:
    folder = image_folder(tmp_path / "set", count=2)
    tiff(folder / "train" / "cat" / "1.png", np.full((6, 8), 0.5, np.float32))
    with pytest.raises(DataError, match=r"row 1: the pixels are float32 and those of row 0 are uint8.*one format"):
        read(folder)


def test_mixed_sizes_are_refused_with_the_remedy_which_works(tmp_path: Path) -> None:
    folder = image_folder(tmp_path / "set")
    picture("RGB", (9, 9)).save(folder / "train" / "dog" / "3.png")
    with pytest.raises(DataError, match=r"row 7: the image is \[9, 9\] and row 0 is \[6, 8\].*Set data\.size"):
        read(folder)
    assert read_source(HuggingFaceConfig(path=str(folder), size=(6, 8))).train.image_shape == (3, 6, 8)


def test_sizes_are_changed_as_pillow_does(tmp_path: Path) -> None:
    folder = image_folder(tmp_path / "set", count=1, size=(20, 10))
    examples = read_source(HuggingFaceConfig(path=str(folder), size=(5, 7))).train
    with Image.open(folder / "train" / "cat" / "0.png") as image:
        expected = np.asarray(image.resize((7, 5), Image.Resampling.BILINEAR))
    assert np.array_equal(examples.images[0].numpy(), expected.transpose(2, 0, 1))


def test_grey_images_among_coloured_ones_become_coloured(tmp_path: Path) -> None:
    images = [picture("RGB"), picture("L"), picture("RGBA"), picture("LA")]
    parquet(tmp_path / "set", "train", images, [0, 1, 0, 1], ["x", "y"])
    train = read_source(HuggingFaceConfig(path=str(tmp_path / "set"), test=0.5)).train
    assert train.image_shape == (3, 6, 8)
    assert torch.equal(train.images[1], torch.from_numpy(np.array(images[1])).expand(3, 6, 8))
    assert np.array_equal(train.images[2].numpy(), np.asarray(images[2])[:, :, :3].transpose(2, 0, 1))


def test_a_wrong_label_in_a_file_is_refused_with_its_row(tmp_path: Path) -> None:
    parquet(tmp_path / "set", "train", [picture() for _ in range(3)], [0, -1, 1], ["x", "y"])
    with pytest.raises(DataError, match="split train: example 1 has label -1, and there are 2 classes"):
        read(tmp_path / "set", test=0.5)


def test_without_the_package_the_pip_line_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'distil\[vision\]'"):
        read(tmp_path)


def test_mnist_is_whole_and_in_its_official_order() -> None:
    folder = Path(os.environ.get("DISTIL_DATA", "")) / "mnist"
    if not folder.is_dir():
        pytest.skip(f"no MNIST in {folder}; set DISTIL_DATA to a folder that holds it")
    splits = load_splits(HuggingFaceConfig(path=str(folder), validation=ValidationConfig(last=5000)))
    assert splits.validation is not None
    test = splits.test.open_for_final_evaluation()
    assert (len(splits.train), len(splits.validation), len(test)) == (55_000, 5_000, 10_000)
    assert splits.validation.ids.tolist() == list(range(55_000, 60_000))
    assert splits.train.image_shape == (1, 28, 28)
    for name, examples, row in [
        ("train", splits.train, 0),
        ("train", splits.validation, 59_999),
        ("test", test, 9_999),
    ]:
        (path,) = folder.glob(f"{name}-*.parquet")
        cell = pq.read_table(path).slice(row, 1).to_pylist()[0]
        with Image.open(io.BytesIO(cell["image"]["bytes"])) as image:
            expected = np.asarray(image)
        position = row if len(examples) > row else -1
        assert np.array_equal(examples.images[position, 0].numpy(), expected)
        assert examples.labels[position] == cell["label"]
    first_labels = [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]  # of LeCun's training file
    assert splits.train.labels[:10].tolist() == first_labels
    assert test.labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
