"""The common properties of all terms, on real digits and real networks."""

import copy
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from distil.core.errors import CompatibilityError, Preempted
from distil.data.batch import Batch
from distil.data.feed import TASK
from distil.models.tap import Outputs
from distil.objective.config import catalogue
from distil.objective.term_config import LayerTermConfig
from tests.suites.harness import LENGTHS, Pair, bind, encoder, feed, run, taught, texts, with_targets
from tests.suites.rows import ROWS, Row, build

KINDS = sorted(ROWS)
ON_LAYERS = [kind for kind in KINDS if issubclass(catalogue()[kind], LayerTermConfig)]


def pair_of(kind: str, *, seed: int = 0) -> Pair:
    row = ROWS[kind]
    return bind(row.term(kind), build(row.student, seed=seed), taught(row.teacher, row.targets))  # type: ignore[arg-type]


def batch_of(kind: str, *, size: int = 32, step: int = 0):
    return with_targets(feed(batch_size=size).batch(step), ROWS[kind].targets)


def test_every_term_has_a_row_and_every_row_a_term() -> None:
    assert set(ROWS) == set(catalogue())


@pytest.mark.parametrize("kind", KINDS)
def test_facts_are_stated(kind: str) -> None:
    term = catalogue()[kind]
    assert term.source
    assert term.summary
    assert term.knowledge in ("labels", "responses", "features", "attention", "relations", "contrast")
    assert term.scope in ("example", "batch")
    assert ROWS[kind].targets in term.targets


@pytest.mark.parametrize("kind", [kind for kind in KINDS if ROWS[kind].identity])
def test_1_a_student_that_is_its_teacher_has_value_and_gradient_zero(kind: str) -> None:
    row = ROWS[kind]
    twin = taught(row.teacher, row.targets).eval()
    pair = bind(row.term(kind), twin, taught(row.teacher, row.targets))  # type: ignore[arg-type]
    assert not list(pair.objective.module.parameters()), "with a projector the identity is that of the loss alone"
    part = pair.part(batch_of(kind))
    part.backward()
    assert part.item() == pytest.approx(0.0, abs=2e-6)
    assert max(p.grad.abs().max().item() for p in twin.parameters() if p.grad is not None) < 1e-4


@pytest.mark.parametrize("kind", [kind for kind in KINDS if ROWS[kind].symmetric])
def test_student_and_teacher_can_be_exchanged(kind: str) -> None:
    row, batch = ROWS[kind], batch_of(kind)
    one, other = build(row.teacher, seed=1).eval(), build(row.teacher, seed=2).eval()
    there, back = (bind(row.term(kind), a, b).part(batch) for a, b in ((one, other), (other, one)))  # type: ignore[arg-type]
    assert there.item() == pytest.approx(back.item(), rel=1e-5)


