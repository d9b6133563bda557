"""Terms on labels as a recipe writes them: what is refused, and in which words."""

from typing import Any

import pytest
from pydantic import ValidationError

from distil.objective.label_config import BinaryLabels, SmoothedLabels


def test_published_settings_are_the_defaults() -> None:
    term = SmoothedLabels()
    assert (term.weight, term.smoothing, term.noise, term.adapt, term.most) == (1.0, 0.1, "constant", 0.0, 0.3)
    assert (term.needs_labels, term.needs_teacher, term.scope, term.knowledge) == (True, False, "example", "labels")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"smoothing": 1.0}, "less than 1"),
        ({"smoothing": -0.1}, "greater than or equal to 0"),
        ({"smoothing": "0.1"}, "valid number"),
        ({"noise": "gaussian"}, "'constant' or 'sampled'"),
        ({"adapt": -0.1}, "greater than or equal to 0"),
        ({"adapt": 0.1, "most": 1.0}, "less than 1"),
        ({"adapt": 0.1, "smoothing": 0.4}, "smoothing 0.4 is above most, 0.3"),
        ({"most": 0.5}, "most has an effect only where adapt is above 0"),
        ({"amount": 0.1}, "Extra inputs"),
    ],
)
def test_what_cannot_be_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        SmoothedLabels(**settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"smoothing": 0.4},
        {"most": 0.3},
        {"adapt": 0.1, "smoothing": 0.0, "most": 0.0},
        {"adapt": 0.1, "smoothing": 0.3},
        {"adapt": 0.01, "smoothing": 0.4, "most": 0.5},
    ],
)
def test_what_can_be_is_taken_and_comes_back_from_its_dump(settings: dict[str, Any]) -> None:
    term = SmoothedLabels(**settings)
    assert SmoothedLabels.model_validate(term.model_dump(mode="json")) == term


def test_binary_labels_have_a_weight_alone_and_are_for_several_classes() -> None:
    term = BinaryLabels()
    assert set(type(term).model_fields) == {"kind", "weight"}
    assert (term.needs_labels, term.needs_teacher, term.scope) == (True, False, "example")
    assert term.targets == {"multi-label"}
    with pytest.raises(ValidationError, match="Extra inputs"):
        BinaryLabels.model_validate({"smoothing": 0.1})
