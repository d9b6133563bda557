import ast
import json
import os
import re
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

from distil.core.errors import ExportError, IntegrityError
from distil.export import artefact
from distil.export.artefact import Samples, write_artefact
from distil.export.integrity import check_artefact
from distil.export.verify import verify

from . import texts
from .conftest import Digits, TextModel, compute_reference

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


TEXT_FILES = [*FILES[:-1], "tokenizer.json", "artefact.json"]


@pytest.mark.untyped
def test_the_directory_of_a_text_model_holds_its_tokenizer(
    text_artefacts: Path, text_models: dict[str, TextModel], tmp_path: Path
) -> None:
    directory, each = text_artefacts / "words-int8", text_models["words"]
    assert {path.name for path in directory.iterdir()} - {"parity.json", "latency.json"} == set(TEXT_FILES)
    record = check_artefact(directory)
    assert record["files"].keys() == set(TEXT_FILES) - {"artefact.json"}
    assert (directory / "tokenizer.json").read_text("utf-8") == each.tokenizer.to_str()
    assert json.loads((directory / FILES[1]).read_text("utf-8")) == each.card
    samples = load_file(directory / FILES[2])
    names = ["input_ids", "attention_mask", "token_type_ids"]
    assert samples.keys() == {*(f"inputs.{name}" for name in names), "reference", "targets"}
    assert each.write(tmp_path, "fp32") == [tmp_path / name for name in TEXT_FILES]


@pytest.mark.untyped
def test_30_a_changed_tokenizer_is_named(text_artefacts: Path, tmp_path: Path) -> None:
    directory = Path(shutil.copytree(text_artefacts / "words-fp32", tmp_path / "copy"))
    content = (directory / "tokenizer.json").read_text("utf-8")
    (directory / "tokenizer.json").write_text(content.replace('"good":4', '"good":5'), "utf-8")
    with pytest.raises(IntegrityError, match=r"tokenizer\.json: the bytes have changed"):
        check_artefact(directory)


@pytest.mark.untyped
@pytest.mark.parametrize(
    ("described", "arguments", "message"),
    [
        ({}, {"extra_files": {}}, r"the tokenizer tokenizer\.json is not among the extra files \[\]"),
        ({}, {"extra_files": {"tokenizer.json": b"{}", "../x": b""}}, r"extra files: \.\./x is no name"),
        ({}, {"extra_files": {"tokenizer.json": b"{}", "model.onnx": b""}}, r"extra files: model\.onnx is no name"),
        ({}, {"extra_files": {"tokenizer.json": b"{}", "parity.json": b""}}, r"extra files: parity\.json is no name"),
        (
            {"names": ("attention_mask", "input_ids")},
            {},
            r"input names \['attention_mask', 'input_ids'\], but the samples",
        ),
        ({"max_length": 5}, {}, r"texts of 5 tokens at most, but the samples have \d+"),
        ({"class_names": ["a", "b"]}, {}, "2 class names for a model with 3 classes"),
        ({"class_names": []}, {}, "0 class names for a model with 3 classes"),
    ],
)
def test_what_does_not_fit_a_text_model_is_refused_before_anything_is_written(
    described: dict[str, Any],
    arguments: dict[str, Any],
    message: str,
    text_models: dict[str, TextModel],
    tmp_path: Path,
) -> None:
    card = texts.describe(**({"names": ("input_ids", "attention_mask")} | described))
    with pytest.raises(ExportError, match=message):
        text_models["characters"].write(tmp_path / "new", "int8", preprocessing=card, **arguments)
    assert not list(tmp_path.rglob("*.*"))


@pytest.mark.untyped
def test_a_language_model_is_refused(text_models: dict[str, TextModel], tmp_path: Path) -> None:
    each = text_models["tags"]
    samples = Samples(each.samples.inputs, each.samples.reference)
    with pytest.raises(
        ExportError, match=r"a language model gives, are not exported; .* folder is in student/huggingface"
    ):
        each.write(tmp_path, "fp32", samples=samples, preprocessing=each.card | {"class_names": []})


TEXT_PACKAGES = ("numpy", "numpy.libs", "onnxruntime", "tokenizers", "flatbuffers", "google", "packaging")
BARE_TEXT = """
import sys
sys.path[:] = [path for path in sys.path if "site-packages" not in path] + [{packages!r}]
for absent in ("torch", "distil", "safetensors", "onnx", "transformers", "PIL"):
    try:
        __import__(absent)
    except ImportError:
        continue
    sys.exit(f"{{absent}} can be imported here, so this proves nothing")
sys.path.insert(0, {directory!r})
import json, numpy, predict
answers = [predict.predict(*texts) for texts in json.loads(sys.argv[1])]
print(json.dumps([each.tolist() if isinstance(each, numpy.ndarray) else each for each in answers]))
"""


def answer_without_us(directory: Path, asked: list[list[str]], packages: Path) -> list[Any]:
    """What the loader says where there are numpy, onnxruntime and tokenizers, and nothing else."""
    origin = find_spec("numpy").origin
    assert origin is not None
    for name in TEXT_PACKAGES:
        if (source := Path(origin).parent.parent / name).exists():
            (packages / name).symlink_to(source)
    code = BARE_TEXT.format(packages=str(packages), directory=str(directory))
    command = [sys._base_executable, "-I", "-S", "-c", code, json.dumps(asked)]
    child = subprocess.run(
        command, capture_output=True, encoding="utf-8", env={"PATH": os.environ["PATH"]}, check=False
    )
    assert child.returncode == 0, child.stderr
    return json.loads(child.stdout)


def chances(logits: np.ndarray) -> np.ndarray:
    shares = np.exp(logits.astype(np.float64))
    return shares / shares.sum(axis=-1, keepdims=True)


