"""For every test: no network, no leftovers of torch's global state, and shapes checked at run time."""

import os
import socket
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent
os.environ.setdefault("DISTIL_DATA", str(REPOSITORY.parent / "shared" / "data"))
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")

if not os.environ.get("DISTIL_UNTYPED"):
    # runtime checks of the shapes in the signatures; they would break compiling and exporting
    from jaxtyping import install_import_hook

    install_import_hook("distil", "beartype.beartype")


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections leave this machine only by mistake, and a mistake must show."""
    connect = socket.socket.connect

    def local_only(self: socket.socket, address: object) -> None:
        if self.family != socket.AF_UNIX and isinstance(address, tuple) and address[0] not in ("127.0.0.1", "::1"):
            raise RuntimeError(f"a test tried to reach {address}")
        connect(self, address)  # type: ignore[arg-type]

    monkeypatch.setattr(socket.socket, "connect", local_only)


@pytest.fixture
def repository() -> Path:
    return REPOSITORY


@pytest.fixture
def data_folder() -> Path:
    """The folder of real data sets; a test that needs it is skipped where it is missing."""
    folder = Path(os.environ["DISTIL_DATA"])
    if not folder.is_dir():
        pytest.skip(f"no real data in {folder}; set DISTIL_DATA")
    return folder
