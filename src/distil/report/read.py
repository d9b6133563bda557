"""Run directory -> ``RunRecord``. Nothing here changes a file, and nothing needs torch."""

import base64
import dataclasses
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import yaml

from distil.core.errors import IntegrityError, RecipeError
from distil.report.noun import IMAGES, task_of
from distil.report.number import Number
from distil.report.record import (
    ArmQuality,
    Baseline,
    ClassChange,
    ClassQuality,
    Comparison,
    Epoch,
    Evaluation,
    Export,
    Gallery,
    GalleryExample,
    Latency,
    Parity,
    ReliabilityBin,
    RunRecord,
    Shipped,
    Slice,
    SpeedUp,
    Summary,
    TrainedModel,
    Verdict,
)

FORMAT = 1
VERDICTS = ("BEATS", "WORSE", "EQUIVALENT", "INCONCLUSIVE", "NOT TESTED")
DATA_KEYS = ("fingerprint", "source", "splits", "labelled", "teacher_labels", "class_names", "image")
TASKS_OF_ONE_CLASS = (IMAGES, "text-classification")
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
LARGEST_LOADER_BYTES = 4096
AGAIN = "`distil run` with the same recipe and --run-dir finishes the run and writes what is missing."

Value = TypeVar("Value")


def read_run(run_directory: Path) -> RunRecord:
    """Reads everything that the report needs from a finished run.

    Exports, gallery, summary and shipped student may be missing and are then None or empty.

    Raises:
        RecipeError: there is no such directory.
        IntegrityError: a file that every finished run has is missing, or does not have the form of this version.
    """
    root = Path(run_directory)
    if not root.is_dir():
        raise RecipeError(f"{root}: there is no such run directory. `distil run RECIPE` makes one.")
    verdict = _read_verdict(root / "verdict.json")
    recipe_path = root / "recipe.resolved.yaml"
    with _reading(recipe_path):
        recipe_text = recipe_path.read_text(encoding="utf-8")
        recipe = dict(yaml.safe_load(recipe_text))
    record = RunRecord(
        directory=root,
        recipe=recipe,
        recipe_text=recipe_text,
        environment=_json(root / "environment.json"),
        data=_json(root / "data.json"),
        verdict=verdict,
        teachers=_read_teachers(root, verdict),
        arms=_read_arms(root, verdict, recipe),
        manifest=_json(root / "manifest.json"),
        shipped=_optional(root / "student" / "model.json", _read_shipped),
        preprocessing=_optional(root / "student" / "labels_and_preprocessing.json", _json),
        exports=_read_exports(root),
        gallery=_optional(root / "evaluation" / "gallery.json", _read_gallery),
        summary=_optional(root / "evaluation" / "summary.json", _read_summary),
        tuning=_optional(root / "tuning.json", _read_tuning),
        has_huggingface_folder=(root / "student" / "huggingface" / "config.json").is_file(),
    )
    _check_together(record)
    return record


def _check_together(record: RunRecord) -> None:
    """What no single file can show: the shipped student is one of the arms, and every matrix has the data's classes.

    A matrix may be missing only where the task does not give each example one class.
    """
    shipped = record.shipped
    if shipped is not None and shipped.seed not in record.arms.get(shipped.arm, {}):
        raise IntegrityError(
            f"{record.directory / 'student' / 'model.json'}: names seed {shipped.seed} of arm {shipped.arm!r}, "
            f"which is not in verdict.json. {AGAIN}"
        )
    _require(record.directory / "data.json", record.data, DATA_KEYS)
    _require(record.directory / "environment.json", record.environment, ("distil",))
    num_classes = len(record.data["class_names"])
    may_be_missing = task_of(record.data) not in TASKS_OF_ONE_CLASS
    for arm, seeds in record.arms.items():
        for seed, model in seeds.items():
            matrix = model.evaluation.confusion
            if may_be_missing and not matrix:
                continue
            if {len(matrix), *map(len, matrix)} != {num_classes}:
                raise IntegrityError(
                    f"{record.directory / 'arms' / arm / f'seed-{seed}' / 'evaluation.json'}: the confusion is not "
                    f"{num_classes} x {num_classes}, as the class names in data.json say. {AGAIN}"
                )


