"""What a command prints at its end, read from the run directory."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from distil.core.files import read_json

WIDTH_WITHOUT_TERMINAL = 1_000


def print_summary(directory: Path) -> None:
    """The verdict table of a run, the sentences a reader must know, and where everything is."""
    console = _console()
    verdict = read_json(directory / "verdict.json")
    if verdict["teacher_flag"]:
        console.print(Text(f"Warning: {verdict['teacher_flag']}", style="bold yellow"))
    console.print(_quality_table(directory, verdict))
    console.print(_verdict_line(verdict))
    for note in verdict["notes"]:
        console.print(Text(f"- {note}"))
    for line in _artefact_lines(directory):
        console.print(Text(line))
    console.print(Text(f"Report: {directory / 'report.html'}", style="bold"))


def print_findings(findings: Sequence[Any]) -> None:
    """The findings of a check: what, why it matters, what to do."""
    console = _console()
    style = {"wrong": "bold red", "suspicious": "yellow", "fine": "green"}
    for finding in findings:
        console.print(Text(f"{finding.level:<10} ", style=style[finding.level]), Text(finding.what), sep="")
        if finding.level != "fine":
            console.print(Text(f"           why: {finding.why}\n           do:  {finding.remedy}"))
    counts = {level: sum(finding.level == level for finding in findings) for level in style}
    console.print(Text(", ".join(f"{count} {level}" for level, count in counts.items())))


def _console() -> Console:
    """Lines are as long as the terminal is wide; elsewhere, so that one model is one line, as long as they must be."""
    return Console(soft_wrap=True, highlight=False, width=None if sys.stdout.isatty() else WIDTH_WITHOUT_TERMINAL)


def _quality_table(directory: Path, verdict: dict[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("model", no_wrap=True)
    table.add_column(verdict["metric"], justify="right")
    table.add_column("by seed")
    table.add_column("parameters", justify="right")
    table.add_column("distilled minus it (95%)", justify="right", no_wrap=True)
    for name, value in verdict["teachers"].items():
        table.add_row(
            f"teacher {name}" if name != "teacher" else name,
            f"{value:.4f}",
            "",
            _size(directory / "teachers" / name),
            "",
        )
    for name, arm in sorted(verdict["arms"].items(), key=lambda item: item[0] == verdict["distilled"]):
        values = " ".join(f"{value:.3f}" for value in arm["values"])
        folder = directory / "arms" / name / f"seed-{verdict['seeds'][0]}"
        table.add_row(name, f"{arm['mean']:.4f}", values, _size(folder), _difference(verdict["against"].get(name)))
    return table


def _size(folder: Path) -> str:
    return f"{read_json(folder / 'evaluation.json')['num_parameters']:,}"


def _difference(comparison: dict[str, Any] | None) -> str:
    if comparison is None:
        return ""
    low, high = comparison["interval"]
    return f"{comparison['difference']:+.4f}  {low:+.4f} to {high:+.4f}"


def _verdict_line(verdict: dict[str, Any]) -> Text:
    style = {"BEATS": "bold green", "WORSE": "bold red"}.get(verdict["verdict"], "bold yellow")
    line = Text("Verdict: ").append(verdict["verdict"], style=style)
    if verdict["best_control"] is not None:
        low, high = verdict["interval"]
        line.append(
            f"  {verdict['difference']:+.4f} {verdict['metric']} against the best control, {verdict['best_control']} "
            f"({low:+.4f} to {high:+.4f}; {len(verdict['seeds'])} seeds, {verdict['test_examples']} test examples)"
        )
    return line


def _artefact_lines(directory: Path) -> list[str]:
    lines = []
    for path in sorted((directory / "exports").glob("*/parity.json")):
        parity, latency = read_json(path), read_json(path.with_name("latency.json"))
        speed = latency["speed_up"]
        faster = (
            f", {speed['ratio']:.1f}x faster than the teacher"
            if speed and speed["claimed"] and speed["ratio"] > 1
            else ""
        )
        lines.append(
            f"{path.parent.name}: {parity['size_bytes']:,} bytes, agrees with the model on {parity['agreement']:.4f}, "
            f"accuracy {parity['metric']['artefact']:.4f}, p50 {latency['p50_ms']:.3f} ms{faster}"
        )
    return lines
