import pytest
from pydantic import TypeAdapter, ValidationError

from distil.objective.config import SoftTargets, TeacherLabels, Term, TrueLabels

TERM: TypeAdapter[Term] = TypeAdapter(Term)


def test_a_word_stands_for_its_term() -> None:
    assert TERM.validate_python("true-labels") == TrueLabels()
    assert TERM.validate_python("soft-targets") == SoftTargets(temperature=4.0)
    assert TERM.validate_python({"kind": "teacher-labels", "weight": 0.5}) == TeacherLabels(weight=0.5)


@pytest.mark.parametrize("written", ["hard-labels", {"kind": "hard-labels", "weight": 1}])
def test_hard_labels_are_refused_with_both_meanings(written: object) -> None:
    with pytest.raises(ValidationError) as caught:
        TERM.validate_python(written)
    message = str(caught.value)
    assert "'hard-labels' means two things" in message
    assert "true-labels" in message
    assert "teacher-labels" in message


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "soft-targets", "temperature": 0},
        {"kind": "soft-targets", "temperature": -4},
        {"kind": "soft-targets", "weight": -1},
        {"kind": "soft-targets", "weight": float("nan")},
        {"kind": "soft-targets", "smoothing": 0.1},
        {"kind": "true-labels", "smoothing": 1.0},
        {"kind": "true-labels", "temperature": 4},
        {"kind": "true-labels", "teacher": "teacher"},
        {"kind": "attention"},
        {},
    ],
)
def test_a_term_that_cannot_be_meant_is_refused(wrong: object) -> None:
    with pytest.raises(ValidationError):
        TERM.validate_python(wrong)


def test_what_a_term_needs() -> None:
    needs = {kind: (kind.needs_labels, kind.needs_teacher) for kind in (TrueLabels, SoftTargets, TeacherLabels)}
    assert needs == {TrueLabels: (True, False), SoftTargets: (False, True), TeacherLabels: (False, True)}
    assert all(kind.scope == "example" for kind in needs)
