import doctest
import itertools
from collections.abc import Mapping

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from distil.core.errors import CompatibilityError
from distil.data.batch import Batch
from distil.models.builtin import ConvNet, Mlp
from distil.models.describe import ModelDescription, describe_model
from distil.models.tap import Outputs, Tap, Taps
from distil.objective import objective as module
from distil.objective import response
from distil.objective.config import SoftTargets, TeacherLabels, Term, TrueLabels
from distil.objective.feature_learned_config import VariationalInformation
from distil.objective.objective import BoundObjective, Loss, Objective
from distil.objective.own_config import OwnTerm
from distil.objective.term import BoundTerm, TermInput

CLASSES = 5
TERMS = {
    "true-labels": TrueLabels(weight=0.3, smoothing=0.1),
    "soft-targets": SoftTargets(weight=0.9, temperature=4.0),
    "teacher-labels": TeacherLabels(weight=0.25),
}


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def batch(present: list[bool], *, absent_label: int | None = None) -> Batch:
    """Examples of which some are labelled. The targets of the others are classes too, as any number may stand there."""
    size = len(present)
    known = torch.tensor(present)
    targets = torch.arange(size) % CLASSES
    if absent_label is not None:
        targets = torch.where(known, targets, absent_label)
    return Batch(
        ids=torch.arange(size), inputs={"x": randn(size, 2)}, targets={"main": targets}, present={"main": known}
    )


def bound(**terms: TrueLabels | SoftTargets | TeacherLabels) -> BoundObjective:
    named = {name.replace("_", "-"): term for name, term in terms.items()} or TERMS
    return Objective(named).bind(CLASSES, {"teacher": CLASSES})


def whole_loss(objective: BoundObjective, student: Tensor, teacher: Tensor, examples: Batch) -> Loss:
    return objective(student, {"teacher": teacher}, examples, objective.counts(examples))


def by_hand(student: Tensor, teacher: Tensor, examples: Batch) -> dict[str, Tensor]:
    """Each part from torch's own functions: the mean over the examples that the term supervises."""
    present, targets = examples.present["main"], examples.targets["main"]
    logs = F.log_softmax(student / 4, dim=-1), F.log_softmax(teacher / 4, dim=-1)
    return {
        "true-labels": F.cross_entropy(student[present], targets[present], label_smoothing=0.1),
        "soft-targets": 16 * F.kl_div(*logs, reduction="batchmean", log_target=True),
        "teacher-labels": F.cross_entropy(student, teacher.argmax(dim=-1)),
    }


def test_08_the_total_is_the_sum_of_the_weighted_parts_by_hand() -> None:
    examples = batch([True, False, True, True, False, True])
    student, teacher = randn(6, CLASSES), randn(6, CLASSES, seed=1)
    objective = bound()
    loss = whole_loss(objective, student, teacher, examples)
    expected = by_hand(student, teacher, examples)
    assert loss.parts.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(loss.parts[name], value)
    torch.testing.assert_close(loss.total, sum(TERMS[name].weight * value for name, value in expected.items()))
    assert objective.weights == {"true-labels": 0.3, "soft-targets": 0.9, "teacher-labels": 0.25}


def test_08_a_term_of_weight_0_is_not_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise AssertionError("computed")

    monkeypatch.setattr(response, "soft_target_kl", fail)
    objective = bound(true_labels=TrueLabels(), soft_targets=SoftTargets(weight=0))
    loss = objective(randn(3, CLASSES), {}, batch([True] * 3), objective.counts(batch([True] * 3)))
    assert list(loss.parts) == ["true-labels"]
    assert objective.weights == {"true-labels": 1.0}
    assert objective.requires.teacher_outputs == frozenset()
    with pytest.raises(AssertionError, match="computed"):
        whole_loss(bound(), randn(3, CLASSES), randn(3, CLASSES), batch([True] * 3))


def gradient(loss: Loss, student: Tensor) -> Tensor:
    (found,) = torch.autograd.grad(loss.total, student)
    return found


