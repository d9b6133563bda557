import doctest
import math

import numpy as np
import pytest
import torch
from jaxtyping import TypeCheckError
from torch import Tensor
from torch.distributions import Bernoulli, kl_divergence
from torch.nn import functional as F

from distil.core.errors import CompatibilityError
from distil.losses import multilabel
from distil.losses.logit import soft_target_kl
from distil.losses.multilabel import binary_cross_entropy, binary_kl

TEMPERATURES = (0.5, 1.0, 4.0, 20.0)
DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_the_formula(student: np.ndarray, teacher: np.ndarray, temperature: float) -> list[float]:
    values = []
    for student_row, teacher_row in zip(student.tolist(), teacher.tolist(), strict=True):
        total = 0.0
        for s, t in zip(student_row, teacher_row, strict=True):
            p, q = 1 / (1 + math.exp(-t / temperature)), 1 / (1 + math.exp(-s / temperature))
            total += p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))
        values.append(temperature**2 * total)
    return values


def gradient(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    leaf = student.clone().requires_grad_()
    binary_kl(leaf, teacher, temperature=temperature).sum().backward()
    assert leaf.grad is not None
    return leaf.grad


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("shape", [(6, 1), (5, 8), (3, 100)])
def test_02_one_value_an_example_the_sum_over_its_classes(shape: tuple[int, int], temperature: float) -> None:
    for seed in range(3):
        student, teacher = 2 * randn(*shape, seed=2 * seed), 2 * randn(*shape, seed=2 * seed + 1)
        expected = by_the_formula(student.numpy(), teacher.numpy(), temperature)
        found = binary_kl(student, teacher, temperature=temperature)
        np.testing.assert_allclose(found.numpy(), expected, atol=1e-10, rtol=1e-10)
        found = binary_kl(student.float(), teacher.float(), temperature=temperature)
        # float32 logarithms have an error of 1e-7 each, times T^2 and the classes
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5, atol=1e-7 * shape[1] * max(temperature**2, 1))


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_torch_s_divergence_of_bernoulli_distributions_is_the_same(temperature: float) -> None:
    student, teacher = 3 * randn(7, 9), 3 * randn(7, 9, seed=1)
    theirs = kl_divergence(Bernoulli(logits=teacher / temperature), Bernoulli(logits=student / temperature))
    ours = binary_kl(student, teacher, temperature=temperature)
    torch.testing.assert_close(ours, temperature**2 * theirs.sum(dim=-1))


def test_the_paper_s_form_two_point_distributions_summed_over_labels_is_the_same() -> None:
    """The two sides of each label given to torch's kl_div, summed as in the code of Yang and others."""
    student, teacher = randn(7, 9), randn(7, 9, seed=1)
    p, q = teacher.sigmoid(), student.sigmoid()
    sides = F.kl_div(q.log(), p, reduction="none") + F.kl_div((1 - q).log(), 1 - p, reduction="none")
    torch.testing.assert_close(binary_kl(student, teacher, temperature=1.0).sum(), sides.sum())


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_01_a_student_equal_to_its_teacher_has_no_divergence(temperature: float, dtype: torch.dtype) -> None:
    logits = (randn(16, 10) * 5).to(dtype)
    assert binary_kl(logits, logits, temperature=temperature).tolist() == [0.0] * 16


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_03_the_gradient_is_temperature_times_the_difference_of_probabilities(temperature: float) -> None:
    student, teacher = randn(8, 10), randn(8, 10, seed=1)
    expected = temperature * ((student / temperature).sigmoid() - (teacher / temperature).sigmoid())
    torch.testing.assert_close(gradient(student, teacher, temperature), expected)


def test_03_temperature_squared_keeps_the_gradient_s_size_from_4_to_64() -> None:
    student, teacher = randn(32, 10), randn(32, 10, seed=1)
    norms = [gradient(student, teacher, temperature).norm().item() for temperature in (4.0, 8.0, 16.0, 32.0, 64.0)]
    assert max(norms) / min(norms) < 1.5
    torch.testing.assert_close(gradient(student, teacher, 1e4), (student - teacher) / 4, atol=1e-4, rtol=0)


def test_04_the_direction_is_from_the_teacher_to_the_student() -> None:
    teacher, student = torch.tensor([[0.8]]).logit(), torch.tensor([[0.5]]).logit()
    # 0.8 ln(0.8/0.5) + 0.2 ln(0.2/0.5); the other way round it is 0.2231
    assert binary_kl(student, teacher, temperature=1.0).item() == pytest.approx(0.192745, abs=1e-6)
    assert binary_kl(teacher, student, temperature=1.0).item() == pytest.approx(0.223144, abs=1e-6)


