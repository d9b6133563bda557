"""Students as the run will start them: one network for all arms that have the same student, each with its own copy."""

from pathlib import Path

import torch

from distil.check.student import arms_by_student, build_students, check_cut
from distil.check.teacher import build_candidate
from distil.data.split import load_splits
from distil.recipe.load import parse_recipe
from distil.recipe.recipe import Recipe
from distil.recipe.resolve import resolve
from distil.tasks.choice import make_task

from .conftest import SMALL
from .text_fixture import recipe_of, write_trained_teacher


def made(recipe: Recipe):
    resolved = resolve(recipe)
    splits, task = load_splits(resolved.data), make_task(resolved.tasks["main"])
    teachers = {name: build_candidate(name, each, splits, task) for name, each in resolved.teachers.items()}
    return resolved, teachers, build_students(resolved, teachers, splits, task)


def test_arms_with_one_student_have_equal_weights_in_copies_of_their_own() -> None:
    resolved, _, students = made(parse_recipe(SMALL))
    assert [arms for _, arms in arms_by_student(resolved)] == [["scratch", "label-smoothing", "distilled"]]
    first, last = (students[name].model.state_dict() for name in ("scratch", "distilled"))
    assert all(torch.equal(first[name], last[name]) for name in first)
    assert all(first[name].data_ptr() != last[name].data_ptr() for name in first)


def test_a_student_is_cut_from_its_teacher_and_can_be_trained(tmp_path: Path) -> None:
    resolved, teachers, students = made(recipe_of("text-classification", tmp_path))
    theirs, ours = (each.state_dict() for each in (teachers["teacher"].network.model, students["distilled"].model))
    name = "pretrained.bert.encoder.layer.0.output.dense.weight"
    assert torch.equal(ours[name], theirs[name])
    assert not any("layer.1" in name for name in ours)
    assert all(each.requires_grad for each in students["distilled"].model.parameters())
    assert not any(each.requires_grad for each in teachers["teacher"].network.model.parameters())
    (finding,) = check_cut(resolved, teachers)
    assert finding.what.startswith("student of scratch, distilled: cut from the teacher, layers 0 of 2")


def test_weights_that_the_teacher_does_not_have_yet_are_said(tmp_path: Path) -> None:
    recipe = recipe_of("text-classification", tmp_path)
    resolved, teachers, _ = made(recipe)
    (untrained,) = check_cut(resolved, teachers)
    assert "that teacher is trained first" in untrained.what
    weights = write_trained_teacher(recipe, tmp_path / "w.safetensors", steps=1)
    resolved, teachers, _ = made(recipe_of("text-classification", tmp_path, weights))
    (trained,) = check_cut(resolved, teachers)
    assert "trained first" not in trained.what


def test_a_smaller_vocabulary_is_said(tmp_path: Path) -> None:
    resolved, teachers, students = made(
        recipe_of("text-classification", tmp_path, "student.from_teacher={layers: 1, keep: last, vocabulary: 80}")
    )
    (finding,) = check_cut(resolved, teachers)
    assert "layers 1 of 2" in finding.what
    assert "; 80 of its tokens" in finding.what
    assert students["distilled"].model.pretrained.config.vocab_size == 80  # type: ignore[union-attr]


def test_students_of_their_own_are_not_cut() -> None:
    resolved, teachers, _ = made(parse_recipe(SMALL))
    assert list(check_cut(resolved, teachers)) == []
