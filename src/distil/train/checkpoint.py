"""Checkpoints: folders that are whole or absent, with a hash of every file, of which the newest intact one is used.

Protocol: write into a temporary folder, sync its files and the folder, rename it, sync the parent, read it back and
compare hashes, and only then remove older ones; two are kept. No pickle: tensors are safetensors, the rest is JSON.
"""

import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from distil.core.errors import NumericError, ResourceError
from distil.core.files import read_json, saving, sha256_of, sync, write_json

KEPT = 2


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """The state of a training after ``step`` steps.

    Attributes:
        step: steps done.
        tensors: by group (model, best model, optimiser) and name.
        state: everything else, as JSON.
    """

    step: int
    tensors: Mapping[str, Mapping[str, Tensor]]
    state: Mapping[str, Any]


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> Path:
    """Saves, verifies and prunes.

    Raises:
        NumericError: a weight is not finite; nothing is saved.
        ResourceError: it could not be written or does not read back; the older checkpoints are untouched.
    """
    for group, tensors in checkpoint.tensors.items():
        refuse_non_finite(tensors, step=checkpoint.step, what=group)
    final = folder / f"step-{checkpoint.step:09d}"
    temporary = folder / f".{final.name}.tmp"
    size = sum(t.numel() * t.element_size() for group in checkpoint.tensors.values() for t in group.values())
    with saving(final, size=size):
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        _write(temporary, checkpoint)
        if final.exists():
            shutil.rmtree(final)
        os.replace(temporary, final)  # noqa: PTH105 - the commit
        sync(folder)
    problem = _problem(final)
    if problem is not None:
        raise ResourceError(f"{final} was written and does not read back: {problem}. The disk may be failing")
    _prune(folder)
    return final


def newest_checkpoint(folder: Path, *, identity: str) -> tuple[Checkpoint | None, list[str]]:
    """The newest intact checkpoint of this training, and what was passed over, with the reason.

    Args:
        folder: of the checkpoints.
        identity: of the training; a checkpoint of another one is passed over.
    """
    skipped: list[str] = []
    for path in reversed(_checkpoints(folder)):
        problem = _problem(path)
        if problem is not None:
            skipped.append(f"{path.name}: {problem}")
            continue
        state = read_json(path / "state.json")
        if state["identity"] != identity:
            skipped.append(f"{path.name}: it belongs to another training")
            continue
        names = [name.removesuffix(".safetensors") for name in _files(path) if name.endswith(".safetensors")]
        tensors = {name: load_file(path / f"{name}.safetensors") for name in names}
        return Checkpoint(step=state["step"], tensors=tensors, state=state), skipped
    return None, skipped


def _write(temporary: Path, checkpoint: Checkpoint) -> None:
    for group, tensors in checkpoint.tensors.items():
        contiguous = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
        save_file(contiguous, temporary / f"{group}.safetensors")
    state = json.dumps({**checkpoint.state, "step": checkpoint.step}, allow_nan=False)
    (temporary / "state.json").write_text(state, encoding="utf-8")
    for path in temporary.iterdir():
        sync(path)
    write_json(temporary / "manifest.json", {path.name: sha256_of(path) for path in sorted(temporary.iterdir())})
    sync(temporary)


def _files(path: Path) -> dict[str, str]:
    return read_json(path / "manifest.json")


def _problem(path: Path) -> str | None:
    try:
        files = _files(path)
        for name, expected in files.items():
            if sha256_of(path / name) != expected:
                return f"{name} is not as it was written"
    except (OSError, ValueError, AttributeError) as error:
        return f"it cannot be read ({error})"
    return None


def _checkpoints(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if re.fullmatch(r"step-\d{9,}", path.name))


def _prune(folder: Path) -> None:
    for path in _checkpoints(folder)[:-KEPT]:
        shutil.rmtree(path)
    for leftover in folder.glob(".step-*.tmp"):
        shutil.rmtree(leftover)


def refuse_non_finite(tensors: Mapping[str, Tensor], *, step: int, what: str) -> None:
    """Raises NumericError where a tensor holds a number that is not finite; ``what`` says what the tensors are."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise NumericError(
                f"step {step}: {what} {name} is not finite; nothing is saved. Lower the "
                "learning rate or set training.gradient_clip"
            )
