"""Small runs on digits that several tests look at."""

from collections.abc import Callable
from pathlib import Path

import pytest

from distil.pipeline.run import RunResult, run
from distil.recipe.load import parse_recipe

SMALL = """
name: small
data: {kind: digits, test: 0.6, validation: {fraction: 0.25}, labels: 100}
teacher:
  model: {kind: convnet, widths: [8]}
  labels: all
  training: {epochs: 4, batch_size: 64, optimizer: {kind: adamw, learning_rate: 0.02}}
student:
  model: {kind: mlp, widths: [16]}
objective:
  true-labels: {kind: true-labels, weight: 0.1}
  soft-targets: {kind: soft-targets, weight: 0.9, temperature: 4}
training: {epochs: 3, batch_size: 64, optimizer: {kind: adamw, learning_rate: 0.01}}
seeds: 2
placement: {threads: 1}
"""

Runner = Callable[..., RunResult]


@pytest.fixture
def run_small(tmp_path: Path) -> Runner:
    """Runs the small recipe with overrides, in ``tmp_path/NAME``."""

    def runner(*overrides: str, name: str = "run") -> RunResult:
        return run(parse_recipe(SMALL, overrides), tmp_path / name)

    return runner


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    """One finished run. Tests only look at it."""
    return run(parse_recipe(SMALL), tmp_path_factory.mktemp("finished") / "run")
