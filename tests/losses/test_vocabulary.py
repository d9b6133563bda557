import doctest
import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from distil.core.errors import CompatibilityError
from distil.losses import vocabulary
from distil.losses.logit import soft_target_kl
from distil.losses.vocabulary import shared_logits, shared_mass


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def hidden(logits: Tensor, kept: list[int]) -> Tensor:
    """The logits at full width with -inf wherever nothing is kept."""
    hide = torch.ones(logits.shape[-1], dtype=torch.bool)
    hide[kept] = False
    return logits.masked_fill(hide, -math.inf)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_24_outputs_of_151936_and_152064_places_give_what_slicing_both_by_hand_gives(temperature: float) -> None:
    student, teacher = randn(2, 151_936), randn(2, 152_064, seed=1)
    ours, theirs = shared_logits(student, teacher, student_ids=151_936, teacher_ids=151_936)
    p = (teacher[:, :151_936] / temperature).softmax(dim=-1)
    q = (student / temperature).softmax(dim=-1)
    expected = temperature**2 * (p * (p / q).log()).sum(dim=-1)
    torch.testing.assert_close(soft_target_kl(ours, theirs, temperature=temperature), expected)
    # the other way round too, where the student has the padding
    theirs, ours = shared_logits(teacher, student, student_ids=151_936, teacher_ids=151_936)
    torch.testing.assert_close(soft_target_kl(ours, theirs, temperature=temperature), expected)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_24_identical_models_with_padded_vocabularies_differ_by_0_and_filling_with_0_would_not(
    temperature: float,
) -> None:
    known = 3 * randn(5, 1000)
    teacher = torch.cat([known, torch.full((5, 64), -1e4, dtype=torch.float64)], dim=-1)
    ours, theirs = shared_logits(known, teacher, student_ids=1000, teacher_ids=1000)
    assert soft_target_kl(ours, theirs, temperature=temperature).abs().max() == 0
    filled_with_0 = soft_target_kl(F.pad(known, (0, 64)), teacher, temperature=temperature)
    # 64 places more, each e^0, in the student's sum alone
    expected = temperature**2 * (1 + 64 / (known / temperature).exp().sum(dim=-1)).log()
    torch.testing.assert_close(filled_with_0, expected)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_24_what_is_left_is_the_distribution_with_minus_infinity_elsewhere_renormalised(temperature: float) -> None:
    student, teacher = randn(3, 6), randn(3, 8, seed=1)
    ours, theirs = [5, 0, 3], [1, 7, 4]
    kept = shared_logits(student, teacher, student_ids=torch.tensor(ours), teacher_ids=torch.tensor(theirs))
    for logits, ids, shared in ((student, ours, kept[0]), (teacher, theirs, kept[1])):
        whole = (logits / temperature).softmax(dim=-1)[:, ids]
        among_shared = (shared / temperature).softmax(dim=-1)
        torch.testing.assert_close(among_shared, whole / whole.sum(dim=-1, keepdim=True))
        torch.testing.assert_close(among_shared, (hidden(logits, ids) / temperature).softmax(dim=-1)[:, ids])


def test_24_ids_pair_the_same_tokens_whatever_their_numbers() -> None:
    """By hand: the student's a, b, c at 2, 0, 1 of its output, the teacher's at 0, 1, 3."""
    student = torch.tensor([[0.3, 0.2, 0.5]]).log()
    teacher = torch.tensor([[0.25, 0.15, 0.5, 0.1]]).log()  # among a, b, c: 0.5, 0.3, 0.2
    ours, theirs = shared_logits(
        student, teacher, student_ids=torch.tensor([2, 0, 1]), teacher_ids=torch.tensor([0, 1, 3])
    )
    assert soft_target_kl(ours, theirs, temperature=1.0).item() == pytest.approx(0, abs=1e-6)
    first = shared_logits(student, teacher, student_ids=3, teacher_ids=torch.tensor([0, 1, 3]))
    # 0.5 ln(0.5/0.3) + 0.3 ln(0.3/0.2) + 0.2 ln(0.2/0.5)
    assert soft_target_kl(*first, temperature=1.0).item() == pytest.approx(0.193794, abs=1e-6)


def test_the_student_s_gradient_is_that_of_the_shared_places_and_0_at_the_others() -> None:
    student, teacher = randn(3, 6).requires_grad_(), randn(3, 8, seed=1).requires_grad_()
    ids = torch.tensor([4, 1, 2])
    ours, theirs = shared_logits(student, teacher, student_ids=ids, teacher_ids=3)
    soft_target_kl(ours, theirs, temperature=2.0).sum().backward()
    assert student.grad is not None
    expected = 2.0 * ((student[:, ids] / 2).softmax(dim=-1) - (teacher[:, :3] / 2).softmax(dim=-1))
    torch.testing.assert_close(student.grad[:, ids], expected.detach())
    assert student.grad[:, [0, 3, 5]].abs().max() == 0
    assert teacher.grad is None
    assert not theirs.requires_grad


