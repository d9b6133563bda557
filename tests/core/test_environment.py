import json
import subprocess
from pathlib import Path

import pytest
import torch

from distil.core.environment import describe_environment


def test_it_names_versions_and_machine_and_is_json() -> None:
    environment = json.loads(json.dumps(describe_environment()))
    assert set(environment) == {"distil", "python", "platform", "cpu", "packages", "git"}
    assert environment["packages"]["torch"] == torch.__version__.partition("+")[0]
    assert environment["cpu"]
    assert environment["python"].count(".") == 2


def test_a_package_that_is_absent_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distil.core.environment.PACKAGES", ("numpy", "no-such-package-of-ours"))
    assert list(describe_environment()["packages"]) == ["numpy"]


def test_the_commit_is_that_of_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert describe_environment()["git"] is None
    identity = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
    subprocess.run(["git", "init", "--quiet"], check=True)
    assert describe_environment()["git"] is None  # a repository without a commit
    subprocess.run(["git", *identity, "commit", "--quiet", "--allow-empty", "-m", "first"], check=True)
    commit = subprocess.run(["git", "log", "-1", "--format=%H"], capture_output=True, text=True, check=True)
    assert describe_environment()["git"] == commit.stdout.strip()


def test_a_machine_without_git_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert describe_environment()["git"] is None
