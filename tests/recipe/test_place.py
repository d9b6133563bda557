"""Place: what may stand where in a recipe, and where pydantic's problems stand as written."""

import pytest

from distil.objective.config import catalogue
from distil.recipe.place import Place, locate, place_of, value_at
from distil.recipe.recipe import Recipe, RunSettings
from distil.train.config import TrainingConfig


def place(*path: str | int) -> Place:
    here = Place((Recipe,))
    for step in path:
        inner = here.inner(step)
        assert inner is not None, step
        here = inner
    return here


def test_a_tagged_union_has_kinds() -> None:
    assert place("teacher", "model").kinds == [
        "mlp",
        "convnet",
        "timm",
        "torchvision",
        "huggingface",
        "text-cnn",
        "module",
    ]
    assert place("training", "schedule").kinds == ["constant", "cosine", "one-cycle"]
    assert place("objective", "anything").kinds == list(catalogue())
    assert place("controls", 3).kinds == ["scratch", "label-smoothing", "permuted-knowledge"]


def test_a_class_may_stand_for_several_kinds() -> None:
    assert place("student", "inputs", "tokenizer").kinds == ["huggingface", "characters", "wordpiece", "bpe"]
    found = locate(Recipe, ("student", "inputs", "tokenizer", "bpe", "size"))
    assert found.path == ("student", "inputs", "tokenizer", "size")
    assert place("student", "inputs", "tokenizer").member("bpe").keys == ["kind", "lowercase", "size"]


def test_plain_unions_are_told_from_tagged_ones_and_from_none() -> None:
    assert place("student", "inputs", "size").is_plain_union
    assert not place("student", "model").is_plain_union
    assert not place("training").is_plain_union
    assert place_of(TrainingConfig | None).members == (TrainingConfig,)


def test_keys_of_a_mapping() -> None:
    assert place("student").keys == ["from_teacher", "inputs", "model", "teacher"]
    assert set(RunSettings.model_fields) < set(Place((Recipe,)).keys)
    assert place("training", "epochs").keys == []


def test_nothing_is_known_about_a_key_that_does_not_exist() -> None:
    assert Place((Recipe,)).inner("no") is None
    assert place("training", "epochs").inner("more") is None


@pytest.mark.parametrize(
    ("path", "short", "long"),
    [
        (("data",), "digits", {"kind": "digits"}),
        (("training", "schedule"), "cosine", {"kind": "cosine"}),
        (("teacher", "weights"), "a.safetensors", {"kind": "file", "path": "a.safetensors"}),
        (("teacher", "weights"), "pretrained", {"kind": "pretrained"}),
        (("objective", "x"), "hard-labels", {"kind": "hard-labels"}),  # refused later, in words
        (("name",), "plain", "plain"),
    ],
)
def test_a_string_is_expanded_as_the_classes_expand_it(path: tuple[str, ...], short: str, long: object) -> None:
    assert place(*path).expand(short) == long


def test_kinds_in_pydantics_locations_are_not_keys() -> None:
    """A term named like its kind, and a model with an unknown key named like its kind."""
    found = locate(Recipe, ("objective", "soft-targets", "soft-targets", "temperature"))
    assert found.path == ("objective", "soft-targets", "temperature")
    assert locate(Recipe, ("teacher", "model", "mlp", "mlp")).path == ("teacher", "model", "mlp")


def test_a_problem_inside_a_plain_union_names_the_union() -> None:
    found = locate(Recipe, ("student", "inputs", "size", "tuple[constrained-int, constrained-int]", 0))
    assert found.path == ("student", "inputs", "size", 0)
    assert found.union == ("student", "inputs", "size")
    assert found.tried.is_list


def test_a_mapping_with_a_kind_has_that_key() -> None:
    """Of a union the kind chooses the class, and pydantic names the union; here there is one class, and its key."""
    found = locate(Recipe, ("stages", 0, "kind"))
    assert found.path == ("stages", 0, "kind")


def test_value_at() -> None:
    assert value_at({"a": [1, {"b": 2}]}, ("a", 1, "b")) == 2
    assert value_at({"a": [1]}, ("a", 4, "b")) is None
    assert value_at(3, ("a",)) is None