def _require(path: Path, content: Mapping[str, Any], keys: tuple[str, ...]) -> None:
    with _reading(path):
        for key in keys:
            if key not in content:
                raise KeyError(key)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turns whatever goes wrong with one file into an IntegrityError that names it and says what to do."""
    try:
        yield
    except FileNotFoundError as error:
        raise IntegrityError(f"{path}: missing, so there is nothing to report on yet. {AGAIN}") from error
    except (KeyError, TypeError, ValueError, AttributeError, yaml.YAMLError) as error:
        detail = f"key {error} is missing" if isinstance(error, KeyError) else str(error)
        raise IntegrityError(
            f"{path}: not in the form that this version of distil reads ({detail}). "
            f"Restore the file, or remove it and run again: {AGAIN}"
        ) from error


def _optional(path: Path, read: Any) -> Any:
    return read(path) if path.is_file() else None


def _json(path: Path) -> dict[str, Any]:
    with _reading(path):
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise TypeError("expected an object at the top")
        if content.get("format", FORMAT) != FORMAT:
            raise ValueError(f"format {content['format']!r}, expected {FORMAT}")
        return content


def _build(kind: type[Value], content: Mapping[str, Any], **converted: Any) -> Value:
    """One frozen value from the keys that it knows; ``converted`` replaces keys that need more than their JSON."""
    fields = dataclasses.fields(kind)  # type: ignore[arg-type]
    values = {each.name: content[each.name] for each in fields if each.name in content} | converted
    for each in fields:
        has_default = each.default is not dataclasses.MISSING or each.default_factory is not dataclasses.MISSING
        if each.name not in values and not has_default:
            raise KeyError(each.name)
    return kind(**values)


def _pair(value: Any) -> tuple[Number, Number] | None:
    if value is None:
        return None
    low, high = value
    return float(low), float(high)


def _read_verdict(path: Path) -> Verdict:
    content = _json(path)
    with _reading(path):
        if content["verdict"] not in VERDICTS:
            raise ValueError(f"verdict {content['verdict']!r}, expected one of {', '.join(VERDICTS)}")
        return _build(
            Verdict,
            content,
            interval=_pair(content["interval"]),
            seed_interval=_pair(content.get("seed_interval")),
            seeds=tuple(content["seeds"]),
            arms={arm: _build(ArmQuality, each, values=tuple(each["values"])) for arm, each in content["arms"].items()},
            against={
                control: _build(
                    Comparison,
                    each,
                    interval=_pair(each["interval"]),
                    seed_interval=_pair(each.get("seed_interval")),
                )
                for control, each in content["against"].items()
            },
            baselines={name: _build(Baseline, each) for name, each in content.get("baselines", {}).items()},
            notes=tuple(content.get("notes", ())),
        )


def _read_teachers(root: Path, verdict: Verdict) -> dict[str, TrainedModel]:
    return {name: _read_trained(root / "teachers" / name) for name in verdict.teachers}


def _read_arms(root: Path, verdict: Verdict, recipe: Mapping[str, Any]) -> dict[str, dict[int, TrainedModel]]:
    """In the order of the recipe; the verdict's keys are sorted."""
    if verdict.distilled is not None and verdict.distilled not in verdict.arms:
        raise IntegrityError(f"{root / 'verdict.json'}: the distilled arm {verdict.distilled!r} is not under 'arms'.")
    order = {arm: place for place, arm in enumerate(recipe.get("arms", {}))}
    return {
        arm: {seed: _read_trained(root / "arms" / arm / f"seed-{seed}") for seed in verdict.seeds}
        for arm in sorted(verdict.arms, key=lambda arm: order.get(arm, len(order)))
    }


def _read_trained(directory: Path) -> TrainedModel:
    epochs, kept_epoch = _optional(directory / "events.jsonl", _read_events) or ((), None)
    return TrainedModel(_read_evaluation(directory / "evaluation.json"), epochs, kept_epoch)


def _read_evaluation(path: Path) -> Evaluation:
    content = _json(path)
    with _reading(path):
        return _build(
            Evaluation,
            content,
            per_class=tuple(_build(ClassQuality, each) for each in content["per_class"]),
            confusion=tuple(tuple(row) for row in content["confusion"]),
            reliability=tuple(_build(ReliabilityBin, each) for each in content["reliability"]),
        )


def _read_events(path: Path) -> tuple[tuple[Epoch, ...], int | None]:
    """The epochs and the epoch that was kept. A last line without its newline was cut off by a kill: left out."""
    complete = path.read_text(encoding="utf-8").split("\n")[:-1]
    epochs: list[Epoch] = []
    kept_epoch = None
    for number, line in enumerate(complete, start=1):
        with _reading(Path(f"{path}:{number}")):
            event = json.loads(line)
            if event["event"] == "epoch":
                epochs.append(_build(Epoch, event))
            elif event["event"] == "finish":
                kept_epoch = event.get("kept_epoch")
    return tuple(epochs), kept_epoch