@pytest.mark.untyped
@pytest.mark.parametrize("name", ["words-fp32", "words-int8", "characters-fp32"])
def test_35_the_loader_agrees_with_us_about_texts_and_pairs(
    name: str, text_artefacts: Path, text_models: dict[str, TextModel], tmp_path: Path
) -> None:
    each = text_models[name.partition("-")[0]]
    singles = texts.sentences(20, seed=9)[0]
    longest = ["good film " * 30, "a unknownword story"]
    asked: list[list[str]] = [[text] for text in [*singles, *longest]]
    if "token_type_ids" in each.card["input"]["names"]:
        asked += [[text, other] for text, other in zip(singles[:5], singles[5:10], strict=True)]
    found = answer_without_us(text_artefacts / name, asked, tmp_path)
    for question, (label, chance) in zip(asked, found, strict=True):
        pair = question[0] if len(question) == 1 else tuple(question)
        ours = chances(
            texts.compute(each.model, texts.tokenise(each.tokenizer, [pair], each.card["input"]["names"]))[0]
        )
        assert label == texts.CLASS_NAMES[ours.argmax()]
        assert chance == pytest.approx(ours.max(), abs=1e-4 if name.endswith("fp32") else 0.1)


@pytest.mark.untyped
def test_35_the_loader_gives_embeddings_and_what_is_said_of_tokens(
    text_artefacts: Path, text_models: dict[str, TextModel], tmp_path: Path
) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    text, each = "the film was good", text_models["embedding"]
    inputs = texts.tokenise(each.tokenizer, [text])
    found = answer_without_us(text_artefacts / "embedding-fp32", [[text]], tmp_path / "one")[0]
    np.testing.assert_allclose(found, texts.compute(each.model, inputs)[0], atol=1e-5)
    tagged = answer_without_us(text_artefacts / "tags-fp32", [[text]], tmp_path / "two")[0]
    assert [token for token, _ in tagged] == ["[CLS]", "the", "film", "was", "good", "[SEP]"]
    assert [label for _, (label, _) in tagged[1:-1]] == ["无", "无", "无", "gut"]


@pytest.mark.untyped
def test_07_classes_of_which_several_may_hold_pass_through_no_softmax(
    text_artefacts: Path, text_models: dict[str, TextModel], tmp_path: Path
) -> None:
    directory = Path(shutil.copytree(text_artefacts / "words-fp32", tmp_path / "several"))
    card = json.loads((directory / FILES[1]).read_text("utf-8"))
    (directory / FILES[1]).write_text(
        json.dumps(card | {"output": {"name": "logits", "activation": "sigmoid"}}), "utf-8"
    )
    text, each = "the film was good and dull", text_models["words"]
    logits = texts.compute(each.model, texts.tokenise(each.tokenizer, [text], card["input"]["names"]))[0]
    (tmp_path / "packages").mkdir()
    found = answer_without_us(directory, [[text]], tmp_path / "packages")[0]
    assert found == pytest.approx(dict(zip(texts.CLASS_NAMES, 1 / (1 + np.exp(-logits)), strict=True)), abs=1e-4)
    command = [sys.executable, str(directory / "predict.py"), text]
    environment = os.environ | {"PYTHONIOENCODING": "utf-8"}
    child = subprocess.run(command, capture_output=True, encoding="utf-8", env=environment, check=True)
    assert [line.rpartition(" ")[0] for line in child.stdout.splitlines()] == texts.CLASS_NAMES


@pytest.mark.untyped
@pytest.mark.parametrize(
    ("name", "arguments", "lines"),
    [
        ("words-fp32", ["the film was good"], [r"gut [01]\.\d{4}"]),
        ("words-fp32", ["the film was good", "the days"], [r"\S.* [01]\.\d{4}"]),
        (
            "tags-fp32",
            ["a dull day"],
            [r"\[CLS\]\t.*", r"a\t无 [01]\.\d{4}", r"dull\tschlecht <&> .*", r"\[UNK\].*", ".*"],
        ),
        ("embedding-fp32", ["a dull day"], [r"(-?[\d.e-]+ ){47}-?[\d.e-]+"]),
    ],
)
def test_the_loader_of_texts_is_a_command(
    name: str, arguments: list[str], lines: list[str], text_artefacts: Path
) -> None:
    command = [sys.executable, str(text_artefacts / name / "predict.py"), *arguments]
    environment = os.environ | {"PYTHONIOENCODING": "utf-8"}
    child = subprocess.run(command, capture_output=True, encoding="utf-8", env=environment, check=True)
    printed = child.stdout.splitlines()
    assert len(printed) == len(lines)
    for line, expected in zip(printed, lines, strict=True):
        assert re.fullmatch(expected, line), line


@pytest.mark.untyped
def test_the_loader_of_texts_says_what_it_needs(text_artefacts: Path) -> None:
    command = [sys.executable, str(text_artefacts / "words-fp32" / "predict.py")]
    child = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
    assert child.returncode == 1
    assert child.stderr.startswith("python predict.py TEXT")


def test_the_loader_of_texts_is_short_and_imports_six_things() -> None:
    source = Path(artefact.__file__).with_name("predict_text_template.txt").read_text("utf-8")
    body = ast.parse(source).body[1:]
    imports = [node for node in body if isinstance(node, ast.Import | ast.ImportFrom)]
    modules = {alias.name for node in imports if isinstance(node, ast.Import) for alias in node.names}
    modules |= {str(node.module) for node in imports if isinstance(node, ast.ImportFrom)}
    assert modules == {"json", "sys", "pathlib", "numpy", "onnxruntime", "tokenizers"}
    assert len(source.splitlines()) <= 40
    assert max(map(len, source.splitlines())) <= 120
