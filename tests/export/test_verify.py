import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from safetensors.numpy import load_file, save_file

from distil.core.errors import ExportError, IntegrityError
from distil.export import verify as module
from distil.export.integrity import check_artefact, write_record
from distil.export.runtime import open_session
from distil.export.samples import Samples
from distil.export.verify import TOLERANCES, TOLERANCES_WITHOUT_CLASSES, main, verify

from . import texts
from .conftest import TextModel

pytestmark = pytest.mark.untyped

KEYS = {
    "format", "runtime", "num_samples", "max_abs_error", "mean_abs_error", "agreement", "metric", "dynamic_batch",
    "repeat_bit_equal", "sha256", "size_bytes", "tolerance", "passed", "pid", "problems",
}  # fmt: skip


@pytest.fixture
def copy(artefacts: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(artefacts / "mlp-fp32", tmp_path / "mlp-fp32"))


def change_samples(directory: Path, **tensors: np.ndarray) -> None:
    samples = load_file(directory / "samples.safetensors") | tensors
    save_file(samples, directory / "samples.safetensors")
    record_again(directory)


def change_model(directory: Path, change: Any) -> None:
    model = onnx.load(directory / "model.onnx")
    change(model.graph)
    onnx.save(model, directory / "model.onnx")
    record_again(directory)


def record_again(directory: Path) -> None:
    record = json.loads((directory / "artefact.json").read_text())
    write_record(directory, record["files"], precision=record["precision"])


def perturb_weights(graph: Any) -> None:
    weight = next(weight for weight in graph.initializer if len(weight.dims) == 2)
    values = numpy_helper.to_array(weight) * np.float32(1.01)
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))


@pytest.mark.parametrize("name", ["mlp-fp32", "convnet-fp32"])
def test_35_fp32_is_the_model_within_float_noise(name: str, artefacts: Path) -> None:
    parity = verify(artefacts / name)
    assert json.loads((artefacts / name / "parity.json").read_text()) == parity
    assert parity.keys() >= KEYS
    assert parity["passed"]
    assert parity["problems"] == []
    assert 0 < parity["max_relative_error"] < 1e-5
    assert parity["agreement"] == 1.0
    assert parity["metric"]["artefact"] == parity["metric"]["reference"] > 0.9
    assert parity["dynamic_batch"]
    assert parity["repeat_bit_equal"]
    assert parity["sha256"] == check_artefact(artefacts / name)["sha256"]
    assert parity["pid"] == os.getpid()


@pytest.mark.parametrize("name", ["mlp-int8", "convnet-int8"])
def test_35_int8_agrees_on_99_of_100_and_keeps_the_metric(name: str, artefacts: Path) -> None:
    parity = verify(artefacts / name)
    assert parity["passed"]
    assert parity["agreement"] >= 0.99
    assert parity["max_relative_error"] > 1e-4, "int8 is not judged by the error of its logits"
    assert parity["metric"]["reference"] - parity["metric"]["artefact"] <= 0.01
    assert parity["tolerance"] == TOLERANCES["int8"]
    assert parity["tolerance"]["agreement"] == 0.98


def test_the_numbers_are_what_their_names_say(copy: Path) -> None:
    """Reference and targets changed by hand, so that every number is known."""
    samples = load_file(copy / "samples.safetensors")
    reference, targets = samples["reference"].copy(), samples["reference"].argmax(axis=1)
    reference[0] += 0.5
    flipped = np.roll(reference[1:3].copy(), 1, axis=1)
    targets[3:5] = (targets[3:5] + 1) % 10
    change_samples(copy, reference=np.concatenate([reference[:1], flipped, reference[3:]]), targets=targets)
    parity = verify(copy, min_agreement=0.5)
    count = len(targets)
    expected = np.abs(flipped - reference[1:3])
    assert parity["max_abs_error"] == pytest.approx(max(0.5, expected.max()), rel=1e-4)
    assert parity["mean_abs_error"] == pytest.approx((0.5 * 10 + expected.sum()) / (10 * count), rel=1e-3)
    assert parity["agreement"] == pytest.approx((count - 2) / count)
    assert parity["metric"]["reference"] == pytest.approx((count - 4) / count)
    assert parity["metric"]["artefact"] == pytest.approx((count - 2) / count)
    assert parity["tolerance"]["agreement"] == 0.5
    assert not parity["passed"]


