"""One clear sentence for each key that is wrong: what was found, what was expected, what was meant."""

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from distil.core.errors import Problem, RecipeError
from distil.objective.config import catalogue
from distil.recipe.explain import Written, did_you_mean, in_order, shorten, shown
from distil.recipe.load import parse_recipe, validate_recipe

from .conftest import SHORT, problem_of, problems_of

NO_SUCH_TASK = (
    "there is no kind 'words'; known are image-classification, text-classification, multi-label, ranking, "
    "token-classification, question-answering, sequence-to-sequence, causal-lm, masked-lm, sentence-embedding"
)

MANY = f"{', '.join(list(catalogue())[:3])} and {len(catalogue()) - 3} more, see distil methods"

SENTENCES = [
    # misspelt, missing, wrong kind
    ("objective.soft.temprature=4", "objective.soft.temprature", "unknown key; did you mean 'temperature'?"),
    ("student.inputs.sdt=[1]", "student.inputs.sdt", "unknown key; did you mean 'std'?"),
    ("teacher.model=mlpp", "teacher.model", "there is no kind 'mlpp'; did you mean 'mlp'?"),
    ("teacher.model.kind=mlpp", "teacher.model.kind", "there is no kind 'mlpp'; did you mean 'mlp'?"),
    ("objective.soft=x", "objective.soft", f"there is no kind 'x'; known are {MANY}"),
    ("teacher.model=mlp", "teacher.model.widths", "missing; it must be given"),
    ("teacher={}", "teacher.model", "missing; it must be given"),
    ("training.optimizer.learning_rate=1", "training.optimizer", "the key kind is missing; known are adamw, sgd"),
    ("training.schedule=3", "training.schedule",
     "found 3; expected a kind (constant, cosine, one-cycle), or a mapping with the key kind"),
    ("task=words", "task", NO_SUCH_TASK),
    ("task={kind: words}", "task.kind", NO_SUCH_TASK),
    ("task=text-clasification", "task", "there is no kind 'text-clasification'; did you mean 'text-classification'?"),
    ("student.inputs.tokenizer=wordpeice", "student.inputs.tokenizer",
     "there is no kind 'wordpeice'; did you mean 'wordpiece'?"),
    ("student.inputs.tokenizer=words", "student.inputs.tokenizer",
     "there is no kind 'words'; known are huggingface, characters, wordpiece, bpe"),
    # values
    ("training.epochs=five", "training.epochs", "found 'five'; expected a whole number"),
    ("training.epochs=true", "training.epochs", "found true; expected a whole number"),
    ("training.epochs=1.5", "training.epochs", "found 1.5; expected a whole number"),
    ("training.epochs=0", "training.epochs", "found 0; expected a number of 1 or more"),
    ("objective.soft.temperature=-1", "objective.soft.temperature", "found -1; expected a number above 0"),
    ("objective.soft.temperature=hot", "objective.soft.temperature", "found 'hot'; expected a number"),
    ("margin=.nan", "margin", "found .nan; expected a finite number"),
    ("placement.device=tpu", "placement.device", "found 'tpu'; expected 'auto', 'cpu', 'cuda' or 'mps'"),
    ("name=3", "name", "found 3; expected text"),
    ("name=null", "name", "found null; expected text"),
    ("name=a/b", "name", "found 'a/b'; expected a name of letters, digits, dots, underscores and hyphens that starts "
     "with a letter or a digit"),
    ("teacher.weights={path: x, sha256: abc}", "teacher.weights.sha256",
     "found 'abc'; expected 64 hexadecimal digits in small letters"),
    # lists and mappings
    ("controls=scratch", "controls", "found 'scratch'; expected a list"),
    ("seeds=[]", "seeds", "found []; expected at least 1 entry"),
    ("objective={}", "objective", "found {}; expected at least 1 entry"),
    ("objective=3", "objective", "found 3; expected a mapping"),
    ("export=[onnx]", "export.0", "found 'onnx'; expected a mapping with the keys precision, target"),
    ("teacher.model.widths=[0]", "teacher.model.widths.0", "found 0; expected a number of 1 or more"),  # not "too few"
    # plain unions: one sentence, about the type that the value has the shape of, else about all of them
    ("data.validation=nine", "data.validation",
     "found 'nine'; expected a mapping with the keys fraction, last, split, or 'none'"),
    ("data.validation={fracton: 0.3}", "data.validation.fracton", "unknown key; did you mean 'fraction'?"),
    ("data.validation={fraction: 3}", "data.validation.fraction", "found 3; expected a number below 1"),
    ("data.validation={}", "data.validation", "give exactly one of fraction, last, split; or the word none"),
    ("data.labels=some", "data.labels", "found 'some'; expected a whole number, or 'all'"),
    ("data.labels=0", "data.labels", "found 0; expected a number of 1 or more, or 'all'"),
    ("data={kind: huggingface, path: x, test: 1.5}", "data.test",
     "found 1.5; expected text, or a number below 1"),
    ("data={kind: huggingface, path: x, test: [1]}", "data.test", "found [1]; expected text, or a number"),
    ("student.inputs.size=big", "student.inputs.size", "found 'big'; expected a list, or a whole number"),
    ("student.inputs.size=[4, 0]", "student.inputs.size.1", "found 0; expected a number of 1 or more"),
    ("student.inputs.size=[4]", "student.inputs.size.1", "missing; it must be given"),
    ("student.inputs.size=[4, 4, 4]", "student.inputs.size", "found [4, 4, 4]; expected at most 2 entries"),
    ("student.inputs.std=[0]", "student.inputs.std.0", "found 0; expected a number above 0"),
    # sentences of the classes themselves
    ("seeds=[1, 1]", "seeds", "the seeds [1, 1] are not all different; equal seeds give equal students"),
    ("seeds=0", "seeds", "found 0; expected a number of seeds from 1 to 1000, or a list of seeds"),
    ("teacher.model={kind: module, make: os.system}", "teacher.model.make",
     "kind module takes a function from Python; a recipe file cannot name code"),
]  # fmt: skip


