"""The page of a league, from a table made by hand: every row, one scale, and nothing from outside."""

import copy
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from distil.compare.page import render_league, write_league_page

from .conftest import Finished


def comparison(difference: float, reach: float, word: str, p: float, seeds: float | None = 0.0) -> dict[str, Any]:
    interval = [difference - reach, difference + reach]
    seed_interval = [difference - reach - seeds, difference + reach + seeds] if seeds is not None else None
    return {"word": word, "difference": difference, "interval": interval, "seed_interval": seed_interval, "p": p}


COST = {"step_ratio": 1.25, "activation_bytes": 2_500_000, "projector_parameters": 4321}


def row(name: str, mean: float, role: str = "method", **more: Any) -> dict[str, Any]:
    base = {
        "name": name, "role": role, "knowledge": "features", "source": "Somebody 2020", "status": "done", "mean": mean,
        "values": [mean - 0.01, mean + 0.01], "validation": 0.8, "against_plain": None, "against_control": None,
        "cost": None, "term": {"kind": "some", "weight": 0.25},
    }  # fmt: skip
    return base | more


TABLE: dict[str, Any] = {
    "format": 1, "name": "hand-made", "metric": "accuracy", "confidence": 0.95, "correction": "Holm", "seeds": [0, 1],
    "test_examples": 1078, "plain": "distilled", "best_control": "scratch", "margin": 0.005,
    "teachers": {"big": 0.9765}, "tuning": [],
    "rows": [
        row("scratch", 0.80, "control", knowledge=None, source=None),
        row("distilled", 0.90, "plain", knowledge=None, source=None,
            against_control=comparison(0.1, 0.01, "BEATS", 0.001)),
        row("good", 0.95, against_plain=comparison(0.05, 0.01, "BEATS", 0.0021, 0.01), cost=COST,
            against_control=comparison(0.15, 0.01, "BEATS", 0.001)),
        row("bad", 0.86, against_plain=comparison(-0.04, 0.02, "WORSE", 0.012, 0.03), cost=COST),
        row("same", 0.90, against_plain=comparison(0.0, 0.001, "EQUIVALENT", 1.0, None), cost=COST),
        row("unsure", 0.91, against_plain=comparison(0.01, 0.03, "INCONCLUSIVE", 0.4), cost=COST),
        {"name": "misfit", "role": "method", "status": "not applicable", "reason": "no <attention> here"},
        {"name": "broken", "role": "method", "status": "failed", "reason": "ZeroDivisionError: 1 / 0"},
    ],
    "confirmation": {
        "method": "good", "seeds": [2, 3], "verdict": "INCONCLUSIVE", "means": {},
        "against": {"distilled": {"difference": 0.012, "interval": [-0.001, 0.025]}},
    },
}  # fmt: skip


