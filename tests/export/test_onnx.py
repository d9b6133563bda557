import logging
import shutil
import sys
import warnings
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from distil.core.errors import ExportError, MissingExtraError
from distil.export import onnx as export
from distil.export.onnx import export_onnx, quantize_onnx

from .conftest import Digits, compute_reference

pytestmark = pytest.mark.untyped


def run(path: Path, inputs: np.ndarray) -> np.ndarray:
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"images": inputs})[0]


class Attention(nn.Module):
    """A transformer layer, which in evaluation mode takes torch's fast path."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1)
        self.head = nn.Linear(8, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.encoder(images[:, 0]).mean(dim=1))


@pytest.mark.parametrize("name", ["mlp", "convnet", "attention"])
def test_35_the_file_gives_the_same_logits_for_any_batch_size(
    name: str, models: dict[str, nn.Module], digits: Digits, tmp_path: Path
) -> None:
    model = models[name] if name != "attention" else Attention().eval()
    reference = compute_reference(model, digits.test_inputs)
    export_onnx(model, torch.tensor(digits.test_inputs[:1]), tmp_path / "model.onnx")
    for size in (1, 2, 7, len(reference)):
        found = run(tmp_path / "model.onnx", digits.test_inputs[:size])
        np.testing.assert_allclose(found, reference[:size], rtol=0, atol=1e-4 * np.abs(reference).max())
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def test_17_the_model_comes_back_as_it_was_and_is_exported_in_evaluation_mode(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Flatten(), nn.Linear(144, 3))
    model.train()
    model[1].eval()  # a frozen BatchNorm in a model that trains
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    generator = torch.get_rng_state()
    export_onnx(model, torch.zeros(1, 1, 8, 8), tmp_path / "model.onnx")

    assert [module.training for module in model.modules()] == [True, True, False, True, True, True]
    assert torch.backends.mha.get_fastpath_enabled()
    assert torch.equal(torch.get_rng_state(), generator)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    images = np.random.default_rng(0).normal(size=(5, 1, 8, 8)).astype(np.float32)
    np.testing.assert_allclose(
        run(tmp_path / "model.onnx", images), compute_reference(model.eval(), images), rtol=0, atol=1e-5
    )


def test_the_fast_path_of_attention_is_off_while_the_model_is_traced(tmp_path: Path) -> None:
    seen: list[bool] = []

    class Looks(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            seen.append(torch.backends.mha.get_fastpath_enabled())
            return images.flatten(1)

    export_onnx(Looks(), torch.zeros(1, 1, 2, 2), tmp_path / "model.onnx")
    assert seen
    assert not any(seen)


def test_equal_models_give_equal_bytes_which_tell_nothing_of_this_machine(
    models: dict[str, nn.Module], digits: Digits, tmp_path: Path
) -> None:
    for name in ("first", "second"):
        export_onnx(models["convnet"], torch.tensor(digits.test_inputs[:3]), tmp_path / name)
    content = (tmp_path / "first").read_bytes()
    assert content == (tmp_path / "second").read_bytes()
    for word in (b"site-packages", b".py", b"stack_trace", str(Path.home()).encode() + b"/"):
        assert word not in content


def test_the_memory_order_of_the_example_does_not_shape_the_graph(models: dict[str, nn.Module], tmp_path: Path) -> None:
    channels_last = torch.zeros(2, 8, 8, 1).permute(0, 3, 1, 2)
    export_onnx(models["convnet"], channels_last, tmp_path / "model.onnx")
    operators = [node.op_type for node in onnx.load(tmp_path / "model.onnx").graph.node]
    assert operators == ["Conv", "Relu", "MaxPool", "Conv", "Relu", "ReduceMean", "Reshape", "Gemm"]


def test_the_terminal_stays_clean(
    models: dict[str, nn.Module], digits: Digits, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    handlers = list(logging.getLogger().handlers)
    export_onnx(models["mlp"], torch.tensor(digits.test_inputs[:1]), tmp_path / "fp32.onnx")
    quantize_onnx(tmp_path / "fp32.onnx", tmp_path / "int8.onnx", digits.train_inputs[:100])
    assert capfd.readouterr() == ("", "")
    assert logging.getLogger().handlers == handlers


def test_a_warning_of_the_model_itself_is_not_silenced(tmp_path: Path) -> None:
    class Warns(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            warnings.warn("the model's own words", UserWarning, stacklevel=1)
            return images.flatten(1)

    with pytest.warns(UserWarning, match="the model's own words"):
        export_onnx(Warns(), torch.zeros(1, 1, 2, 2), tmp_path / "model.onnx")


def test_a_model_that_cannot_be_traced_is_an_export_error(tmp_path: Path) -> None:
    class Branches(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.flatten(1) if images.sum() > 0 else -images.flatten(1)

    model = Branches().train()
    with pytest.raises(ExportError, match=r"the model Branches cannot be exported to ONNX \(\w+: ") as caught:
        export_onnx(model, torch.zeros(1, 1, 2, 2), tmp_path / "model.onnx")
    assert "branches that depend on values" in str(caught.value)
    assert model.training
    assert torch.backends.mha.get_fastpath_enabled()
    assert not list(tmp_path.iterdir())


def test_a_model_without_a_matrix_of_logits_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"Identity gives 1 output\(s\) with \[4\] axes"):
        export_onnx(nn.Identity(), torch.zeros(1, 1, 2, 2), tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("module", ["onnx", "onnxscript"])
def test_a_missing_package_gives_the_pip_line(module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError) as caught:
        export_onnx(nn.Flatten(), torch.zeros(1, 1, 2, 2), tmp_path / "model.onnx")
    expected = f"exporting to ONNX needs the package '{module}'. Install it with: pip install 'distil[onnx]'"
    assert str(caught.value) == expected


@pytest.fixture
def quantised(
    request: pytest.FixtureRequest, artefacts: Path, digits: Digits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """An int8 file, and beside it the ``fp32.onnx`` it was made from."""
    name, small = request.param
    monkeypatch.setattr(export, "_SMALL_MODEL_WEIGHTS", 10**9 if small else 0)
    shutil.copy(artefacts / f"{name}-fp32" / "model.onnx", tmp_path / "fp32.onnx")
    quantize_onnx(tmp_path / "fp32.onnx", tmp_path / "int8.onnx", digits.train_inputs[:512])
    return tmp_path / "int8.onnx"


BOTH_MODELS_SMALL_AND_LARGE = [
    pytest.param((name, small), id=f"{name}-{'small' if small else 'large'}")
    for name in ("mlp", "convnet")
    for small in (True, False)
]


@pytest.mark.parametrize("quantised", BOTH_MODELS_SMALL_AND_LARGE, indirect=True)
def test_35_int8_decides_like_fp32_on_99_of_100_test_digits(quantised: Path, digits: Digits) -> None:
    fp32 = run(quantised.with_name("fp32.onnx"), digits.test_inputs)
    int8 = run(quantised, digits.test_inputs)
    assert (fp32.argmax(axis=1) == int8.argmax(axis=1)).mean() >= 0.99
    assert not np.array_equal(fp32, int8)


@pytest.mark.parametrize("quantised", BOTH_MODELS_SMALL_AND_LARGE, indirect=True)
def test_int8_weights_cannot_overflow_sixteen_bits(quantised: Path) -> None:
    """Without VNNI, x86 adds two products of a uint8 activation and an int8 weight in 16 bits, and saturates."""
    graph = onnx.load(quantised).graph
    layers = [node for node in graph.node if node.op_type in ("Conv", "Gemm")]
    tensors = {weight.name: numpy_helper.to_array(weight) for weight in graph.initializer}
    producer = {node.output[0]: node for node in graph.node}
    for layer in layers:
        dequantise = producer[layer.input[1]]
        weight, scale, zero_point = (tensors[name] for name in dequantise.input)
        assert scale.shape == (len(weight),), "one scale per output channel"
        if weight.dtype == np.int8:  # the pairwise kernel
            assert 2 * 255 * np.abs(weight.astype(int)).max() <= 2**15 - 1
            assert not zero_point.any()
        else:  # the kernel for two unsigned operands widens first
            assert weight.dtype == np.uint8
        activation = producer[layer.input[0]]
        assert tensors[activation.input[2]].dtype == np.uint8
    assert len(layers) == 3


@pytest.mark.parametrize("quantised", [pytest.param(("mlp", True), id="mlp")], indirect=True)
def test_the_logits_are_not_rounded_to_256_values(quantised: Path, digits: Digits) -> None:
    assert onnx.load(quantised).graph.node[-1].op_type == "Gemm"
    assert len(np.unique(run(quantised, digits.test_inputs))) > 1000
    onnx.checker.check_model(onnx.load(quantised), full_check=True)


def test_the_size_of_the_model_chooses_the_weights(artefacts: Path, digits: Digits, tmp_path: Path) -> None:
    wide = nn.Sequential(nn.Flatten(), nn.Linear(64, 16_000), nn.ReLU(), nn.Linear(16_000, 10)).eval()
    export_onnx(wide, torch.tensor(digits.test_inputs[:1]), tmp_path / "wide.onnx")
    for fp32, expected in ((artefacts / "mlp-fp32" / "model.onnx", np.uint8), (tmp_path / "wide.onnx", np.int8)):
        quantize_onnx(fp32, tmp_path / "int8.onnx", digits.train_inputs[:64])
        weights = [numpy_helper.to_array(weight) for weight in onnx.load(tmp_path / "int8.onnx").graph.initializer]
        assert {weight.dtype.type for weight in weights if weight.ndim == 2} == {expected}


def test_quantising_twice_gives_equal_bytes(artefacts: Path, digits: Digits, tmp_path: Path) -> None:
    for name in ("first", "second"):
        quantize_onnx(artefacts / "mlp-fp32" / "model.onnx", tmp_path / name, digits.train_inputs[:100])
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()


@pytest.mark.parametrize(
    ("calibration", "message"),
    [
        (np.zeros((0, 1, 8, 8), np.float32), "needs calibration images, found 0"),
        (np.zeros((5, 3, 8, 8), np.float32), "model.onnx cannot be quantised"),
    ],
)
def test_calibration_that_cannot_be_used(
    calibration: np.ndarray, message: str, artefacts: Path, tmp_path: Path
) -> None:
    with pytest.raises(ExportError, match=message):
        quantize_onnx(artefacts / "mlp-fp32" / "model.onnx", tmp_path / "int8.onnx", calibration)
    assert not list(tmp_path.iterdir())