@pytest.mark.parametrize("absent_label", [None, -1])
def test_11_unlabelled_examples_add_no_loss_and_no_gradient_to_terms_of_labels(absent_label: int | None) -> None:
    present = [True, False, True, False, False, True]
    student = randn(6, CLASSES).requires_grad_()
    rows = torch.tensor(present)
    objective = bound(true_labels=TrueLabels(smoothing=0.1))
    examples = batch(present, absent_label=absent_label)  # None: any class may stand where the label is absent
    loss = whole_loss(objective, student, randn(6, CLASSES), examples)
    alone = F.cross_entropy(student[rows], torch.tensor([0, 2, 0]), label_smoothing=0.1)
    assert loss.total.item() == pytest.approx(alone.item(), abs=1e-12)
    found = gradient(loss, student)
    assert torch.equal(found[~rows], torch.zeros(3, CLASSES, dtype=torch.float64))
    assert bool((found[rows].abs().sum(dim=-1) > 0).all())


def test_11_unlabelled_examples_are_taught_by_the_teacher_all_the_same() -> None:
    examples = batch([True, False, False, False])
    student, teacher = randn(4, CLASSES).requires_grad_(), randn(4, CLASSES, seed=1)
    loss = whole_loss(bound(soft_targets=SoftTargets()), student, teacher, examples)
    assert bool((gradient(loss, student).abs().sum(dim=-1) > 0).all())
    assert bound().counts(examples) == {"true-labels": 1, "soft-targets": 4, "teacher-labels": 4}


def test_11_more_unlabelled_examples_change_nothing_in_terms_of_labels() -> None:
    objective = bound(true_labels=TrueLabels())
    few = whole_loss(objective, randn(4, CLASSES)[:2], randn(2, CLASSES), batch([True, True]))
    more = whole_loss(objective, randn(4, CLASSES), randn(4, CLASSES), batch([True, True, False, False]))
    assert more.total.item() == pytest.approx(few.total.item(), abs=1e-12)


def test_11_a_batch_without_labels_gives_0_with_a_live_graph() -> None:
    student = randn(3, CLASSES).requires_grad_()
    loss = whole_loss(bound(true_labels=TrueLabels()), student, randn(3, CLASSES), batch([False] * 3, absent_label=-1))
    assert loss.total.item() == 0
    assert torch.equal(gradient(loss, student), torch.zeros(3, CLASSES, dtype=torch.float64))


@st.composite
def ragged(draw: st.DrawFn) -> tuple[list[bool], list[int]]:
    """Which examples are labelled, and the sizes of the micro-batches they come in."""
    present = draw(st.lists(st.booleans(), min_size=1, max_size=12))
    cuts = draw(st.sets(st.integers(1, max(len(present) - 1, 1)), max_size=5))
    edges = [0, *sorted(cut for cut in cuts if cut < len(present)), len(present)]
    return present, [end - start for start, end in itertools.pairwise(edges)]


def pieces(examples: Batch, sizes: list[int]) -> list[Batch]:
    edges = [0, *itertools.accumulate(sizes)]
    return [
        Batch(
            ids=examples.ids[start:end],
            inputs={},
            targets={"main": examples.targets["main"][start:end]},
            present={"main": examples.present["main"][start:end]},
        )
        for start, end in itertools.pairwise(edges)
    ]


def accumulated(
    objective: BoundObjective, student: Tensor, teacher: Tensor, parts: list[Batch], counts: Mapping[str, int] | None
) -> tuple[float, dict[str, float], Tensor]:
    """Value, parts and gradient summed over micro-batches; without ``counts`` each divides by its own."""
    total, sums = 0.0, dict.fromkeys(objective.weights, 0.0)
    leaf = student.clone().requires_grad_()
    for part in parts:
        rows = part.ids
        own = counts if counts is not None else objective.counts(part)
        loss = objective(leaf[rows], {"teacher": teacher[rows]}, part, own)
        loss.total.backward()
        total += loss.total.item()
        sums = {name: value + loss.parts[name].item() for name, value in sums.items()}
    assert leaf.grad is not None
    return total, sums, leaf.grad


