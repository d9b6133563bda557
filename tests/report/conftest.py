"""One synthetic run for the whole room; a test that changes files makes its own."""

from pathlib import Path

import pytest

from distil.report.read import read_run
from distil.report.record import RunRecord

from .run_directory_fixture import write_run
from .text_run_fixture import write_language_model_run, write_text_classification_run


@pytest.fixture(scope="session")
def run_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished BEATS run with exports and gallery and a hostile class name. Not to be changed."""
    return write_run(tmp_path_factory.mktemp("runs") / "digits")


@pytest.fixture(scope="session")
def record(run_directory: Path) -> RunRecord:
    return read_run(run_directory)


@pytest.fixture(scope="session")
def bare_record(tmp_path_factory: pytest.TempPathFactory) -> RunRecord:
    """One seed, no control, no exports, no gallery, no summary."""
    root = tmp_path_factory.mktemp("runs") / "bare"
    write_run(root, verdict="NOT TESTED", seeds=(0,), exports=False, gallery=False, summary=False)
    return read_run(root)


@pytest.fixture(scope="session")
def text_record(tmp_path_factory: pytest.TempPathFactory) -> RunRecord:
    """Text classification, with references, slices, exports, and a hostile text in the gallery."""
    return read_run(write_text_classification_run(tmp_path_factory.mktemp("runs") / "reviews"))


@pytest.fixture(scope="session")
def language_record(tmp_path_factory: pytest.TempPathFactory) -> RunRecord:
    """A language model: no classes, and bits per byte, which are to be few."""
    return read_run(write_language_model_run(tmp_path_factory.mktemp("runs") / "stories"))
