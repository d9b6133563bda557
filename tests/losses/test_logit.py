import doctest
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from jaxtyping import TypeCheckError
from torch import Tensor
from torch.nn import functional as F

from distil.core.errors import CompatibilityError
from distil.losses import logit
from distil.losses.logit import label_cross_entropy, soft_target_kl, teacher_label_cross_entropy

TEMPERATURES = (0.5, 1.0, 4.0, 20.0)
logits_strategy = arrays(np.float64, st.tuples(st.integers(1, 5), st.integers(2, 6)), elements=st.floats(-20, 20))


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_the_formula(student: np.ndarray, teacher: np.ndarray, temperature: float) -> list[float]:
    """T^2 sum p (log p - log q), one example and one class after the other."""
    values = []
    for student_row, teacher_row in zip(student.tolist(), teacher.tolist(), strict=True):
        weights_p = [math.exp((z - max(teacher_row)) / temperature) for z in teacher_row]
        weights_q = [math.exp((z - max(student_row)) / temperature) for z in student_row]
        p = [weight / sum(weights_p) for weight in weights_p]
        q = [weight / sum(weights_q) for weight in weights_q]
        divergence = sum(one * (math.log(one) - math.log(other)) for one, other in zip(p, q, strict=True) if one > 0)
        values.append(temperature**2 * divergence)
    return values


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_01_a_student_equal_to_its_teacher_has_no_divergence(temperature: float, dtype: torch.dtype) -> None:
    logits = (randn(16, 10) * 5).to(dtype)
    assert soft_target_kl(logits, logits, temperature=temperature).tolist() == [0.0] * 16
    shifted = soft_target_kl(randn(16, 10) + 3, randn(16, 10), temperature=temperature)  # a constant changes nothing
    torch.testing.assert_close(shifted, torch.zeros(16, dtype=torch.float64), atol=1e-10, rtol=0)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_01_classes_ruled_out_by_both_add_nothing(temperature: float) -> None:
    student, teacher = randn(6, 7), randn(6, 7, seed=1)
    padded = [F.pad(logits, (0, 3), value=-math.inf) for logits in (student, teacher)]
    torch.testing.assert_close(
        soft_target_kl(padded[0], padded[1], temperature=temperature),
        soft_target_kl(student, teacher, temperature=temperature),
        atol=1e-12,
        rtol=1e-12,
    )
    assert soft_target_kl(padded[0], padded[0], temperature=temperature).tolist() == [0.0] * 6


@settings(deadline=None, max_examples=60)
@given(student=logits_strategy, data=st.data(), temperature=st.floats(0.5, 20))
def test_02_one_value_an_example_the_sum_over_its_classes(
    student: np.ndarray, data: st.DataObject, temperature: float
) -> None:
    teacher = data.draw(arrays(np.float64, student.shape, elements=st.floats(-20, 20)))
    values = soft_target_kl(torch.from_numpy(student), torch.from_numpy(teacher), temperature=temperature)
    assert values.shape == (len(student),)
    np.testing.assert_allclose(values.numpy(), by_the_formula(student, teacher, temperature), atol=1e-9, rtol=1e-9)


def test_02_many_classes_do_not_dilute_the_value() -> None:
    student, teacher = randn(4, 32_000), randn(4, 32_000, seed=1)
    logs = F.log_softmax(student, dim=-1), F.log_softmax(teacher, dim=-1)
    expected = F.kl_div(*logs, reduction="none", log_target=True).sum(dim=-1)
    torch.testing.assert_close(soft_target_kl(student, teacher, temperature=1.0), expected)
    assert expected.min() > 0.5  # a mean over classes would be below 1e-4


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_03_temperature_squared_stands_there_once(temperature: float) -> None:
    student, teacher = randn(8, 10), randn(8, 10, seed=1)
    logs = F.log_softmax(student / temperature, dim=-1), F.log_softmax(teacher / temperature, dim=-1)
    plain = F.kl_div(*logs, reduction="none", log_target=True).sum(dim=-1)
    torch.testing.assert_close(soft_target_kl(student, teacher, temperature=temperature), temperature**2 * plain)