@settings(deadline=None, max_examples=40)
@given(case=ragged())
def test_13_split_invariant_in_value_parts_and_gradient(case: tuple[list[bool], list[int]]) -> None:
    present, sizes = case
    examples, objective = batch(present), bound()
    student, teacher = randn(len(present), CLASSES), randn(len(present), CLASSES, seed=1)
    leaf = student.clone().requires_grad_()
    whole = whole_loss(objective, leaf, teacher, examples)
    parts = pieces(examples, sizes)
    summed = {name: sum(objective.counts(part)[name] for part in parts) for name in objective.weights}
    assert summed == objective.counts(examples)
    value, sums, found = accumulated(objective, student, teacher, parts, summed)
    assert value == pytest.approx(whole.total.item(), abs=1e-12)
    assert sums == pytest.approx({name: part.item() for name, part in whole.parts.items()}, abs=1e-12)
    torch.testing.assert_close(found, gradient(whole, leaf), atol=1e-12, rtol=0)


def test_13_split_invariant_against_a_value_by_hand() -> None:
    present = [True, False, False, True, True, False, True]
    examples, objective = batch(present), bound()
    student, teacher = randn(7, CLASSES), randn(7, CLASSES, seed=1)
    value, sums, _ = accumulated(
        objective,
        student,
        teacher,
        pieces(examples, [1, 4, 2]),
        {"true-labels": 4, "soft-targets": 7, "teacher-labels": 7},
    )
    expected = by_hand(student, teacher, examples)
    assert sums == pytest.approx({name: part.item() for name, part in expected.items()}, abs=1e-12)
    assert value == pytest.approx(sum(TERMS[name].weight * part.item() for name, part in expected.items()), abs=1e-12)


def test_13_dividing_by_the_micro_batch_would_be_noticed() -> None:
    examples, objective = batch([True, False, False, True, True, False, True]), bound()
    student, teacher = randn(7, CLASSES), randn(7, CLASSES, seed=1)
    parts = pieces(examples, [1, 4, 2])
    right = accumulated(objective, student, teacher, parts, objective.counts(examples))
    wrong = accumulated(objective, student, teacher, parts, None)
    assert abs(wrong[0] - right[0]) > 0.1
    averaged = wrong[0] / len(parts)
    assert abs(averaged - right[0]) > 0.01  # nor is the mean over micro-batches right


def test_13_the_count_is_the_number_of_supervised_examples_of_the_global_batch() -> None:
    objective, examples = bound(true_labels=TrueLabels()), batch([True, True])
    student = randn(2, CLASSES)
    once = objective(student, {}, examples, {"true-labels": 2}).total
    as_a_quarter = objective(student, {}, examples, {"true-labels": 8}).total
    assert as_a_quarter.item() == pytest.approx(once.item() / 4)


def test_half_precision_logits_give_a_float32_loss() -> None:
    student = randn(4, CLASSES).to(torch.bfloat16).requires_grad_()
    loss = whole_loss(bound(), student, randn(4, CLASSES).to(torch.bfloat16), batch([True] * 4))
    assert loss.total.dtype == torch.float32
    loss.total.backward()
    assert student.grad is not None
    assert student.grad.dtype == torch.bfloat16


def test_a_term_names_its_only_teacher_once_bound() -> None:
    assert bound().requires.teacher_outputs == {"teacher"}
    assert bound().requires.labels
    assert not bound(soft_targets=SoftTargets()).requires.labels


def test_each_term_listens_to_its_own_teacher() -> None:
    terms = {"a": SoftTargets(teacher="first"), "b": SoftTargets(teacher="second")}
    objective = Objective(terms).bind(CLASSES, {"second": CLASSES, "first": CLASSES})
    student, said = randn(3, CLASSES), {"first": randn(3, CLASSES), "second": randn(3, CLASSES, seed=1)}
    loss = objective(student, said, batch([True] * 3), {"a": 3, "b": 3})
    assert loss.parts["a"].item() == 0  # the first teacher says what the student says
    assert loss.parts["b"].item() > 0.1


