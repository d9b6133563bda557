import shutil
from types import SimpleNamespace

import pytest

from distil.check.finding import Finding
from tests.check.conftest import Checker, about


def test_time_memory_and_disk_are_estimated(sound: list[Finding]) -> None:
    (time,) = about(sound, "time: about")
    for part in ("teacher teacher", "arm scratch (5 seeds)", "arm distilled (5 seeds)"):
        assert part in time.what
    assert about(sound, "memory: about")[0].level == "fine"
    assert about(sound, "disk: about")[0].level == "fine"


def test_a_disk_that_is_too_small_is_wrong(check: Checker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=10))
    (finding,) = about(check(), "disk: about")
    assert finding.level == "wrong"
    assert "10 bytes free" in finding.what
    assert "make room" in finding.remedy


def test_durations_are_readable() -> None:
    from distil.check.cost import _duration

    assert [_duration(seconds) for seconds in (5.0, 600.0, 7200.0)] == ["5 s", "10 min", "2.0 h"]
