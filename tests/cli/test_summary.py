"""The summary of a run directory that was made by hand, and of a check's findings."""

import json
from pathlib import Path
from typing import Any

import pytest

from distil.check.finding import Finding
from distil.check.inspection import Inspection
from distil.cli.summary import print_findings, print_inspection, print_league, print_methods, print_summary
from distil.models.describe import Layer, ModelDescription

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


def test_a_metric_that_is_to_be_low(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    low = {"metric": "bits_per_byte", "higher_is_better": False}
    lines = summary(tmp_path, capsys, **low)
    assert (
        "Verdict: BEATS  0.0600 bits_per_byte lower than the best control, scratch "
        "(+0.0500 to +0.0700, positive is better; 2 seeds, 1078 test examples)"
    ) in lines
    assert lines[0].endswith("it minus distilled (95%)")
    worse = summary(tmp_path, capsys, **low, verdict="WORSE", difference=-0.06, interval=[-0.07, -0.05])
    assert any("0.0600 bits_per_byte higher than the best control" in line for line in worse)


def test_references_stand_below_the_arms_and_say_what_they_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    baselines = {"majority class": {"value": 0.5, "note": "Always the [most] frequent class."}}
    lines = summary(tmp_path, capsys, baselines=baselines)
    assert row(lines, "majority class (reference)") == ["majority", "class", "(reference)", "0.5000"]
    assert lines.index("- majority class: Always the [most] frequent class.") > lines.index(
        next(line for line in lines if line.startswith("majority class"))
    )
    assert lines[5].startswith("majority class")


def test_units_are_those_of_the_task(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "data.json", {"task": "ranking", "text": {"columns": ["question", "sentence"]}})
    lines = summary(tmp_path, capsys, seeds=[3])
    assert any(line.endswith("1 seed, 1078 test questions)") for line in lines)


def test_an_artefact_with_another_metric_and_the_length_of_its_texts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "exports/onnx-int8/parity.json", PARITY | {"metric": {"name": "hit_at_1", "artefact": 0.94}})
    write(tmp_path / "exports/onnx-int8/latency.json", LATENCY | {"tokens": 32})
    write(tmp_path / "exports/other/parity.json", PARITY | {"metric": None, "agreement": None})
    lines = summary(tmp_path, capsys)
    assert (
        "onnx-int8: 12,345 bytes, agrees with the model on 0.9991, hit_at_1 0.9400, p50 0.023 ms on 32 tokens"
    ) in lines
    assert "other: 12,345 bytes" in lines


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


# a league


def compared(difference: float, word: str, p: float) -> dict[str, Any]:
    return {"word": word, "difference": difference, "interval": [difference - 0.01, difference + 0.01], "p": p}


def league_row(name: str, mean: float, role: str = "method", **more: Any) -> dict[str, Any]:
    base = {"name": name, "role": role, "status": "done", "mean": mean, "validation": 0.8, "against_plain": None}
    return base | {"against_control": None, "cost": None} | more


LEAGUE: dict[str, Any] = {
    "metric": "accuracy", "plain": "distilled", "best_control": "scratch", "rows": [
        league_row("scratch", 0.8, "control"),
        league_row("distilled", 0.9, "plain", against_control=compared(0.1, "BEATS", 0.001)),
        league_row("vid", 0.95, against_plain=compared(0.05, "BEATS", 0.00123),
                   against_control=compared(0.15, "BEATS", 0.1),
                   cost={"step_ratio": 1.254, "activation_bytes": 12345, "projector_parameters": 9}),
        {"name": "misfit", "role": "method", "status": "not applicable", "reason": "no [attention] here"},
        {"name": "broken", "role": "method", "status": "failed", "reason": "ZeroDivisionError: 1 / 0"},
    ], "confirmation": {
        "method": "vid", "verdict": "BEATS",
        "against": {
            "distilled": {"difference": 0.04, "interval": [0.03, 0.05]},
            "scratch": {"difference": 0.1, "interval": [0.08, 0.12]},
        },
    },
}  # fmt: skip


def league_lines(capsys: pytest.CaptureFixture[str], **changes: Any) -> list[str]:
    capsys.readouterr()
    print_league(LEAGUE | changes, Path("runs/x/league.html"))
    out, err = capsys.readouterr()
    assert err == ""
    return [line.rstrip() for line in out.splitlines()]


def test_a_league_of_a_metric_of_which_less_is_better_starts_with_the_least(capsys: pytest.CaptureFixture[str]) -> None:
    lines = league_lines(capsys, metric="bits_per_byte", higher_is_better=False)
    assert [line.split()[0] for line in lines[1:4]] == ["scratch", "distilled", "vid"]