def gradient(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    leaf = student.clone().requires_grad_()
    soft_target_kl(leaf, teacher, temperature=temperature).sum().backward()
    assert leaf.grad is not None
    return leaf.grad


def test_03_temperature_squared_keeps_the_gradient_s_size_from_4_to_64() -> None:
    student, teacher = randn(32, 10), randn(32, 10, seed=1)
    norms = [gradient(student, teacher, temperature).norm().item() for temperature in (4.0, 8.0, 16.0, 32.0, 64.0)]
    assert max(norms) / min(norms) < 1.5  # without the factor 256, with it twice 1/256


def test_03_temperature_squared_makes_the_limit_the_difference_of_logits() -> None:
    student, teacher = randn(8, 10), randn(8, 10, seed=1)
    student, teacher = student - student.mean(dim=-1, keepdim=True), teacher - teacher.mean(dim=-1, keepdim=True)
    limit = (student - teacher) / 10
    torch.testing.assert_close(gradient(student, teacher, 1e4), limit, atol=1e-4, rtol=0)


def test_03_the_gradient_is_temperature_times_the_difference_of_probabilities() -> None:
    student, teacher = randn(8, 10), randn(8, 10, seed=1)
    for temperature in TEMPERATURES:
        q, p = (torch.softmax(logits / temperature, dim=-1) for logits in (student, teacher))
        torch.testing.assert_close(gradient(student, teacher, temperature), temperature * (q - p))


def test_04_the_direction_is_from_the_teacher_to_the_student() -> None:
    teacher, student = torch.tensor([[0.8, 0.2]]).log(), torch.tensor([[0.5, 0.5]]).log()
    # 0.8 ln(0.8/0.5) + 0.2 ln(0.2/0.5); the other way round it is 0.2231
    assert soft_target_kl(student, teacher, temperature=1.0).item() == pytest.approx(0.192745, abs=1e-6)
    assert soft_target_kl(teacher, student, temperature=1.0).item() == pytest.approx(0.223144, abs=1e-6)


def test_04_gradient_flows_to_the_student_alone() -> None:
    for loss in (lambda s, t: soft_target_kl(s, t, temperature=2.0), teacher_label_cross_entropy):
        student, teacher = randn(3, 4).requires_grad_(), randn(3, 4, seed=1).requires_grad_()
        loss(student, teacher).sum().backward()
        assert student.grad is not None
        assert student.grad.abs().sum() > 0
        assert teacher.grad is None


EXTREMES = {
    "gap of 1e4": ([[1e4, 0.0, -1e4], [0.0, 1e4, 0.0]], [[-1e4, 0.0, 1e4], [1e4, 0.0, -1e4]]),
    "equal at 1e4": ([[1e4, 1e4, -1e4]], [[1e4, -1e4, -1e4]]),
    "both rule a class out": ([[1.0, -math.inf, 2.0]], [[3.0, -math.inf, 0.0]]),
    "the teacher rules a class out": ([[1.0, 5.0, 2.0]], [[3.0, -math.inf, 0.0]]),
    "one class is left": ([[1.0, -math.inf, -math.inf]], [[3.0, -math.inf, -math.inf]]),
    "two classes": ([[1e4, -1e4]], [[-1e4, 1e4]]),
}


@pytest.mark.parametrize("temperature", [0.05, 1.0, 20.0])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", EXTREMES)
def test_05_extremes_are_finite_in_value_and_gradient(name: str, dtype: torch.dtype, temperature: float) -> None:
    student, teacher = (torch.tensor(rows, dtype=dtype) for rows in EXTREMES[name])
    student.requires_grad_()
    values = soft_target_kl(student, teacher, temperature=temperature)
    values.sum().backward()
    assert student.grad is not None
    assert bool(torch.isfinite(values).all())
    assert bool((values >= 0).all())
    assert bool(torch.isfinite(student.grad).all())
    assert values.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert student.grad.dtype == dtype


def test_05_the_value_at_a_gap_of_1e4_is_the_gap() -> None:
    student, teacher = torch.tensor([[1e4, 0.0]]), torch.tensor([[0.0, 1e4]])
    assert soft_target_kl(student, teacher, temperature=1.0).item() == pytest.approx(1e4)
    assert soft_target_kl(student, teacher, temperature=0.05).item() == pytest.approx(1e4 * 0.05)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_05_half_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    student, teacher = (randn(64, 100) * 3).to(dtype), (randn(64, 100, seed=1) * 3).to(dtype)
    exact = soft_target_kl(student.double(), teacher.double(), temperature=4.0)
    torch.testing.assert_close(soft_target_kl(student, teacher, temperature=4.0).double(), exact, atol=1e-4, rtol=1e-5)
    labels = torch.arange(64)
    exact = label_cross_entropy(student.double(), labels)
    torch.testing.assert_close(label_cross_entropy(student, labels).double(), exact, atol=1e-5, rtol=1e-5)


def test_05_a_student_that_rules_out_what_the_teacher_allows_is_infinitely_wrong() -> None:
    student, teacher = torch.tensor([[1.0, -math.inf]]), torch.tensor([[0.0, 0.0]])
    assert soft_target_kl(student, teacher, temperature=1.0).item() == math.inf


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_05_cross_entropy_is_finite_for_gaps_of_1e4(dtype: torch.dtype, smoothing: float) -> None:
    student = torch.tensor([[1e4, -1e4], [0.0, 1e4]], dtype=dtype, requires_grad=True)
    values = label_cross_entropy(student, torch.tensor([1, 1]), smoothing=smoothing)
    values.sum().backward()
    assert student.grad is not None
    assert bool(torch.isfinite(values).all())
    assert bool(torch.isfinite(student.grad).all())


def test_05_cross_entropy_ignores_classes_that_are_ruled_out() -> None:
    student = torch.tensor([[1.0, -math.inf, 2.0]], requires_grad=True)
    values = label_cross_entropy(student, torch.tensor([0]))
    values.sum().backward()
    assert values.item() == pytest.approx(math.log(1 + math.e))
    assert student.grad is not None
    assert bool(torch.isfinite(student.grad).all())


@settings(deadline=None, max_examples=60)
@given(student=logits_strategy, data=st.data(), smoothing=st.floats(0, 0.9))
def test_cross_entropy_is_the_formula(student: np.ndarray, data: st.DataObject, smoothing: float) -> None:
    num_classes = student.shape[1]
    labels = data.draw(arrays(np.int64, len(student), elements=st.integers(0, num_classes - 1)))
    expected = []
    for row, label in zip(student.tolist(), labels.tolist(), strict=True):
        log_sum = max(row) + math.log(sum(math.exp(z - max(row)) for z in row))
        log_q = [z - log_sum for z in row]
        expected.append(-(1 - smoothing) * log_q[label] - smoothing / num_classes * sum(log_q))
    found = label_cross_entropy(torch.from_numpy(student), torch.from_numpy(labels), smoothing=smoothing)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-9, rtol=1e-9)


