import pytest
from pydantic import ValidationError

from distil.core.config import Config, Count, Fraction, PlacementConfig, Positive, Probability, StringIsKind, Whole
from distil.core.config import expand_kind as expand


class _Settings(Config):
    count: Count = 1
    whole: Whole = 0
    positive: Positive = 1.0
    fraction: Fraction = 0.5
    probability: Probability = 0.0


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("count", 0),
        ("count", 2.0),
        ("count", True),
        ("count", "3"),
        ("whole", -1),
        ("positive", 0.0),
        ("positive", float("nan")),
        ("positive", float("inf")),
        ("fraction", 0.0),
        ("fraction", 1.0),
        ("probability", 1.0),
        ("probability", -0.1),
    ],
)
def test_a_number_outside_its_domain_is_refused(key: str, value: object) -> None:
    with pytest.raises(ValidationError) as caught:
        _Settings.model_validate({key: value})
    assert caught.value.errors()[0]["loc"] == (key,)


@pytest.mark.parametrize(
    ("key", "value"), [("count", 1), ("whole", 0), ("positive", 1e-9), ("fraction", 0.999), ("probability", 0.0)]
)
def test_the_edge_of_the_domain_is_accepted(key: str, value: float) -> None:
    assert getattr(_Settings.model_validate({key: value}), key) == value


def test_an_unknown_key_is_refused() -> None:
    with pytest.raises(ValidationError, match="tempreature"):
        _Settings.model_validate({"tempreature": 4})


def test_a_configuration_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        _Settings().count = 2


def test_a_default_is_checked_too() -> None:
    class Wrong(Config):
        count: Count = 0

    with pytest.raises(ValidationError):
        Wrong()


def test_a_string_stands_for_its_kind() -> None:
    assert expand("cosine") == {"kind": "cosine"}
    assert expand({"kind": "cosine"}) == {"kind": "cosine"}
    assert expand(3) == 3
    assert StringIsKind.func is expand


@pytest.mark.parametrize("wrong", [{"device": "tpu"}, {"precision": "fp16"}, {"threads": 0}])
def test_a_placement_names_what_there_is(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        PlacementConfig.model_validate(wrong)
