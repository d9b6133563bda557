"""Starters: what ``distil new`` prints loads and resolves, whatever the folder is called."""

from pathlib import Path

import pytest

from distil.core.errors import DataError, RecipeError
from distil.data.config import DigitsConfig, HuggingFaceConfig
from distil.recipe.load import parse_recipe
from distil.recipe.resolve import resolve
from distil.recipe.starter import starter_recipe


def make_folder(root: Path, *classes: str) -> Path:
    for each in classes:
        (root / each).mkdir(parents=True)
        (root / each / "0.png").touch()
    return root


def test_the_digits() -> None:
    recipe = parse_recipe(starter_recipe(None))
    resolved = resolve(recipe)
    assert resolved.name == "first"
    assert resolved.data == DigitsConfig(labels=200)
    assert resolved.teachers["teacher"].labels == "all"
    assert list(resolved.arms) == ["scratch", "label-smoothing", "distilled"]
    assert len(resolved.seeds) == 5


def test_a_folder_with_train_and_test(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "flowers", "train/rose", "train/tulip", "test/rose", "test/tulip")
    resolved = resolve(parse_recipe(starter_recipe(folder)))
    assert resolved.name == "flowers"
    assert resolved.data == HuggingFaceConfig(path=str(folder), size=(64, 64), test="test")


@pytest.mark.parametrize("inner", ["train/", ""])
def test_a_folder_without_a_test_split_gets_a_share(tmp_path: Path, inner: str) -> None:
    folder = make_folder(tmp_path / "flowers", f"{inner}rose", f"{inner}tulip")
    data = resolve(parse_recipe(starter_recipe(folder))).data
    assert isinstance(data, HuggingFaceConfig)
    assert data.test == 0.2


@pytest.mark.parametrize(
    ("called", "name"),
    [
        ("my flowers, 2: 'a' #1 {x} \"b\"", "my-flowers--2---a---1--x---b"),
        ("\u82b1", "images"),
        ("caf\u00e9", "caf"),
        ("...", "images"),
        ("-x-", "x"),
    ],
)
def test_any_name_of_a_folder(tmp_path: Path, called: str, name: str) -> None:
    folder = make_folder(tmp_path / called / "." if called != "..." else tmp_path / ".x" / "...", "a", "b")
    recipe = parse_recipe(starter_recipe(folder))
    assert recipe.name == name
    assert isinstance(recipe.data, HuggingFaceConfig)
    assert recipe.data.path == str(folder)


def test_a_folder_that_is_missing_or_holds_no_classes(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no such folder"):
        starter_recipe(tmp_path / "none")
    (tmp_path / "picture.png").touch()
    with pytest.raises(RecipeError, match="no such folder"):
        starter_recipe(tmp_path / "picture.png")
    with pytest.raises(DataError, match=r"expected train/CLASS/.* and found no class folder"):
        starter_recipe(tmp_path)
