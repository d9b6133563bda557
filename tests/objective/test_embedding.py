"""Terms on embeddings, bound: values by hand, where gradient flows, and widths that do not fit."""

import math

import pytest
import torch
from torch import Tensor

from distil.core.errors import CompatibilityError
from distil.models.describe import ModelDescription
from distil.models.tap import Outputs
from distil.objective.embedding import bind_embedding
from distil.objective.embedding_config import EmbeddingContrast, EmbeddingMse, EmbeddingTerm
from distil.objective.term import Binding, BoundTerm, TermInput


def bound(term: EmbeddingTerm, student: int, teacher: int | None = None) -> BoundTerm:
    described = None if teacher is None else ModelDescription(num_classes=teacher)
    return bind_embedding(term, Binding("embedding", ModelDescription(num_classes=student), described))


def said(student: Tensor, teacher: Tensor | None = None) -> TermInput:
    rows = torch.arange(len(student))
    return TermInput(Outputs(student), None if teacher is None else Outputs(teacher), torch.zeros_like(rows), rows)


def test_a_text_and_its_translation_are_met_with_the_one_that_the_teacher_reads() -> None:
    student, teacher = torch.tensor([[1.0, 0.0, 0.0, 1.0], [2.0, 2.0, 2.0, 2.0]]), torch.tensor([[1.0, 2.0]] * 2)
    found = bound(EmbeddingMse(), 4, 2)(said(student, teacher))
    assert found.tolist() == [(0 + 4 + 1 + 1) / 4, (1 + 0 + 1 + 0) / 4]


def test_a_teacher_that_reads_both_texts_is_met_text_by_text() -> None:
    student, teacher = torch.tensor([[1.0, 0.0, 0.0, 1.0]]), torch.tensor([[1.0, 2.0, 0.0, 1.0]])
    assert bound(EmbeddingMse(), 4, 4)(said(student, teacher)).tolist() == [4 / 4]


def test_15_no_gradient_reaches_the_teacher_and_each_text_gets_its_own() -> None:
    student = torch.tensor([[1.0, 0.0, 0.0, 1.0]], requires_grad=True)
    teacher = torch.tensor([[1.0, 2.0]], requires_grad=True)
    bound(EmbeddingMse(), 4, 2)(said(student, teacher)).sum().backward()
    assert teacher.grad is None
    assert student.grad is not None
    assert student.grad.tolist() == [[0.0, 2 * -2 / 4, 2 * -1 / 4, 2 * -1 / 4]]


def test_23_other_widths_are_refused_with_the_setting_that_helps() -> None:
    with pytest.raises(
        CompatibilityError, match=r"embeddings have 6 numbers in all and the teacher's 4; set task\.fea"
    ):
        bound(EmbeddingMse(), 6, 4)


def test_pairs_are_told_apart_in_both_directions_by_hand() -> None:
    """The first texts are at right angles and the second ones alike: only the second cannot be told by the first."""
    pairs = torch.tensor([[5.0, 0.0, 0.0, 2.0], [0.0, 1.0, 0.0, 3.0]])  # lengths do not matter
    there = math.log(2)
    back = (math.log(1 + math.e) + math.log(1 + 1 / math.e)) / 2
    found = bound(EmbeddingContrast(temperature=1.0), 4)(said(pairs))
    assert found.item() == pytest.approx((there + back) / 2)
    swapped = pairs.roll(2, dims=1)
    assert bound(EmbeddingContrast(temperature=1.0), 4)(said(swapped)).item() == pytest.approx(found.item())


def test_gradient_flows_to_both_texts() -> None:
    pairs = torch.tensor([[1.0, 0.5, 0.0, 1.0], [0.0, 1.0, 1.0, 1.0]], requires_grad=True)
    bound(EmbeddingContrast(), 4)(said(pairs)).backward()
    assert pairs.grad is not None
    assert (pairs.grad[:, :2] != 0).any()
    assert (pairs.grad[:, 2:] != 0).any()


def test_texts_without_a_pair_are_refused() -> None:
    with pytest.raises(CompatibilityError, match="the data need two columns of text"):
        bound(EmbeddingContrast(), 5)


def test_23_a_width_that_would_be_of_more_than_two_texts_is_refused() -> None:
    """Data have two columns of text at most: 32 numbers against 8 are two texts of 16, and no four of 8."""
    with pytest.raises(CompatibilityError, match=r"task\.features"):
        bound(EmbeddingMse(), 32, 8)
