"""``league.json`` -> one HTML page in the looks of the report."""

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from distil.core.files import write_atomically
from distil.report import number
from distil.report.axis import Scale, padded
from distil.report.html import render_page

PAGE = "league.html"
WIDTH = 100.0


def write_league_page(folder: Path, table: Mapping[str, Any]) -> Path:
    """Writes ``league.html`` into the folder and returns its path."""
    path = folder / PAGE
    write_atomically(path, render_league(table))
    return path


def render_league(table: Mapping[str, Any]) -> str:
    """The page as text; the same table gives the same bytes."""
    source = resources.files("distil.compare").joinpath("templates", "league.html.j2").read_text(encoding="utf-8")
    done = [row for row in table["rows"] if row["status"] == "done"]
    contents = {
        "table": table,
        "rows": sorted(done, key=lambda row: row["mean"], reverse=table.get("higher_is_better", True)),
        "bars": _bars(done),
        "left_out": [row for row in table["rows"] if row["status"] != "done"],
        "counts": _counts(done),
        "gain": number.gain,
        "unit": number.gain_unit(table["metric"]),
    }
    return render_page("league.html.j2", contents, source=source)


def _counts(done: list[Mapping[str, Any]]) -> dict[str, int]:
    words = [row["against_plain"]["word"] for row in done if row["against_plain"] is not None]
    return {word: words.count(word) for word in ("BEATS", "EQUIVALENT", "INCONCLUSIVE", "WORSE")}


def _bars(done: list[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Where each interval against plain distillation lies, on one scale for all."""
    found = {row["name"]: row["against_plain"] for row in done if row["against_plain"] is not None}
    ends = [0.0, *(end for each in found.values() for end in (*each["interval"], *(each["seed_interval"] or ())))]
    scale = Scale(*padded(min(ends), max(ends)), start=0.0, end=WIDTH)
    return {
        name: {
            "zero": scale(0.0),
            "bar": [scale(end) for end in each["interval"]],
            "seed_bar": [scale(end) for end in each["seed_interval"]] if each["seed_interval"] else None,
            "at": scale(each["difference"]),
        }
        for name, each in found.items()
    }
