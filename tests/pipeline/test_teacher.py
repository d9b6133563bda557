from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from distil.core.config import PlacementConfig
from distil.core.errors import ModelError, RecipeError
from distil.core.interruption import Interruption
from distil.core.placement import place
from distil.core.run_directory import RunDirectory
from distil.data.feed import evaluation_batches
from distil.data.split import load_splits
from distil.evaluate.prediction import load_predictions
from distil.knowledge.response import KeptKnowledge, LiveKnowledge, NoKnowledge, PermutedKnowledge
from distil.pipeline.context import Context
from distil.pipeline.run import RunResult
from distil.pipeline.teacher import prepare_teachers
from distil.recipe.load import parse_recipe
from distil.recipe.resolve import resolve
from tests.pipeline.conftest import SMALL, Runner


@pytest.fixture
def make_context(tmp_path: Path):
    with place(PlacementConfig(device="cpu", threads=1)) as placement:

        def make(*overrides: str) -> Context:
            recipe = resolve(parse_recipe(SMALL, overrides))
            directory = RunDirectory(tmp_path / "run")
            directory.path.mkdir()
            return Context(recipe, load_splits(recipe.data), directory, placement, Interruption())

        yield make


def test_15_students_leave_the_teacher_as_it_was_to_the_last_bit(run_small: Runner) -> None:
    directory = run_small("training.augmentation=[flip]", "training.epochs=2", "seeds=1", name="live").directory
    alone = run_small("controls=[scratch]", "training.epochs=1", "seeds=1", name="kept").directory
    with_live = load_file(directory / "teachers/teacher/model.safetensors")
    assert "body.1.running_mean" in with_live
    said = [load_predictions(each / "teachers/teacher/predictions.parquet").logits for each in (directory, alone)]
    np.testing.assert_array_equal(said[0], said[1])


def test_knowledge_is_kept_where_views_are_fixed_and_live_under_augmentation(make_context) -> None:
    context = make_context("controls=[scratch, permuted-knowledge]", "teacher.training.epochs=1")
    faculty = prepare_teachers(context)
    arm = context.recipe.arms["distilled"]
    assert isinstance(faculty.knowledge_for(arm, seed=0), KeptKnowledge)
    assert faculty.views_for(arm) == {}
    assert isinstance(faculty.knowledge_for(context.recipe.arms["scratch"], seed=0), NoKnowledge)
    assert isinstance(faculty.knowledge_for(context.recipe.arms["permuted-knowledge"], seed=0), PermutedKnowledge)
    augmented = resolve(parse_recipe(SMALL, ["training.augmentation=[flip]"])).arms["distilled"]
    assert isinstance(faculty.knowledge_for(augmented, seed=0), LiveKnowledge)
    assert set(faculty.views_for(augmented)) == {"teacher"}


def test_21_the_teacher_in_the_loop_says_what_it_says_alone(make_context) -> None:
    context = make_context("teacher.inputs={size: 12, mean: 0.3, std: 0.2}", "teacher.training.epochs=1")
    faculty = prepare_teachers(context)
    teacher = faculty.teachers["teacher"]
    assert (teacher.network.view.height, teacher.network.view.mean) == (12, (0.3,))
    examples = context.splits.train.select(torch.arange(40))
    (batch,) = evaluation_batches(examples, views={"teacher": teacher.network.view})
    pixels = torch.nn.functional.interpolate(
        examples.images.float() / 255, size=(12, 12), mode="bilinear", antialias=True, align_corners=False
    )
    with torch.no_grad():
        alone = teacher.network.model.eval()((pixels - 0.3) / 0.2)
    torch.testing.assert_close(teacher.frozen(batch), alone)
    kept = faculty.knowledge_for(context.recipe.arms["distilled"], seed=0)
    torch.testing.assert_close(kept(batch)["teacher"], alone, rtol=1e-4, atol=1e-5)


def test_weights_from_a_file_are_used_and_their_class_order_is_respected(
    finished: RunResult, run_small: Runner, tmp_path: Path
) -> None:
    original = load_file(finished.directory / "teachers/teacher/model.safetensors")
    order = [3, 1, 4, 0, 5, 9, 2, 6, 8, 7]
    permuted = dict(original)
    for name in ("classifier.weight", "classifier.bias"):
        permuted[name] = original[name][order].contiguous()
    save_file(permuted, tmp_path / "permuted.safetensors")
    result = run_small(
        f"teacher={{model: {{kind: convnet, widths: [8]}}, weights: {tmp_path}/permuted.safetensors, "
        f"classes: {[str(digit) for digit in order]}}}",
        "training.epochs=1",
    )
    assert result.verdict["teachers"] == finished.verdict["teachers"]


def test_a_teacher_of_other_classes_is_refused_with_both_numbers(run_small: Runner, tmp_path: Path) -> None:
    from distil.models.builtin import ConvNet

    state = ConvNet(channels=1, widths=[8], num_classes=7, dropout=0.0).state_dict()
    save_file(state, tmp_path / "seven.safetensors")
    with pytest.raises(ModelError, match=r"classifier.weight has shape \[7, 8\], and the model's has \[10, 8\]"):
        run_small(f"teacher={{model: {{kind: convnet, widths: [8]}}, weights: {tmp_path}/seven.safetensors}}")


def test_a_module_from_python_can_be_teacher_and_student(tmp_path: Path) -> None:
    from distil.pipeline.run import run
    from distil.pipeline.shipped import load
    from distil.recipe.recipe import Recipe

    def make() -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))

    values = {
        "name": "python",
        "data": {"kind": "digits"},
        "teacher": {"model": {"kind": "module", "make": make}, "training": {"epochs": 2}},
        "student": {"model": {"kind": "module", "make": make}},
        "objective": {"soft": {"kind": "soft-targets"}},
        "training": {"epochs": 1},
        "seeds": 1,
        "controls": ["scratch"],
    }
    result = run(Recipe.model_validate(values), tmp_path / "run")
    student = load(result.directory, make=make)
    assert set(student.predict(np.zeros((2, 1, 8, 8), dtype=np.uint8))) <= set("0123456789")
    with pytest.raises(ModelError, match="made by a Python function"):
        load(result.directory)


def test_a_teacher_from_python_whose_weights_changed_is_not_the_one_of_before(tmp_path: Path) -> None:
    from distil.pipeline.run import run
    from distil.recipe.recipe import Recipe

    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    values = {
        "name": "python",
        "data": "digits",
        "teacher": {"model": {"kind": "module", "make": lambda: net}, "weights": "included"},
        "student": {"model": {"kind": "mlp", "widths": [4]}},
        "objective": {"soft": {"kind": "soft-targets"}},
        "training": {"epochs": 1},
        "seeds": 1,
        "controls": ["scratch"],
    }
    before = run(Recipe.model_validate(values), tmp_path / "run").verdict["teachers"]
    nn.init.zeros_(net[1].weight)
    nn.init.constant_(net[1].bias, 0.0)
    after = run(Recipe.model_validate(values), tmp_path / "run").verdict["teachers"]
    assert after != before


def test_a_teacher_called_student_is_refused() -> None:
    text = SMALL.replace("teacher:\n", "teachers:\n student:\n", 1)
    text = text.replace("  model: {kind: convnet", "   model: {kind: convnet", 1)
    text = text.replace("  labels: all", "   labels: all", 1).replace(
        "  training: {epochs: 4", "   training: {epochs: 4", 1
    )
    with pytest.raises(RecipeError, match="a teacher cannot be called student"):
        parse_recipe(text)
