import json
import os
import shutil
import signal
import time
from pathlib import Path

import pytest

from distil.core.errors import ExportError, IntegrityError, MissingExtraError
from distil.export import process
from distil.export.process import measure_latency_in_fresh_process, verify_in_fresh_process

from .test_verify import change_model, perturb_weights

pytestmark = pytest.mark.untyped


@pytest.fixture
def copy(artefacts: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(artefacts / "mlp-fp32", tmp_path / "mlp-fp32"))


@pytest.mark.parametrize("name", ["mlp-fp32", "mlp-int8", "convnet-fp32", "convnet-int8"])
def test_35_parity_holds_in_a_fresh_process(name: str, artefacts: Path) -> None:
    parity = verify_in_fresh_process(artefacts / name)
    assert parity["pid"] != os.getpid()
    assert parity["passed"]
    assert parity["dynamic_batch"]
    assert parity["repeat_bit_equal"]
    assert parity["num_samples"] == 1097
    assert parity == json.loads((artefacts / name / "parity.json").read_text())


@pytest.mark.parametrize("name", ["words-int8", "embedding-fp32"])
def test_35_parity_of_texts_holds_in_a_fresh_process(name: str, text_artefacts: Path) -> None:
    parity = verify_in_fresh_process(text_artefacts / name)
    assert parity["pid"] != os.getpid()
    assert parity["passed"]
    assert parity["dynamic_length"]


def test_latency_of_texts_is_measured_at_the_length_that_is_asked_for(text_artefacts: Path, tmp_path: Path) -> None:
    place = Path(shutil.copytree(text_artefacts / "tags-fp32", tmp_path / "tags-fp32"))
    assert measure_latency_in_fresh_process([place])[str(place)]["tokens"] == 32
    assert measure_latency_in_fresh_process([place], tokens=5)[str(place)]["tokens"] == 5


def test_35_other_weights_are_an_export_error(copy: Path) -> None:
    change_model(copy, perturb_weights)
    with pytest.raises(ExportError, match="is not the model it was made from") as caught:
        verify_in_fresh_process(copy)
    assert "of the largest reference logit" in str(caught.value)
    assert "Traceback" not in str(caught.value)


def test_30_a_flipped_byte_is_an_integrity_error_that_names_the_file(copy: Path) -> None:
    content = bytearray((copy / "model.onnx").read_bytes())
    content[1000] ^= 16
    (copy / "model.onnx").write_bytes(content)
    for ask in (verify_in_fresh_process, lambda directory: measure_latency_in_fresh_process([directory])):
        with pytest.raises(IntegrityError) as caught:
            ask(copy)
        assert str(caught.value).startswith(f"{copy / 'model.onnx'}: the bytes have changed")


def test_the_working_directory_cannot_replace_modules(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hostile = copy.parent
    for name in ("json.py", "numpy.py", "distil.py"):
        (hostile / name).write_text("raise SystemExit('imported from the working directory')")
    monkeypatch.chdir(hostile)
    assert verify_in_fresh_process(Path("mlp-fp32"))["passed"]


def test_latency_is_measured_in_a_fresh_process_within_seconds(artefacts: Path, tmp_path: Path) -> None:
    places = [Path(shutil.copytree(artefacts / name, tmp_path / name)) for name in ("mlp-fp32", "mlp-int8")]
    teacher = Path(shutil.copytree(artefacts / "convnet-fp32", tmp_path / "teachers" / "convnet-fp32"))
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    start = time.monotonic()
    reports = measure_latency_in_fresh_process(places, teacher)
    assert time.monotonic() - start < 30
    assert list(reports) == [str(place) for place in [*places, teacher]]
    assert {report["pid"] for report in reports.values()}.isdisjoint({os.getpid()})
    assert len({report["pid"] for report in reports.values()}) == 1
    assert reports[str(places[0])]["reference"] == "teachers/convnet-fp32"
    if hasattr(os, "sched_getaffinity"):
        assert len(reports[str(teacher)]["machine"]["pinned"]) == 1
        assert os.sched_getaffinity(0) == cores, "the child is pinned, and not we"


@pytest.mark.parametrize(
    ("code", "error", "message"),
    [
        (f"import os; os.kill(os.getpid(), {int(signal.SIGKILL)})", ExportError, "was ended by signal 9"),
        ("raise ValueError('a bug')", ExportError, "ended with exit code 1. Its last words:.*ValueError: a bug"),
        ("import sys; sys.exit('MissingExtraError: x')", ExportError, "exit code 1"),
        (
            "import sys; print('MissingExtraError: x', file=sys.stderr); sys.exit(2)",
            MissingExtraError,
            r"needs the package 'onnxruntime'. Install it with: pip install 'distil\[onnx\]'",
        ),
        (
            "import sys; print('noise\\nExportError: one\\ntwo IntegrityError: x', file=sys.stderr); sys.exit(3)",
            ExportError,
            "^one\ntwo IntegrityError: x$",
        ),
        ("import sys; sys.exit(3)", ExportError, r"exit code 3. Its last words:\n\(none\)"),
    ],
)
def test_how_a_child_ends_is_how_we_end(
    code: str, error: type[Exception], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "child.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(error, match=f"(?s){message}"):
        process._run_module("child", [])


def test_a_child_that_hangs_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "child.py").write_text("import time; time.sleep(600)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(process, "_TIMEOUT_SECONDS", 1)
    with pytest.raises(ExportError, match="did not end within 1 seconds"):
        process._run_module("child", [])


def test_the_child_imports_the_same_distil(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "other" / "distil"
    other.mkdir(parents=True)
    (other / "__init__.py").write_text("raise SystemExit('the wrong distil')")
    (tmp_path / "child.py").write_text(
        "import distil.export.process, sys\n"
        "print('ExportError: ' + distil.export.process.__file__, file=sys.stderr)\n"
        "sys.exit(3)"
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(other.parent)]))
    with pytest.raises(ExportError) as caught:
        process._run_module("child", [])
    assert Path(str(caught.value)) == Path(process.__file__)
