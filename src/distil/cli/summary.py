"""What a command prints at its end, read from the run directory."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from distil.core.files import read_json
from distil.report.noun import nouns_of

WIDTH_WITHOUT_TERMINAL = 1_000


def print_summary(directory: Path) -> None:
    """The verdict table of a run, the sentences a reader must know, and where everything is."""
    console = _console()
    verdict = read_json(directory / "verdict.json")
    if verdict["teacher_flag"]:
        console.print(Text(f"Warning: {verdict['teacher_flag']}", style="bold yellow"))
    console.print(_quality_table(directory, verdict))
    for name, baseline in verdict.get("baselines", {}).items():
        console.print(Text(f"- {name}: {baseline['note']}"))
    console.print(_verdict_line(verdict, _units(directory / "data.json")))
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


def print_league(table: Mapping[str, Any], page: Path) -> None:
    """The league table, best first, and what of it held with fresh seeds."""
    console = _console()
    shown = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("method", table["metric"], "validation", f"minus {table['plain']} (95%)", "p (Holm)"):
        shown.add_column(name, justify="left" if name == "method" else "right", no_wrap=True)
    for name in ("word", f"against {table['best_control'] or 'no control'}", "step", "activations"):
        shown.add_column(name, justify="right", no_wrap=True)
    done = [row for row in table["rows"] if row["status"] == "done"]
    for row in sorted(done, key=lambda row: row["mean"], reverse=table.get("higher_is_better", True)):
        plain, control, cost = row["against_plain"], row["against_control"], row["cost"]
        shown.add_row(
            row["name"] if row["role"] == "method" else f"{row['name']} ({row['role']})",
            f"{row['mean']:.4f}",
            f"{row['validation']:.4f}" if row["validation"] is not None else "",
            _difference(plain),
            f"{plain['p']:.2g}" if plain else "",
            plain["word"] if plain else "",
            control["word"] if control else "",
            f"{cost['step_ratio']:.2f}x" if cost else "",
            f"{cost['activation_bytes']:,}" if cost else "",
        )
    console.print(shown)
    for row in (row for row in table["rows"] if row["status"] != "done"):
        console.print(Text(f"{row['name']}: {row['status']}: {row['reason']}"))
    if (confirmed := table["confirmation"]) is not None:
        against = "; ".join(
            f"{each['difference']:+.4f} against {name} ({each['interval'][0]:+.4f} to {each['interval'][1]:+.4f})"
            for name, each in confirmed["against"].items()
        )
        line = f"Confirmed with fresh seeds: {confirmed['method']} {confirmed['verdict']}  {against}"
        console.print(Text(line, style="bold"))
    console.print(Text(f"Page: {page}", style="bold"))


def print_selection(record: Mapping[str, Any], page: Path, suggested: Path) -> None:
    """What leaving something out does, where terms pull, and the suggestions; all of it on validation."""
    console = _console()
    shown = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("left out", "without it", "with it, minus without (95%)", "p (Holm)", "word"):
        shown.add_column(name, justify="left" if name == "left out" else "right", no_wrap=True)
    for each in record["removals"]:
        what = f"teacher {each['teacher']}" if each["teacher"] is not None else each["terms"][0]
        without = f"{record['arms'][each['arm']]['mean']:.4f}"
        shown.add_row(what, without, _difference(each), f"{each['p']:.2g}", each["word"])
    console.print(shown)
    for name, reason in record["not_left_out"].items():
        console.print(Text(f"{name}: {reason}"))
    shown = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("term", "knowledge", "agreement at first (95%)", "trained alone (95%)"):
        shown.add_column(name, justify="left" if name in ("term", "knowledge") else "right", no_wrap=True)
    for each in record["agreements"]:
        name = f"{each['name']} (in the recipe)" if each["own"] else each["name"]
        shown.add_row(name, each["knowledge"], _cosine(each["initial"]), _cosine(each["trained"]))
    console.print(shown)
    for suggestion in record["suggestions"]:
        mark = "-" if suggestion["applied"] else "- (not in the recipe)"
        console.print(Text(f"{mark} {suggestion['sentence']}", style="bold" if suggestion["applied"] else ""))
    console.print(Text(f"Suggested recipe: {suggested}", style="bold"))
    console.print(Text(f"Page: {page}", style="bold"))


def print_inspection(inspection: Any) -> None:
    """A table for each network, then the pairs that ``layers: auto`` makes."""
    console = _console()
    for name, model in inspection.models.items():
        facts = f"{model.num_parameters:,} parameters, {model.multiply_accumulates:,} multiply-accumulates"
        outputs = "classes" if model.num_tokens is None else f"outputs, measured on {model.num_tokens} tokens"
        console.print(Text(f"{name}: {facts}, {model.num_classes} {outputs}", style="bold"))
        shown = Table(box=None, pad_edge=False, header_style="bold")
        shown.add_column("layer", no_wrap=True)
        shown.add_column("type", no_wrap=True)
        for column in ("output", "parameters", "multiply-accumulates", "depth", "calls", "heads"):
            shown.add_column(column, justify="right", no_wrap=True)
        for layer in model.layers:
            shown.add_row(
                layer.name,
                layer.type,
                "x".join(map(str, layer.output_shape)) if layer.output_shape is not None else "",
                f"{layer.num_parameters:,}",
                f"{layer.multiply_accumulates:,}",
                f"{layer.depth:.2f}",
                str(layer.calls) if layer.calls != 1 else "",
                str(layer.num_heads or ""),
            )
        console.print(shown)
    for name, maps in inspection.maps.items():
        for take, pairs in maps.items():
            listed = ", ".join(f"{ours} <- {theirs}" for ours, theirs in pairs)
            console.print(Text(f"{name}, layers: auto, {take}: {listed}"))


def print_methods(records: Sequence[Mapping[str, Any]]) -> None:
    """The catalogue, by kind of knowledge."""
    console = _console()
    shown = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("term", "knowledge", "the student is pulled towards", "needs", "scope", "source"):
        shown.add_column(name, no_wrap=True)
    for record in records:
        values = [record[key] for key in ("kind", "knowledge", "summary")]
        shown.add_row(*values, ", ".join(record["needs"]), record["scope"], record["source"])
    console.print(shown)


def _console() -> Console:
    """Lines are as long as the terminal is wide; elsewhere, so that one model is one line, as long as they must be."""
    width = None if sys.stdout.isatty() else WIDTH_WITHOUT_TERMINAL
    return Console(soft_wrap=True, highlight=False, markup=False, emoji=False, width=width)


def _quality_table(directory: Path, verdict: dict[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("model", no_wrap=True)
    table.add_column(verdict["metric"], justify="right")
    table.add_column("by seed")
    table.add_column("parameters", justify="right")
    minus = "distilled minus it" if verdict.get("higher_is_better", True) else "it minus distilled"
    table.add_column(f"{minus} (95%)", justify="right", no_wrap=True)
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
    for name, baseline in verdict.get("baselines", {}).items():
        table.add_row(f"{name} (reference)", f"{baseline['value']:.4f}", "", "", "")
    return table


def _size(folder: Path) -> str:
    return f"{read_json(folder / 'evaluation.json')['num_parameters']:,}"


def _difference(comparison: dict[str, Any] | None) -> str:
    if comparison is None:
        return ""
    low, high = comparison["interval"]
    return f"{comparison['difference']:+.4f}  {low:+.4f} to {high:+.4f}"


def _cosine(direction: Mapping[str, Any] | None) -> str:
    if direction is None:
        return ""
    low, high = direction["interval"]
    return f"{direction['cosine']:+.3f}  {low:+.3f} to {high:+.3f}"


def _verdict_line(verdict: dict[str, Any], units: str) -> Text:
    style = {"BEATS": "bold green", "WORSE": "bold red"}.get(verdict["verdict"], "bold yellow")
    line = Text("Verdict: ").append(verdict["verdict"], style=style)
    if verdict["best_control"] is not None:
        low, high = verdict["interval"]
        seeds = f"{len(verdict['seeds'])} seed{'' if len(verdict['seeds']) == 1 else 's'}"
        line.append(
            f"  {_gain(verdict)} the best control, {verdict['best_control']} "
            f"({low:+.4f} to {high:+.4f}{'' if verdict.get('higher_is_better', True) else ', positive is better'}; "
            f"{seeds}, {verdict['test_examples']} {units})"
        )
    return line


def _units(path: Path) -> str:
    """What the test split is counted in."""
    return nouns_of(read_json(path) if path.is_file() else {}).units


def _gain(verdict: dict[str, Any]) -> str:
    """``+0.0600 accuracy against``, or ``0.1200 bits_per_byte lower than`` where that is what is wanted."""
    difference, metric = verdict["difference"], verdict["metric"]
    if verdict.get("higher_is_better", True):
        return f"{difference:+.4f} {metric} against"
    return f"{abs(difference):.4f} {metric} {'higher' if difference < 0 else 'lower'} than"


def _artefact_lines(directory: Path) -> list[str]:
    lines = []
    for path in sorted((directory / "exports").glob("*/parity.json")):
        parity = read_json(path)
        metric = parity["metric"] or {}
        agrees = f", agrees with the model on {parity['agreement']:.4f}" if parity["agreement"] is not None else ""
        measured = f", {metric.get('name', 'accuracy')} {metric['artefact']:.4f}" if metric else ""
        latency = path.with_name("latency.json")
        speed = _speed(read_json(latency)) if latency.is_file() else ""
        lines.append(f"{path.parent.name}: {parity['size_bytes']:,} bytes{agrees}{measured}{speed}")
    return lines


def _speed(latency: Mapping[str, Any]) -> str:
    """Median time, with the length of the texts, and the speed-up where it may be claimed."""
    length = f" on {latency['tokens']} tokens" if latency.get("tokens") else ""
    speed = latency["speed_up"]
    faster = (
        f", {speed['ratio']:.1f}x faster than the teacher" if speed and speed["claimed"] and speed["ratio"] > 1 else ""
    )
    return f", p50 {latency['p50_ms']:.3f} ms{length}{faster}"