def _read_shipped(path: Path) -> Shipped:
    content = _json(path)
    with _reading(path):
        return _build(Shipped, content)


def _read_summary(path: Path) -> Summary:
    content = _json(path)
    with _reading(path):
        changes = tuple(_build(ClassChange, each) for each in content["per_class_change"])
        slices = tuple(_read_slice(each) for each in content.get("slices", ()))
        return _build(Summary, content, per_class_change=changes, slices=slices)


def _read_slice(content: Mapping[str, Any]) -> Slice:
    return _build(
        Slice, content, interval=_pair(content["interval"]), seed_interval=_pair(content.get("seed_interval"))
    )


def _read_tuning(path: Path) -> Mapping[str, Any]:
    content = _json(path)
    _require(path, content, ("metric", "arms"))
    for arm, tuned in content["arms"].items():
        _require(
            path,
            {f"arms.{arm}.{key}": value for key, value in tuned.items()},
            tuple(f"arms.{arm}.{key}" for key in ("best", "trials", "num_pruned", "seconds")),
        )
    return content


def _read_gallery(path: Path) -> Gallery:
    content = _json(path)
    with _reading(path):
        examples = tuple(_read_example(path.parent, each) for each in content["examples"])
        return _build(Gallery, content, class_names=tuple(content["class_names"]), examples=examples)


def _read_example(directory: Path, content: Mapping[str, Any]) -> GalleryExample:
    return _build(
        GalleryExample,
        content,
        id=str(content["id"]),
        image=_data_uri(directory, content["image"]) if content.get("image") else None,
        text=str(content["text"]) if content.get("text") else None,
        teacher_plain=tuple(content["teacher"]["plain"]),
        teacher_softened=tuple(content["teacher"]["softened"]),
        student=tuple(content["student"]),
        control=tuple(content["control"]) if content.get("control") else None,
    )


def _data_uri(directory: Path, relative: str) -> str:
    """The picture inside the page. Only a PNG below the run's own folder is taken: the page may be mailed around."""
    path = directory / relative
    with _reading(path):
        if not path.resolve().is_relative_to(directory.resolve()):
            raise ValueError("the picture lies outside of the run directory")
        content = path.read_bytes()
        if not content.startswith(PNG_SIGNATURE):
            raise ValueError("the picture is not a PNG")
    return "data:image/png;base64," + base64.b64encode(content).decode("ascii")


def _read_exports(root: Path) -> tuple[Export, ...]:
    """The student's artefacts, then the teachers'. A folder without parity and latency is an export under way."""
    exports = root / "exports"
    own = [(each, None) for each in _folders(exports) if each.name != "teachers"]
    theirs = [(each, teacher.name) for teacher in _folders(exports / "teachers") for each in _folders(teacher)]
    read = [_read_export(root, directory, teacher) for directory, teacher in own + theirs]
    return tuple(each for each in read if each.parity is not None or each.latency is not None)


def _folders(directory: Path) -> list[Path]:
    return (
        sorted(each for each in directory.iterdir() if each.is_dir() and not each.name.startswith("."))
        if directory.is_dir()
        else []
    )


def _read_export(root: Path, directory: Path, teacher: str | None) -> Export:
    target, _, precision = directory.name.rpartition("-")
    loader = directory / "predict.py"
    is_short = loader.is_file() and loader.stat().st_size <= LARGEST_LOADER_BYTES
    return Export(
        name=directory.relative_to(root / "exports").as_posix(),
        target=target,
        precision=precision,
        teacher=teacher,
        parity=_optional(directory / "parity.json", _read_parity),
        latency=_optional(directory / "latency.json", _read_latency),
        loader=loader.read_text(encoding="utf-8") if is_short else None,
    )


def _read_parity(path: Path) -> Parity:
    content = _json(path)
    with _reading(path):
        return _build(Parity, content, problems=tuple(content.get("problems", ())))


def _read_latency(path: Path) -> Latency:
    content = _json(path)
    with _reading(path):
        speed_up = content.get("speed_up")
        if speed_up is not None:
            speed_up = _build(SpeedUp, speed_up, interval=_pair(speed_up["interval"]))
        return _build(Latency, content, p50_interval=_pair(content["p50_interval"]), speed_up=speed_up)
