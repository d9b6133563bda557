"""The summary of a run directory that was made by hand, and of a check's findings."""

import json
from pathlib import Path
from typing import Any

import pytest

from distil.check.finding import Finding
from distil.cli.summary import print_findings, print_summary

VERDICT: dict[str, Any] = {
    "verdict": "BEATS", "distilled": "distilled",
    "metric": "accuracy", "difference": 0.06, "interval": [0.05, 0.07], "best_control": "scratch",
    "seeds": [3, 4], "test_examples": 1078, "arms": {
        "scratch": {"mean": 0.883, "values": [0.88, 0.886]},
        "distilled": {"mean": 0.943, "values": [0.94, 0.946]},
    },
    "teachers": {"teacher": 0.997, "other": 0.5},
    "against": {"scratch": {"difference": 0.06, "interval": [0.05, 0.07]}},
    "notes": ["2 seeds: fewer than 5.", "The teacher had [1257] labels."], "teacher_flag": None,
}  # fmt: skip
LATENCY = {"p50_ms": 0.0234, "speed_up": None}
PARITY = {"size_bytes": 12345, "agreement": 0.9991, "metric": {"artefact": 0.94}}


def write(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def summary(directory: Path, capsys: pytest.CaptureFixture[str], **changes: Any) -> list[str]:
    verdict = VERDICT | changes
    write(directory / "verdict.json", verdict)
    folders = [f"teachers/{name}" for name in verdict["teachers"]]
    folders += [f"arms/{name}/seed-3" for name in verdict["arms"]]
    for number, folder in enumerate(folders):
        write(directory / folder / "evaluation.json", {"num_parameters": 1000 + number})
    capsys.readouterr()
    print_summary(directory)
    out, err = capsys.readouterr()
    assert err == ""
    return [line.rstrip() for line in out.splitlines()]


def row(lines: list[str], name: str) -> list[str]:
    [found] = [line for line in lines if line.startswith(f"{name}  ")]
    return found.split()


def test_each_model_has_one_line_with_its_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = summary(tmp_path, capsys)
    assert row(lines, "teacher") == ["teacher", "0.9970", "1,000"]
    assert row(lines, "teacher other") == ["teacher", "other", "0.5000", "1,001"]
    assert row(lines, "scratch") == [
        "scratch",
        "0.8830",
        "0.880",
        "0.886",
        "1,002",
        "+0.0600",
        "+0.0500",
        "to",
        "+0.0700",
    ]
    assert row(lines, "distilled") == ["distilled", "0.9430", "0.940", "0.946", "1,003"]


def test_the_distilled_arm_stands_below_its_controls(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever the order in the file, whose keys are sorted."""
    arms = {name: {"mean": 0.9, "values": [0.9]} for name in ("distilled", "label-smoothing", "scratch")}
    lines = summary(tmp_path, capsys, arms=arms)
    assert [line.split()[0] for line in lines[3:6]] == ["label-smoothing", "scratch", "distilled"]


def test_many_seeds_stay_on_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arms = {"scratch": {"mean": 0.883, "values": [0.881] * 10}, "label-smoothing": {"mean": 0.9, "values": [0.9] * 10}}
    lines = summary(tmp_path, capsys, arms=arms)
    assert row(lines, "scratch")[-1] == "+0.0700"
    assert row(lines, "scratch").count("0.881") == 10


def test_the_verdict_with_difference_interval_seeds_and_examples(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = summary(tmp_path, capsys)
    assert (
        "Verdict: BEATS  +0.0600 accuracy against the best control, scratch "
        "(+0.0500 to +0.0700; 2 seeds, 1078 test examples)"
    ) in lines
    assert "- 2 seeds: fewer than 5." in lines
    assert "- The teacher had [1257] labels." in lines  # brackets are text, not markup
    assert lines[-1] == f"Report: {tmp_path / 'report.html'}"
    assert not any(line.startswith("Warning") for line in lines)


def test_a_weak_teacher_is_the_first_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert summary(tmp_path, capsys, teacher_flag="The teacher is weak.")[0] == "Warning: The teacher is weak."


def test_nothing_was_tested(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = summary(
        tmp_path,
        capsys,
        verdict="NOT TESTED",
        difference=None,
        interval=None,
        best_control=None,
        against={},
        teachers={},
    )
    assert "Verdict: NOT TESTED" in lines
    assert row(lines, "scratch") == ["scratch", "0.8830", "0.880", "0.886", "1,000"]


@pytest.mark.parametrize(
    ("speed_up", "claim"),
    [
        (None, ""),
        ({"ratio": 5.04, "claimed": True}, ", 5.0x faster than the teacher"),
        ({"ratio": 5.04, "claimed": False}, ""),
        ({"ratio": 0.8, "claimed": True}, ""),
    ],
)
def test_artefacts_with_a_speed_up_only_where_it_is_claimed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], speed_up: object, claim: str
) -> None:
    write(tmp_path / "exports/onnx-int8/parity.json", PARITY)
    write(tmp_path / "exports/onnx-int8/latency.json", LATENCY | {"speed_up": speed_up})
    assert (
        f"onnx-int8: 12,345 bytes, agrees with the model on 0.9991, accuracy 0.9400, p50 0.023 ms{claim}"
    ) in summary(tmp_path, capsys)


def test_findings_say_why_and_what_to_do_and_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    print_findings(
        [
            Finding("fine", "the splits are disjoint"),
            Finding("suspicious", "few labels [10]", why="they vary", remedy="take more"),
            Finding("wrong", "probabilities", why="softmax twice", remedy="give logits"),
        ]
    )
    assert capsys.readouterr().out.splitlines() == [
        "fine       the splits are disjoint",
        "suspicious few labels [10]",
        "           why: they vary",
        "           do:  take more",
        "wrong      probabilities",
        "           why: softmax twice",
        "           do:  give logits",
        "1 wrong, 1 suspicious, 1 fine",
    ]


def test_on_a_narrow_terminal_only_the_seeds_are_wrapped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("distil.cli.summary.WIDTH_WITHOUT_TERMINAL", 80)
    arms = {"scratch": {"mean": 0.883, "values": [0.881] * 5}, "label-smoothing": {"mean": 0.9, "values": [0.9] * 5}}
    lines = summary(tmp_path, capsys, arms=arms)
    assert row(lines, "scratch")[-4:] == ["+0.0600", "+0.0500", "to", "+0.0700"]
    assert max(len(line) for line in lines if "Verdict" not in line and "Report" not in line) <= 80
