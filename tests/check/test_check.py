import json
import sys

import pytest

from distil.check.finding import Finding
from distil.cli.main import main
from tests.check.conftest import SMALL, Checker


def test_a_sound_recipe_has_nothing_wrong(sound: list[Finding]) -> None:
    assert [finding for finding in sound if finding.level != "fine"] == []


def test_what_is_not_fine_says_why_and_what_to_do(check: Checker) -> None:
    findings = [finding for finding in check("seeds=1", "data.labels=20") if finding.level != "fine"]
    assert len(findings) >= 2
    assert all(finding.why and finding.remedy for finding in findings)


def test_the_command_prints_findings_and_exits_with_0_where_nothing_is_wrong(
    tmp_path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(SMALL)
    monkeypatch.setattr(sys, "argv", ["distil", "check", str(path), "--json"])
    with pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code
    printed = json.loads(capsys.readouterr().out)
    assert {"level", "what", "why", "remedy"} <= printed[0].keys()
