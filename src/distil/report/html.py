"""``RunRecord`` -> one HTML page that needs no network, no JavaScript and no second file."""

import base64
import hashlib
from collections.abc import Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import DictLoader, Environment, StrictUndefined

from distil.core.files import write_atomically
from distil.report import (
    axis,
    calibration,
    confusion,
    curve,
    difference,
    measure,
    noun,
    number,
    overview,
    quality,
    sensitivity,
    sentence,
    series,
    slice,
    soft_label,
)
from distil.report.read import read_run
from distil.report.record import Comparison, RunRecord

TEMPLATES = ("report.html.j2", "macros.html.j2", "charts.html.j2", "style.css")
REPORT = "report.html"


def write_report(run_directory: Path) -> Path:
    """Writes ``report.html`` into the run directory, whole or not at all, and returns its path.

    Raises:
        RecipeError: there is no such directory.
        IntegrityError: the run is not finished, or a file of it cannot be read.
        ResourceError: the page cannot be saved.
    """
    destination = Path(run_directory) / REPORT
    write_atomically(destination, render(read_run(destination.parent)))
    return destination


def render(record: RunRecord) -> str:
    """The page as text. The same record gives the same bytes."""
    return render_page("report.html.j2", _contents(record))


def render_page(template: str, contents: Mapping[str, Any], *, source: str | None = None) -> str:
    """A page in the looks of the report, which needs nothing from outside.

    Args:
        template: its name; it may use the report's macros.
        contents: every value that it names.
        source: its text, where it is not one of the report's.
    """
    style = _template("style.css")
    environment = _environment({template: source} if source is not None else {})
    policy = content_security_policy(style)
    return environment.get_template(template).render(style=style, policy=policy, **contents)


def content_security_policy(style: str) -> str:
    """Nothing may be loaded or run; pictures are inside the page; the one style sheet is known by its hash."""
    digest = base64.b64encode(hashlib.sha256(style.encode("utf-8")).digest()).decode("ascii")
    return f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"