def test_04_the_gradient_is_the_student_s_alone_and_that_of_the_value() -> None:
    student, teacher = randn(3, 4).requires_grad_(), randn(3, 4, seed=1).requires_grad_()
    binary_kl(student, teacher, temperature=2.0).sum().backward()
    assert student.grad is not None
    assert student.grad.abs().min() > 0
    assert teacher.grad is None
    assert torch.autograd.gradcheck(lambda s: binary_kl(s, teacher.detach(), temperature=2.0), (student,))


def test_07_no_softmax_a_constant_on_all_classes_matters_and_one_class_does_not_move_another() -> None:
    student, teacher = randn(5, 6), randn(5, 6, seed=1)
    shifted = binary_kl(teacher + 3, teacher, temperature=1.0)
    assert shifted.min() > 0.1
    assert soft_target_kl(teacher + 3, teacher, temperature=1.0).abs().max() < 1e-9  # what a softmax would say
    parts = sum(binary_kl(student[:, [c]], teacher[:, [c]], temperature=1.0) for c in range(6))
    torch.testing.assert_close(binary_kl(student, teacher, temperature=1.0), parts)


def test_07_two_classes_against_each_other_are_one_question() -> None:
    """A softmax over (z, 0) is a sigmoid of z: one label here is two classes there."""
    student, teacher = randn(9, 1), randn(9, 1, seed=1)
    pair = soft_target_kl(F.pad(student, (0, 1)), F.pad(teacher, (0, 1)), temperature=4.0)
    torch.testing.assert_close(binary_kl(student, teacher, temperature=4.0), pair)


EXTREMES = {
    "gap of 1e4": ([[1e4, 0.0, -1e4]], [[-1e4, 1e4, 1e4]]),
    "equal at 1e4": ([[1e4, -1e4]], [[1e4, -1e4]]),
    "both are certain": ([[math.inf, -math.inf, 1.0]], [[math.inf, -math.inf, 0.0]]),
    "the teacher is certain": ([[3.0, -3.0, 1e4]], [[math.inf, -math.inf, -math.inf]]),
    "one class": ([[0.0]], [[1e4]]),
}


@pytest.mark.parametrize("temperature", [0.05, 1.0, 20.0])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", EXTREMES)
def test_05_extremes_are_finite_in_value_and_gradient(name: str, dtype: torch.dtype, temperature: float) -> None:
    student, teacher = (torch.tensor(rows, dtype=dtype) for rows in EXTREMES[name])
    student.requires_grad_()
    values = binary_kl(student, teacher, temperature=temperature)
    values.sum().backward()
    assert student.grad is not None
    assert bool(torch.isfinite(values).all())
    assert bool((values >= 0).all())
    assert bool(torch.isfinite(student.grad).all())
    assert values.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert student.grad.dtype == dtype


def test_05_a_wrong_student_s_gradient_does_not_end_where_clamped_probabilities_would() -> None:
    student = torch.tensor([[-40.0]])
    assert gradient(student, torch.tensor([[5.0]]), 1.0).item() == pytest.approx(-torch.tensor(5.0).sigmoid().item())
    assert binary_kl(torch.tensor([[-1e4]]), torch.tensor([[1e4]]), temperature=1.0).item() == pytest.approx(1e4)


def test_05_a_student_certain_of_what_the_teacher_doubts_is_infinitely_wrong() -> None:
    for certain in (math.inf, -math.inf):
        assert binary_kl(torch.tensor([[certain]]), torch.tensor([[0.0]]), temperature=1.0).item() == math.inf


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_05_half_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    student, teacher = (randn(64, 50) * 3).to(dtype), (randn(64, 50, seed=1) * 3).to(dtype)
    exact = binary_kl(student.double(), teacher.double(), temperature=4.0)
    torch.testing.assert_close(binary_kl(student, teacher, temperature=4.0).double(), exact, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("batch", [(), (3,), (2, 3), (2, 0)])
def test_13_one_value_an_example_that_no_other_example_changes(batch: tuple[int, ...]) -> None:
    student, teacher = randn(*batch, 4).requires_grad_(), randn(*batch, 4, seed=1)
    values = binary_kl(student, teacher, temperature=2.0)
    assert values.shape == batch
    values.sum().backward()
    assert student.grad is not None
    rows = zip(student.detach().reshape(-1, 4), teacher.reshape(-1, 4), strict=True)
    for value, (student_row, teacher_row) in zip(values.detach().reshape(-1), rows, strict=True):
        torch.testing.assert_close(binary_kl(student_row, teacher_row, temperature=2.0), value)


@pytest.mark.parametrize("shape", [(3, 5), (3, 1)])
def test_other_classes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(CompatibilityError, match=r"student logits have shape \(3, 4\)"):
        binary_kl(randn(3, 4), randn(*shape), temperature=1.0)


@pytest.mark.parametrize("shape", [(1, 4), (2, 4), (4,)])
def test_other_examples_are_refused_and_never_repeated(shape: tuple[int, ...]) -> None:
    with pytest.raises((CompatibilityError, TypeCheckError)):
        binary_kl(randn(3, 4), randn(*shape), temperature=1.0)


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan])
def test_a_temperature_that_is_not_above_0_is_refused(temperature: float) -> None:
    with pytest.raises(ValueError, match="must be above 0"):
        binary_kl(randn(3, 4), randn(3, 4), temperature=temperature)


