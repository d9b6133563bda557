import subprocess
import sys

import pytest
from pydantic import TypeAdapter, ValidationError

from distil.export.config import ExportConfig


def test_fp32_is_the_default() -> None:
    assert ExportConfig(target="onnx").precision == ("fp32",)


def test_a_list_from_a_recipe_keeps_its_order() -> None:
    config = TypeAdapter(ExportConfig).validate_python({"target": "onnx", "precision": ["int8", "fp32"]})
    assert config.precision == ("int8", "fp32")


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({"target": "onnx", "precision": []}, "at least 1 item"),
        ({"target": "onnx", "precision": ["int8", "fp32", "int8"]}, "repeated: int8"),
        ({"target": "onnx", "precision": ["fp16"]}, "'fp32' or 'int8'"),
        ({"target": "tflite"}, "'onnx'"),
        ({"precision": ["fp32"]}, "Field required"),
        ({"target": "onnx", "opset": 18}, "Extra inputs"),
    ],
)
def test_what_cannot_be_made_is_refused(recipe: dict, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ExportConfig.model_validate(recipe)


def test_the_schema_says_that_precisions_are_unique() -> None:
    assert ExportConfig.model_json_schema()["properties"]["precision"]["uniqueItems"] is True


def test_config_is_read_without_torch() -> None:
    code = "import sys; import distil.export.config; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
