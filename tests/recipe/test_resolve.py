"""Resolve: short forms expanded, defaults written out, a fixpoint, and contradictions told where they were written."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from distil.core.errors import RecipeError
from distil.data.config import ArraysConfig, DigitsConfig, ValidationConfig
from distil.models.config import MlpConfig, ModuleConfig
from distil.objective.config import SoftTargets, TeacherLabels, TrueLabels
from distil.recipe.load import load_recipe, parse_recipe
from distil.recipe.recipe import Recipe, Student, Teacher
from distil.recipe.resolve import changed_keys, contradictions, resolve, to_yaml
from distil.recipe.yaml_file import parse_yaml

from .conftest import SHORT, problem_of, problems_of

LONG = """\
name: long
data: digits
teachers:
  big: {model: {kind: mlp, widths: [8]}}
  small: {model: {kind: mlp, widths: [4]}}
arms:
  alone:
    control: true
    student: {model: {kind: mlp, widths: [4]}}
    stages: [{objective: {labels: true-labels}}]
  taught:
    student: {model: {kind: mlp, widths: [4]}}
    stages: [{objective: {soft: {kind: soft-targets, teacher: big}}}]
"""
NO_VALIDATION = SHORT.replace("data: digits", "data: {kind: digits, validation: none}")


def test_short_forms_become_teachers_arms_and_stages() -> None:
    resolved = resolve(parse_recipe(SHORT))
    assert list(resolved.tasks) == ["main"]
    assert list(resolved.teachers) == ["teacher"]
    teacher = resolved.teachers["teacher"]
    assert teacher.training is None
    assert teacher.stages is not None
    assert teacher.stages[0].objective == {"true-labels": TrueLabels()}
    assert list(resolved.arms) == ["scratch", "label-smoothing", "distilled"]
    assert resolved.arms["distilled"].stages[0].objective == {
        "labels": TrueLabels(weight=0.1),
        "soft": SoftTargets(weight=0.9),
    }


def test_a_teachers_training_inherits_nothing_from_the_students() -> None:
    resolved = resolve(parse_recipe(SHORT, ["training.batch_size=7"]))
    assert resolved.teachers["teacher"].stages is not None
    assert resolved.teachers["teacher"].stages[0].training.epochs == 20
    assert resolved.teachers["teacher"].stages[0].training.batch_size == 128


def test_33_controls_share_student_and_training_with_the_distilled_arm() -> None:
    """Correctness, line 33: the controls differ from the distilled arm in their objective alone."""
    resolved = resolve(parse_recipe(SHORT, ["training={epochs: 3, batch_size: 8, augmentation: [flip]}"]))
    distilled = resolved.arms["distilled"]
    for control in resolved.controls.values():
        assert control.student == distilled.student
        assert control.stages[0].training == distilled.stages[0].training
    assert resolved.arms["scratch"].stages[0].objective == {"true-labels": TrueLabels()}
    assert resolved.arms["label-smoothing"].stages[0].objective == {"true-labels": TrueLabels(smoothing=0.1)}


def test_a_control_may_have_its_own_training_and_smoothing() -> None:
    text = SHORT + "controls: [{kind: label-smoothing, smoothing: 0.3, training: {epochs: 9}}]\n"
    [control] = resolve(parse_recipe(text)).controls.values()
    assert control.stages[0].training.epochs == 9
    assert control.stages[0].objective == {"true-labels": TrueLabels(smoothing=0.3)}


def test_permuted_knowledge_keeps_the_objective() -> None:
    resolved = resolve(parse_recipe(SHORT + "controls: [permuted-knowledge]\n"))
    arm = resolved.arms["permuted-knowledge"]
    assert arm.permute_knowledge
    assert arm.stages == resolved.arms["distilled"].stages
    assert not resolved.arms["distilled"].permute_knowledge


def test_no_controls_are_possible() -> None:
    assert list(resolve(parse_recipe(SHORT + "controls: []\n")).arms) == ["distilled"]


def test_a_teacher_with_weights_is_not_trained() -> None:
    text = SHORT.replace("teacher:\n", "teacher:\n  weights: a.safetensors\n")
    assert resolve(parse_recipe(text)).teachers["teacher"].stages is None


def test_every_default_is_written_out() -> None:
    dumped = parse_yaml(to_yaml(resolve(parse_recipe(SHORT))), name="resolved").value
    training = dumped["arms"]["distilled"]["stages"][0]["training"]
    assert training["optimizer"] == {
        "kind": "adamw", "learning_rate": 0.001, "weight_decay": 0.01, "betas": [0.9, 0.999],
    }  # fmt: skip
    assert training["schedule"] == {"kind": "cosine", "warmup": 0.0, "final": 0.0}
    assert training["keep"] == "best"
    assert dumped["data"]["validation"] == {"fraction": 0.1, "last": None, "split": None}
    assert dumped["arms"]["distilled"]["stages"][0]["objective"]["soft"]["temperature"] == 4.0
    assert dumped["seeds"] == [0, 1, 2]
    assert dumped["margin"] == 0.005
    assert dumped["placement"] == {"device": "auto", "precision": "fp32", "threads": None}


def assert_fixpoint(text: str) -> None:
    resolved = resolve(parse_recipe(text))
    written = to_yaml(resolved)
    again = resolve(parse_recipe(written, name="resolved"))
    assert again == resolved
    assert to_yaml(again) == written


@pytest.mark.parametrize(
    "text",
    [
        SHORT,
        LONG,
        SHORT + "controls: [{kind: scratch, training: {epochs: 2}}, permuted-knowledge]\n",
        SHORT + "controls: []\nexport: [{target: onnx, precision: [fp32, int8]}]\nseeds: [3]\n",
        SHORT.replace("teacher:\n", "teacher:\n  weights: a.safetensors\n  classes: ['1e3', 'no', '\u732b', '0x1']\n"),
        NO_VALIDATION.replace("epochs: 1", "epochs: 1, keep: last").replace(
            "teacher:\n", "teacher:\n  training: {keep: last}\n"
        ),
    ],
)
def test_a_resolved_recipe_loads_again_and_resolves_to_itself(text: str) -> None:
    assert_fixpoint(text)


def test_the_recipes_of_the_project_resolve_to_themselves(repository: Path) -> None:
    for path in sorted((repository / "recipes").glob("*.yaml")):
        resolved = resolve(load_recipe(path))
        assert resolve(parse_recipe(to_yaml(resolved))) == resolved


@given(
    st.fixed_dictionaries(
        {
            "epochs": st.integers(1, 10**6),
            "learning_rate": st.floats(1e-12, 1e6),
            "weight": st.floats(0, 1e9, exclude_min=True),
            "classes": st.lists(st.text(st.characters(exclude_categories=["C", "Z"])), max_size=4),
        }
    )
)
@settings(max_examples=50, deadline=None)
def test_any_numbers_and_class_names_survive_writing(values: dict[str, Any]) -> None:
    teacher = Teacher(model=MlpConfig(widths=(2,)), classes=tuple(values["classes"]))
    recipe = Recipe.model_validate(
        {
            "name": "a",
            "data": "digits",
            "teacher": teacher,
            "student": Student(model=MlpConfig(widths=(2,))),
            "objective": {"soft": SoftTargets(weight=values["weight"])},
            "training": {
                "epochs": values["epochs"],
                "optimizer": {"kind": "sgd", "learning_rate": values["learning_rate"]},
            },
        }
    )
    resolved = resolve(recipe)
    assert resolve(parse_recipe(to_yaml(resolved))) == resolved


def test_arrays_and_modules_from_python_resolve_and_are_written_as_fingerprints() -> None:
    images = np.zeros((4, 1, 8, 8), dtype=np.uint8)
    data = ArraysConfig(images=images, labels_of_images=np.array([0, 1, 0, 1]), class_names=("a", "b"))
    recipe = Recipe(
        name="python",
        data=data,
        teacher=Teacher(model=ModuleConfig(make=lambda: nn.Linear(1, 2))),
        student=Student(model=ModuleConfig(make=lambda: nn.Linear(1, 2))),
        objective={"soft": SoftTargets()},
    )
    resolved = resolve(recipe)
    written = to_yaml(resolved)
    assert to_yaml(resolve(recipe)) == written
    dumped = parse_yaml(written, name="resolved").value
    assert dumped["data"]["images"].startswith("array:")
    assert dumped["teachers"]["teacher"]["model"]["make"].startswith("python:")
    other = data.model_copy(update={"images": images + 1})
    changes = changed_keys(
        dumped, parse_yaml(to_yaml(resolve(recipe.model_copy(update={"data": other}))), name="x").value
    )
    assert [change.partition(":")[0] for change in changes] == ["data.images"]
    with pytest.raises(RecipeError, match="kind arrays takes numpy arrays from Python") as caught:
        parse_recipe(written)
    assert "kind module takes a function from Python" in str(caught.value)


# contradictions


def told(text: str, *overrides: str) -> dict[str, str]:
    return {problem.where: problem.what for problem in problems_of(text, *overrides)}


def test_both_forms_of_one_thing_are_refused() -> None:
    arms = LONG[LONG.index("arms:") :]
    assert set(told(SHORT + arms)) == {"student", "objective", "training"}
    assert told(SHORT + "tasks: {main: image-classification}\ntask: image-classification\n") == {
        "task": "task is the short form of tasks; write one of them"
    }
    assert "write one of them" in told(SHORT + "teachers: {big: {model: {kind: mlp, widths: [8]}}}\n")["teacher"]


def test_missing_parts_are_told_together() -> None:
    assert told("name: a\ndata: digits\n") == {
        "student": "missing; it must be given, or arms in its place",
        "objective": "missing; it must be given, or arms in its place",
    }


def test_a_control_that_stands_there_twice() -> None:
    text = SHORT + "controls:\n  - scratch\n  - {kind: scratch, training: {epochs: 5}}\n"
    problem = problem_of(text)
    assert (problem.where, problem.line) == ("controls.1", 13)
    assert problem.what == "there is an arm scratch already; give each control a name of its own"


def test_terms_that_need_a_teacher_without_one() -> None:
    text = SHORT.replace("teacher:\n  model: {kind: mlp, widths: [8]}\n", "")
    assert told(text) == {"teacher": "missing; the term soft cannot be computed without one"}
    text = text.replace("weight: 0.1}", "weight: 0.1}\n  hard: teacher-labels")
    assert told(text + "controls: [permuted-knowledge]\n") == {
        "teacher": "missing; the terms hard, soft cannot be computed without one"
    }
    assert set(told(LONG.replace(LONG[LONG.index("teachers:") : LONG.index("arms:")], ""))) == {"teachers"}


def test_an_arm_that_would_learn_nothing_or_without_a_teacher() -> None:
    nothing = SHORT.replace("weight: 0.1", "weight: 0").replace("weight: 0.9", "weight: 0")
    assert told(nothing)["objective"] == "every weight is 0, so nothing would be learnt"
    alone = SHORT.replace("weight: 0.9", "weight: 0")
    assert told(alone) == {"objective": "no term uses a teacher, so this would be a control, not distillation"}


def test_permuted_knowledge_needs_a_term_with_a_teacher() -> None:
    text = SHORT.replace("weight: 0.9", "weight: 0") + "controls: [scratch, permuted-knowledge]\n"
    assert told(text)["controls.1"] == "it has an effect only where a term uses a teacher"


def test_weights_that_a_model_cannot_have() -> None:
    for model, weights, what in [
        ("{kind: mlp, widths: [8]}", "pretrained", "a model of kind mlp has no published weights; name a file"),
        ("{kind: timm, name: resnet18}", "included", "included is for a network made by a Python function"),
    ]:
        text = SHORT.replace("  model: {kind: mlp, widths: [8]}", f"  model: {model}\n  weights: {weights}")
        problem = problem_of(text)
        assert (problem.where, problem.line, problem.what) == ("teacher.weights", 5, what)


def test_labels_all_without_a_difference() -> None:
    text = SHORT.replace("teacher:\n", "teacher:\n  labels: all\n")
    assert told(text) == {"teacher.labels": "all has an effect only where data.labels is a number"}
    assert resolve(parse_recipe(text, ["data.labels=50"])).data == DigitsConfig(labels=50)


def test_without_validation_nothing_can_be_chosen_by_it() -> None:
    keep = "best needs a validation split, and data.validation is none; set keep: last"
    assert told(NO_VALIDATION) == {"teacher.training.keep": keep, "training.keep": keep}
    until = "plateau needs a validation split, and data.validation is none"
    text = NO_VALIDATION.replace("{epochs: 1}", "{epochs: 1, keep: last, until: plateau, schedule: constant}")
    text = text.replace("teacher:\n", "teacher:\n  training: {keep: last}\n")
    assert told(text) == {"training.until": until}
    control = (
        text.replace("until: plateau, ", "") + "controls: [scratch, {kind: label-smoothing, training: {epochs: 1}}]\n"
    )
    assert told(control) == {"controls.1.training.keep": keep}


def test_a_term_must_say_which_of_several_teachers_and_one_that_is_there() -> None:
    assert contradictions(parse_recipe(LONG)) == []
    problem = problem_of(LONG.replace("teacher: big", "teacher: bigg"))
    assert problem.where == "arms.taught.stages.0.objective.soft.teacher"
    assert problem.line == 13
    assert problem.what == "there is no teacher 'bigg'; did you mean 'big'?"
    problem = problem_of(LONG.replace(", teacher: big", ""))
    assert problem.what == "there are several teachers; name one with the key teacher: big, small"
    assert told(SHORT, "objective.soft.teacher=mentor") == {
        "objective.soft.teacher (--set objective.soft.teacher=mentor)":
            "there is no teacher 'mentor'; known are teacher"
    }  # fmt: skip


def test_two_distilled_arms() -> None:
    text = LONG.replace("  alone:\n    control: true\n", "  alone:\n")
    assert told(text)["arms"] == "alone, taught are not controls; a run compares one arm with its controls"


# teachers that are taught, and stages

CHAIN = """\
name: chain
data: digits
teachers:
  assistant: {model: {kind: mlp, widths: [6]}, teacher: big, training: {epochs: 3}}
  big: {model: {kind: mlp, widths: [8]}}