@pytest.mark.parametrize("kind", [k for k in KINDS if catalogue()[k].scope == "example" and not ROWS[k].random])
def test_11_13_the_shares_of_ragged_pieces_are_the_whole_in_value_and_gradient(kind: str) -> None:
    """Some labels are absent. Terms that draw at random agree in expectation only, and are not compared."""
    pair, batch = pair_of(kind), batch_of(kind)
    pair.student.eval()
    pair.objective.module.eval()
    labels = batch.targets[TASK]
    batch = replace(batch, present={TASK: torch.arange(len(batch)) % 3 != 0}, targets={TASK: labels})
    counts = pair.objective.counts(batch)
    parameters = [p for p in (*pair.student.parameters(), *pair.objective.module.parameters()) if p.requires_grad]
    answers = []
    for size in (None, 5):
        total = torch.zeros(())
        with torch.random.fork_rng():
            torch.manual_seed(0)
            for piece in batch.split(size):
                total = total + pair.objective(pair.said(piece), pair.heard(piece), piece, counts).total
        gradients = torch.autograd.grad(total, parameters, allow_unused=True)
        answers.append((total.detach(), torch.cat([g.flatten() for g in gradients if g is not None])))
    torch.testing.assert_close(answers[1][0], answers[0][0], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(answers[1][1], answers[0][1], rtol=1e-3, atol=1e-5)


def of_texts(kind: str) -> Pair:
    term, student, teacher = ROWS[kind].term(kind), build(lambda: encoder(2), seed=0), build(lambda: encoder(3), seed=1)
    pair = bind(term, student, teacher, example=texts(7).inputs["student"])  # type: ignore[arg-type]
    pair.objective.module.eval()
    return pair


def learnt(pair: Pair, batch: Batch, *, pieces_of: int | None = None) -> tuple[Tensor, Tensor]:
    """Value and gradient of a batch, whole or in pieces."""
    pair.student.zero_grad()
    counts, total = pair.objective.counts(batch), torch.zeros(())
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for piece in batch.split(pieces_of):
            total = total + pair.objective(pair.said(piece), pair.heard(piece), piece, counts).total
    total.backward()
    return total.detach(), torch.cat([p.grad.flatten() for p in pair.student.parameters() if p.grad is not None])


@pytest.mark.parametrize("kind", [kind for kind in ON_LAYERS if ROWS[kind].tokens])
def test_11_13_padding_of_texts_changes_nothing_in_terms_on_layers(kind: str) -> None:
    pair, in_pieces = of_texts(kind), catalogue()[kind].scope == "example"
    value, gradient = learnt(pair, texts(7))
    found = [learnt(pair, texts(7, filler=9)), learnt(pair, texts(11)), learnt(pair, texts(11, filler=4))]
    if in_pieces:
        found.append(learnt(pair, texts(9), pieces_of=2))
    assert value > 0 or kind == "queue-contrast", "the queue is empty at first"
    for other, its_gradient in found:
        torch.testing.assert_close(other, value, rtol=1e-4, atol=1e-7)
        torch.testing.assert_close(its_gradient, gradient, rtol=1e-3, atol=1e-5 * gradient.abs().max().item() + 1e-9)
    per_token = in_pieces and catalogue()[kind].knowledge != "attention"
    assert pair.objective.counts(texts(11)) == {"term": sum(LENGTHS) if per_token else len(LENGTHS)}


@pytest.mark.parametrize("kind", [kind for kind in ON_LAYERS if not ROWS[kind].tokens])
def test_a_term_that_needs_positions_is_refused_for_the_tokens_of_texts(kind: str) -> None:
    with pytest.raises(CompatibilityError, match=r"^term 'term': .*(has one position|compares positions)"):
        of_texts(kind)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if catalogue()[kind].needs_labels])
def test_11_no_labels_at_all_gives_zero_with_a_live_graph_where_labels_are_needed(kind: str) -> None:
    pair, batch = pair_of(kind), batch_of(kind)
    batch = replace(batch, present={TASK: torch.zeros(len(batch), dtype=torch.bool)})
    part = pair.part(batch)
    part.backward()
    assert part.item() == 0.0
    assert all(bool((p.grad == 0).all()) for p in pair.student.parameters() if p.grad is not None)


@pytest.mark.parametrize("scale", [1e-4, 1e4])
@pytest.mark.parametrize("kind", KINDS)
def test_5_extreme_outputs_give_finite_values_and_gradients(kind: str, scale: float) -> None:
    pair, batch = pair_of(kind), batch_of(kind)

    def scaled(outputs: Outputs) -> Outputs:
        return Outputs(outputs.logits * scale, {tap: value * scale for tap, value in outputs.taps.items()})

    said, heard = pair.said(batch), {name: scaled(each) for name, each in pair.heard(batch).items()}
    part = pair.part(batch, scaled(said), heard)
    part.backward()
    assert bool(torch.isfinite(part))
    for parameter in [*pair.student.parameters(), *pair.objective.module.parameters()]:
        assert parameter.grad is None or bool(torch.isfinite(parameter.grad).all())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["fp16", "bf16"])
@pytest.mark.parametrize("kind", KINDS)
def test_5_half_precision_gives_finite_values_near_those_of_float32(kind: str, dtype: torch.dtype) -> None:
    pair, batch = pair_of(kind), batch_of(kind)
    pair.objective.module.eval()

    def cast(outputs: Outputs, to: torch.dtype) -> Outputs:
        return Outputs(
            outputs.logits.to(dtype).to(to), {tap: value.to(dtype).to(to) for tap, value in outputs.taps.items()}
        )

    said, heard = pair.said(batch), pair.heard(batch)
    parts = []
    for to in (dtype, torch.float32):  # the same rounded numbers, in two precisions
        torch.manual_seed(0)
        parts.append(pair.part(batch, cast(said, to), {name: cast(each, to) for name, each in heard.items()}))
    parts[0].backward()
    assert parts[0].dtype == torch.float32
    torch.testing.assert_close(parts[0], parts[1], rtol=1e-4, atol=1e-6)
    assert all(bool(torch.isfinite(p.grad).all()) for p in pair.student.parameters() if p.grad is not None)