def test_a_league_has_one_line_for_each_method_best_first(capsys: pytest.CaptureFixture[str]) -> None:
    lines = league_lines(capsys)
    assert lines[0].split() == [
        "method",
        "accuracy",
        "validation",
        "minus",
        "distilled",
        "(95%)",
        "p",
        "(Holm)",
        "word",
        "against",
        "scratch",
        "step",
        "activations",
    ]
    assert lines[1].split() == [
        "vid",
        "0.9500",
        "0.8000",
        "+0.0500",
        "+0.0400",
        "to",
        "+0.0600",
        "0.0012",
        "BEATS",
        "BEATS",
        "1.25x",
        "12,345",
    ]
    assert lines[2].split() == ["distilled", "(plain)", "0.9000", "0.8000", "BEATS"]
    assert lines[3].split() == ["scratch", "(control)", "0.8000", "0.8000"]


def test_what_is_not_in_the_table_has_its_reason(capsys: pytest.CaptureFixture[str]) -> None:
    lines = league_lines(capsys)
    assert "misfit: not applicable: no [attention] here" in lines  # brackets are text, not markup
    assert "broken: failed: ZeroDivisionError: 1 / 0" in lines


def test_the_confirmation_and_the_page_come_last(capsys: pytest.CaptureFixture[str]) -> None:
    assert league_lines(capsys)[-2:] == [
        "Confirmed with fresh seeds: vid BEATS  +0.0400 against distilled (+0.0300 to +0.0500); "
        "+0.1000 against scratch (+0.0800 to +0.1200)",
        "Page: runs/x/league.html",
    ]
    assert not any("Confirmed" in line for line in league_lines(capsys, confirmation=None))


def test_a_league_without_validation_or_controls(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [league_row("distilled", 0.9, "plain", validation=None)]
    lines = league_lines(capsys, rows=rows, best_control=None, confirmation=None)
    assert lines[1].split() == ["distilled", "(plain)", "0.9000"]
    assert "against no control" in lines[0]


# inspection and methods


def test_an_inspection_lists_layers_and_pairs(capsys: pytest.CaptureFixture[str]) -> None:
    layers = (
        Layer("body.0", "Conv2d", (1, 8, 8), (4, 8, 8), None, 1234, 56789, 0.5, 2, None, True),
        Layer("attention", "Attention", (16, 8), None, None, 0, 0, 1.0, 1, 3, False),
    )
    model = ModelDescription(num_classes=10, num_parameters=12345, multiply_accumulates=67890, layers=layers)
    maps = {"student <- big": {"output": [("body.0", "layer1"), ("body.1", "layer2")]}}
    print_inspection(Inspection({"student": model}, maps))
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == ["student:", "12,345", "parameters,", "67,890", "multiply-accumulates,", "10", "classes"]
    assert lines[1] == ["layer", "type", "output", "parameters", "multiply-accumulates", "depth", "calls", "heads"]
    assert lines[2] == ["body.0", "Conv2d", "4x8x8", "1,234", "56,789", "0.50", "2"]
    assert lines[3] == ["attention", "Attention", "0", "0", "1.00", "3"]
    assert lines[4] == [
        "student",
        "<-",
        "big,",
        "layers:",
        "auto,",
        "output:",
        "body.0",
        "<-",
        "layer1,",
        "body.1",
        "<-",
        "layer2",
    ]


def test_a_network_for_texts_has_outputs_and_tokens(capsys: pytest.CaptureFixture[str]) -> None:
    model = ModelDescription(num_classes=6144, num_tokens=32, num_parameters=5, multiply_accumulates=7)
    print_inspection(Inspection({"student": model}, {}))
    assert capsys.readouterr().out.splitlines()[0] == (
        "student: 5 parameters, 7 multiply-accumulates, 6144 outputs, measured on 32 tokens"
    )


def test_methods_are_one_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    record = {"kind": "vid", "knowledge": "features", "summary": "features [that] predict", "scope": "example"}
    print_methods([record | {"needs": ["teacher", "layers"], "source": "Ahn 2019"}])
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == ["term", "knowledge", "the", "student", "is", "pulled", "towards", "needs", "scope", "source"]
    assert lines[1] == [
        "vid",
        "features",
        "features",
        "[that]",
        "predict",
        "teacher,",
        "layers",
        "example",
        "Ahn",
        "2019",
    ]
