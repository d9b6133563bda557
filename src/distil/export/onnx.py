"""A model as an ONNX file, in float32; and of images, in static int8."""

import contextlib
import importlib
import importlib.util
import io
import logging
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32, Int
from torch import Tensor, nn

from distil.core.errors import ExportError, MissingExtraError
from distil.core.files import write_atomically
from distil.export.runtime import OUTPUT_NAME
from distil.export.samples import IMAGES

# The only warnings silenced: torch 2.9 to 2.12 warn about their own use of pytree on every export (pytorch #169421);
# and that inputs share an axis is what was asked for.
_KNOWN_EXPORTER_WARNINGS = [
    (r"`isinstance\(treespec, LeafSpec\)` is deprecated", FutureWarning),
    (r"# The axis name: (batch|tokens) will not be used", UserWarning),
]

# Layers worth int8 on a CPU, and what may pass int8 on between them. Normalisation and softmax stay in float: they gain
# no speed and lose accuracy.
_QUANTISED_OPERATORS = [
    "Conv", "Gemm", "MatMul",
    "Add", "AveragePool", "Clip", "Concat", "GlobalAveragePool", "MaxPool", "Relu",
]  # fmt: skip

_SMALL_MODEL_WEIGHTS = 1_000_000
_CALIBRATION_BATCH = 64
_TRACED_TOKENS = 8


def export_onnx(
    model: nn.Module,
    example: Float[Tensor, "batch channels height width"] | Mapping[str, Int[Tensor, "batch tokens"]],
    path: Path,
    *,
    output: str = OUTPUT_NAME,
) -> None:
    """Writes ``model`` in evaluation mode as one ONNX file, for any batch size and, of texts, any length.

    Images come in as ``images``, the tensors of a text under their own names. The model comes back as it was: every
    submodule's train mode, and torch's fast path of attention. What the exporter notes about our source files (paths,
    stack traces) is taken out, so that equal models give equal bytes.

    onnxruntime's own graph optimiser for transformers is not used: it knows nothing of the attention in graphs of this
    exporter, and fuses only what the runtime fuses by itself when it loads the file (two-layer MiniLM: 3.3 ms either
    way).

    Args:
        model: takes one batch, a tensor of images or one mapping from names to tensors. Gives one tensor: [batch,
            outputs], or of texts also [batch, tokens, outputs].
        example: one is enough; only its shape, type and device matter.
        path: replaced in one step.
        output: the name of what comes out.

    Raises:
        MissingExtraError: onnx or onnxscript is not installed.
        ExportError: the model cannot be exported, or does not give one such tensor.
    """
    for module in ("onnx", "onnxscript"):
        _require(module)
    with _evaluation_mode(model), _quiet_exporter() as console:
        try:
            proto = (
                _trace_images(model, example, output)
                if isinstance(example, Tensor)
                else _trace_texts(model, example, output)
            )
        except Exception as error:  # the exporter raises whatever the model's own code raises
            reason = f"{type(error.__cause__ or error).__name__}: {error.__cause__ or error}"
            raise ExportError(
                f"{path}: the model {type(model).__name__} cannot be exported to ONNX ({reason}).\n"
                f"Its forward must be free of branches that depend on values. {console.getvalue()}".rstrip()
            ) from error
    _check_axes(proto, path, model)
    outputs = [len(each.type.tensor_type.shape.dim) for each in proto.graph.output]
    if outputs not in ([[2]] if isinstance(example, Tensor) else [[2], [3]]):
        raise ExportError(
            f"{path}: the model {type(model).__name__} gives {len(outputs)} output(s) with {outputs} axes; "
            "an exported classifier gives one output, logits [batch, classes], and of texts also an embedding [batch, "
            "features] or logits of every token [batch, tokens, classes]."
        )
    _remove_notes(proto)
    write_atomically(path, proto.SerializeToString(deterministic=True))


