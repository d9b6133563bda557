import ast
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file
from torch import nn

from distil.core.errors import ExportError
from distil.export import artefact
from distil.export.artefact import Samples, write_artefact
from distil.export.integrity import check_artefact
from distil.export.verify import verify

from .conftest import Digits, compute_reference

FILES = ["model.onnx", "labels_and_preprocessing.json", "samples.safetensors", "predict.py", "artefact.json"]


@pytest.mark.untyped
def test_the_directory_holds_what_was_given(
    artefacts: Path, digits: Digits, models: dict[str, nn.Module], preprocessing: dict[str, Any]
) -> None:
    directory = artefacts / "mlp-int8"
    assert {path.name for path in directory.iterdir()} - {"parity.json", "latency.json"} == set(FILES)
    record = check_artefact(directory)
    assert record["precision"] == "int8"
    assert record["files"].keys() == set(FILES) - {"artefact.json"}
    assert json.loads((directory / FILES[1]).read_text("utf-8")) == preprocessing
    samples = load_file(directory / FILES[2])
    np.testing.assert_array_equal(samples["inputs"], digits.test_inputs)
    np.testing.assert_array_equal(samples["reference"], compute_reference(models["mlp"], digits.test_inputs))
    np.testing.assert_array_equal(samples["targets"], digits.test_targets)


@pytest.mark.untyped
def test_the_files_are_returned_and_the_int8_file_is_smaller(
    artefacts: Path, write: Callable[[Path, str, str], list[Path]], tmp_path: Path
) -> None:
    assert write(tmp_path / "new", "mlp", "int8") == [tmp_path / "new" / name for name in FILES]
    sizes = {precision: check_artefact(artefacts / f"mlp-{precision}")["size_bytes"] for precision in ("fp32", "int8")}
    assert sizes["int8"] < 0.5 * sizes["fp32"]


@pytest.mark.untyped
def test_an_interrupted_export_is_not_an_artefact_and_is_done_again(
    artefacts: Path, write: Callable[[Path, str, str], list[Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "export"
    shutil.copytree(artefacts / "mlp-fp32", directory)
    verify(directory)
    (directory / ".model.onnx.1.tmp").write_bytes(b"half of it")

    def interrupt(_: Samples) -> bytes:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(artefact, "_serialise", interrupt)
        with pytest.raises(KeyboardInterrupt):
            write(directory, "convnet", "fp32")
    assert not {"artefact.json", "parity.json", ".model.onnx.1.tmp"} & {path.name for path in directory.iterdir()}
    write(directory, "convnet", "fp32")
    assert verify(directory)["passed"]
    assert (directory / "model.onnx").read_bytes() == (artefacts / "convnet-fp32" / "model.onnx").read_bytes()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"class_names": ["a", "b"]}, "2 class names for a model with 10 classes"),
        ({"input": {"channels": 3, "height": 8, "width": 8}}, r"input \(3, 8, 8\) .* samples have \(1, 8, 8\)"),
        ({"preprocessing": None}, "the keys preprocessing are missing"),
    ],
)
def test_preprocessing_that_does_not_fit_is_refused_before_anything_is_written(
    change: dict[str, Any], message: str, preprocessing: dict[str, Any], tmp_path: Path
) -> None:
    changed = {key: value for key, value in (preprocessing | change).items() if value is not None}
    samples = Samples(np.zeros((2, 1, 8, 8), np.float32), np.zeros((2, 10), np.float32), np.zeros(2, np.int64))
    with pytest.raises(ExportError, match=message):
        write_artefact(
            tmp_path / "new",
            model=nn.Flatten(),
            samples=samples,
            calibration=None,
            preprocessing=changed,
            precision="fp32",
        )
    assert not (tmp_path / "new").exists()


@pytest.mark.untyped
def test_int8_without_calibration_images_is_refused(
    models: dict[str, nn.Module], preprocessing: dict[str, Any], tmp_path: Path
) -> None:
    samples = Samples(np.zeros((2, 1, 8, 8), np.float32), np.zeros((2, 10), np.float32), np.zeros(2, np.int64))
    with pytest.raises(ExportError, match="int8 needs calibration images"):
        write_artefact(
            tmp_path,
            model=models["mlp"],
            samples=samples,
            calibration=None,
            preprocessing=preprocessing,
            precision="int8",
        )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("inputs", "reference", "targets", "message"),
    [
        (np.zeros((2, 3, 4)), np.zeros((2, 5)), np.zeros(2), r"found inputs \(2, 3, 4\)"),
        (np.zeros((2, 1, 4, 4)), np.zeros((3, 5)), np.zeros(2), "same number of each"),
        (np.zeros((0, 1, 4, 4)), np.zeros((0, 5)), np.zeros(0), "at least one"),
        (np.zeros((2, 1, 4, 4)), np.full((2, 5), np.nan), np.zeros(2), "NaN or infinity"),
        (np.zeros((2, 1, 4, 4)), np.zeros((2, 5)), np.array([0, 5]), r"lie in 0\.\.5, but the model has 5 classes"),
        (np.zeros((2, 1, 4, 4)), np.zeros((2, 5)), np.array([-1, 0]), r"lie in -1\.\.0"),
    ],
)
@pytest.mark.untyped
def test_samples_that_do_not_belong_together_are_refused(
    inputs: np.ndarray, reference: np.ndarray, targets: np.ndarray, message: str
) -> None:
    with pytest.raises(ExportError, match=message):
        Samples(inputs.astype(np.float32), reference.astype(np.float32), targets.astype(np.int64))