class Reader(HTMLParser):
    """Tags with their attributes, and the text of every table row."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append("")

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.rows:
            self.rows[-1] += data + " "


@pytest.fixture
def read() -> Reader:
    return Reader(render_league(TABLE))


def line_of(read: Reader, name: str) -> str:
    (found,) = [row for row in read.rows if row.split()[:1] == [name]]
    return " ".join(found.split())


def test_every_row_is_there_best_first(read: Reader) -> None:
    first = [row.split()[0] for row in read.rows[1:]]
    assert first[:5] == ["good", "unsure", *sorted(first[2:4], key=["distilled", "same"].index), "bad"]
    assert set(first) == {"good", "unsure", "distilled", "same", "bad", "scratch"}
    for name in ("misfit", "broken"):
        assert name in read.text
    assert "not applicable: no <attention> here" in read.text
    assert "failed: ZeroDivisionError: 1 / 0" in read.text


def test_the_numbers_of_a_row(read: Reader) -> None:
    line = line_of(read, "good")
    for expected in (
        "Somebody 2020; weight 0.25",
        "features",
        "95.00%",
        "94.0% 96.0%",
        "+5.00",
        "+4.00 to +6.00",
        "0.0021",
        "BEATS",
    ):
        assert expected in line, expected
    assert line.endswith("1.25× 2.50 MB 4,321")
    assert "plain distillation" in line_of(read, "distilled")
    assert "control, no teacher" in line_of(read, "scratch")


def test_the_head_counts_the_words_and_tells_the_confirmation(read: Reader) -> None:
    text = " ".join(read.text.split())
    assert "1 of 4 methods beat plain distillation (distilled) here; 1 are worse, 1 equivalent, 1 inconclusive." in text
    assert re.search(r"Teacher big: 97\.[67]%", text)  # 97.65 lies between
    assert "good, best on validation, trained again with fresh seeds: INCONCLUSIVE" in text
    assert "+1.2 points against distilled, −0.1 to +2.5" in text
    assert "Holm" in text


def test_nothing_is_loaded_or_run(read: Reader) -> None:
    tags = {tag for tag, _ in read.tags}
    assert not tags & {"script", "link", "img", "iframe", "object", "embed", "form", "base", "audio", "video"}
    for tag, attributes in read.tags:
        assert not [name for name in attributes if name.startswith("on")], tag
        assert not {"src", "href", "srcset", "action", "data", "xlink:href"} & set(attributes), tag
    page = render_league(TABLE)
    assert not re.findall(r"(?:https?:)?//[a-z]", page)
    assert "@import" not in page
    assert "url(" not in page
    policy = next(
        a["content"] for t, a in read.tags if t == "meta" and a.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy is not None
    assert policy.startswith("default-src 'none'")


def bars(read: Reader) -> list[dict[str, list[float]]]:
    """The lines of each bar, by class: x1 and x2."""
    found: list[dict[str, list[float]]] = []
    for tag, attributes in read.tags:
        if tag == "svg":
            found.append({})
        if tag == "line" and found:
            found[-1][str(attributes["class"])] = [float(attributes[end] or "nan") for end in ("x1", "x2")]
    return found


def test_all_bars_have_one_scale(read: Reader) -> None:
    """From -0.09, the lowest end, to 0.07, the highest, and 8% more at both: every point by hand."""
    low, high = -0.04 - 0.02 - 0.03, 0.05 + 0.01 + 0.01
    low, high = low - 0.08 * (high - low), high + 0.08 * (high - low)

    def place(value: float) -> float:
        return round(100 * (value - low) / (high - low), 1)

    good, unsure, same, bad = bars(read)
    assert {bar["zero"][0] for bar in (good, unsure, same, bad)} == {place(0.0)}
    for bar, difference in ((good, 0.05), (unsure, 0.01), (same, 0.0), (bad, -0.04)):
        assert bar["at"] == pytest.approx([place(difference)] * 2, abs=0.11)
    assert good["examples"] == pytest.approx([place(0.04), place(0.06)], abs=0.11)
    assert good["seeds"] == pytest.approx([place(0.03), place(0.07)], abs=0.11)
    assert bad["seeds"] == pytest.approx([place(-0.09), place(0.01)], abs=0.11)
    assert "seeds" not in same
    ends = [end for bar in (good, unsure, same, bad) for line in bar.values() for end in line]
    assert min(ends) > 0
    assert max(ends) < 100


def test_a_metric_of_which_less_is_better_is_in_its_own_unit_and_the_least_is_first() -> None:
    table = copy.deepcopy(TABLE) | {"metric": "document_bits_per_byte", "higher_is_better": False}
    page = render_league(table)
    read = Reader(page)
    assert read.rows[1].split()[0] == "scratch"
    line = line_of(read, "good")
    assert "0.9500" in line
    assert "%" not in line
    assert "+0.0500" in line
    assert "a positive difference stands for better" in read.text
    assert "bits per byte against distilled" in " ".join(read.text.split())


def test_a_hostile_name_stays_text() -> None:
    table = copy.deepcopy(TABLE)
    table["name"] = table["rows"][2]["name"] = "<script>alert(1)</script>"
    table["rows"][6]["reason"] = '"><img src=x onerror=alert(1)>'
    read = Reader(render_league(table))
    assert not {tag for tag, _ in read.tags} & {"script", "img"}
    assert "<script>alert(1)</script>" in read.text


def test_without_controls_seeds_validation_and_confirmation() -> None:
    table = copy.deepcopy(TABLE)
    table |= {"best_control": None, "seeds": [0], "confirmation": None, "teachers": {}}
    table["rows"] = [
        row("distilled", 0.9, "plain", validation=None, knowledge=None, source=None),
        row("good", 0.9, validation=None, against_plain=comparison(0.0, 0.0, "EQUIVALENT", 1.0, None)),
    ]
    read = Reader(render_league(table))
    assert "no control" in read.text
    assert "–" in line_of(read, "good")
    assert "fresh seeds" not in read.text
    assert "Not in the table" not in read.text
    assert len(bars(read)) == 1


def test_no_method_came_through() -> None:
    table = copy.deepcopy(TABLE)
    table["rows"] = [each for each in table["rows"] if each["role"] != "method" or each["status"] != "done"]
    read = Reader(render_league(table | {"confirmation": None}))
    assert "0 of 0" in read.text
    assert bars(read) == []


def test_the_same_table_gives_the_same_bytes_in_the_file(tmp_path: Path) -> None:
    path = write_league_page(tmp_path, TABLE)
    assert path == tmp_path / "league.html"
    assert path.read_text(encoding="utf-8") == render_league(TABLE) == render_league(copy.deepcopy(TABLE))


def test_the_page_of_a_real_league_has_every_arm(finished: Finished) -> None:
    read = Reader(finished.result.page.read_text(encoding="utf-8"))
    for name, each in finished.rows.items():
        assert name in read.text
        if each["status"] == "done":
            assert line_of(read, name)
    assert len(bars(read)) == 4