@pytest.mark.untyped
def test_compiled_as_one_graph_the_value_is_the_same() -> None:
    student, teacher = randn(4, 6), randn(4, 6, seed=1)
    compiled = torch.compile(lambda s, t: binary_kl(s, t, temperature=2.0), fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(student, teacher), binary_kl(student, teacher, temperature=2.0))


# labels of the data

LABELS = torch.tensor([[1, 0, 1, 0], [0, 0, 0, 0], [1, 1, 1, 1]])


def test_02_labels_one_value_an_example_the_sum_over_its_classes_by_hand() -> None:
    logits = torch.tensor([[0.0, math.log(3)], [-math.log(3), 0.0]], dtype=torch.float64)
    # yes with 1/2 and 3/4; yes with 1/4 and 1/2
    found = binary_cross_entropy(logits, torch.tensor([[1, 1], [1, 0]]))
    expected = [math.log(2) + math.log(4 / 3), math.log(4) + math.log(2)]
    assert found.tolist() == pytest.approx(expected)
    assert binary_cross_entropy(logits, torch.tensor([[0, 0], [0, 1]])).tolist() == pytest.approx(
        [math.log(2) + math.log(4), math.log(4 / 3) + math.log(2)]
    )


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.float32, torch.float64])
def test_07_labels_are_met_as_torch_meets_them_whatever_their_type(dtype: torch.dtype) -> None:
    logits = 3 * randn(3, 4)
    expected = F.binary_cross_entropy_with_logits(logits, LABELS.double(), reduction="none").sum(dim=1)
    torch.testing.assert_close(binary_cross_entropy(logits, LABELS.to(dtype)), expected)
    each = Bernoulli(logits=logits).log_prob(LABELS.double())
    torch.testing.assert_close(expected, -each.sum(dim=1))


def test_07_labels_do_not_compete() -> None:
    """No softmax: what is said of one class moves no other."""
    leaf = randn(3, 4).requires_grad_()
    binary_cross_entropy(leaf, LABELS).sum().backward()
    assert leaf.grad is not None
    torch.testing.assert_close(leaf.grad, leaf.detach().sigmoid() - LABELS)


def test_04_a_share_of_yes_is_met_at_its_own_odds() -> None:
    share = torch.full((2, 3), 0.25, dtype=torch.float64)
    at_odds = torch.full((2, 3), math.log(1 / 3), dtype=torch.float64, requires_grad=True)
    value = binary_cross_entropy(at_odds, share)
    entropy = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    assert value.tolist() == pytest.approx([3 * entropy] * 2)
    value.sum().backward()
    assert at_odds.grad is not None
    assert float(at_odds.grad.abs().max()) < 1e-12


@pytest.mark.parametrize("dtype", DTYPES)
def test_05_labels_extremes_are_finite_in_value_and_gradient(dtype: torch.dtype) -> None:
    leaf = torch.tensor([[1e4, -1e4], [-1e4, 1e4]], dtype=dtype, requires_grad=True)
    value = binary_cross_entropy(leaf, torch.tensor([[1, 0], [1, 0]]))
    value.sum().backward()
    assert value.dtype == torch.promote_types(dtype, torch.float32)
    assert value[0].item() == 0
    assert value[1].item() == pytest.approx(2e4, rel=1e-2)
    assert leaf.grad is not None
    assert leaf.grad.tolist() == [[0, 0], [-1, 1]]


@pytest.mark.parametrize("batch", [(), (3,), (2, 3), (2, 0)])
def test_13_labels_one_value_an_example_that_no_other_changes(batch: tuple[int, ...]) -> None:
    logits, labels = randn(*batch, 4), (randn(*batch, 4, seed=1) > 0).long()
    values = binary_cross_entropy(logits, labels)
    assert values.shape == batch
    rows = zip(logits.reshape(-1, 4), labels.reshape(-1, 4), strict=True)
    for value, (row, answers) in zip(values.reshape(-1), rows, strict=True):
        torch.testing.assert_close(binary_cross_entropy(row, answers), value)


@pytest.mark.parametrize("shape", [(3, 5), (3, 1), (1, 4), (4,)])
def test_labels_of_another_shape_are_refused_and_never_repeated(shape: tuple[int, ...]) -> None:
    with pytest.raises((CompatibilityError, TypeCheckError)):
        binary_cross_entropy(randn(3, 4), torch.ones(*shape))


def test_the_examples_in_the_docstrings_are_true() -> None:
    results = doctest.testmod(multilabel)
    assert results.attempted >= 4
    assert results.failed == 0
