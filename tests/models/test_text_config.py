from typing import Any

import pytest
from pydantic import ValidationError

from distil.models.text_config import HuggingFaceModelConfig, TextCnnConfig


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "give a published model .* or config"),
        ({"hub": "a/b", "config": {"model_type": "bert"}}, "not both"),
        ({"path": "x", "revision": "main"}, "revision has an effect only together with hub"),
        ({"config": {"model_type": "bert"}, "gguf": "x.gguf"}, "no effect together with config"),
        ({"config": {"model_type": "bert"}, "settings": {"a": 1}}, "put them into config"),
        ({"config": {"hidden_size": 8}}, "config needs model_type"),
        ({"config": {"model_type": 3}}, "config needs model_type"),
        ({"path": "x", "settings": {"model_type": "gpt2"}}, "settings cannot change model_type"),
        ({"package": "a.b/model"}, "package"),
        ({"package": "a/../b"}, "leads out of its folder"),
        ({"package": "/a"}, "package"),
        ({"path": "x", "gguf": "../y.gguf"}, "leads out of its folder"),
        ({"path": "x", "gguf": "/y.gguf"}, "gguf"),
        ({"path": "x", "gguf": "y.bin"}, "gguf"),
        ({"path": "x", "pooling": "max"}, "pooling"),
        ({"path": "x", "trust_remote_code": True}, "trust_remote_code"),
    ],
)
def test_a_model_that_cannot_be_meant_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        HuggingFaceModelConfig.model_validate({"kind": "huggingface", **given})


@pytest.mark.parametrize(
    "given",
    [
        {"package": "a_package"},
        {"package": "a_package/model/small", "path": "x", "hub": "owner/name", "revision": "main"},
        {"hub": "owner/name", "gguf": "folder/model.Q4_1.gguf"},
        {"path": "x", "settings": {"hidden_dropout_prob": 0.2}, "pooling": "first", "normalise": False},
        {"config": {"model_type": "bert", "hidden_size": 128}},
    ],
)
def test_a_model_that_can_be_meant_comes_back_from_its_own_json(given: dict[str, Any]) -> None:
    config = HuggingFaceModelConfig.model_validate(given)
    assert HuggingFaceModelConfig.model_validate_json(config.model_dump_json()) == config


@pytest.mark.parametrize("wrong", [{"kernels": []}, {"kernels": [0]}, {"dropout": 1.0}, {"widths": [8]}, {"layers": 2}])
def test_a_text_cnn_that_cannot_be_meant_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        TextCnnConfig.model_validate(wrong)
