from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from distil.models.shrink_config import ShrinkConfig

read = TypeAdapter(ShrinkConfig).validate_python


@pytest.mark.parametrize(
    "settings",
    [
        {"layers": 3},
        {"layers": 1, "keep": "first"},
        {"layers": 2, "keep": "last"},
        {"keep": [0, 2, 5]},
        {"layers": 2, "keep": [1, 4]},
        {"hidden": 192},
        {"feed_forward": 10, "heads": 2},
        {"heads": 6, "key_value_heads": 3},
        {"vocabulary": 8000},
    ],
    ids=str,
)
def test_one_setting_is_enough_and_what_is_written_is_read_again(settings: dict[str, Any]) -> None:
    config = read(settings)
    assert read(config.model_dump(mode="json")) == config


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "at least one of layers, hidden, heads, feed_forward, vocabulary"),
        ({"keep": "last"}, "keep: last has an effect only together with layers"),
        ({"keep": "first", "hidden": 8}, "keep: first has an effect only together with layers"),
        ({"layers": 1}, "cannot be both the first and the last; say keep: first or keep: last"),
        ({"keep": [0, 2, 2]}, r"keep is \[0, 2, 2\]; layers are named in ascending order, each once"),
        ({"keep": [2, 0]}, "ascending order, each once"),
        ({"keep": [0, -1]}, "greater than or equal to 0"),
        ({"keep": []}, "at least 1 item"),
        ({"keep": "every-other", "layers": 2}, "spaced"),
        ({"keep": [0, 2], "layers": 3}, "layers is 3 and keep names 2; leave out layers"),
        ({"layers": 0}, "greater than or equal to 1"),
        ({"hidden": 19.2}, "valid integer"),
        ({"key_value_heads": 2, "hidden": 8}, "key_value_heads has an effect only together with heads"),
        ({"key_value_heads": 2, "heads": 5}, "heads must be a multiple of it"),
        ({"width": 8}, "width"),
    ],
    ids=str,
)
def test_what_does_not_hang_together_is_refused_in_words(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        read(settings)