def test_35_other_weights_than_the_students_are_found(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change_model(copy, perturb_weights)
    assert main([str(copy)]) == 3
    stderr = capsys.readouterr().err
    assert stderr.startswith(f"ExportError: {copy / 'model.onnx'} is not the model it was made from:")
    assert "of the largest reference logit, allowed is 0.0001" in stderr
    assert json.loads((copy / "parity.json").read_text())["passed"] is False


def test_35_a_lost_metric_is_found_on_the_artefact(artefacts: Path, tmp_path: Path) -> None:
    directory = Path(shutil.copytree(artefacts / "mlp-int8", tmp_path / "copy"))
    samples = load_file(directory / "samples.safetensors")
    change_samples(directory, reference=np.eye(10, dtype=np.float32)[samples["targets"]] * 10)  # always right
    parity = verify(directory, min_agreement=0.5)
    fell = [problem for problem in parity["problems"] if problem.startswith("accuracy fell from 1.0000 to 0.9")]
    assert len(fell) == 1
    assert not parity["passed"]
    assert any("agreement with the model" in problem for problem in verify(directory)["problems"])


@pytest.mark.parametrize(
    "name", ["model.onnx", "labels_and_preprocessing.json", "samples.safetensors", "predict.py", "artefact.json"]
)
def test_30_a_flipped_byte_is_named_and_an_old_parity_does_not_stay(
    name: str, copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(copy)]) == 0
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(content)
    assert main([str(copy)]) == IntegrityError.exit_code == 3
    assert capsys.readouterr().err.startswith(f"IntegrityError: {copy / name}: the bytes have changed")
    assert not (copy / "parity.json").exists()