def _environment(more: Mapping[str, str]) -> Environment:
    environment = Environment(
        loader=DictLoader({name: _template(name) for name in TEMPLATES} | dict(more)),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    formats = (number.percent, number.count, number.quantity, number.size, number.milliseconds, number.significant)
    environment.filters |= {each.__name__: each for each in (*formats, number.points)}
    environment.filters |= {
        "quality": number.quality,
        "plain": number.plain,
        "metric_name": number.metric_name,
        "metric_title": number.metric_title,
        "times": sentence.times,
    }
    return environment


def _template(name: str) -> str:
    return resources.files("distil.report").joinpath("templates", name).read_text(encoding="utf-8")


def _contents(record: RunRecord) -> dict[str, Any]:
    """Every value that the template names."""
    changes, unchanged = confusion.class_changes(record)
    arms = record.recipe.get("arms") or {}
    found, num_same = difference.differences(arms)
    rows, measures = overview.rows(record), measure.measures_of(record)
    return {
        "record": record,
        "verdict": record.verdict,
        "words": _words(record),
        "rows": rows,
        "references": tuple(row for row in rows if row.is_reference),
        "has_calibration": overview.has_calibration(rows),
        "single_has_range": record.verdict.metric in overview.PROPORTIONS,
        "looks": series.series_of(record),
        "quality": quality.quality_chart(record),
        "against": _against(record),
        "validation_panels": curve.validation_panels(record),
        "loss_panels": curve.loss_panels(record),
        "sensitivity": sensitivity.sensitivity_panels(record),
        "confusion": confusion.confusion(record) if record.student.evaluation.confusion else None,
        "class_changes": changes,
        "classes_left_out": unchanged,
        "diagrams": calibration.diagrams(record),
        "measures": measure.measure_table(record),
        "measure_names": measures,
        "direction": measure.direction(measures),
        "has_fidelity": any(name in measures for name in measure.FIDELITY),
        "slices": slice.slice_table(record),
        "slice_arms": slice.slice_arms(record),
        "inherited": _inherited(record),
        "cards": soft_label.cards(record),
        "card_columns": soft_label.columns(record),
        "arm_names": tuple(arms),
        "differences": found,
        "num_same": num_same,
        "text_facts": tuple(_text_facts(record.data)),
        "environment": tuple(_pairs(record.environment)),
        "hashes": tuple(_hashes(record.manifest)),
        "glossary": sentence.GLOSSARY,
    }


def _words(record: RunRecord) -> dict[str, Any]:
    verdict = record.verdict
    return {
        "meaning": sentence.meaning(verdict),
        "comparison": sentence.comparison(verdict),
        "difference": sentence.difference(verdict),
        "intervals": sentence.intervals(verdict, record.nouns.units),
        "subtraction": sentence.subtraction(verdict),
        "unit": record.nouns.unit,
        "labels": record.nouns.labels,
        "latency_input": record.latency_input,
        "warnings": sentence.warnings(record),
        "notes": sentence.notes(record),
        "teacher_mistakes": sentence.teacher_mistakes(record),
        "label_budget": sentence.label_budget(record),
        "size_and_speed": " ".join(filter(None, (sentence.smaller(record), sentence.faster(record)))),
    }


def _against(record: RunRecord) -> tuple[dict[str, Any], ...]:
    """A row for each control: the numbers, and both intervals on an axis of 0..100 with no difference at ``zero``."""
    verdict = record.verdict
    bounds = [bound for each in verdict.against.values() for bound in (*each.interval, *(each.seed_interval or ()))]
    place = axis.Scale(*axis.padded(min([0.0, *bounds]), max([0.0, *bounds])), 0, 100)
    digits = number.digits_for(verdict.test_examples)

    def row(control: str, each: Comparison) -> dict[str, Any]:
        return {
            "control": control,
            "is_best": control == verdict.best_control,
            "difference": number.gain(each.difference, verdict.metric, digits),
            "interval": sentence.span(each.interval, verdict),
            "seed_interval": number.ABSENT
            if each.seed_interval is None
            else sentence.span(each.seed_interval, verdict),
            "zero": place(0.0),
            "at": place(each.difference),
            "bar": tuple(place(bound) for bound in each.interval),
            "seed_bar": None if each.seed_interval is None else tuple(place(bound) for bound in each.seed_interval),
        }

    return tuple(row(control, verdict.against[control]) for control in record.controls if control in verdict.against)


def _inherited(record: RunRecord) -> tuple[dict[str, Any], ...]:
    """Share of the teacher's mistakes that each arm repeats with the same wrong class; none where it makes none."""
    if record.summary is None or not sentence.teacher_mistakes(record):
        return ()
    looks, shares = series.series_of(record), record.summary.inherited_errors
    return tuple(
        {
            "name": arm,
            "style": looks["arm", arm].style,
            "share": number.percent(shares[arm], 0),
            "width": 100 * (shares[arm] or 0.0),
        }
        for arm in (*record.distilled_arms, *record.controls)
        if arm in shares
    )


def _text_facts(data: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What is known about the texts, where the data are texts."""
    text = data.get("text")
    if text is None:
        return
    yield "task", noun.task_of(data)
    yield "columns", ", ".join(text["columns"])
    if text.get("median_characters") is not None:
        yield "median length", f"{number.count(text['median_characters'])} characters"
    for name, tokenizer in (text.get("tokenizers") or {}).items():
        vocabulary, length = number.count(tokenizer["vocabulary"]), number.count(tokenizer["max_length"])
        yield (
            f"tokenizer of {name}",
            f"{vocabulary} entries, {length} tokens a text at most, {tokenizer['digest'][:12]}",
        )


def _pairs(content: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Every leaf under its own name; what it is nested in says nothing new ("packages", "placement")."""
    for key, value in content.items():
        if isinstance(value, Mapping):
            yield from _pairs(value)
        else:
            yield key, number.ABSENT if value is None else str(value)


def _hashes(manifest: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(path, sha256) of every file of every stage, in the order of the paths."""
    files = {
        path: digest for stage in (manifest.get("stages") or {}).values() for path, digest in stage["files"].items()
    }
    yield from sorted(files.items())