@pytest.mark.parametrize(
    ("term", "teachers", "message"),
    [
        (SoftTargets(), {}, "term 'x': no teacher is named; the teachers are none"),
        (SoftTargets(), {"b": 5, "a": 5}, r"term 'x': no teacher is named; the teachers are \['a', 'b'\]"),
        (TeacherLabels(teacher="big"), {"bug": 5}, r"term 'x': there is no teacher 'big'; the teachers are \['bug'\]"),
        (SoftTargets(), {"a": 7}, "term 'x': the teacher 'a' has 7 classes and the student 5"),
    ],
)
def test_a_teacher_that_does_not_fit_is_refused(
    term: SoftTargets | TeacherLabels, teachers: dict[str, int], message: str
) -> None:
    with pytest.raises(CompatibilityError, match=message):
        Objective({"x": term}).bind(CLASSES, teachers)


def test_binding_leaves_the_original_as_it_was() -> None:
    terms = dict(TERMS)
    objective = Objective(terms)
    objective.bind(CLASSES, {"teacher": CLASSES})
    assert terms == TERMS
    with pytest.raises(CompatibilityError, match="no teacher is named"):
        objective.bind(CLASSES)  # the name of the teacher it was bound to before is not kept


def test_20_two_objectives_do_not_share_state() -> None:
    first, second = bound(true_labels=TrueLabels(weight=1.0)), bound(true_labels=TrueLabels(weight=2.0))
    examples, student = batch([True] * 3), randn(3, CLASSES)
    one = first(student, {}, examples, {"true-labels": 3}).total
    other = second(student, {}, examples, {"true-labels": 3}).total
    assert other.item() == pytest.approx(2 * one.item())
    assert first(student, {}, examples, {"true-labels": 3}).total.item() == one.item()


# layers, projectors and memory


def student_net() -> Mlp:
    torch.manual_seed(0)
    return Mlp(num_inputs=16, widths=(8, 6), num_classes=CLASSES, dropout=0.0, input_dropout=0.0)


def teacher_net() -> ConvNet:
    torch.manual_seed(1)
    return ConvNet(channels=1, widths=(4, 7), num_classes=CLASSES, dropout=0.0).eval()


IMAGES = torch.randn(6, 1, 4, 4, generator=torch.Generator().manual_seed(2))


def described(model: torch.nn.Module) -> ModelDescription:
    return describe_model(model, IMAGES)


def layered(*, seed: int = 0, **terms: Term) -> BoundObjective:
    named = {name.replace("_", "-"): term for name, term in terms.items()} or {"vid": VariationalInformation()}
    return Objective(named).bind(described(student_net()), {"teacher": described(teacher_net())}, seed=seed)


def observed(objective: BoundObjective, student: torch.nn.Module, images: Tensor = IMAGES) -> tuple[Outputs, Outputs]:
    teacher = teacher_net()
    with (
        Taps(student, objective.requires.student_taps) as ours,
        Taps(teacher, objective.requires.teacher_taps["teacher"]) as theirs,
        torch.no_grad(),
    ):
        heard = theirs.observe(teacher, images)
        with torch.enable_grad():
            return ours.observe(student, images), heard


def test_19_an_objective_says_which_taps_it_needs() -> None:
    objective = layered(vid=VariationalInformation(), soft=SoftTargets())
    assert objective.requires.student_taps == (Tap("body.2"), Tap("body.4"))
    assert objective.requires.teacher_taps == {"teacher": (Tap("body.2"), Tap("body.6"))}
    assert layered(soft=SoftTargets()).requires.teacher_taps == {"teacher": ()}
    assert layered(labels=TrueLabels()).requires.teacher_taps == {}


def test_taps_of_several_terms_are_opened_once() -> None:
    pair = {"student": "body.2", "teacher": "body.6"}
    other = VariationalInformation.model_validate({"layers": [pair]})
    objective = layered(vid=VariationalInformation(), other=other)
    assert objective.requires.student_taps == (Tap("body.2"), Tap("body.4"))
    assert objective.requires.teacher_taps == {"teacher": (Tap("body.2"), Tap("body.6"))}


