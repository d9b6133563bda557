"""A float32 ONNX file in int8 whose activations have a scale for each row, which is each token of a text."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, Int8

from distil.core.errors import MissingExtraError
from distil.core.files import write_atomically

_FEWEST_UNPACKED = 1024  # a smaller one saves less than what unpacks it takes
_MIDDLE = 128  # the uint8 that stands for 0


def quantize_rows(fp32: Path, int8: Path) -> None:
    r"""Writes the dynamic int8 version of an fp32 ONNX file: no calibration, standard operators.

    .. math:: y_{tn} \approx s_t w_n \sum_k q_{tk} v_{kn}, \quad s_t = \max_k |x_{tk}| / 127, \quad q = [x / s],
        \quad v = [W / w]

    - Products with a fixed matrix are made of integers. A token has a scale of its own (s_t), so what is said about a
      text depends neither on its neighbours in the batch nor on padding. onnxruntime's own dynamic quantisation takes
      one scale for the whole batch: there, texts of a six-layer MiniLM alone and in a batch had a mean cosine of 0.990.
    - Tables of embeddings are stored as integers with a scale for each row, which is looked up with it.
    - Other weights, such as those of convolutions, are stored as integers too, but unpacked when the file is loaded:
      they save space and not time.

    Signed 8-bit weights saturate on x86 without VNNI, where the kernel adds the products of rows k and k + 1 (k even)
    in 16 bits. The scales w_n here are the smallest with which that cannot happen (:func:`column_scales`): their steps
    are finer than those of 7 bits for all weights, which cannot saturate either (two layers: 0.9987 instead of 0.9994).
    Unsigned weights do not saturate, but take 1.7 times as long where there is VNNI.

    All-MiniLM-L6-v2, one text of 32 tokens on one core with VNNI, and mean cosine with fp32 on 256 sentences:

    ==========================================  ===========  ======  ===========  ======
    int8 of                                     two layers   cosine  six layers   cosine
    ==========================================  ===========  ======  ===========  ======
    none (fp32)                                 3.1 ms       1       9.4 ms       1
    this function                               1.3 ms       0.9994  4.5 ms       0.9963
    one scale a batch, 7 bits                   1.2 ms       0.9971  4.0 ms       0.9912
    one scale a batch, unsigned 8 bits          2.1 ms       0.9976  6.5 ms       0.9918
    blocks of 128 (MatMulNBits, 8 bits)         2.0 ms       0.9998  6.3 ms       0.9989
    ==========================================  ===========  ======  ===========  ======

    Args:
        fp32: a file written by :func:`distil.export.onnx.export_onnx`.
        int8: replaced in one step.

    Raises:
        MissingExtraError: onnx is not installed.
    """
    onnx = _require_onnx()
    proto = onnx.load(str(fp32))
    rewriter = _Rewriter(onnx, proto.graph)
    nodes = [new for node in proto.graph.node for new in rewriter.rewrite(node)]
    nodes = [*rewriter.unpacking(nodes), *nodes]
    used = set(_asked(nodes)) - rewriter.packed
    kept = [weight for weight in proto.graph.initializer if weight.name in used]
    del proto.graph.node[:], proto.graph.initializer[:]
    proto.graph.node.extend(nodes)
    proto.graph.initializer.extend([*kept, *rewriter.added.values()])
    write_atomically(int8, proto.SerializeToString(deterministic=True))


def column_scales(weight: Float[np.ndarray, "inputs outputs"]) -> Float32[np.ndarray, " outputs"]:
    """The smallest scale of each column with which no weight, and no two neighbours of one sign, sum to more than 127.

    Rounding may make the sum 128, and 255 * 128 fits into 16 bits. Neighbours are rows 0 and 1, 2 and 3, and so on. A
    column of zeros has the scale 1.
    """
    rows = np.pad(weight, ((0, len(weight) % 2), (0, 0)))
    sums = np.abs(rows[0::2] + rows[1::2]).max(axis=0)  # of two signs it is smaller than the larger of the two
    return _scales(np.maximum(np.abs(weight).max(axis=0), sums))


class _Rewriter:
    """Replaces nodes one by one; ``added`` are the new weights, ``packed`` the old ones that other nodes unpack."""

    def __init__(self, onnx: Any, graph: Any) -> None:
        self.node, self.to_array, self.from_array = (
            onnx.helper.make_node, onnx.numpy_helper.to_array, onnx.numpy_helper.from_array,
        )  # fmt: skip
        self.float = onnx.TensorProto.FLOAT
        self.weights = {
            weight.name: weight
            for weight in graph.initializer
            if weight.data_type == self.float and len(weight.dims) > 1 and np.isfinite(self.to_array(weight)).all()
        }
        self.added: dict[str, Any] = {}
        self.packed: set[str] = set()
        self.rounded: set[str] = set()

    def rewrite(self, node: Any) -> list[Any]:
        """The nodes that stand for this one."""
        attributes = {each.name: each for each in node.attribute}
        match node.op_type:
            case "MatMul" if self._is_matrix(node.input[1]):
                return self._product(node.input[0], self._columns(node.input[1]), node.output[0])
            case "Gemm" if self._is_matrix(node.input[1]) and _is_plain(attributes):
                weight = self._columns(node.input[1], transpose="transB" in attributes and attributes["transB"].i == 1)
                if len(node.input) < 3:
                    return self._product(node.input[0], weight, node.output[0])
                product = f"{node.output[0]}/product"
                add = self.node("Add", [product, node.input[2]], [node.output[0]])
                return [*self._product(node.input[0], weight, product), add]
            case "Gather" if self._is_matrix(node.input[0]) and ("axis" not in attributes or attributes["axis"].i == 0):
                return self._lookup(node.input[0], node.input[1], node.output[0])
            case _:
                return [node]

    def unpacking(self, nodes: list[Any]) -> list[Any]:
        """Nodes that give the weights which are still asked for; the runtime folds them when it loads the file."""
        asked = set(_asked(nodes))
        large = [name for name, weight in self.weights.items() if np.prod(weight.dims) >= _FEWEST_UNPACKED]
        self.packed = asked.intersection(large)
        names = [name for name in large if name in asked]
        return [node for name in names for node in self._unpack(*self._rows(name), name)]

    def _product(self, rows: str, weight: tuple[str, str], output: str) -> list[Any]:
        """Rounded rows times integer columns, and both scales."""
        integers, scales = weight
        total, scaled = f"{output}/total", f"{output}/scaled total"
        middle = self._constant("row middle", np.array(_MIDDLE, np.uint8))
        return [
            *self._round(rows),
            self.node("MatMulInteger", [f"{rows}/row integers", integers, middle], [total]),
            *self._unpack(total, scales, scaled),
            self.node("Mul", [scaled, f"{rows}/row scale"], [output]),
        ]

    def _round(self, rows: str) -> list[Any]:
        """Once for all products of the same rows."""
        if rows in self.rounded:
            return []
        self.rounded.add(rows)
        one = self._constant("row one", np.array(1, np.float32))
        share = self._constant("row share", np.array(1 / 127, np.float32))
        smallest = self._constant("row smallest", np.array(np.finfo(np.float32).tiny))  # a row of zeros stays zeros
        last = self._constant("row last", np.array([-1], np.int64))
        middle = self._constant("row middle", np.array(_MIDDLE, np.uint8))
        sizes, largest, shares, scale, scaled = (
            f"{rows}/row {part}" for part in ("sizes", "largest", "share", "scale", "scaled")
        )
        return [
            self.node("Abs", [rows], [sizes]),
            self.node("ReduceMax", [sizes, last], [largest], keepdims=1),
            self.node("Mul", [largest, share], [shares]),
            self.node("Max", [shares, smallest], [scale]),
            self.node("Div", [rows, scale], [scaled]),
            self.node("QuantizeLinear", [scaled, one, middle], [f"{rows}/row integers"]),
        ]

    def _lookup(self, table: str, places: str, output: str) -> list[Any]:
        integers, scales = self._rows(table)
        found, found_scales = f"{output}/found", f"{output}/found scale"
        return [
            self.node("Gather", [integers, places], [found]),
            self.node("Gather", [scales, places], [found_scales]),
            *self._unpack(found, found_scales, output),
        ]

    def _unpack(self, integers: str, scales: str, output: str) -> list[Any]:
        floats = f"{output}/floats"
        cast = self.node("Cast", [integers], [floats], to=self.float)
        return [cast, self.node("Mul", [floats, scales], [output])]

    def _columns(self, name: str, *, transpose: bool = False) -> tuple[str, str]:
        weight = self.to_array(self.weights[name])
        weight = weight.T if transpose else weight
        ending = "transposed columns" if transpose else "columns"
        return self._add(name, ending, weight, column_scales(weight))

    def _rows(self, name: str) -> tuple[str, str]:
        """Integers with a scale for each place of the first axis."""
        weight = self.to_array(self.weights[name])
        largest = np.abs(weight).max(axis=tuple(range(1, weight.ndim)), keepdims=True)
        return self._add(name, "rows", weight, _scales(largest))

    def _add(self, name: str, ending: str, weight: np.ndarray, scales: np.ndarray) -> tuple[str, str]:
        integers: Int8[np.ndarray, ...] = np.rint(weight / scales).astype(np.int8)
        return (
            self._constant(f"{name}/{ending}", np.ascontiguousarray(integers)),
            self._constant(f"{name}/{ending} scale", scales),
        )

    def _constant(self, name: str, values: np.ndarray) -> str:
        if name not in self.added:
            self.added[name] = self.from_array(values, name)
        return name

    def _is_matrix(self, name: str) -> bool:
        return name in self.weights and len(self.weights[name].dims) == 2


def _asked(nodes: Iterable[Any]) -> Iterator[str]:
    """What nodes take, those of branches and loops included."""
    for node in nodes:
        yield from node.input
        for attribute in node.attribute:
            for graph in [attribute.g, *attribute.graphs]:
                yield from _asked(graph.node)


def _scales(largest: np.ndarray) -> np.ndarray:
    """With which the largest value becomes 127; 1 for zeros."""
    scales = (largest / 127).astype(np.float32)
    return np.where(scales > 0, scales, np.float32(1))


def _is_plain(attributes: dict[str, Any]) -> bool:
    """Whether a Gemm is a product and a sum, without factors, of rows as they are."""
    factors = [attributes[name].f for name in ("alpha", "beta") if name in attributes]
    return all(factor == 1 for factor in factors) and ("transA" not in attributes or attributes["transA"].i == 0)


def _require_onnx() -> Any:
    try:
        import onnx
    except ImportError as error:
        raise MissingExtraError("onnx", extra="onnx", purpose="exporting to ONNX") from error
    return onnx