student: {model: {kind: mlp, widths: [4]}}
objective: {soft: {kind: soft-targets, teacher: assistant}}
"""


def test_an_assistant_learns_from_its_teacher_in_the_short_form() -> None:
    resolved = resolve(parse_recipe(CHAIN))
    assistant, big = resolved.teachers["assistant"], resolved.teachers["big"]
    assert assistant.stages is not None
    assert assistant.stages[0].objective == {
        "true-labels": TrueLabels(weight=0.1),
        "soft-targets": SoftTargets(weight=0.9, teacher="big"),
    }
    assert assistant.stages[0].training.epochs == 3
    assert (assistant.teacher, assistant.objective, assistant.training) == (None, None, None)
    assert (assistant.taught_by, big.taught_by) == (("big",), ())
    assert list(resolved.teachers) == ["assistant", "big"]
    assert resolved.teaching_order == ["big", "assistant"]
    assert_fixpoint(CHAIN)


def test_an_assistant_s_own_objective_gets_its_teacher_named() -> None:
    text = CHAIN.replace(", teacher: big", ", teacher: big, objective: {a: teacher-labels, b: true-labels}")
    assistant = resolve(parse_recipe(text)).teachers["assistant"]
    assert assistant.stages is not None
    assert assistant.stages[0].objective == {"a": TeacherLabels(teacher="big"), "b": TrueLabels()}


def test_a_longer_chain_is_taught_from_its_first_teacher() -> None:
    text = CHAIN.replace("  big: {", "  middle: {model: {kind: mlp, widths: [7]}, teacher: big}\n  big: {")
    text = text.replace("teacher: big, training", "teacher: middle, training")
    resolved = resolve(parse_recipe(text))
    assert list(resolved.teachers) == ["assistant", "middle", "big"]
    assert resolved.teaching_order == ["big", "middle", "assistant"]


def test_the_only_other_teacher_need_not_be_named_in_a_teacher_s_stages() -> None:
    text = CHAIN.replace("teacher: big, training: {epochs: 3}", "stages: [{objective: {soft: soft-targets}}]")
    resolved = resolve(parse_recipe(text))
    assert resolved.teachers["assistant"].taught_by == ("big",)
    assert resolved.teaching_order == ["big", "assistant"]
    assert_fixpoint(text)


def test_of_several_teachers_an_assistant_names_its_own() -> None:
    text = CHAIN.replace("teacher: big, training: {epochs: 3}", "stages: [{objective: {soft: soft-targets}}]")
    text = text.replace("  big: {", "  other: {model: {kind: mlp, widths: [7]}}\n  big: {")
    assert told(text) == {
        "teachers.assistant.stages.0.objective.soft":
            "there are several teachers; name one with the key teacher: other, big"
    }  # fmt: skip


def test_teachers_that_teach_each_other_or_themselves_are_refused() -> None:
    each_other = CHAIN.replace("widths: [8]}}", "widths: [8]}, teacher: assistant}")
    sentence = "it teaches itself, by way of the teachers that it is taught by; a chain has a first teacher"
    assert told(each_other) == {"teachers.assistant": sentence, "teachers.big": sentence}
    itself = CHAIN.replace("teacher: big", "teacher: assistant")
    found = told(itself)
    assert found.pop("teachers.assistant") == sentence
    assert list(found.values()) in ([], ["there is no teacher 'assistant'; known are big"])


def test_a_teacher_that_only_follows_a_circle_is_not_called_part_of_it() -> None:
    text = CHAIN.replace("widths: [8]}}", "widths: [8]}, teacher: third}\n  third: {model: mlp, teacher: big}")
    text = text.replace("model: mlp", "model: {kind: mlp, widths: [5]}")
    assert set(told(text)) == {"teachers.big", "teachers.third"}


def test_a_single_teacher_cannot_be_taught() -> None:
    text = SHORT.replace("teacher:\n", "teacher:\n  stages: [{objective: {soft: soft-targets}}]\n")
    assert told(text) == {"teacher.stages.0.objective.soft": "there is no other teacher that could teach this one"}
    unknown = SHORT.replace("teacher:\n", "teacher:\n  teacher: tutor\n")
    assert "there is no" in " ".join(told(unknown).values())


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ("objective: {a: true-labels}", "objective is what a teacher learns from its own teacher; name that one"),
        ("teacher: small, weights: a.safetensors", "teacher is for a teacher that is trained here in one stage"),
        (
            "teacher: small, objective: {a: true-labels}, stages: [{objective: {a: true-labels}}]",
            "teacher is for a teacher that is trained here in one stage; in stages, terms name it",
        ),
    ],
)
def test_forms_of_a_taught_teacher_that_contradict_each_other(given: str, sentence: str) -> None:
    text = LONG.replace("big: {", f"big: {{{given}, ")
    assert told(text)["teachers.big"].startswith(sentence)


STAGED = """\
name: staged
data: digits
teacher: {model: {kind: mlp, widths: [8]}}
student: {model: {kind: mlp, widths: [4]}}
stages:
  - {objective: {vid: vid}, training: {epochs: 3, batch_size: 7, keep: last}, freeze: [classifier.*]}
  - {objective: {soft: soft-targets}, training: {epochs: 5, batch_size: 9}}