def quantize_onnx(fp32: Path, int8: Path, calibration: Float32[np.ndarray, "samples channels height width"]) -> None:
    """Writes the static int8 version of an fp32 ONNX file: QDQ format, weights per channel, min-max ranges.

    Activations are uint8. Signed 8-bit weights are wrong on x86 without VNNI (AVX2, AVX-512): the kernel adds pairs of
    products in 16 bits, and 2 * 255 * 127 does not fit (onnxruntime #6004, #12088; int8 activations do not help,
    because the runtime turns them into uint8). Two settings cannot overflow, and the size of the model chooses:

    - up to a million weights: uint8 weights in the full 8 bits, whose kernel widens to 16 bits first. Rounding hurts
      narrow layers most, and calls rather than kernels take the time of small models.
    - above: int8 weights in 7 bits (``reduce_range``): 2 * 255 * 64 fits, and with VNNI it is the fast kernel
      (ResNet-18 at 64 px there: 0.9 ms; uint8 weights 2.2 ms; fp32 5.1 ms). Rounding averages out over wide layers.

    The logits themselves are not rounded to 8 bits, because that makes ties between classes.

    Args:
        fp32: a file written by :func:`export_onnx`.
        int8: replaced in one step.
        calibration: preprocessed training images; a few hundred are enough.

    Raises:
        MissingExtraError: onnx or onnxruntime is not installed.
        ExportError: no calibration images, images that do not fit the model, or a model that cannot be quantised.
    """
    onnx, _ = _require("onnx"), _require("onnxruntime")
    if len(calibration) == 0:
        raise ExportError(f"{int8}: int8 needs calibration images, found 0. Give a few hundred training images.")
    with tempfile.TemporaryDirectory(prefix="distil-quantise-") as directory, _quiet_exporter():
        try:
            quantised = _quantise(fp32, Path(directory), np.ascontiguousarray(calibration, dtype=np.float32))
            proto = onnx.load(str(quantised))
        except Exception as error:  # onnxruntime's quantiser raises plain exceptions of many kinds
            raise ExportError(f"{int8}: {fp32.name} cannot be quantised ({type(error).__name__}: {error}).") from error
    _keep_logits_in_float(proto)
    _remove_notes(proto)
    write_atomically(int8, proto.SerializeToString(deterministic=True))