@pytest.mark.parametrize(("override", "key", "sentence"), SENTENCES)
def test_one_problem_one_sentence(override: str, key: str, sentence: str) -> None:
    problem = problem_of(SHORT, override)
    assert problem.where == f"{key} (--set {shorten(override)})"
    assert problem.what == sentence


@pytest.mark.parametrize(("override", "key", "sentence"), SENTENCES)
def test_the_same_in_a_file_has_a_line_and_no_override(override: str, key: str, sentence: str) -> None:
    from distil.recipe.load import apply_override

    value = yaml.safe_load(SHORT)
    apply_override(value, override)
    problem = problem_of(yaml.safe_dump(value))
    assert (problem.where, problem.what) == (key, sentence)
    assert problem.line is not None


def test_all_problems_at_once_in_the_order_of_the_file() -> None:
    text = SHORT.replace("epochs: 1", "epochs: five").replace("name: small", "nmae: small")
    text = text.replace("widths: [8]", "width: [8]")
    assert [(problem.where, problem.line) for problem in problems_of(text)] == [
        ("name", 1),
        ("nmae", 1),
        ("teacher.model.widths", 4),
        ("teacher.model.width", 4),
        ("training.epochs", 10),
    ]
    with pytest.raises(RecipeError) as caught:
        parse_recipe(text, name="r.yaml")
    message = str(caught.value)
    assert message.startswith("r.yaml: the recipe cannot be used:\n  ")
    assert "teacher.model.width (line 4): unknown key; did you mean 'widths'?" in message


@pytest.mark.parametrize("term", ["hard-labels", "{kind: hard-labels, weight: 0.5}"])
def test_hard_labels_is_refused_with_both_meanings(term: str) -> None:
    problem = problem_of(SHORT.replace("{kind: soft-targets, weight: 0.9}", term))
    assert problem.where == "objective.soft"
    assert problem.line == 9
    assert "true-labels for the labels of the data" in problem.what
    assert "teacher-labels for the classes that the teacher decides for" in problem.what


@pytest.mark.parametrize("text", ["teacher.model.mlp=1", "objective.labels.true-labels=1"])
def test_an_unknown_key_named_like_a_kind_is_still_named(text: str) -> None:
    assert problem_of(SHORT, text).where.startswith(text.removesuffix("=1") + " ")


def test_a_key_of_a_mapping_with_free_names_is_checked_too() -> None:
    arms = "{a b: {student: {model: {kind: mlp, widths: [4]}}, stages: [{objective: {x: true-labels}}]}}"
    problem = problem_of(f"name: a\ndata: digits\narms: {arms}\n")
    assert problem.where == "arms.a b"
    assert problem.what.startswith("found 'a b'; expected a name of letters")


