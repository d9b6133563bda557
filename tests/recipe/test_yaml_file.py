"""Strict YAML: what is read, with its lines, and what is refused, with the line and a reason."""

import contextlib
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distil.core.errors import RecipeError
from distil.recipe.yaml_file import MOST_BYTES, MOST_DEPTH, dump_yaml, parse_value, parse_yaml


def refusal(text: str) -> str:
    with pytest.raises(RecipeError) as caught:
        parse_yaml(text, name="r.yaml")
    return str(caught.value)


def test_every_key_and_item_has_its_line() -> None:
    document = parse_yaml("# a comment\na:\n  b: 1\n  c:\n    - x\n    - {d: 2}\n", name="r.yaml")
    assert document.value == {"a": {"b": 1, "c": ["x", {"d": 2}]}}
    assert document.lines == {
        (): 2,
        ("a",): 2,
        ("a", "b"): 3,
        ("a", "c"): 4,
        ("a", "c", 0): 5,
        ("a", "c", 1): 6,
        ("a", "c", 1, "d"): 6,
    }


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("-2E+4", -20000.0),
        ("1.5e3", 1500.0),
        (".5", 0.5),
        ("12", 12),
        ("'12'", "12"),
        ("1e", "1e"),
        ("e3", "e3"),
        ("2024-01-02", "2024-01-02"),  # a date is text
        ("null", None),
        ("true", True),
        ("!!str 12", "12"),
        ("=", "="),
        ("<<: 1", {"<<": 1}),
        ("5: x", {"5": "x"}),
        ("", None),
    ],
)
def test_plain_values(text: str, value: object) -> None:
    found = parse_value(text, name="x")
    assert found == value
    assert type(found) is type(value)


def test_every_key_that_stands_twice_is_named_with_both_lines() -> None:
    message = refusal("a: 1\nb: {c: 1, c: 2}\na: 3\n")
    assert "b.c (line 2): the key stands here twice (first on line 2)" in message
    assert "a (line 3): the key stands here twice (first on line 1)" in message


def test_an_alias_is_refused_with_its_line() -> None:
    assert "r.yaml: line 2: not a YAML that can be used: aliases (*x) are not allowed" in refusal("a: &x 1\nb: *x\n")


def test_an_alias_bomb_is_refused_at_once() -> None:
    levels = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    levels += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    start = time.process_time()
    assert "aliases" in refusal("\n".join(levels))
    assert time.process_time() - start < 1


def test_deep_nesting_is_refused_at_once() -> None:
    parse_yaml("[" * (MOST_DEPTH - 1) + "1" + "]" * (MOST_DEPTH - 1), name="x")
    start = time.process_time()
    assert "line 1: not a YAML that can be used: nested deeper than 50 levels" in refusal("[" * (MOST_BYTES - 1))
    assert time.process_time() - start < 2


@pytest.mark.parametrize(
    "text",
    [
        "!!python/object/apply:os.system ['echo never']",
        "!!python/name:os.system x",
        "!!python/tuple [1]",
        "!!binary aGVsbG8=",
        "!!timestamp 2001-01-01",
        "!!set {a, b}",
        "!mine 3",
    ],
)
def test_a_tag_is_refused_and_nothing_is_made_of_it(text: str, capfd: pytest.CaptureFixture[str]) -> None:
    message = refusal(f"a: 1\nb: {text}\n")
    assert "b (line 2): the tag " in message
    assert "is not allowed; a recipe holds plain values only" in message
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize("text", ["!!int word", "!!bool maybe", "!!float word", "9" * 5000])
def test_a_value_that_is_not_what_its_tag_says_is_refused(text: str) -> None:
    assert "a (line 1): " in refusal(f"a: {text}")
    assert "cannot be read as a YAML" in refusal(f"a: {text}")


def test_a_key_must_be_a_word() -> None:
    assert "a key must be a word" in refusal("? [a, b]\n: 1\n")


def test_a_file_that_is_too_large_is_refused() -> None:
    assert "larger than 200,000 bytes" in refusal("#" * (MOST_BYTES + 1))
    parse_yaml("#" * MOST_BYTES, name="x")


def test_broken_yaml_names_the_line() -> None:
    assert refusal("a: 1\nb: [1, 2\nc: 3\n").startswith("r.yaml: line 3: not a YAML that can be used:")


def test_a_control_character_names_the_line() -> None:
    assert refusal("a: 1\nb: \x07\n").startswith("r.yaml: line 2: not a YAML that can be used: special characters")


def test_two_documents_are_refused() -> None:
    assert "expected a single document" in refusal("a: 1\n---\nb: 2\n")


@given(st.text())
@settings(max_examples=200, deadline=None)
def test_any_text_is_a_document_or_a_recipe_error(text: str) -> None:
    with contextlib.suppress(RecipeError):
        parse_yaml(text, name="any")


@given(st.text(alphabet="{}[]:,-?&*!|>%@`'\"#\n ab1.eE+~<=", max_size=60))
@settings(max_examples=300, deadline=None)
def test_any_text_of_yaml_characters_is_a_document_or_a_recipe_error(text: str) -> None:
    with contextlib.suppress(RecipeError):
        parse_yaml(text, name="any")


letters = st.characters(exclude_categories=["C", "Z"]) | st.just(" ")
words = st.text(letters) | st.from_regex(r"[-+]?[0-9_.]{1,4}[eE][0-9]", fullmatch=True)
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | words,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words, inner, max_size=4),
    max_leaves=12,
)


@given(plain)
@settings(max_examples=200, deadline=None)
def test_what_is_written_is_read_back(value: object) -> None:
    """Text that looks like a number too, such as a class named 1e3."""
    assert parse_yaml(dump_yaml(value), name="any").value == value