def test_a_file_that_the_runtime_refuses(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (copy / "model.onnx").write_bytes(b"not a model")
    record_again(copy)
    assert main([str(copy)]) == 3
    assert f"ExportError: {copy / 'model.onnx'}: onnxruntime" in capsys.readouterr().err


def test_35_a_batch_size_that_was_baked_in_is_found(copy: Path) -> None:
    def fix_batch(graph: Any) -> None:
        graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1

    change_model(copy, fix_batch)
    with pytest.raises(ExportError, match=r"cannot run a batch of shape \(\d+, 1, 8, 8\)"):
        verify(copy)


def test_fewer_classes_than_the_reference_are_found(copy: Path) -> None:
    samples = load_file(copy / "samples.safetensors")
    change_samples(copy, reference=np.pad(samples["reference"], ((0, 0), (0, 1))))
    with pytest.raises(ExportError, match=r"outputs of shape \(\d+, 10\), expected \(\d+, 11\)"):
        verify(copy)


class FakeSession:
    """Sums of images, wrong for batches of the sizes that are named."""

    def __init__(self, *, wrong: set[int] = frozenset(), refused: set[int] = frozenset()) -> None:
        self.wrong, self.refused = wrong, refused

    def run(self, _: list[str], feed: dict[str, np.ndarray]) -> list[np.ndarray]:
        images = feed["images"]
        if len(images) in self.refused:
            raise RuntimeError("bad shape")
        sums = images.reshape(len(images), -1).sum(axis=1, keepdims=True)
        return [sums + (1.0 if len(images) in self.wrong else 0.0)]


@pytest.mark.parametrize(
    ("session", "expected"),
    [
        (FakeSession(), None),
        (FakeSession(wrong={2}), "batches of 2 differ from single samples by 1"),
        (FakeSession(wrong={7}), "batches of 7 differ"),
        (FakeSession(wrong={14}), "batches of all differ"),
        (FakeSession(refused={7}), r"cannot run a batch of shape (7, 1, 2, 2): bad shape"),
        (FakeSession(refused={1}), r"cannot run a batch of shape (1, 1, 2, 2): bad shape"),
    ],
)
def test_35_every_batch_size_is_compared_with_single_samples(session: FakeSession, expected: str | None) -> None:
    inputs = np.random.default_rng(0).normal(size=(14, 1, 2, 2)).astype(np.float32)
    outputs = session.run([], {"images": inputs})[0]
    problems = module._compare_batch_sizes(session, inputs, outputs, bound=1e-3)
    assert len(problems) == (expected is not None)
    assert all(expected in problem for problem in problems if expected)


@pytest.mark.parametrize(
    ("second_differs", "wrong_sizes", "problem"),
    [
        (False, {2}, "batches of 2 differ from single samples by 1"),
        (True, set(), "a second session gives other bits for the same batch"),
    ],
)
def test_35_an_artefact_that_is_not_the_same_function_every_time_does_not_pass(
    second_differs: bool, wrong_sizes: set[int], problem: str, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sessions: list[Any] = []

    class Unsteady:
        def __init__(self, path: Path) -> None:
            self.session = open_session(path)
            sessions.append(self)

        def run(self, names: list[str], feed: dict[str, np.ndarray]) -> list[np.ndarray]:
            logits = self.session.run(names, feed)[0]
            if len(logits) in wrong_sizes:
                return [logits + 1]
            return [np.nextafter(logits, np.inf) if second_differs and self is not sessions[0] else logits]

    monkeypatch.setattr(module, "open_session", Unsteady)
    parity = verify(copy)
    assert [found for found in parity["problems"] if found.startswith(problem)]
    assert not parity["passed"]
    assert parity["dynamic_batch"] == (not wrong_sizes)
    assert parity["repeat_bit_equal"] == (not second_differs)


def test_fewer_samples_than_a_batch(copy: Path) -> None:
    samples = load_file(copy / "samples.safetensors")
    change_samples(copy, **{name: tensor[:3].copy() for name, tensor in samples.items()})
    parity = verify(copy)
    assert parity["passed"]
    assert (parity["num_samples"], parity["batch_sizes"]) == (3, [1, 2, 7, 3])


def test_nan_is_a_problem_and_not_a_number(copy: Path) -> None:
    def break_bias(graph: Any) -> None:
        bias = next(weight for weight in graph.initializer if list(weight.dims) == [10])
        bias.CopyFrom(numpy_helper.from_array(np.full(10, np.nan, np.float32), bias.name))

    change_model(copy, break_bias)
    parity = verify(copy)
    assert parity["max_abs_error"] is None
    assert "the artefact gives NaN or infinity on real samples" in parity["problems"]
    assert not parity["passed"]


def test_it_runs_where_torch_and_distils_other_needs_are_absent(copy: Path) -> None:
    code = (
        "import sys\n"
        "for name in ('torch', 'onnx', 'scipy', 'sklearn', 'pydantic', 'yaml'): sys.modules[name] = None\n"
        "from distil.export.verify import main\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    child = subprocess.run([sys.executable, "-c", code, str(copy)], capture_output=True, encoding="utf-8", check=False)
    assert child.returncode == 0, child.stderr
    assert f"{copy}: passed on 1097 samples" in child.stdout


def test_importing_it_does_not_import_torch() -> None:
    code = "import distil.export.verify, distil.export.latency, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def copy_of(text_artefacts: Path, name: str, tmp_path: Path) -> Path:
    return Path(shutil.copytree(text_artefacts / name, tmp_path / name))


@pytest.mark.parametrize("name", ["characters", "words", "tags", "embedding"])
def test_35_fp32_of_texts_is_the_model_within_float_noise(name: str, text_artefacts: Path) -> None:
    parity = verify(text_artefacts / f"{name}-fp32")
    assert parity["problems"] == []
    assert parity["passed"]
    assert 0 < parity["max_relative_error"] < 1e-5
    assert parity["dynamic_batch"]
    assert parity["dynamic_length"]
    assert parity["repeat_bit_equal"]
    assert parity["batch_sizes"] == [1, 2, 7, 150]
    shortest, longest, limit = parity["token_lengths"]
    assert shortest < longest <= limit == texts.MAX_LENGTH


@pytest.mark.parametrize("name", ["characters", "words", "tags"])
def test_35_int8_of_texts_agrees_on_99_of_100_and_keeps_the_metric(name: str, text_artefacts: Path) -> None:
    parity = verify(text_artefacts / f"{name}-int8")
    assert parity["problems"] == []
    assert parity["agreement"] >= 0.99
    assert parity["max_relative_error"] > 1e-4
    assert parity["metric"]["name"] == "accuracy"
    assert parity["metric"]["reference"] > 0.9
    assert parity["metric"]["reference"] - parity["metric"]["artefact"] <= 0.01
    assert parity["tolerance"] == TOLERANCES["int8"]


def test_35_int8_of_embeddings_keeps_their_direction(text_artefacts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = text_artefacts / "embedding-int8"
    parity = verify(directory)
    assert parity["problems"] == []
    assert parity["agreement"] is None
    assert 0.99 < parity["cosine"] < 1
    assert parity["metric"] == {"name": "cosine", "reference": 1.0, "artefact": parity["cosine"]}
    assert parity["tolerance"] == TOLERANCES_WITHOUT_CLASSES["int8"]
    assert main([str(directory)]) == 0
    assert f"cosine {parity['cosine']:.4f}" in capsys.readouterr().out


def test_the_cosine_is_the_mean_over_samples(text_artefacts: Path, tmp_path: Path) -> None:
    """Half of the references point to the other side."""
    directory = copy_of(text_artefacts, "embedding-fp32", tmp_path)
    reference = load_file(directory / "samples.safetensors")["reference"].copy()
    reference[:75] *= -1
    change_samples(directory, reference=reference)
    parity = verify(directory)
    assert len(reference) == 150
    assert parity["cosine"] == pytest.approx(0, abs=1e-6)
    assert not parity["passed"]


@pytest.mark.parametrize(
    ("outputs", "reference", "expected"),
    [
        ([[1, 0], [1, 1]], [[2, 0], [1, -1]], 0.5),
        ([[0, 0]], [[0, 0]], 1.0),
        ([[0, 0]], [[0, 1]], 0.0),
        ([[3, 4]], [[1, 0]], 0.6),
        ([[np.nan, 4]], [[1, 0]], None),
    ],
)
def test_cosines_by_hand(outputs: list[Any], reference: list[Any], expected: float | None) -> None:
    found = module._mean_cosine(np.array(outputs, np.float32), np.array(reference, np.float32))
    assert found == (None if expected is None else pytest.approx(expected))


def test_35_an_embedding_in_another_direction_does_not_pass(text_artefacts: Path, tmp_path: Path) -> None:
    directory = copy_of(text_artefacts, "embedding-int8", tmp_path)
    reference = load_file(directory / "samples.safetensors")["reference"]
    change_samples(directory, reference=np.roll(reference, 1, axis=1))
    problems = verify(directory)["problems"]
    assert len(problems) == 1
    assert "mean cosine with the model's outputs" in problems[0]
    assert "at least 0.99 needed" in problems[0]


def test_an_agreement_of_embeddings_is_refused(text_artefacts: Path) -> None:
    with pytest.raises(ExportError, match="is for classes, and this artefact has none"):
        verify(text_artefacts / "embedding-fp32", min_agreement=0.9)


def test_11_neither_padding_nor_tokens_without_a_target_count(text_artefacts: Path, tmp_path: Path) -> None:
    """References of padding are spoiled, and so are the targets of what is no word: nothing changes."""
    directory = copy_of(text_artefacts, "tags-fp32", tmp_path)
    before = verify(directory)
    samples = load_file(directory / "samples.safetensors")
    reference = samples["reference"].copy()
    reference[samples["inputs.attention_mask"] == 0] = 1e6
    assert (samples["targets"] == -1).any()
    assert (reference == 1e6).any()
    change_samples(directory, reference=reference)
    after = verify(directory)
    for key in ("passed", "max_abs_error", "mean_abs_error", "max_relative_error", "agreement", "metric"):
        assert after[key] == before[key], key
    change_samples(directory, targets=np.full_like(samples["targets"], -1))
    assert verify(directory)["metric"] == {"name": "accuracy", "reference": None, "artefact": None}


def test_the_accuracy_of_tokens_by_hand(text_artefacts: Path, tmp_path: Path) -> None:
    directory = copy_of(text_artefacts, "tags-fp32", tmp_path)
    samples = load_file(directory / "samples.safetensors")
    decisions = samples["reference"].argmax(axis=2)
    targets = np.where(samples["inputs.attention_mask"] == 1, decisions, -1)
    asked = np.flatnonzero(targets.ravel() >= 0)
    wrong = asked[::4]
    changed = targets.ravel().copy()
    changed[wrong] = (changed[wrong] + 1) % 3
    change_samples(directory, targets=changed.reshape(targets.shape))
    assert verify(directory)["metric"]["artefact"] == pytest.approx(1 - len(wrong) / len(asked))


def test_35_other_weights_than_those_of_the_text_student_are_found(text_artefacts: Path, tmp_path: Path) -> None:
    directory = copy_of(text_artefacts, "words-fp32", tmp_path)
    change_model(directory, perturb_weights)
    problems = verify(directory)["problems"]
    assert any("of the largest reference logit, allowed is 0.0001" in problem for problem in problems)


def test_35_a_length_that_was_baked_in_is_found(text_artefacts: Path, tmp_path: Path) -> None:
    directory = copy_of(text_artefacts, "words-fp32", tmp_path)
    tokens = load_file(directory / "samples.safetensors")["inputs.input_ids"].shape[1]
    assert tokens < texts.MAX_LENGTH

    def fix_length(graph: Any) -> None:
        for each in graph.input:
            each.type.tensor_type.shape.dim[1].dim_value = tokens

    change_model(directory, fix_length)
    parity = verify(directory)
    assert [
        problem for problem in parity["problems"] if problem.startswith("the artefact cannot run a batch of shape (1, ")
    ]
    assert [problem for problem in parity["problems"] if f"batch of shape (7, {texts.MAX_LENGTH})" in problem]
    assert not parity["dynamic_length"]
    assert not parity["passed"]


@pytest.mark.parametrize("answers_for_tokens", [False, True])
def test_11_a_model_that_reads_padding_is_found(
    answers_for_tokens: bool, text_models: dict[str, TextModel], tmp_path: Path
) -> None:
    """Its outputs on the padded samples are those of torch; only other lengths show it."""

    class ReadsPadding(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tagger = text_models["tags"].model

        def forward(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
            tagged = self.tagger(inputs)
            mean = tagged.mean(dim=1, keepdim=True)
            return tagged + mean if answers_for_tokens else mean.squeeze(1)

    each = text_models["tags"]
    inputs = each.samples.inputs
    assert not isinstance(inputs, np.ndarray)
    reference = texts.compute(ReadsPadding().eval(), inputs)
    targets = each.samples.targets if answers_for_tokens else np.zeros(len(reference), np.int64)
    samples = Samples(inputs, reference, targets)
    each.write(tmp_path, "fp32", model=ReadsPadding().eval(), samples=samples)
    parity = verify(tmp_path)
    assert parity["max_relative_error"] < 1e-4
    assert parity["agreement"] == 1
    assert any(problem.startswith("batches of all differ from single samples") for problem in parity["problems"])
    assert any(problem.startswith("texts padded to 40 tokens differ") for problem in parity["problems"])
    assert not parity["dynamic_length"]


def test_the_large_batch_of_texts_fits_into_memory() -> None:
    texts_of = {"input_ids": np.ones((5000, 128), np.int64), "attention_mask": np.ones((5000, 128), np.int64)}
    assert module._largest_batch(texts_of) == 4_000_000 // (128 * 512)
    assert module._largest_batch({name: value[:9] for name, value in texts_of.items()}) == 9


def test_texts_are_verified_where_torch_and_tokenizers_are_absent(text_artefacts: Path) -> None:
    code = (
        "import sys\n"
        "for name in ('torch', 'onnx', 'transformers', 'tokenizers', 'scipy', 'pydantic'): sys.modules[name] = None\n"
        "from distil.export.verify import main\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, str(text_artefacts / "embedding-fp32")]
    child = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
    assert child.returncode == 0, child.stderr
