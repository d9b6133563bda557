import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from distil.core.errors import MissingExtraError
from distil.export.onnx import export_onnx
from distil.export.row_quantisation import column_scales, quantize_rows

from . import texts
from .conftest import TextModel


def make_file(
    path: Path, node: Any, constants: dict[str, np.ndarray], *, kind: int = TensorProto.FLOAT, axes: int = 2
) -> Path:
    """One node from ``rows`` to ``output``."""
    graph = helper.make_graph(
        [node],
        "test",
        [helper.make_tensor_value_info("rows", kind, [None] * axes)],
        [
            helper.make_tensor_value_info(
                "output", TensorProto.FLOAT, [None] * (axes if kind == TensorProto.FLOAT else 3)
            )
        ],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, path)
    return path


def quantise(path: Path) -> Path:
    int8 = path.with_name(f"int8-{path.name}")
    quantize_rows(path, int8)
    onnx.checker.check_model(onnx.load(int8))
    return int8


def run(path: Path, **inputs: np.ndarray) -> np.ndarray:
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, inputs)[0]


def operators(path: Path) -> list[str]:
    return [node.op_type for node in onnx.load(path).graph.node]


def rounded_product(rows: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """The formula in float64, written again."""
    scales = np.abs(rows).max(axis=-1, keepdims=True).astype(np.float64) / 127
    columns = column_scales(weight).astype(np.float64)
    return np.rint(rows / scales) @ np.rint(weight / columns) * scales * columns


@pytest.fixture
def product(tmp_path: Path) -> tuple[Path, np.ndarray]:
    weight = np.random.default_rng(0).normal(size=(50, 30)).astype(np.float32)
    node = helper.make_node("MatMul", ["rows", "weight"], ["output"])
    return make_file(tmp_path / "product.onnx", node, {"weight": weight}, axes=3), weight


def test_scales_of_columns_by_hand() -> None:
    weight = np.array(
        [
            [127.0, 100.0, 100.0, 0.0, -1.0],
            [-127.0, 27.0, 54.0, 0.0, -1.0],
            [127.0, 100.0, 0.0, 0.0, 0.0],  # the third row has no neighbour
        ]
    )
    # largest weight; a pair of 127; a pair of 154; zeros; a pair of 2
    np.testing.assert_allclose(column_scales(weight), [1, 1, 154 / 127, 1, 2 / 127], rtol=1e-6)


@settings(deadline=None)
@given(rows=st.integers(1, 40), columns=st.integers(1, 8), seed=st.integers(0, 10**6), tail=st.floats(1, 8))
def test_int8_weights_cannot_overflow_sixteen_bits(rows: int, columns: int, seed: int, tail: float) -> None:
    """Without VNNI, x86 adds the products of neighbouring rows with uint8 activations in 16 bits, and saturates."""
    normal = np.random.default_rng(seed).normal(size=(rows, columns))
    weight = np.sign(normal) * np.abs(normal) ** tail
    integers = np.rint(weight / column_scales(weight)).astype(int)
    assert np.abs(integers).max() <= 127
    pairs = np.pad(integers, ((0, rows % 2), (0, 0))).reshape(-1, 2, columns)
    most = 255 * np.maximum(pairs, 0).sum(axis=1).max()
    least = 255 * np.minimum(pairs, 0).sum(axis=1).min()
    assert -(2**15) <= least <= most <= 2**15 - 1
    assert (np.abs(integers).max(axis=0) >= 63).all(), "no more than one bit is lost"


def test_the_file_computes_the_formula(product: tuple[Path, np.ndarray]) -> None:
    path, weight = product
    rows = np.random.default_rng(1).normal(size=(2, 7, 50)).astype(np.float32)
    int8 = quantise(path)
    np.testing.assert_allclose(run(int8, rows=rows), rounded_product(rows, weight), rtol=1e-5, atol=1e-5)
    error = np.abs(run(int8, rows=rows) - rows @ weight)
    assert 0 < error.max() < 0.02 * np.abs(rows @ weight).max()
    assert "MatMulInteger" in operators(int8)
    kinds = {weight.name: weight.data_type for weight in onnx.load(int8).graph.initializer}
    assert "weight" not in kinds
    assert kinds["weight/columns"] == TensorProto.INT8


def test_what_is_said_of_a_token_does_not_depend_on_others(product: tuple[Path, np.ndarray]) -> None:
    int8 = quantise(product[0])
    rows = np.random.default_rng(1).normal(size=(3, 5, 50)).astype(np.float32)
    together = run(int8, rows=rows)
    huge = rows.copy()
    huge[:, 0] *= 1e6
    np.testing.assert_array_equal(run(int8, rows=huge)[:, 1:], together[:, 1:])
    for text in range(3):
        for token in range(5):
            alone = run(int8, rows=rows[text : text + 1, token : token + 1])
            np.testing.assert_array_equal(alone[0, 0], together[text, token])


def test_a_row_of_zeros_stays_zeros(product: tuple[Path, np.ndarray]) -> None:
    rows = np.random.default_rng(1).normal(size=(1, 2, 50)).astype(np.float32)
    rows[0, 0] = 0
    output = run(quantise(product[0]), rows=rows)
    assert (output[0, 0] == 0).all()
    assert (output[0, 1] != 0).all()


@pytest.mark.parametrize("transpose", [0, 1])
@pytest.mark.parametrize("with_bias", [True, False])
def test_a_layer_with_bias(transpose: int, with_bias: bool, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    weight, bias = generator.normal(size=(50, 30)).astype(np.float32), generator.normal(size=30).astype(np.float32)
    constants = {"weight": np.ascontiguousarray(weight.T) if transpose else weight} | (
        {"bias": bias} if with_bias else {}
    )
    node = helper.make_node("Gemm", ["rows", *constants], ["output"], transB=transpose)
    int8 = quantise(make_file(tmp_path / "layer.onnx", node, constants))
    rows = generator.normal(size=(4, 50)).astype(np.float32)
    expected = rounded_product(rows, weight) + (bias if with_bias else 0)
    np.testing.assert_allclose(run(int8, rows=rows), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("attributes", [{"alpha": 2.0}, {"beta": 0.5}, {"transA": 1}])
def test_a_layer_with_factors_stays_in_float_with_weights_stored_small(
    attributes: dict[str, Any], tmp_path: Path
) -> None:
    generator = np.random.default_rng(0)
    constants = {
        name: generator.normal(size=shape).astype(np.float32) for name, shape in (("w", (50, 30)), ("b", (30,)))
    }
    path = make_file(
        tmp_path / "layer.onnx", helper.make_node("Gemm", ["rows", "w", "b"], ["output"], **attributes), constants
    )
    int8 = quantise(path)
    assert operators(int8) == ["Cast", "Mul", "Gemm"]
    rows = generator.normal(size=(50, 4) if "transA" in attributes else (4, 50)).astype(np.float32)
    np.testing.assert_allclose(run(int8, rows=rows), run(path, rows=rows), atol=0.3)
    assert int8.stat().st_size < 0.5 * path.stat().st_size


def test_a_table_of_embeddings_has_a_scale_for_each_row(tmp_path: Path) -> None:
    table = (
        np.random.default_rng(0).normal(size=(60, 16)).astype(np.float32) * 10.0 ** np.arange(-30, 30)[:, None] / 1e20
    )
    table = table.astype(np.float32)
    table[3] = 0
    node = helper.make_node("Gather", ["table", "rows"], ["output"])
    path = make_file(tmp_path / "table.onnx", node, {"table": table}, kind=TensorProto.INT64)
    places = np.array([[3, 59], [20, 31]])
    found = run(quantise(path), rows=places)
    sizes = np.abs(table[places]).max(axis=-1, keepdims=True)
    assert (np.abs(found - table[places]) <= sizes / 254 * 1.001).all()
    assert np.array_equal(found[0, 0], np.zeros(16))
    assert operators(quantise(path)) == ["Gather", "Gather", "Cast", "Mul"]


def test_small_and_endless_tables_stay_as_they_are(tmp_path: Path) -> None:
    """A mask of -inf has no scale; of another node than a product or a lookup, little is saved by a small one."""
    rows = np.random.default_rng(0).normal(size=(40, 40)).astype(np.float32)
    for constant in (np.triu(np.full((40, 40), -np.inf, np.float32), 1), rows[:1]):
        path = make_file(tmp_path / "sum.onnx", helper.make_node("Add", ["rows", "c"], ["output"]), {"c": constant})
        int8 = quantise(path)
        assert operators(int8) == ["Add"]
        np.testing.assert_array_equal(run(int8, rows=rows), rows + constant)


def test_weights_of_branches_are_kept(tmp_path: Path) -> None:
    """A graph within a node may take a weight from outside it."""

    def branch(name: str, weight: str) -> Any:
        node = helper.make_node("MatMul", ["rows", weight], [name])
        return helper.make_graph([node], name, [], [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * 2)])

    generator = np.random.default_rng(0)
    small, large = (generator.normal(size=shape).astype(np.float32) for shape in ((40, 8), (40, 40)))
    condition = np.array(True)
    node = helper.make_node(
        "If", ["condition"], ["output"], then_branch=branch("a", "large"), else_branch=branch("b", "small")
    )
    path = make_file(tmp_path / "if.onnx", node, {"small": small, "large": large, "condition": condition})
    rows = generator.normal(size=(3, 40)).astype(np.float32)
    int8 = quantise(path)
    np.testing.assert_allclose(run(int8, rows=rows), run(path, rows=rows), atol=0.3)
    assert int8.stat().st_size < 0.6 * path.stat().st_size


@pytest.mark.untyped
def test_a_table_that_is_looked_up_and_multiplied_is_kept_in_both_forms(tmp_path: Path) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Parameter(torch.randn(64, 64))

        def forward(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
            found = nn.functional.embedding(inputs["input_ids"], self.table)
            return (found @ self.table).mean(dim=1)

    torch.manual_seed(0)
    model, ids = Tied().eval(), {"input_ids": torch.randint(0, 64, (3, 7))}
    export_onnx(model, ids, tmp_path / "fp32.onnx")
    quantize_rows(tmp_path / "fp32.onnx", tmp_path / "int8.onnx")
    names = {weight.name for weight in onnx.load(tmp_path / "int8.onnx").graph.initializer}
    assert {"model.table/rows", "model.table/columns"} <= names
    expected = texts.compute(model, {"input_ids": ids["input_ids"].numpy()})
    found = run(tmp_path / "int8.onnx", input_ids=ids["input_ids"].numpy())
    np.testing.assert_allclose(found, expected, atol=0.03 * np.abs(expected).max())


@pytest.mark.untyped
def test_convolutions_are_stored_small(text_artefacts: Path, tmp_path: Path) -> None:
    fp32, int8 = (text_artefacts / f"characters-{precision}" / "model.onnx" for precision in ("fp32", "int8"))
    assert "Conv" in operators(int8)
    kinds = {weight.name: weight.data_type for weight in onnx.load(int8).graph.initializer}
    assert kinds["model.convolution.weight/rows"] == TensorProto.INT8
    assert "model.convolution.weight" not in kinds
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath, options.log_severity_level = str(tmp_path / "loaded.onnx"), 3
    onnxruntime.InferenceSession(int8, options, providers=["CPUExecutionProvider"])
    loaded = onnx.load(tmp_path / "loaded.onnx").graph
    convolution = next(node for node in loaded.node if "Conv" in node.op_type)
    unpacked = next(weight for weight in loaded.initializer if weight.name == convolution.input[1])
    assert unpacked.data_type == TensorProto.FLOAT, "the runtime unpacks it once, and not for every text"
    assert int8.stat().st_size < 0.5 * fp32.stat().st_size


@pytest.mark.untyped
@pytest.mark.parametrize("name", ["characters", "words"])
def test_35_int8_decides_like_fp32_and_says_the_same_alone_and_in_a_batch(
    name: str, text_models: dict[str, TextModel], text_artefacts: Path
) -> None:
    samples = text_models[name].samples
    assert not isinstance(samples.inputs, np.ndarray)
    path = text_artefacts / f"{name}-int8" / "model.onnx"
    together = run(path, **samples.inputs)
    assert (together.argmax(axis=1) == samples.reference.argmax(axis=1)).mean() >= 0.99
    assert not np.array_equal(together, samples.reference)
    for row in range(5):
        length = int(samples.inputs["attention_mask"][row].sum())
        alone = run(path, **{each: value[row : row + 1, :length] for each, value in samples.inputs.items()})
        np.testing.assert_allclose(alone[0], together[row], rtol=0, atol=1e-4 * np.abs(samples.reference).max())


@pytest.mark.untyped
def test_quantising_twice_gives_equal_bytes(text_artefacts: Path, tmp_path: Path) -> None:
    for name in ("first", "second"):
        quantize_rows(text_artefacts / "words-fp32" / "model.onnx", tmp_path / name)
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()


def test_a_missing_package_gives_the_pip_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'distil\[onnx\]'"):
        quantize_rows(tmp_path / "fp32.onnx", tmp_path / "int8.onnx")