def test_the_teacher_s_decision_is_the_label() -> None:
    student = randn(5, 4)
    teacher = torch.tensor([[0, 9, 1, 2], [7, 7, 0, 0], [0, 0, 0, 1], [5, 1, 1, 1], [1, 2, 3, 2]], dtype=torch.float64)
    decided = torch.tensor([1, 0, 3, 0, 2])  # of the equal scores in the second row the first wins
    expected = F.cross_entropy(student, decided, reduction="none")
    torch.testing.assert_close(teacher_label_cross_entropy(student, teacher), expected)


@pytest.mark.parametrize("batch", [(), (3,), (2, 3), (2, 0)])
def test_any_batch_shape_gives_one_value_an_example(batch: tuple[int, ...]) -> None:
    student, teacher = randn(*batch, 4), randn(*batch, 4, seed=1)
    labels = teacher.argmax(dim=-1)
    values = [
        soft_target_kl(student, teacher, temperature=2.0),
        label_cross_entropy(student, labels, smoothing=0.1),
        teacher_label_cross_entropy(student, teacher),
    ]
    assert [value.shape for value in values] == [batch] * 3
    flat = label_cross_entropy(student.reshape(-1, 4), labels.reshape(-1), smoothing=0.1)
    torch.testing.assert_close(values[1].reshape(-1), flat)


def test_the_arguments_are_not_changed() -> None:
    student, teacher = randn(3, 4), randn(3, 4, seed=1)
    soft_target_kl(student, teacher, temperature=3.0)
    teacher_label_cross_entropy(student, teacher)
    assert torch.equal(student, randn(3, 4))
    assert torch.equal(teacher, randn(3, 4, seed=1))


@pytest.mark.parametrize("shape", [(3, 5), (3, 2), (3, 1)])
def test_other_classes_are_refused(shape: tuple[int, ...]) -> None:
    message = rf"student logits have shape \(3, 4\) and teacher logits \({shape[0]}, {shape[1]}\)"
    with pytest.raises(CompatibilityError, match=message):
        soft_target_kl(randn(3, 4), randn(*shape), temperature=1.0)
    with pytest.raises(CompatibilityError, match=message):
        teacher_label_cross_entropy(randn(3, 4), randn(*shape))


@pytest.mark.parametrize("shape", [(1, 4), (2, 4), (4,)])
def test_other_examples_are_refused_and_never_repeated(shape: tuple[int, ...]) -> None:
    with pytest.raises((CompatibilityError, TypeCheckError)):  # the second where shapes are checked at run time
        soft_target_kl(randn(3, 4), randn(*shape), temperature=1.0)
    with pytest.raises((CompatibilityError, TypeCheckError)):
        teacher_label_cross_entropy(randn(3, 4), randn(*shape))


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan])
def test_a_temperature_that_is_not_above_0_is_refused(temperature: float) -> None:
    with pytest.raises(ValueError, match="must be above 0"):
        soft_target_kl(randn(3, 4), randn(3, 4), temperature=temperature)


@pytest.mark.parametrize("smoothing", [-0.1, 1.0, math.nan])
def test_a_smoothing_outside_its_domain_is_refused(smoothing: float) -> None:
    with pytest.raises(ValueError, match="at least 0 and below 1"):
        label_cross_entropy(randn(3, 4), torch.tensor([0, 1, 2]), smoothing=smoothing)


def test_the_examples_in_the_docstrings_are_true() -> None:
    results = doctest.testmod(logit)
    assert results.attempted >= 4
    assert results.failed == 0
