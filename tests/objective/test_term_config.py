"""What every term has, held for the whole catalogue."""

from typing import get_args

import pytest
from pydantic import ValidationError

from distil.objective.config import catalogue
from distil.objective.own_config import OwnTerm
from distil.objective.term_config import KnowledgeKind, LayerTermConfig, TeacherTermConfig, TermConfig

TERMS = {**catalogue(), "own": OwnTerm}


@pytest.mark.parametrize("kind", TERMS)
def test_the_facts_about_a_term_are_complete_and_agree(kind: str) -> None:
    term = TERMS[kind]
    assert term.knowledge in get_args(KnowledgeKind)
    assert term.scope in ("example", "batch")
    assert term.needs_teacher == issubclass(term, TeacherTermConfig)
    from_pairs = kind == "embedding-contrast"  # of the data, which are no labels
    assert term.needs_labels or term.needs_teacher or from_pairs
    assert term.targets
    assert term.targets <= {"classes", "multi-label", "regression", "embeddings"}
    assert term.summary == term.summary.strip().rstrip(".")
    assert term.source


@pytest.mark.parametrize("kind", TERMS)
def test_a_term_has_a_weight_and_says_what_it_is(kind: str) -> None:
    term = TERMS[kind]()
    assert term.weight > 0
    assert TERMS[kind](weight=0).weight == 0
    for wrong in (-0.1, float("inf"), "much", None):
        with pytest.raises(ValidationError):
            TERMS[kind].model_validate({"weight": wrong})
    assert (type(term).__doc__ or "").strip()


@pytest.mark.parametrize("kind", [kind for kind, term in TERMS.items() if issubclass(term, LayerTermConfig)])
def test_a_term_that_compares_layers_pairs_them_itself_unless_told(kind: str) -> None:
    term = TERMS[kind]
    assert issubclass(term, LayerTermConfig)
    assert term().layers == "auto"
    written = term.model_validate({"layers": [{"student": "a", "teacher": 1.0}], "teacher": "big"})
    assert (written.layers[0].student.at, written.layers[0].teacher.at, written.teacher) == ("a", 1.0, "big")


def test_a_term_is_frozen_and_can_be_a_key() -> None:
    for term in TERMS.values():
        with pytest.raises(ValidationError):
            term().weight = 2.0
    assert isinstance(TermConfig().weight, float)
