"""Starter recipes: what ``distil new`` prints."""

import json
import re
from pathlib import Path

from distil.core.errors import DataError, RecipeError

STARTER = """\
# A first recipe. Run it with: distil run RECIPE    See every default with: distil resolve RECIPE
name: {name}
task: image-classification
data: {data}
teacher:                                    # the model that knows; give weights: FILE.safetensors if you have them
  model: {teacher}
  training: {{epochs: 30}}
student:                                    # the model that learns
  model: {student}
objective:
  true-labels: {{kind: true-labels, weight: 0.1}}
  soft-targets: {{kind: soft-targets, weight: 0.9, temperature: 4}}
training: {{epochs: 30, batch_size: 64}}
controls: [scratch, label-smoothing]        # the same student and budget, without a teacher
seeds: 5
export: [{{target: onnx, precision: [fp32, int8]}}]
"""


def starter_recipe(images: Path | None) -> str:
    """A recipe for a folder of images, or for the embedded digits.

    Raises:
        RecipeError: there is no such folder.
        DataError: it has no class folders.
    """
    if images is None:
        return STARTER.format(
            name="first",
            data="{kind: digits, labels: 200}",
            teacher="{kind: convnet, widths: [32, 64]}",
            student="{kind: mlp, widths: [64]}",
        ).replace("training: {epochs: 30}", "training: {epochs: 30}\n  labels: all", 1)
    if not images.is_dir():
        raise RecipeError(f"--images {images}: no such folder")
    train = images / "train" if (images / "train").is_dir() else images
    if not any(path.is_dir() for path in train.iterdir()):
        raise DataError(
            f"--images {images}: expected train/CLASS/*.png (or CLASS/*.png) in it, and found no class folder"
        )
    test = "" if (images / "test").is_dir() else ", test: 0.2"
    path = json.dumps(str(images), ensure_ascii=False)  # also a YAML string, whatever is in it
    return STARTER.format(
        name=_as_name(images.resolve().name),
        data=f"{{kind: huggingface, path: {path}, size: [64, 64]{test}}}",
        teacher="{kind: timm, name: resnet18}",
        student="{kind: convnet, widths: [16, 32, 64]}",
    )


def _as_name(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "-", text).strip("._-") or "images"
