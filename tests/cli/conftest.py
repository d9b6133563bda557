"""A command in this process, and what it leaves behind."""

import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from distil.cli.main import main

RECIPE = """\
name: small
data: digits
teacher:
  model: {kind: mlp, widths: [8]}
student:
  model: {kind: mlp, widths: [4]}
objective:
  soft: {kind: soft-targets, weight: 0.9}
training: {epochs: 4}
seeds: 2
"""


@dataclass(frozen=True)
class Finished:
    """A command that has ended."""

    code: int
    out: str
    err: str


class Command:
    """Runs ``distil`` with arguments."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch, self._capsys = monkeypatch, capsys

    def __call__(self, *arguments: str | Path) -> Finished:
        self._monkeypatch.setattr(sys, "argv", ["distil", *map(str, arguments)])
        self._capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            main()
        code = caught.value.code
        assert isinstance(code, int) or code is None
        return Finished(code or 0, *self._capsys.readouterr())


@pytest.fixture
def distil(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(monkeypatch, capsys)


@pytest.fixture
def recipe_file(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(RECIPE, encoding="utf-8")
    return path