def test_18_projectors_are_parameters_of_the_objective_and_get_gradient() -> None:
    objective, student = layered(), student_net()
    said, heard = observed(objective, student)
    examples = batch([True] * 6)
    loss = objective(said, {"teacher": heard}, examples, objective.counts(examples))
    loss.total.backward()
    learned = dict(objective.module.named_parameters())
    assert learned
    assert all(parameter.grad is not None and bool((parameter.grad != 0).any()) for parameter in learned.values())
    assert student.body[1].weight.grad is not None
    mine = {id(parameter) for parameter in student.parameters()}
    assert not mine & {id(parameter) for parameter in learned.values()}


def test_20_equal_seeds_give_equal_projectors_and_others_do_not() -> None:
    def weights(seed: int, name: str = "vid") -> list[Tensor]:
        torch.rand(7)  # whatever was drawn before
        objective = layered(seed=seed, **{name: VariationalInformation()})
        return [parameter.detach() for parameter in objective.module.parameters() if parameter.ndim > 1]

    first, again, other, renamed = weights(0), weights(0), weights(1), weights(0, "hint")
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first, other, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first, renamed, strict=True))


def test_20_binding_leaves_the_random_state_as_it_was() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    networks = described(student_net()), {"teacher": described(teacher_net())}
    torch.manual_seed(5)
    Objective({"vid": VariationalInformation()}).bind(*networks)
    assert torch.equal(torch.rand(1), expected)


def test_20_two_bindings_of_one_objective_share_no_state() -> None:
    objective = Objective({"vid": VariationalInformation(), "count": Counted(teacher="teacher")})
    networks = described(student_net()), {"teacher": described(teacher_net())}
    first, second = objective.bind(*networks), objective.bind(*networks)
    before = {name: tensor.clone() for name, tensor in second.module.state_dict().items()}
    student = student_net()
    said, heard = observed(first, student)
    examples = batch([True] * 6)
    first(said, {"teacher": heard}, examples, first.counts(examples)).total.backward()
    with torch.no_grad():
        for parameter in first.module.parameters():
            parameter.add_(1)
    assert all(parameter.grad is None for parameter in second.module.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in second.module.state_dict().items())


class Counted(OwnTerm):
    """A term whose value says how often it was computed, and on which rows."""

    def value(self, said: TermInput) -> Tensor:
        return said.student.logits.sum(dim=-1) * 0 + said.ids.double()


class Fails(BoundTerm):
    def forward(self, said: TermInput) -> Tensor:
        raise AssertionError("computed")


def test_08_a_term_of_weight_0_opens_no_taps_and_makes_no_projector() -> None:
    objective = layered(vid=VariationalInformation(weight=0), soft=SoftTargets())
    assert objective.requires.student_taps == ()
    assert objective.requires.teacher_taps == {"teacher": ()}
    assert list(objective.module.parameters()) == []
    assert objective.weights == {"soft": 1.0}


def test_logits_may_come_alone_or_with_captured_values() -> None:
    objective, examples = bound(), batch([True, False, True])
    student, teacher = randn(3, CLASSES), randn(3, CLASSES, seed=1)
    counts = objective.counts(examples)
    plain = objective(student, {"teacher": teacher}, examples, counts)
    for said, heard in [
        (Outputs(student), Outputs(teacher)),
        (student, Outputs(teacher, {Tap("x"): randn(3, 2)})),
        (Outputs(student, {Tap("y"): randn(3, 2)}), teacher),
    ]:
        found = objective(said, {"teacher": heard}, examples, counts)
        assert torch.equal(found.total, plain.total)


def test_captured_values_in_half_precision_meet_projectors_in_float32() -> None:
    objective, student = layered(), student_net()
    said, heard = observed(objective, student)
    half = Outputs(said.logits.bfloat16(), {tap: value.bfloat16() for tap, value in said.taps.items()})
    heard_half = Outputs(heard.logits.half(), {tap: value.half() for tap, value in heard.taps.items()})
    examples = batch([True] * 6)
    counts = objective.counts(examples)
    loss = objective(half, {"teacher": heard_half}, examples, counts)
    assert loss.total.dtype == torch.float32
    torch.testing.assert_close(
        loss.total, objective(said, {"teacher": heard}, examples, counts).total, rtol=0.02, atol=0.02
    )