@pytest.mark.parametrize("kind", KINDS)
def test_15_16_no_gradient_reaches_the_teacher_and_nothing_of_it_is_trained(kind: str) -> None:
    pair, batch = pair_of(kind), batch_of(kind)
    heard = {
        name: Outputs(
            each.logits.clone().requires_grad_(), {tap: v.clone().requires_grad_() for tap, v in each.taps.items()}
        )
        for name, each in pair.heard(batch).items()
    }
    pair.part(batch, heard=heard).backward()
    for each in heard.values():
        assert each.logits.grad is None
        assert all(value.grad is None for value in each.taps.values())
    shared = {id(p) for p in pair.teacher.parameters()} & {id(p) for p in pair.objective.module.parameters()}
    assert not shared


@pytest.mark.parametrize("kind", KINDS)
def test_19_hooks_are_gone_after_a_training_and_18_projectors_stay_out_of_the_student(
    kind: str, tmp_path: Path
) -> None:
    pair = pair_of(kind)
    before = set(pair.student.state_dict())
    trained = run(pair, tmp_path, kind=ROWS[kind].targets, stop_at=None)
    assert set(trained.weights) == before
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in pair.student.modules())


@pytest.mark.parametrize("kind", KINDS)
def test_twenty_steps_lower_the_value_and_move_the_student(kind: str, tmp_path: Path) -> None:
    pair, row = pair_of(kind), ROWS[kind]
    start = {name: value.clone() for name, value in pair.student.state_dict().items()}
    first = mean_part(pair, kind)
    trained = run(pair, tmp_path, kind=row.targets)
    pair.student.load_state_dict(dict(trained.weights))
    assert any(not torch.equal(start[name], value) for name, value in trained.weights.items())
    if row.falls:
        assert mean_part(pair, kind) < first


def mean_part(pair: Pair, kind: str) -> float:
    """On the five batches of an epoch, by the batches' own statistics; nothing is learnt or remembered."""
    student, objective = copy.deepcopy(pair.student).train(), copy.deepcopy(pair.objective)
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(0)
        measured = Pair(student, pair.teacher, objective)
        return sum(measured.part(batch_of(kind, step=step)).item() for step in range(5)) / 5


@pytest.mark.parametrize("kind", KINDS)
def test_31_interrupted_and_resumed_gives_equal_bits_of_student_and_objective(kind: str, tmp_path: Path) -> None:
    row = ROWS[kind]
    whole = pair_of(kind)
    unbroken = run(whole, tmp_path / "whole", kind=row.targets)
    broken = pair_of(kind)
    with pytest.raises(Preempted):
        run(broken, tmp_path / "broken", kind=row.targets, stop_at=7)
    resumed = pair_of(kind, seed=0)
    with torch.no_grad():  # what the checkpoint does not hold would stay as it is here
        for parameter in resumed.objective.module.parameters():
            parameter.zero_()
    again = run(resumed, tmp_path / "broken", kind=row.targets)
    assert all(torch.equal(unbroken.weights[name], again.weights[name]) for name in unbroken.weights)
    ours, theirs = resumed.objective.module.state_dict(), whole.objective.module.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("kind", KINDS)
def test_23_an_unlike_pair_trains(kind: str, tmp_path: Path) -> None:
    row = ROWS[kind]
    student, teacher = row.unlike
    pair = bind(row.term(kind), build(student, seed=0), taught(teacher, row.targets))  # type: ignore[arg-type]
    first = mean_part(pair, kind)
    run(pair, tmp_path, kind=row.targets)
    assert math.isfinite(mean_part(pair, kind))
    if row.falls:
        assert mean_part(pair, kind) < first


@pytest.mark.parametrize("kind", KINDS)
def test_mixed_precision_trains(kind: str, tmp_path: Path) -> None:
    trained = run(pair_of(kind), tmp_path, kind=ROWS[kind].targets, precision="bf16")
    assert all(bool(torch.isfinite(v).all()) for v in trained.weights.values() if v.is_floating_point())


def test_a_row_reads_as_it_should() -> None:
    assert isinstance(build(Row().student, seed=0), nn.Module)