class _TakesTensors(nn.Module):
    """A model that takes a mapping, as one that takes the tensors one by one: the exporter names arguments by place."""

    def __init__(self, model: nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        self.model, self.names = model, tuple(names)
        self.training = False  # of this module only; the model's modes are set, and set back, where it is exported

    def forward(self, *tensors: Tensor) -> Tensor:
        return self.model(dict(zip(self.names, tensors, strict=True)))


def _trace_images(model: nn.Module, example: Tensor, output: str) -> Any:
    axes = {0: torch.export.Dim("batch", min=1)}
    return _trace(model, (_pair_of(example),), (axes,), [IMAGES], output)


def _trace_texts(model: nn.Module, example: Mapping[str, Tensor], output: str) -> Any:
    axes = {0: torch.export.Dim("batch", min=1), 1: torch.export.Dim("tokens", min=1)}
    tensors = tuple(_two_texts(value) for value in example.values())
    # the tensors are the `*tensors` of one argument, so their shapes are too
    return _trace(_TakesTensors(model, list(example)), tensors, ((axes,) * len(tensors),), list(example), output)


def _trace(model: nn.Module, tensors: tuple[Tensor, ...], axes: Any, names: list[str], output: str) -> Any:
    program = torch.onnx.export(
        model,
        tensors,
        dynamo=True,
        input_names=names,
        output_names=[output],
        dynamic_shapes=axes,
        external_data=False,
        verbose=False,
    )
    assert program is not None  # only the old exporter returns None
    _keep_name_for_output(program.model.graph)
    return program.model_proto


def _check_axes(proto: Any, path: Path, model: nn.Module) -> None:
    """Whether batch and length are still free: ``len(tensor)`` in a forward makes a number of them."""
    for each in proto.graph.input:
        axes = each.type.tensor_type.shape.dim
        fixed = [place for place in range(1 if each.name == IMAGES else 2) if not axes[place].dim_param]
        if fixed:
            raise ExportError(
                f"{path}: the model {type(model).__name__} takes {each.name} with axis {fixed[0]} of exactly "
                f"{axes[fixed[0]].dim_value} only. In its forward, write x.shape[0] for len(x), and take no size as a "
                "Python number."
            )


def _keep_name_for_output(graph: Any) -> None:
    """Values inside are named after what makes them, such as ``embedding``; two of one name make the file invalid."""
    outside = [*graph.inputs, *graph.outputs]
    for node in graph.all_nodes():
        for value in node.outputs:
            if not any(value is each for each in outside) and any(value.name == each.name for each in outside):
                value.name = f"{value.name}/inside"


def _two_texts(value: Int[Tensor, "batch tokens"]) -> Int[Tensor, "2 tokens"]:
    """One text twice, of 2 to 8 tokens: an axis of length 1, or of the longest there may be, may become a constant."""
    tokens = value.detach()[:1, :_TRACED_TOKENS]
    tokens = torch.cat([tokens, tokens], dim=1) if tokens.shape[1] == 1 else tokens
    return tokens.repeat(2, 1)


def _pair_of(example: Tensor) -> Tensor:
    """Two equal images in plain memory order.

    A batch of 1 would be exported as a constant, and the strides of an image with one channel may be read as
    channels-last, which puts layout arithmetic on the batch size into the graph.
    """
    pair = torch.empty((2, *example.shape[1:]), dtype=example.dtype, device=example.device)
    return pair.copy_(example.detach()[:1].expand_as(pair))


def _quantise(fp32: Path, directory: Path, calibration: np.ndarray) -> Path:
    quantization = importlib.import_module("onnxruntime.quantization")
    preprocessed, quantised = directory / "preprocessed.onnx", directory / "quantised.onnx"
    # The exporter has written all shapes already, so symbolic inference (which needs sympy) has nothing to add.
    quantization.quant_pre_process(str(fp32), str(preprocessed), skip_symbolic_shape=True)
    small = _count_weights(preprocessed) <= _SMALL_MODEL_WEIGHTS
    quantization.quantize_static(
        str(preprocessed),
        str(quantised),
        _calibration_reader(calibration),
        quant_format=quantization.QuantFormat.QDQ,
        op_types_to_quantize=_QUANTISED_OPERATORS,
        activation_type=quantization.QuantType.QUInt8,
        weight_type=quantization.QuantType.QUInt8 if small else quantization.QuantType.QInt8,
        reduce_range=not small,
        per_channel=True,
        calibrate_method=quantization.CalibrationMethod.MinMax,
        extra_options={"WeightSymmetric": True},
    )
    return quantised


def _count_weights(path: Path) -> int:
    return sum(int(np.prod(weight.dims)) for weight in _require("onnx").load(str(path)).graph.initializer)


def _calibration_reader(images: np.ndarray) -> Any:
    quantization = importlib.import_module("onnxruntime.quantization")

    class Reader(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            starts = range(0, len(images), _CALIBRATION_BATCH)
            self._batches = iter([{IMAGES: images[start : start + _CALIBRATION_BATCH]} for start in starts])

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self._batches, None)

    return Reader()


def _keep_logits_in_float(proto: Any) -> None:
    """Takes out the last quantise-dequantise pair; the layer before it then gives float32 by itself."""
    graph = proto.graph
    producer = {output: node for node in graph.node for output in node.output}
    dequantise = producer[OUTPUT_NAME]
    if dequantise.op_type != "DequantizeLinear":
        return
    quantise = producer[dequantise.input[0]]
    inner = quantise.input[0]
    for node in graph.node:
        for names in (node.input, node.output):
            for position, name in enumerate(names):
                if name == inner:
                    names[position] = OUTPUT_NAME
    graph.node.remove(dequantise)
    graph.node.remove(quantise)
    used = {name for node in graph.node for name in node.input}
    for weight in [weight for weight in graph.initializer if weight.name not in used]:
        graph.initializer.remove(weight)


def _remove_notes(proto: Any) -> None:
    graph = proto.graph
    proto.ClearField("metadata_props")
    for part in [graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer]:
        part.ClearField("metadata_props")
        part.ClearField("doc_string")


@contextlib.contextmanager
def _evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, and attention in plain operations: its fast path cannot be exported."""
    training = {module: module.training for module in model.modules()}
    fast_path = torch.backends.mha.get_fastpath_enabled()
    model.eval()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
        for module, mode in training.items():
            module.training = mode


@contextlib.contextmanager
def _quiet_exporter() -> Iterator[io.StringIO]:
    """Keeps what exporter and quantiser print and log away from the terminal, and their known warnings silent."""
    root, silent, console = logging.getLogger(), logging.NullHandler(), io.StringIO()
    root.addHandler(silent)  # with a handler there, `logging.warning` does not install one that prints
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(console):
            for message, category in _KNOWN_EXPORTER_WARNINGS:
                warnings.filterwarnings("ignore", message=message, category=category)
            yield console
    finally:
        root.removeHandler(silent)


def require_exporter() -> None:
    """Looks, without importing them, whether the packages that export are installed: before anything is trained.

    Raises:
        MissingExtraError: one is not.
    """
    for module in ("onnx", "onnxscript", "onnxruntime"):
        if importlib.util.find_spec(module) is None:
            raise MissingExtraError(module, extra="onnx", purpose="exporting to ONNX")


def _require(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(module, extra="onnx", purpose="exporting to ONNX") from error