class LabelledLayer(OwnTerm):
    """Sees the layers and labels of labelled examples only."""

    needs_labels = True
    uses_layers = True

    def value(self, said: TermInput) -> Tensor:
        assert said.teacher is not None
        (ours,), (theirs,) = said.student.taps.values(), said.teacher.taps.values()
        assert len(ours) == len(theirs) == len(said.labels) == len(said.ids) == len(said.teacher_logits)
        return ours.flatten(1).sum(dim=1) + theirs.flatten(1).sum(dim=1) + said.ids


def test_11_captured_values_of_unlabelled_examples_are_left_out_with_their_labels() -> None:
    term = LabelledLayer.model_validate({"layers": [{"student": "body.2", "teacher": "body.6"}]})
    objective, student = layered(own=term), student_net()
    examples = batch([True, False, False, True, False, True], absent_label=-1)
    said, heard = observed(objective, student)
    loss = objective(said, {"teacher": heard}, examples, objective.counts(examples))
    rows = torch.tensor([0, 3, 5])
    ours, theirs = said.taps[Tap("body.2")][rows], heard.taps[Tap("body.6")][rows]
    by_hand = (ours.flatten(1).sum(1) + theirs.flatten(1).sum(1) + rows).mean()
    torch.testing.assert_close(loss.parts["own"], by_hand)


class Together(OwnTerm):
    """One value for the batch: the variance of a logit."""

    scope = "batch"

    def value(self, said: TermInput) -> Tensor:
        return said.student.logits.var(dim=0).sum()


def test_13_a_term_of_scope_batch_is_not_divided_and_refuses_pieces() -> None:
    objective = Objective({"own": Together(weight=0.5), "labels": TrueLabels()}).bind(CLASSES, {"teacher": CLASSES})
    examples, student = batch([True] * 6), randn(6, CLASSES)
    counts = objective.counts(examples)
    loss = objective(student, {"teacher": student}, examples, counts)
    torch.testing.assert_close(loss.parts["own"], student.var(dim=0).sum())
    assert loss.total.item() == pytest.approx(0.5 * loss.parts["own"].item() + loss.parts["labels"].item())
    piece = pieces(examples, [4, 2])[0]
    with pytest.raises(CompatibilityError, match=r"'own' compares the examples of a batch .* got 4 of 6; remove"):
        objective(student[:4], {"teacher": student[:4]}, piece, counts)


def test_the_objective_tells_its_terms_the_validation_loss() -> None:
    class Watched(Fails):
        def observe(self, validation_loss: float) -> dict[str, float]:
            return {"amount": 2 * validation_loss}

    terms = {"a": Counted(teacher="t"), "b": Counted(teacher="t")}
    objective = BoundObjective(
        terms, {"a": Watched(), "b": Fails()}, {"a": "answer", "b": "answer"}, task="main", view="student"
    )
    assert objective.observe(0.25) == {"a.amount": 0.5}


def test_a_teacher_of_other_classes_may_teach_layers_and_not_logits() -> None:
    other = describe_model(ConvNet(channels=1, widths=(4,), num_classes=9, dropout=0.0), IMAGES)
    assert (
        Objective({"vid": VariationalInformation()})
        .bind(described(student_net()), {"t": other})
        .requires.teacher_outputs
    )
    with pytest.raises(CompatibilityError, match="the teacher 't' has 9 classes and the student 5"):
        Objective({"soft": SoftTargets()}).bind(described(student_net()), {"t": other})


def test_layers_of_a_network_of_which_only_the_classes_are_given_are_refused() -> None:
    with pytest.raises(CompatibilityError, match="term 'vid': the student has no layer whose output could be compared"):
        Objective({"vid": VariationalInformation()}).bind(CLASSES, {"teacher": CLASSES})


def test_the_example_in_the_docstring_is_true() -> None:
    results = doctest.testmod(module)
    assert results.attempted >= 4
    assert results.failed == 0
