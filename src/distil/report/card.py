"""``RunRecord`` -> ``MODEL_CARD.md`` in the form that the Hugging Face Hub reads: YAML, then Markdown."""

import json
import re
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, StrictUndefined

from distil.core.errors import IntegrityError
from distil.core.files import write_atomically
from distil.report import measure, noun, number, overview, sentence
from distil.report.read import AGAIN, read_run
from distil.report.record import Evaluation, Export, RunRecord

CARD = "MODEL_CARD.md"
WEAKEST_CLASSES = 3
MOST_CLASS_NAMES = 50


def write_model_card(run_directory: Path) -> Path:
    """Writes ``MODEL_CARD.md`` into the run directory, whole or not at all, and returns its path.

    The numbers in the front matter are those of the student that ships, not the mean over seeds.

    Raises:
        RecipeError: there is no such directory.
        IntegrityError: the run is not finished, no student was shipped, or a file cannot be read.
        ResourceError: the card cannot be saved.
    """
    destination = Path(run_directory) / CARD
    write_atomically(destination, render_card(read_run(destination.parent)))
    return destination


def render_card(record: RunRecord) -> str:
    """The card as text. The same record gives the same bytes."""
    if record.shipped is None:
        raise IntegrityError(f"{record.directory / 'student' / 'model.json'}: missing, so no student ships. {AGAIN}")
    environment = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False)
    formats = (number.percent, number.count, number.quantity, number.size, number.milliseconds, number.significant)
    environment.filters |= {each.__name__: each for each in formats}
    environment.filters |= {"code": code, "text": plain_text, "plain": number.plain, "metric_name": number.metric_name}
    template = resources.files("distil.report").joinpath("templates", "card.md.j2").read_text(encoding="utf-8")
    text = environment.from_string(template).render(**_contents(record))
    return f"---\n{yaml.safe_dump(front_matter(record), sort_keys=False, allow_unicode=True)}---\n\n{text}\n"


def front_matter(record: RunRecord) -> dict[str, Any]:
    """The metadata that the Hub reads. The license is `unknown`: it follows from data and teacher, not from distil."""
    hub, task = _hub_name(record), record.nouns.hub_task
    library = "transformers" if record.has_huggingface_folder else "onnx" if _student_exports(record) else "distil"
    found: dict[str, Any] = {
        "license": "unknown",
        "library_name": library,
        "pipeline_tag": task,
        "tags": ["knowledge-distillation", "distil", task, *(["onnx"] if _student_exports(record) else [])],
    }
    if hub is not None:
        found["datasets"] = [hub]
    found["metrics"] = [record.verdict.metric]
    found["model-index"] = [{"name": record.name, "results": [_result(record)]}]
    return found


def code(text: object) -> str:
    """A Markdown code span in which nothing is markup: class and arm names may hold anything, in tables too."""
    line = re.sub(r"\s+", " ", str(text)).strip() or " "
    longest = max((len(run) for run in re.findall("`+", line)), default=0)
    fence, pad = "`" * (longest + 1), " " if "`" in line else ""
    return f"{fence}{pad}{line}{pad}{fence}".replace("|", "\\|")


def plain_text(text: str) -> str:
    """A sentence in which a name cannot open an HTML tag."""
    return text.replace("&", "&amp;").replace("<", "&lt;")


def _result(record: RunRecord) -> dict[str, Any]:
    """One result of the Hub's model-index, as its ``EvalResult`` has it."""
    evaluation = record.student.evaluation
    source = str(record.data["source"])
    metrics = [
        {"type": metric, "value": value, "name": number.metric_title(metric)}
        for metric, value in measure.reached(record)
        if not number.is_absent(value) and metric not in (*measure.FIDELITY, *number.COUNTS)
    ]
    return {
        "task": {"type": record.nouns.hub_task, "name": record.nouns.hub_task.replace("-", " ").capitalize()},
        "dataset": {
            "type": _hub_name(record) or re.sub(r"[^a-z0-9]+", "-", source.lower()).strip("-"),
            "name": source,
            "split": evaluation.split,
            "args": {"fingerprint": record.data["fingerprint"]},
        },
        "metrics": metrics,
    }


