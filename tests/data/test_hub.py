import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from distil.core.errors import DataError, MissingExtraError
from distil.data.config import HuggingFaceConfig, TextConfig
from distil.data.hub import DATA_FOLDER, load_dataset

datasets = pytest.importorskip("datasets")
Calls = list[tuple[tuple[Any, ...], dict[str, Any]]]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """What the library is asked, in place of its answers."""
    asked: Calls = []

    def answer(*args: Any, **settings: Any) -> dict[str, str]:
        asked.append((args, settings))
        return {"train": "rows"}

    monkeypatch.setattr(datasets, "load_dataset", answer)
    return asked


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """``shared`` is the folder of data sets; work goes on in ``here``."""
    for name in ("shared", "here"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv(DATA_FOLDER, str(tmp_path / "shared"))
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path


def test_a_folder_of_the_data_folder_comes_first(calls: Calls, folders: Path) -> None:
    (folders / "shared" / "colours").mkdir()
    (folders / "here" / "colours").mkdir()
    assert load_dataset(TextConfig(path="colours"), extra="text") == ({"train": "rows"}, "colours")
    assert calls == [((str(folders / "shared" / "colours"),), {})]


def test_a_path_is_taken_as_it_stands_where_the_data_folder_has_none(
    calls: Calls, folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folders / "here" / "colours").mkdir()
    load_dataset(TextConfig(path="colours"), extra="text")
    monkeypatch.delenv(DATA_FOLDER)
    load_dataset(HuggingFaceConfig(path=str(folders / "here" / "colours")), extra="vision")
    assert calls == [(("colours",), {}), ((str(folders / "here" / "colours"),), {})]


def test_a_folder_that_is_nowhere_is_named_with_all_places_and_the_remedy(calls: Calls, folders: Path) -> None:
    tried = f"no folder {folders / 'shared' / 'colours'} and colours. Give an existing folder, set {DATA_FOLDER}"
    with pytest.raises(DataError, match=f"data.path: {tried}.* or add data.hub"):
        load_dataset(TextConfig(path="colours"), extra="text")
    assert calls == []


def test_the_hub_is_asked_only_where_there_is_no_folder(calls: Calls, folders: Path) -> None:
    config = TextConfig(path="colours", hub="someone/colours", revision="v2", subset="de")
    assert load_dataset(config, extra="text", subset="de")[1] == "hub someone/colours"
    (folders / "shared" / "colours").mkdir()
    assert load_dataset(config, extra="text", subset="de")[1] == "colours"
    assert calls == [
        (("someone/colours", "de"), {"revision": "v2"}),
        ((str(folders / "shared" / "colours"),), {}),
    ]


def test_code_of_a_data_set_is_never_trusted(calls: Calls, folders: Path) -> None:
    (folders / "shared" / "colours").mkdir()
    for config in (TextConfig(path="colours"), TextConfig(hub="someone/colours")):
        load_dataset(config, extra="text")
    assert [settings.get("trust_remote_code") for _, settings in calls] == [None, None]


def test_a_script_in_a_folder_is_not_run(folders: Path) -> None:
    for name in ("colours", "other"):
        (folders / "shared" / name).mkdir()
        (folders / "shared" / name / "train.jsonl").write_text(json.dumps({"text": "red"}), encoding="utf-8")
        script = f"open({str(folders / 'it-ran')!r}, 'w').close()\n"
        (folders / "shared" / name / "colours.py").write_text(script, encoding="utf-8")
    with pytest.raises(DataError, match=f"cannot read {folders / 'shared' / 'colours'}: .*scripts are no longer"):
        load_dataset(TextConfig(path="colours"), extra="text")
    table, _ = load_dataset(TextConfig(path="other"), extra="text")
    assert list(table["train"]["text"]) == ["red"]
    assert not (folders / "it-ran").exists()


@pytest.mark.parametrize("place", ["folder", "hub"])
def test_an_error_of_the_library_is_one_of_data_and_says_of_which(
    place: str, folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> Callable[..., None]:
        raise ValueError("the columns differ")

    monkeypatch.setattr(datasets, "load_dataset", fail)
    (folders / "here" / "colours").mkdir()
    config = TextConfig(path="colours") if place == "folder" else TextConfig(hub="someone/colours")
    where = "colours" if place == "folder" else "someone/colours"
    with pytest.raises(DataError, match=f"data: cannot read {where}: ValueError: the columns differ"):
        load_dataset(config, extra="text")


@pytest.mark.parametrize("extra", ["text", "vision"])
def test_a_missing_library_names_the_pip_line(extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingExtraError, match=rf"reading data sets needs .*'datasets'.*distil\[{extra}\]"):
        load_dataset(TextConfig(path="colours"), extra=extra)
