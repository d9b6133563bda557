"""Files that are whole or absent: written beside, synced, renamed; and their hashes."""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from distil.core.errors import ResourceError


def sha256_of(path: Path) -> str:
    """sha256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(value: Any) -> str:
    """sha256 of a value that JSON can hold, the same for any order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, allow_nan=False).encode()).hexdigest()


def write_atomically(path: Path, content: bytes | str) -> None:
    """The file has the new content or the old one, whenever the process or the machine stops."""
    content = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with saving(path, size=len(content)):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_bytes(content)
            sync(temporary)
            temporary.replace(path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
        sync(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Indented JSON with sorted keys, written atomically. Not-a-number is refused."""
    write_atomically(path, json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def sync(path: Path) -> None:
    """Waits until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def saving(path: Path, *, size: int) -> Iterator[None]:
    """Turns a failure to write into an error that names the file, the space it needs and the space there is."""
    try:
        yield
    except (OSError, SafetensorError) as error:  # safetensors has its own error for a full disk
        folder = next(parent for parent in path.absolute().parents if parent.is_dir())
        free = shutil.disk_usage(folder).free
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise ResourceError(
            f"{path} could not be saved ({reason}): it needs {size:,} bytes and {free:,} are free. "
            "What was saved before is intact; make room or give the folder write permission, then run again"
        ) from error
