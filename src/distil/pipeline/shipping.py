"""Shipping as a stage: the student that leaves, as a folder for ``distil.load`` and as artefacts for runtimes."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from distil.core.files import read_json, write_json
from distil.core.inputs import Inputs, join_rows
from distil.core.seeds import derive
from distil.data.example import Examples
from distil.data.feed import AnyView, evaluation_batches
from distil.data.order import epoch_order
from distil.data.text_view import TextView
from distil.data.view import View
from distil.export.artefact import Samples, write_artefact
from distil.export.config import Precision
from distil.export.process import measure_latency_in_fresh_process, verify_in_fresh_process
from distil.models.reuse import ReusedClassifier
from distil.pipeline.context import Context
from distil.pipeline.student import TrainedStudent
from distil.pipeline.teacher import Faculty, ReadyTeacher
from distil.pipeline.text_shipping import for_export, pooling_of, save_text_student
from distil.pipeline.training import save_trained
from distil.tasks.network import Network
from distil.tasks.score import score
from distil.tasks.task import Task

CALIBRATION_EXAMPLES = 512
PARITY_EXAMPLES = 10_000


def ship(context: Context, student: TrainedStudent, faculty: Faculty) -> Path:
    """The student's folder, and its artefacts and those of the teachers, each verified in a process of its own."""
    folder = _ship_weights(context, student)
    for export in context.recipe.export:
        artefacts = [
            _export(
                context,
                f"exports/{export.target}-{precision}",
                student.network,
                precision,
                student.folder,
            )
            for precision in export.precision
        ]
        references = [_export_teacher(context, teacher) for teacher in faculty.teachers.values()]
        _measure_latency(context, export.target, [*artefacts, *references[1:]], references[:1])
    return folder


def _ship_weights(context: Context, student: TrainedStudent) -> Path:
    view = student.network.view
    preprocessing = context.task.describe(view, context.splits.train.class_names)
    model = {
        "format": 1,
        "arm": student.arm,
        "seed": student.seed,
        "task": next(iter(context.recipe.tasks.values())).model_dump(mode="json"),
        "model": None if student.config.model is None else student.config.model.model_dump(mode="json"),
        "reused_classifier": _reused(student.network.model),
        "embedding": pooling_of(student.network.model),
    }

    def save(_: None, folder: Path) -> list[Path]:
        write_json(folder / "labels_and_preprocessing.json", preprocessing)
        write_json(folder / "model.json", model)
        facts = [folder / "labels_and_preprocessing.json", folder / "model.json"]
        weights, training = save_trained(student.trained, folder)
        training.unlink()
        if isinstance(view, TextView):
            facts += save_text_student(folder, student.network.model, view)
        return [weights, *facts]

    inputs = {"model": context.directory.output_hash(f"{student.folder}/model"), "facts": [preprocessing, model]}
    context.once("student/model", inputs, lambda: None, save, lambda _: None)
    return context.directory.path / "student"


def _reused(model: nn.Module) -> dict[str, Any] | None:
    """What ``distil.load`` must know to build a student that answers through its teacher's classifier."""
    head = next((module for module in model.modules() if isinstance(module, ReusedClassifier)), None)
    if head is None:
        return None
    weight = head.classifier.weight
    return {"teacher_width": weight.shape[1], "num_classes": weight.shape[0], "bias": head.classifier.bias is not None}


def _export_teacher(context: Context, teacher: ReadyTeacher) -> str:
    folder = f"exports/teachers/{teacher.name}/onnx-fp32"
    network = replace(teacher.network, model=teacher.frozen.as_module())
    return _export(context, folder, network, "fp32", f"teachers/{teacher.name}")


def _export(context: Context, folder: str, network: Network, precision: Precision, origin: str) -> str:
    """One artefact with its parity; both are stages, so that after a flipped byte only that one is made again."""
    splits, task = context.splits, context.task
    model, view = for_export(network)
    preprocessing = task.describe(view, splits.train.class_names)
    of_images = isinstance(view, View)  # the int8 of texts takes its ranges from each token
    extra = {} if isinstance(view, View) else {"tokenizer.json": view.tokenizer.to_str(pretty=True).encode()}

    def save(samples: Samples | None, target: Path) -> Sequence[Path]:
        assert samples is not None
        return write_artefact(
            target,
            model=model,
            samples=samples,
            calibration=_calibration(splits.train, view, task) if precision == "int8" and of_images else None,
            preprocessing=preprocessing,
            precision=precision,
            extra_files=extra,
        )

    def produce() -> Samples | None:
        return _samples(model, splits.test.open_for_parity(PARITY_EXAMPLES), view, task)

    inputs = {
        "model": context.directory.output_hash(f"{origin}/model"),
        "data": splits.fingerprint(),
        "preprocessing": preprocessing,
        "precision": precision,
    }
    context.once(f"{folder}/artefact", inputs, produce, save, lambda _: None)
    path = context.directory.path / folder
    context.once(
        f"{folder}/parity",
        {"artefact": context.directory.output_hash(f"{folder}/artefact")},
        lambda: verify_in_fresh_process(path),
        lambda _, target: [target / "parity.json"],
        lambda target: read_json(target / "parity.json"),
    )
    return folder


def _measure_latency(context: Context, target: str, folders: Sequence[str], reference: Sequence[str]) -> None:
    paths = [context.directory.path / folder for folder in folders]
    slowest = context.directory.path / reference[0] if reference else None

    def save(_: Any, __: Path) -> list[Path]:
        return [path / "latency.json" for path in [*paths, *([slowest] if slowest is not None else [])]]

    inputs = {folder: context.directory.output_hash(f"{folder}/artefact") for folder in [*folders, *reference]}
    context.once(
        f"exports/{target}-latency",
        inputs,
        lambda: measure_latency_in_fresh_process(paths, slowest),
        save,
        lambda _: {},
    )


def _samples(model: nn.Module, examples: Examples, view: AnyView, task: Task) -> Samples:
    batches = list(evaluation_batches(examples, views={"model": view}, batch_size=task.evaluation_batch))
    scores = score(model.cpu(), batches, view="model")
    return Samples(
        inputs=_arrays(join_rows([batch.inputs["model"] for batch in batches])),
        reference=scores.logits.numpy(),
        targets=scores.labels.numpy() if examples.class_names and task.target == "classes" else None,
    )


def _calibration(examples: Examples, view: AnyView, task: Task) -> Any:
    """Images of the training split, drawn once, that set the ranges of the integers."""
    rows = epoch_order(len(examples), seed=derive("calibration"), epoch=0)[:CALIBRATION_EXAMPLES]
    batches = evaluation_batches(examples.select(rows), views={"model": view}, batch_size=task.evaluation_batch)
    return _arrays(join_rows([batch.inputs["model"] for batch in batches]))


def _arrays(inputs: Inputs) -> Any:
    if isinstance(inputs, Tensor):
        return inputs.numpy()
    return {name: value.numpy() for name, value in inputs.items()}
