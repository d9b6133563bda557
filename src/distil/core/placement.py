"""Placement: device, precision and threads; made once, passed on, recorded."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from lightning_fabric import Fabric

from distil.core.config import PlacementConfig
from distil.core.errors import ResourceError


@dataclass(frozen=True, eq=False)
class Placement:
    """Where a run computes."""

    device: str
    precision: str
    threads: int
    fabric: Fabric

    def describe(self) -> dict[str, Any]:
        return {"device": self.device, "precision": self.precision, "threads": self.threads}


@contextmanager
def place(config: PlacementConfig) -> Iterator[Placement]:
    """The placement, with torch set to deterministic algorithms and to its threads inside; as before outside.

    Raises:
        ResourceError: the device is not there, or the process is one of several ranks.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ResourceError("WORLD_SIZE is above 1, and distil runs on one process. Start it without a launcher")
    device = _device(config.device)
    threads = config.threads or _cores()
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # asked for by deterministic products on CUDA
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    try:
        fabric = Fabric(
            accelerator=device, devices=1, precision="bf16-mixed" if config.precision == "bf16" else "32-true"
        )
        yield Placement(device=device, precision=config.precision, threads=threads, fabric=fabric)
    finally:
        torch.set_num_threads(before[0])
        torch.use_deterministic_algorithms(before[1], warn_only=warn_only)


def _cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _device(wanted: str) -> str:
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if wanted == "auto":
        return next(device for device, available in there.items() if available)
    if not there[wanted]:
        raise ResourceError(f"placement.device is {wanted}, and this machine has none; use auto or cpu")
    return wanted
