import sys
from pathlib import Path

import numpy as np
import pytest

from distil.core.errors import ExportError, MissingExtraError
from distil.export.runtime import compute_logits, open_session, runtime_name

pytestmark = pytest.mark.untyped


def test_the_runtime_has_a_version() -> None:
    name, version = runtime_name().split()
    assert name == "onnxruntime"
    assert version[0].isdigit()


def test_a_session_uses_one_thread_of_the_cpu(artefacts: Path) -> None:
    session = open_session(artefacts / "mlp-fp32" / "model.onnx")
    options = session.get_session_options()
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (1, 1)
    assert session.get_providers() == ["CPUExecutionProvider"]
    assert compute_logits(session, np.zeros((3, 1, 8, 8), np.float32)).shape == (3, 10)


def test_a_wrong_batch_names_its_shape(artefacts: Path) -> None:
    session = open_session(artefacts / "mlp-fp32" / "model.onnx")
    with pytest.raises(ExportError, match=r"cannot run a batch of shape \(1, 3, 8, 8\)"):
        compute_logits(session, np.zeros((1, 3, 8, 8), np.float32))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"model\.onnx: onnxruntime [\d.]+ cannot load this file"):
        open_session(tmp_path / "model.onnx")


def test_a_missing_runtime_gives_the_pip_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'distil\[onnx\]'"):
        open_session(tmp_path / "model.onnx")
