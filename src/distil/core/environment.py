"""The environment of a run: versions and machine, recorded so that a result can be explained. No torch."""

import importlib.metadata
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "torchvision", "numpy", "scipy", "scikit-learn", "lightning-fabric", "timm", "onnx", "onnxruntime")


def describe_environment() -> dict[str, Any]:
    """Versions of distil, Python and the packages that compute; the processor; the git commit of the working folder."""
    return {
        "distil": _version("distil"),
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "cpu": _processor(),
        "packages": {package: version for package in PACKAGES if (version := _version(package)) is not None},
        "git": _git_commit(),
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    facts = Path("/proc/cpuinfo")
    if facts.is_file():
        for line in facts.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _git_commit() -> str | None:
    try:
        answer = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() if answer.returncode == 0 else None