@pytest.mark.parametrize("batch", [(), (4,), (2, 3), (2, 0)])
def test_any_batch_keeps_its_shape(batch: tuple[int, ...]) -> None:
    ours, theirs = shared_logits(
        randn(*batch, 5), randn(*batch, 7, seed=1), student_ids=4, teacher_ids=torch.tensor([6, 0, 1, 2])
    )
    assert ours.shape == theirs.shape == (*batch, 4)
    assert shared_mass(randn(*batch, 5), 4).shape == batch


@pytest.mark.parametrize(
    ("ids", "words"),
    [
        (6, "from 0 to 5 and the output has 5 places, 0 to 4"),
        (torch.tensor([0, 5]), "from 0 to 5 and the output has 5 places"),
        (torch.tensor([-1, 2]), "from -1 to 2 and the output has 5 places"),
        (0, "no shared ids"),
        (-2, "no shared ids"),
        (torch.tensor([], dtype=torch.int64), "no shared ids"),
    ],
)
def test_24_ids_outside_of_the_output_are_refused_and_never_clamped(ids: int | Tensor, words: str) -> None:
    for call in (
        lambda: shared_logits(randn(2, 5), randn(2, 9), student_ids=ids, teacher_ids=ids),
        lambda: shared_logits(randn(2, 9), randn(2, 5), student_ids=2, teacher_ids=ids),
        lambda: shared_mass(randn(2, 5), ids),
    ):
        with pytest.raises(CompatibilityError, match=words):
            call()


def test_places_without_a_counterpart_and_other_positions_are_refused() -> None:
    with pytest.raises(CompatibilityError, match="3 places of the student and 2 of the teacher"):
        shared_logits(randn(2, 5), randn(2, 5), student_ids=3, teacher_ids=torch.tensor([0, 1]))
    with pytest.raises(CompatibilityError, match="the same positions of the same text"):
        shared_logits(randn(2, 3, 5), randn(2, 4, 5), student_ids=5, teacher_ids=5)
    with pytest.raises(CompatibilityError, match="the same positions of the same text"):
        shared_logits(randn(1, 5), randn(2, 5), student_ids=5, teacher_ids=5)  # would be broadcast


def test_the_mass_is_the_sum_of_the_shared_probabilities() -> None:
    logits = torch.tensor([[0.5, 0.3, 0.2, 0.0], [0.0, 0.1, 0.9, 0.0]], dtype=torch.float64).log()
    expected = torch.tensor([0.5, 0.9], dtype=torch.float64)
    torch.testing.assert_close(shared_mass(logits, torch.tensor([2, 1])), torch.tensor([0.5, 1.0]).double())
    torch.testing.assert_close(shared_mass(logits + 100, torch.tensor([0, 2])), torch.tensor([0.7, 0.9]).double())
    torch.testing.assert_close(shared_mass(logits, torch.tensor([0, 2])) - torch.tensor([0.2, 0.0]), expected)
    assert shared_mass(logits, 4).tolist() == [1, 1]
    assert shared_mass(logits, torch.tensor([3])).tolist() == [0, 0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_05_the_mass_of_half_precision_is_taken_in_float32(dtype: torch.dtype) -> None:
    logits = torch.zeros(1, 60_000, dtype=dtype)  # in half precision the sum of so many would be off by far
    mass = shared_mass(logits, 45_000)
    assert mass.dtype == torch.float32
    assert mass.item() == pytest.approx(0.75, abs=1e-5)
    assert math.isfinite(shared_mass(torch.tensor([[6e4, -6e4]], dtype=dtype), 1).item())


@pytest.mark.untyped
def test_compiled_as_one_graph_the_values_are_the_same_and_ids_outside_are_refused() -> None:
    ids = torch.tensor([4, 1, 2])

    def both(student: Tensor, teacher: Tensor, ids: Tensor) -> Tensor:
        ours, theirs = shared_logits(student, teacher, student_ids=3, teacher_ids=ids)
        return soft_target_kl(ours, theirs, temperature=2.0) + shared_mass(teacher, ids)

    compiled = torch.compile(both, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(randn(4, 5), randn(4, 6), ids), both(randn(4, 5), randn(4, 6), ids))
    with pytest.raises((IndexError, RuntimeError)):
        compiled(randn(4, 5), randn(4, 6), torch.tensor([0, 1, 6]))
    with pytest.raises((IndexError, RuntimeError)):
        compiled(randn(4, 5), randn(4, 6), torch.tensor([0, 1, -1]))


def test_the_examples_in_the_docstrings_are_true() -> None:
    results = doctest.testmod(vocabulary)
    assert results.attempted >= 3
    assert results.failed == 0
