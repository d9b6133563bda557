"""Where a published model is looked for, and that nothing of it but data is ever read."""

import json
import pickle
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from distil.core.errors import IntegrityError, MissingExtraError, ModelError
from distil.models.huggingface_files import (
    find_folder,
    package_folder,
    quiet,
    read_gguf,
    read_settings,
    read_state,
    without_code,
)
from distil.models.text_config import HuggingFaceModelConfig

transformers = pytest.importorskip("transformers")
SMALL = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8, "vocab_size": 12}


class Canary:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self._path,)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed package with a folder, which leaves a file behind when it is imported."""
    root = tmp_path / "site" / "package_of_a_model"
    (root / "model" / "inner").mkdir(parents=True)
    (root / "__init__.py").write_text(f"open({str(tmp_path / 'imported')!r}, 'w').close()")
    monkeypatch.syspath_prepend(str(root.parent))
    return root


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """A hub that has everything; what was asked of it."""
    asked: list[dict[str, Any]] = []

    def download(name: str, **settings: Any) -> str:
        asked.append({"name": name, **settings})
        return str(tmp_path)

    monkeypatch.setattr(pytest.importorskip("huggingface_hub"), "snapshot_download", download)
    return asked


# Where


def test_a_package_is_found_without_being_imported(package: Path, tmp_path: Path) -> None:
    assert package_folder("package_of_a_model/model") == package / "model"
    assert package_folder("package_of_a_model/model/inner") == package / "model" / "inner"
    assert package_folder("package_of_a_model") == package
    assert "package_of_a_model" not in sys.modules
    assert not (tmp_path / "imported").exists()
    __import__("package_of_a_model")
    sys.modules.pop("package_of_a_model")
    assert (tmp_path / "imported").exists()  # the trap itself works


def test_a_package_that_lacks_the_folder_says_what_it_has(package: Path) -> None:
    assert package_folder("no_package_of_this_name/model") is None
    with pytest.raises(ModelError, match=r"package_of_a_model has no folder 'models'; .* has model/$"):
        package_folder("package_of_a_model/models")
    with pytest.raises(ModelError, match="textwrap has no folder 'model'; it is a single module"):
        package_folder("textwrap/model")


def test_package_path_and_hub_are_tried_in_this_order(package: Path, tmp_path: Path, hub: list[dict[str, Any]]) -> None:
    here = tmp_path / "here"
    here.mkdir()
    absent_package: dict[str, Any] = {"package": "no_package_of_this_name"}
    everywhere: dict[str, Any] = {"package": "package_of_a_model/model", "path": str(here), "hub": "owner/name"}
    assert find_folder(HuggingFaceModelConfig(**everywhere)) == package / "model"
    assert find_folder(HuggingFaceModelConfig(**everywhere | absent_package)) == here
    assert not hub
    absent: dict[str, Any] = {"package": "no_package_of_this_name", "path": str(tmp_path / "absent")}
    assert find_folder(HuggingFaceModelConfig(**absent, hub="owner/name", revision="abc")) == tmp_path
    assert [(each["name"], each["revision"]) for each in hub] == [("owner/name", "abc")]


def test_only_data_is_fetched_from_the_hub(hub: list[dict[str, Any]]) -> None:
    from fnmatch import fnmatch

    find_folder(HuggingFaceModelConfig(hub="owner/name"))
    find_folder(HuggingFaceModelConfig(hub="owner/name", gguf="small.Q4_1.gguf"))
    published = {
        *("config.json", "generation_config.json", "model.safetensors", "model.safetensors.index.json"),
        *("model-00001-of-00002.safetensors", "modeling_own.py", "pytorch_model.bin", "training_args.bin"),
        *("onnx/model.onnx", "small.Q4_1.gguf", "large.Q8_0.gguf", "custom_generate/generate.py"),
    }
    fetched = [{name for name in published for each in ask["allow_patterns"] if fnmatch(name, each)} for ask in hub]
    wanted = {name for name in published if name.startswith(("config", "generation", "model.", "model-"))}
    assert fetched == [wanted, {"small.Q4_1.gguf"}]


def test_a_missing_folder_says_what_is_there(tmp_path: Path) -> None:
    for name in ("bert-large", "bert-small"):
        (tmp_path / "models" / name).mkdir(parents=True)
    config = HuggingFaceModelConfig(package="no_package_of_this_name/x", path=str(tmp_path / "models" / "bert-tiny"))
    with pytest.raises(ModelError) as caught:
        find_folder(config)
    assert "the package 'no_package_of_this_name' is not installed" in str(caught.value)
    assert "models has bert-large/, bert-small/" in str(caught.value)
    assert str(caught.value).endswith("or add hub with the model's id")


def test_a_model_that_the_hub_does_not_give_is_named() -> None:
    with pytest.raises(ModelError, match="hub no-owner/no-name at abc: cannot be fetched"):
        find_folder(HuggingFaceModelConfig(hub="no-owner/no-name", revision="abc"))


# Settings


def test_settings_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    (tmp_path / "README.md").touch()
    with pytest.raises(ModelError, match=r"there is no config\.json, .*has README\.md"):
        read_settings(tmp_path)
    for content, error, message in (
        ("{", IntegrityError, "it is not JSON"),
        ("[1]", IntegrityError, "it is list, not a mapping"),
        ('{"hidden_size": 8}', ModelError, "it has no model_type"),
        ('{"model_type": "bert", "quantization_config": {"quant_method": "gptq"}}', ModelError, "are quantised"),
    ):
        (tmp_path / "config.json").write_text(content)
        with pytest.raises(error, match=message):
            read_settings(tmp_path)


def test_what_names_code_goes_at_any_depth() -> None:
    named = {"auto_map": {"AutoModel": "own.Model"}, "_attn_implementation": "someone/kernel"}
    settings = {"model_type": "x", "text_config": {"hidden_size": 8, **named}, "attn_implementation": "a/b", **named}
    assert without_code(settings) == {"model_type": "x", "text_config": {"hidden_size": 8}}


# Weights


def test_weights_in_one_file_or_several_are_the_same(tmp_path: Path) -> None:
    state = {name: torch.randn(3) for name in ("a", "b", "c")}
    (tmp_path / "one").mkdir()
    save_file(state, tmp_path / "one" / "model.safetensors")
    several = tmp_path / "several"
    several.mkdir()
    files = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"} | {
        "c": "model-00001-of-00002.safetensors"
    }
    for file in set(files.values()):
        save_file({name: state[name] for name in state if files[name] == file}, several / file)
    (several / "model.safetensors.index.json").write_text(json.dumps({"weight_map": files}))
    for folder in (tmp_path / "one", several):
        found = read_state(folder)
        assert found.keys() == state.keys()
        assert all(torch.equal(found[name], state[name]) for name in state)
    (several / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(ModelError, match=r"model-00002-of-00002\.safetensors: no such file"):
        read_state(several)


@pytest.mark.parametrize("content", [{"weight_map": {"a": "../model.safetensors"}}, {"weight_map": {}}, {}])
def test_an_index_names_files_beside_it(content: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(content))
    with pytest.raises(IntegrityError, match="it must name files beside it"):
        read_state(tmp_path)


def test_30_a_file_cut_short_is_named(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(100)}, tmp_path / "model.safetensors")
    content = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(content[:-10])
    with pytest.raises(IntegrityError, match=r"model\.safetensors: not a readable safetensors file"):
        read_state(tmp_path)


def test_a_folder_without_weights_says_what_it_has(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").touch()
    with pytest.raises(ModelError, match=r"there is no model\.safetensors, .* has model\.gguf"):
        read_state(tmp_path)


def test_a_pickle_does_not_run(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert", "architectures": ["os; evil()"]}')
    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps(Canary(tmp_path / "canary")))
    with pytest.raises(ModelError, match=r"can run code when it is opened.*pytorch_model\.bin") as caught:
        read_state(tmp_path)
    assert "evil" not in str(caught.value)
    assert not (tmp_path / "canary").exists()


def test_the_conversion_in_the_message_works(tmp_path: Path) -> None:
    folder = tmp_path / "it's a folder"
    torch.manual_seed(0)
    model = transformers.BertForMaskedLM(transformers.BertConfig(**SMALL))
    with quiet():
        model.save_pretrained(folder)
    (folder / "model.safetensors").unlink()
    torch.save(model.state_dict(), folder / "pytorch_model.bin")  # with a tied weight under both of its names
    with pytest.raises(ModelError) as caught:
        read_state(folder)
    lines = re.findall(r"^  (.*)$", str(caught.value), flags=re.MULTILINE)
    assert len(lines) == 2
    with quiet():
        exec("\n".join(lines), {})
    assert read_state(folder).keys() == load_file(folder / "model.safetensors").keys()
    assert torch.equal(read_state(folder)["cls.predictions.bias"], model.state_dict()["cls.predictions.bias"])


# GGUF


def test_a_gguf_file_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "other.gguf").write_bytes(b"GGUF and then nothing")
    with pytest.raises(ModelError, match=r"there is no file .*small\.gguf; .* has other\.gguf"):
        read_gguf(tmp_path / "small.gguf")
    with pytest.raises(ModelError, match=r"other\.gguf: cannot be read as a GGUF file"):
        read_gguf(tmp_path / "other.gguf")
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'distil\[text\]'"):
        read_gguf(tmp_path / "other.gguf")


def test_the_hub_without_its_package_gives_the_pip_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'distil\[text\]'"):
        find_folder(HuggingFaceModelConfig(hub="owner/name"))


def test_transformers_is_as_loud_afterwards_as_before() -> None:
    from transformers.utils import logging

    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    try:
        for level, bars in ((20, True), (40, False)):
            logging.set_verbosity(level)
            (logging.enable_progress_bar if bars else logging.disable_progress_bar)()
            with quiet():
                assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == (40, False)
            assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == (level, bars)
    finally:
        logging.set_verbosity(before[0])
        (logging.enable_progress_bar if before[1] else logging.disable_progress_bar)()
