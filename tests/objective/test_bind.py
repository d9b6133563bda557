"""Binding: every term of the catalogue becomes a module, whatever family it is from."""

import pytest
import torch
from torch import Tensor

from distil.core.errors import CompatibilityError
from distil.core.seeds import seeded
from distil.models.builtin import ConvNet
from distil.models.describe import describe_model
from distil.objective.bind import bind_term
from distil.objective.config import catalogue
from distil.objective.own_config import OwnTerm
from distil.objective.term import Binding, BoundTerm, TermInput
from distil.objective.term_config import LayerTermConfig

IMAGES = torch.randn(2, 1, 16, 16, generator=torch.Generator().manual_seed(0))
STUDENT = ConvNet(channels=1, widths=(4, 6), num_classes=6, dropout=0.0)
TEACHER = ConvNet(channels=1, widths=(6, 8, 8), num_classes=6, dropout=0.0)
BINDING = Binding("term", describe_model(STUDENT, IMAGES), describe_model(TEACHER, IMAGES), num_ids=20)


def bound(kind: str) -> BoundTerm:
    with seeded(0):
        return bind_term(catalogue()[kind](), BINDING)


@pytest.mark.parametrize("kind", catalogue())
def test_every_term_of_the_catalogue_is_bound_or_refused_in_words(kind: str) -> None:
    try:
        term = bound(kind)
    except CompatibilityError as error:
        assert str(error).startswith("term 'term': ")  # noqa: PT017 - both outcomes are right
        assert catalogue()[kind].knowledge == "attention" or kind == "simkd"
        return
    config = catalogue()[kind]
    assert isinstance(term, BoundTerm)
    known = {layer.name for layer in BINDING.student.layers}, {layer.name for layer in BINDING.required_teacher.layers}
    for taps, names in zip((term.student_taps, term.teacher_taps), known, strict=True):
        assert {tap.name for tap in taps} <= names
    if not issubclass(config, LayerTermConfig) and kind not in ("simkd",):
        assert term.student_taps == ()
    assert all(torch.isfinite(tensor).all() for tensor in term.state_dict().values() if tensor.is_floating_point())


@pytest.mark.parametrize("kind", catalogue())
def test_20_binding_twice_shares_nothing(kind: str) -> None:
    try:
        first, second = bound(kind), bound(kind)
    except CompatibilityError:
        return
    pointers = [
        {tensor.data_ptr() for tensor in term.state_dict().values() if tensor.numel()} for term in (first, second)
    ]
    assert not pointers[0] & pointers[1]
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, second.state_dict()[name]), name


def test_an_own_term_is_bound_with_the_layers_that_it_asks_for() -> None:
    class Plain(OwnTerm):
        def value(self, said: TermInput) -> Tensor:
            return said.student.logits.sum(dim=1)

    class Deep(Plain):
        uses_layers = True

    assert len(bind_term(Deep(), BINDING).student_taps) == 2
    assert bind_term(Plain(), BINDING).student_taps == ()