def make_environment_without_us(directory: Path) -> Path:
    """A search path with numpy, onnxruntime and pillow, what they bring along, and nothing else."""
    origin = find_spec("numpy").origin
    assert origin is not None
    packages = Path(origin).parent.parent
    for name in ("numpy", "numpy.libs", "onnxruntime", "PIL", "pillow.libs", "flatbuffers", "google", "packaging"):
        if (packages / name).exists():
            (directory / name).symlink_to(packages / name)
    return directory


BARE = """
import sys
sys.path[:] = [path for path in sys.path if "site-packages" not in path] + [{packages!r}]
for absent in ("torch", "distil", "safetensors", "onnx"):
    try:
        __import__(absent)
    except ImportError:
        continue
    sys.exit(f"{{absent}} can be imported here, so this proves nothing")
sys.path.insert(0, {directory!r})
import json, predict
print(json.dumps([predict.predict(path) for path in sys.argv[1:]]))
"""


@pytest.mark.untyped
@pytest.mark.parametrize("name", ["mlp-fp32", "mlp-int8", "convnet-fp32"])
def test_35_the_ten_line_loader_agrees_with_us_where_there_is_neither_distil_nor_torch(
    name: str,
    artefacts: Path,
    digits: Digits,
    models: dict[str, nn.Module],
    preprocessing: dict[str, Any],
    tmp_path: Path,
) -> None:
    images = []
    for index in range(40):
        images.append(tmp_path / f"{index}.png")
        Image.fromarray(digits.test_pixels[index]).save(images[-1])
    packages = make_environment_without_us(tmp_path)
    code = BARE.format(packages=str(packages), directory=str(artefacts / name))
    command = [sys._base_executable, "-I", "-S", "-c", code, *map(str, images)]
    child = subprocess.run(
        command, capture_output=True, encoding="utf-8", env={"PATH": os.environ["PATH"]}, check=False
    )
    assert child.returncode == 0, child.stderr
    found = json.loads(child.stdout)

    logits = compute_reference(models[name.partition("-")[0]], digits.test_inputs[:40]).astype(np.float64)
    ours = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert [label for label, _ in found] == [preprocessing["class_names"][index] for index in ours.argmax(axis=1)]
    tolerance = 1e-4 if name.endswith("fp32") else 0.1
    np.testing.assert_allclose([chance for _, chance in found], ours.max(axis=1), rtol=0, atol=tolerance)


@pytest.mark.untyped
def test_the_loader_is_a_command_that_resizes_and_converts(
    artefacts: Path, models: dict[str, nn.Module], preprocessing: dict[str, Any], tmp_path: Path
) -> None:
    colours = np.random.default_rng(0).integers(0, 256, size=(50, 70, 3), dtype=np.uint8)
    Image.fromarray(colours).convert("RGBA").save(tmp_path / "big.png")
    small = np.asarray(Image.fromarray(colours).convert("L").resize((8, 8), Image.Resampling.BILINEAR), np.float32)
    logits = compute_reference(models["mlp"], (small[None, None] / np.float32(255) - 0.3) / 0.4)[0].astype(np.float64)
    command = [sys.executable, str(artefacts / "mlp-fp32" / "predict.py"), str(tmp_path / "big.png")]
    child = subprocess.run(
        command, capture_output=True, encoding="utf-8", env=os.environ | {"PYTHONIOENCODING": "utf-8"}, check=True
    )
    label, chance = child.stdout.split()
    assert label == preprocessing["class_names"][logits.argmax()]
    assert float(chance) == pytest.approx(np.exp(logits.max()) / np.exp(logits).sum(), abs=2e-4)


def test_the_loader_is_ten_lines_and_imports_four_things() -> None:
    source = Path(artefact.__file__).with_name("predict_template.txt").read_text("utf-8")
    body = ast.parse(source).body[1:]
    imports = [node for node in body if isinstance(node, ast.Import | ast.ImportFrom)]
    modules = {alias.name for node in imports if isinstance(node, ast.Import) for alias in node.names}
    modules |= {str(node.module) for node in imports if isinstance(node, ast.ImportFrom)}
    assert modules == {"json", "sys", "pathlib", "numpy", "onnxruntime", "PIL"}
    code = [node for node in body if node not in imports and not isinstance(node, ast.If)]
    assert sum(node.end_lineno - node.lineno + 1 for node in code) == 10
    assert max(map(len, source.splitlines())) <= 120