def test_a_problem_of_several_keys_says_which_override_had_a_part_in_it() -> None:
    problem = problem_of(SHORT, "training.micro_batch_size=1000")
    assert problem.where == "training"
    assert problem.line == 10
    assert problem.what.endswith("(changed by --set training.micro_batch_size=1000)")


def test_origin_of_a_problem() -> None:
    written = Written({}, {(): 1, ("a",): 2, ("a", "b"): 3}, {("a", "c"): "a.c=1", ("x", "y", "z"): "x.y.z=2"})
    assert str(written.problem(("a", "b"), "bad")) == "a.b (line 3): bad"
    assert str(written.problem(("a", "b", "q"), "bad")) == "a.b.q (line 3): bad"
    assert str(written.problem(("a", "c"), "bad")) == "a.c (--set a.c=1): bad"
    assert str(written.problem(("a", "c", 0), "bad")) == "a.c.0 (--set a.c=1): bad"
    assert str(written.problem(("x",), "bad")) == "x (--set x.y.z=2): bad"  # the override made it
    assert str(written.problem(("q",), "bad")) == "q (line 1): bad"
    assert str(Written({}).problem(("q",), "bad")) == "q: bad"


def test_did_you_mean() -> None:
    assert did_you_mean("temprature", ["temperature", "weight"]) == "; did you mean 'temperature'?"
    assert did_you_mean("zzz", ["temperature", "weight"]) == "; known are temperature, weight"
    assert did_you_mean("zzz", []) == ""


def test_values_are_shown_as_yaml_and_short() -> None:
    assert [shown(each) for each in (None, True, 1.5, "5", [1, "a"], {"a": False})] == [
        "null", "true", "1.5", "'5'", "[1, a]", "{a: false}",
    ]  # fmt: skip
    assert shown(object()) == "an object of type object"
    assert len(shown("x" * 500)) == len(shown(list(range(500)))) == 60
    assert "\n" not in shown("a\nb")
    assert shorten("a\n  b") == "a b"


def test_in_order_lists_each_problem_once() -> None:
    written = Written({}, {("a",): 2, ("b",): 1})
    problems = [written.problem((key,), "bad") for key in ("a", "b", "a")]
    assert [problem.where for problem in in_order(problems)] == ["b", "a"]


KEYS = [
    "name", "data", "data.validation", "data.validation.fraction", "data.labels", "data.test", "data.kind", "teacher",
    "teacher.model", "teacher.model.widths", "teacher.weights", "teacher.stages", "teacher.inputs.size",
    "teacher.classes",
    "student.model.settings", "student.inputs.mean", "student.inputs.std", "objective", "objective.soft",
    "objective.soft.teacher", "training", "training.schedule", "training.optimizer", "training.until",
    "training.augmentation", "controls", "seeds", "margin", "export", "placement", "task", "tasks", "teachers", "arms",
]  # fmt: skip
words = st.sampled_from(
    ["none", "all", "test", "mlp", "timm", "cosine", "plateau", "huggingface", "arrays", "shift", "onnx", "hard-labels"]
)
scalars = st.none() | st.booleans() | st.integers(-3, 300) | st.floats(-2, 2) | words | st.text(max_size=5)
names = st.sampled_from(["kind", "path", "widths", "fraction", "last", "model", "name", "settings", "precision", "x y"])
garbage = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names | st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(KEYS), garbage, min_size=1, max_size=3))
@settings(max_examples=400, deadline=None)
def test_garbage_anywhere_is_a_recipe_or_one_sentence_for_each_key(values: dict[str, object]) -> None:
    value = yaml.safe_load(SHORT)
    for dotted, put in values.items():
        *around, last = dotted.split(".")
        here = value
        for step in around:
            if not isinstance(here.get(step), dict):
                here[step] = {}
            here = here[step]
        here[last] = put
    problems: list[Problem] = []
    try:
        validate_recipe(Written(value))
    except RecipeError as error:
        problems = list(error.problems)
    where = [problem.where for problem in problems]
    assert len(set(where)) == len(where), problems
    assert all("\n" not in problem.what and problem.what for problem in problems)


@given(st.dictionaries(st.text(max_size=6) | st.sampled_from(["name", "data", "seeds"]), garbage, max_size=4))
@settings(max_examples=100, deadline=None)
def test_any_mapping_is_a_recipe_or_a_recipe_error(value: dict[str, object]) -> None:
    with pytest.raises(RecipeError):
        validate_recipe(Written(value))