def _hub_name(record: RunRecord) -> str | None:
    hub = (record.recipe.get("data") or {}).get("hub")
    return str(hub) if hub else None


def _student_exports(record: RunRecord) -> list[Export]:
    return [each for each in record.exports if each.teacher is None]


def _contents(record: RunRecord) -> dict[str, Any]:
    """Every value that the template names."""
    verdict, evaluation = record.verdict, record.student.evaluation
    exports = _student_exports(record)
    stages = ((record.recipe.get("arms") or {}).get(record.shipped.arm if record.shipped else "") or {}).get("stages")
    names = [str(name) for name in record.data["class_names"]]
    rows, reading = overview.rows(record), _reading(record)
    return {
        "nouns": record.nouns,
        "image": record.data["image"],
        "reading": reading,
        "pair": len(_columns(record)) == 2,
        "is_read_apart": noun.task_of(record.data) == "sentence-embedding",
        "asked": _asked(record),
        "is_of_one_class": bool(evaluation.confusion),
        "record": record,
        "verdict": verdict,
        "shipped": record.shipped,
        "evaluation": evaluation,
        "meaning": sentence.meaning(verdict),
        "difference": sentence.difference(verdict),
        "intervals": sentence.intervals(verdict, record.nouns.units),
        "warnings": sentence.warnings(record),
        "notes": sentence.notes(record),
        "label_budget": sentence.label_budget(record),
        "smaller": sentence.smaller(record),
        "faster": sentence.faster(record),
        "metric": number.metric_name(verdict.metric),
        "rows": rows,
        "has_calibration": overview.has_calibration(rows),
        "calibration_error": evaluation.metrics.get("expected_calibration_error"),
        "measures": [
            (number.metric_name(name), number.quality(value, name)) for name, value in measure.reached(record)
        ],
        "exports": exports,
        "loader": next((each for each in exports if each.loader), None),
        "terms": [term for stage in stages or () for term in (stage.get("objective") or {}).items()],
        "class_names": names[:MOST_CLASS_NAMES],
        "more_classes": len(names) - MOST_CLASS_NAMES,
        "weakest": _weakest(evaluation),
        "over_confidence": _over_confidence(evaluation),
        "inherited": _inherited(record),
    }


def _reading(record: RunRecord) -> dict[str, Any] | None:
    """How texts become the student's input; None where the input is no text or is not on record."""
    if record.preprocessing is None or record.preprocessing["input"].get("kind") != "text":
        return None
    return {**record.preprocessing["input"], **record.preprocessing["preprocessing"]}


def _columns(record: RunRecord) -> list[str]:
    """The texts of an example; none where it is no text."""
    reading = _reading(record)
    return [] if reading is None else reading["columns"]


def _asked(record: RunRecord) -> str:
    """One input as Python: a text, or a tuple of two."""
    columns = _columns(record)
    return f"({', '.join(json.dumps(f'a {column}') for column in columns)})" if len(columns) == 2 else '"a sentence"'


def _inherited(record: RunRecord) -> number.Number | None:
    if record.summary is None or record.verdict.distilled is None or not sentence.teacher_mistakes(record):
        return None
    return record.summary.inherited_errors.get(record.verdict.distilled)


def _weakest(evaluation: Evaluation) -> list[tuple[str, number.Number, int]]:
    """The classes with the lowest accuracy, where there is an example of them."""
    known = [(each.name, each.accuracy, each.support) for each in evaluation.per_class if each.accuracy is not None]
    return sorted(known, key=lambda each: each[1])[:WEAKEST_CLASSES]


def _over_confidence(evaluation: Evaluation) -> number.Number | None:
    """Mean confidence minus accuracy over the bins; positive: too sure."""
    total = sum(each.count for each in evaluation.reliability)
    if total == 0:
        return None
    return sum(each.count * (each.confidence - each.accuracy) for each in evaluation.reliability) / total