"""


def test_stages_in_the_short_form_are_those_of_the_distilled_arm() -> None:
    resolved = resolve(parse_recipe(STAGED))
    first, last = resolved.arms["distilled"].stages
    assert (list(first.objective), first.freeze, first.training.epochs) == (["vid"], ("classifier.*",), 3)
    assert (list(last.objective), last.freeze, last.training.epochs) == (["soft"], (), 5)
    assert list(resolved.arms["distilled"].terms) == ["vid", "soft"]
    assert_fixpoint(STAGED)


def test_33_a_control_trains_as_long_as_all_stages_as_the_last_of_them_does() -> None:
    for control in resolve(parse_recipe(STAGED)).controls.values():
        (stage,) = control.stages
        assert (stage.training.epochs, stage.training.batch_size, stage.freeze) == (8, 9, ())
    text = STAGED.replace("vid: vid", "soft: soft-targets").replace("keep: last", "keep: best")
    permuted = resolve(parse_recipe(text + "controls: [permuted-knowledge]\n"))
    assert permuted.arms["permuted-knowledge"].stages == permuted.arms["distilled"].stages


def test_stages_and_a_single_objective_exclude_each_other() -> None:
    assert told(STAGED + "objective: {soft: soft-targets}\ntraining: {epochs: 3}\n") == {
        "objective": "stages have their own objective; write one of them",
        "training": "stages have their own training; write one of them",
    }
    arms = LONG[LONG.index("arms:") :]
    assert told(STAGED + arms)["stages"] == "stages is the short form of arms; write one of them"


def test_problems_in_stages_are_told_where_they_stand() -> None:
    problem = problem_of(STAGED.replace("soft: soft-targets", "soft: {kind: soft-targets, teacher: tutor}"))
    assert (problem.where, problem.line) == ("stages.1.objective.soft.teacher", 7)
    problem = problem_of(STAGED.replace("vid: vid", "vid: {kind: vid, weight: 0}"))
    assert (problem.where, problem.what) == ("stages.0.objective", "every weight is 0, so nothing would be learnt")
    problem = problem_of(STAGED.replace("freeze", "freze"))
    assert (problem.where, problem.what) == ("stages.0.freze", "unknown key; did you mean 'freeze'?")


def test_a_stage_that_does_not_train_the_outputs_cannot_be_chosen_by_them() -> None:
    problem = problem_of(STAGED.replace(", keep: last", ""))
    assert problem.where == "stages.0.training.keep"
    assert problem.what.startswith("best looks at the outputs, which no term of this stage trains; set keep: last")


def test_a_term_of_a_batch_is_not_for_pieces() -> None:
    text = STAGED.replace("soft: soft-targets", "soft: soft-targets, ofd: ofd").replace(
        "batch_size: 9", "batch_size: 9, micro_batch_size: 3"
    )
    problem = problem_of(text)
    assert (problem.where, problem.line) == ("stages.1.objective.ofd", 7)
    assert problem.what == "ofd compares the examples of a batch; remove training.micro_batch_size"


def test_the_permuted_control_is_not_for_layers() -> None:
    problem = problem_of(STAGED + "controls: [scratch, permuted-knowledge]\n")
    assert problem.where == "controls.1"
    assert problem.what == (
        "it shuffles classes, and the term vid would compare layers as they are; leave this control out"
    )


@pytest.mark.parametrize(
    ("layers", "where", "what"),
    [
        ("all", "layers", "found 'all'; expected"),
        ("[]", "layers", "found []; expected at least 1 entry"),
        ("[{student: a}]", "layers.0.teacher", "missing; it must be given"),
        ("[{student: a, teacher: 2}]", "layers.0.teacher.at", "found 2; expected text, or a number of at most 1"),
        ("[{student: a, teacher: {at: a, take: all}}]", "layers.0.teacher.take", "found 'all'; expected 'output', "),
        ("[{student: a, teacher: {att: a}}]", "layers.0.teacher.att", "unknown key; did you mean 'at'?"),
    ],
)
def test_layers_that_cannot_be_meant_are_told_in_words(layers: str, where: str, what: str) -> None:
    problems = problems_of(STAGED.replace("vid: vid", f"vid: {{kind: vid, layers: {layers}}}"))
    found = {problem.where.removeprefix("stages.0.objective.vid."): problem.what for problem in problems}
    assert any(place.startswith(where) and what in said for place, said in found.items()), found


def test_from_python_the_same_sentences_without_lines() -> None:
    recipe = parse_recipe(SHORT)
    wrong = recipe.model_copy(update={"data": DigitsConfig(validation="none")})
    with pytest.raises(RecipeError) as caught:
        resolve(wrong)
    assert str(caught.value).startswith("recipe small: the recipe cannot be used:\n  teacher.training.keep: best needs")
    assert [problem.line for problem in caught.value.problems] == [None, None]
    assert resolve(recipe.model_copy(update={"data": DigitsConfig(validation=ValidationConfig(last=5))}))


def test_changed_keys_of_two_recipes() -> None:
    before = {"a": {"b": 1, "c": [1, {"d": 2}]}, "e": 1}
    assert changed_keys(before, before) == []
    after = {"a": {"b": 2, "c": [1, {"d": 3}]}, "f": 1}
    assert changed_keys(before, after) == ["a.b: 1 -> 2", "a.c.1.d: 2 -> 3", "e: 1 -> None", "f: None -> 1"]
    assert changed_keys({"a": [1]}, {"a": [1, 2]}) == ["a: [1] -> [1, 2]"]


def test_a_smoothing_that_follows_validation_needs_validation() -> None:
    recipe = Recipe.model_validate(
        {
            "name": "x",
            "data": {"kind": "digits", "validation": "none"},
            "student": {"model": {"kind": "mlp", "widths": [4]}},
            "teacher": {"model": {"kind": "mlp", "widths": [8]}, "training": {"keep": "last"}},
            "objective": {"labels": {"kind": "smoothed-labels", "adapt": 0.02}, "soft-targets": "soft-targets"},
            "training": {"keep": "last"},
        }
    )
    with pytest.raises(RecipeError, match="it follows the validation loss"):
        resolve(recipe)


@pytest.mark.parametrize("task", ["causal-lm", "masked-lm", "token-classification", "question-answering"])
def test_a_change_of_texts_is_refused_where_targets_are_places_in_them(task: str) -> None:
    overrides = ["data={kind: text, path: texts}", f"task={task}", "training.augmentation=[transfer]"]
    found = [str(problem) for problem in problems_of(SHORT, *overrides)]
    assert any(f"transfer moves the words of a text, and the targets of {task} are places" in each for each in found)
