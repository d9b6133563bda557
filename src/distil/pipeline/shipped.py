"""The shipped student, read back: a network with its class names and the way to feed it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import TypeAdapter
from torch import Tensor, nn

from distil.core.errors import DataError, IntegrityError, ModelError
from distil.core.files import read_json, sha256_of
from distil.core.run_directory import RunDirectory
from distil.data.example import Examples, TextExamples
from distil.data.feed import AnyView, evaluation_batches
from distil.data.source import make_examples
from distil.data.text_view import TextView
from distil.data.tokenizer import load_tokenizer
from distil.data.view import View
from distil.models.config import FileWeights, ModelConfig
from distil.models.load import build_model, load_weights
from distil.models.reuse import with_classifier_of
from distil.models.text_config import HuggingFaceModelConfig
from distil.pipeline.text_shipping import FOLDER
from distil.tasks import multi_label
from distil.tasks.choice import make_task
from distil.tasks.config import TaskConfig
from distil.tasks.score import score
from distil.tasks.task import Task
from distil.tasks.text_network import build_text_model


@dataclass(frozen=True, eq=False)
class ShippedStudent:
    """The student of a run, in evaluation mode.

    Attributes:
        model: from the view's output to logits, or to embeddings.
        class_names: of its outputs; none where they are embeddings.
        view: from pixels in 0..1, or from texts, to its input.
        task: what it says about an example.
    """

    model: nn.Module
    class_names: tuple[str, ...]
    view: AnyView
    task: Task

    def logits(self, examples: np.ndarray | Sequence[str] | Sequence[tuple[str, ...]]) -> Tensor:
        """What it says of each example: logits, or an embedding.

        Args:
            examples: images of shape [examples, channels, height, width], pixels 0..255; or texts; or pairs of texts.
        """
        batches = evaluation_batches(self._read(examples), views={"model": self.view}, batch_size=64)
        return score(self.model, batches, view="model").logits

    def predict(
        self, examples: np.ndarray | Sequence[str] | Sequence[tuple[str, ...]]
    ) -> list[str] | list[tuple[str, ...]]:
        """The class of each image, text or pair of texts; of texts that may have several, all of each.

        Raises:
            DataError: the student's task has no classes of whole examples.
        """
        if self.task.target == "embeddings":
            raise DataError("this student gives embeddings and no classes; call logits")
        if self.task.answers_for_tokens or self.task.head == "spans":
            raise DataError(
                "this student answers for tokens and gives no class of a whole text; load the folder "
                f"student/{FOLDER} with transformers"
            )
        logits = self.logits(examples)
        if self.task.target == "multi-label":
            return [self._names(row) for row in multi_label.decisions(logits)]
        return [self.class_names[index] for index in logits.argmax(dim=-1).tolist()]

    def _names(self, chosen: Tensor) -> tuple[str, ...]:
        return tuple(name for name, holds in zip(self.class_names, chosen.tolist(), strict=True) if holds)

    def _read(self, examples: np.ndarray | Sequence[str] | Sequence[tuple[str, ...]]) -> Examples:
        if isinstance(self.view, View):
            if not isinstance(examples, np.ndarray) or examples.ndim != 4:
                found = f"shape {list(examples.shape)}" if isinstance(examples, np.ndarray) else type(examples).__name__
                raise DataError(f"images have {found}; expected an array [examples, channels, height, width]")
            labels = np.zeros(len(examples), dtype=np.int64)
            return make_examples(examples, labels, class_names=self.class_names, where="images")
        rows = [(each,) if isinstance(each, str) else tuple(each) for each in examples]
        if any(len(row) != len(self.view.columns) for row in rows):
            raise DataError(f"each example needs {len(self.view.columns)} texts: {', '.join(self.view.columns)}")
        columns = dict(zip(self.view.columns, zip(*rows, strict=True), strict=True))
        none = torch.zeros(len(rows), dtype=torch.int64)
        return TextExamples(ids=torch.arange(len(rows)), labels=none, class_names=self.class_names, columns=columns)


def load(run_directory: str | Path, *, make: Callable[[], nn.Module] | None = None) -> ShippedStudent:
    """The student that a run ships.

    Args:
        run_directory: such as ``runs/digits``.
        make: the Python function that makes the network, where the recipe's model was of kind ``module``.

    Raises:
        IntegrityError: the run is not finished, or a file is not the one that was written.
    """
    folder = Path(run_directory) / "student"
    if not RunDirectory(Path(run_directory)).is_done("student/model"):
        raise IntegrityError(f"{run_directory}: no finished run there. Start it with: distil run RECIPE")
    expected = read_json(Path(run_directory) / "manifest.json")["stages"]["student/model"]["files"]
    for relative, digest in expected.items():
        if not (folder.parent / relative).is_file() or sha256_of(folder.parent / relative) != digest:
            raise IntegrityError(
                f"{folder.parent / relative} is not as it was written. Run the recipe again to make it anew"
            )
    facts = read_json(folder / "labels_and_preprocessing.json")
    if facts["input"].get("kind") == "text":
        return _load_text(folder, facts)
    shape, class_names = facts["input"], tuple(facts["class_names"])
    image_shape = shape["channels"], shape["height"], shape["width"]
    described = read_json(folder / "model.json")
    config = _model_config(described["model"], make)
    model = build_model(config, num_classes=len(class_names), image_shape=image_shape, seed=0)
    if described["reused_classifier"] is not None:
        model = with_classifier_of(model, torch.zeros(1, *image_shape), **described["reused_classifier"])
    load_weights(model, FileWeights(path=str(folder / "model.safetensors")))
    means, deviations = (tuple(facts["preprocessing"][name]) for name in ("mean", "std"))
    return ShippedStudent(model.eval(), class_names, View(*image_shape, mean=means, std=deviations), _task(described))


def _load_text(folder: Path, facts: dict[str, Any]) -> ShippedStudent:
    described, class_names = read_json(folder / "model.json"), tuple(facts["class_names"])
    task = _task(described)
    view = TextView(
        load_tokenizer(folder),
        tuple(facts["preprocessing"]["columns"]),
        facts["input"]["max_length"],
        type_ids="token_type_ids" in facts["input"]["names"],
        apart=task.head == "embedding",
        pad_id=facts["input"]["pad_id"],
    )
    if (folder / FOLDER).is_dir():
        config: ModelConfig = HuggingFaceModelConfig(path=str(folder / FOLDER), **(described["embedding"] or {}))
    else:
        config = TypeAdapter(ModelConfig).validate_python(described["model"])
    outputs = len(class_names) or None
    weights = FileWeights(path=str(folder / "model.safetensors"))
    model = build_text_model(config, view, num_outputs=outputs, task=task, seed=0, weights=weights)
    return ShippedStudent(model.eval(), class_names, view, task)


def _task(described: dict[str, Any]) -> Task:
    return make_task(TypeAdapter(TaskConfig).validate_python(described["task"]))


def _model_config(described: dict[str, Any], make: Callable[[], nn.Module] | None) -> ModelConfig:
    if described["kind"] != "module":
        return TypeAdapter(ModelConfig).validate_python(described)
    if make is None:
        raise ModelError("the student was made by a Python function; give it again: distil.load(..., make=FUNCTION)")
    return TypeAdapter(ModelConfig).validate_python({"kind": "module", "make": make})
