"""However a batch of texts is cut up, padded or packed: the same loss and the same gradients (correctness line 13)."""

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor, nn

from distil.data.batch import Batch
from distil.data.packing import block_diagonal_mask, pack
from distil.models.huggingface import load_pretrained
from distil.models.tap import Outputs
from distil.models.text_config import HuggingFaceModelConfig
from distil.objective.objective import BoundObjective, Objective
from distil.objective.response_config import ReverseKl, SoftTargets, TopK, TrueLabels
from distil.tasks.causal_language_modelling import next_token_targets

VOCABULARY = 37
PAD = 0
LENGTHS = [2, 2, 2, 2, 16, 16, 16, 16]  # ragged rows: [2 x 4, 16 x 4]
Pieces = Sequence[Sequence[int]]  # rows of each micro-batch


def llama(layers: int, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    config = {"model_type": "llama", "hidden_size": 16, "num_hidden_layers": layers, "num_attention_heads": 2}
    config |= {"num_key_value_heads": 1, "intermediate_size": 24, "max_position_embeddings": 64}
    network = load_pretrained(
        HuggingFaceModelConfig(config=config),
        head="causal-lm",
        num_outputs=None,
        vocabulary_size=VOCABULARY,
        pad_token_id=PAD,
    )
    return network.double().eval()


@pytest.fixture(scope="module")
def student() -> nn.Module:
    return llama(1, 0)


@pytest.fixture(scope="module")
def teacher() -> nn.Module:
    return llama(2, 1).requires_grad_(False)


@pytest.fixture(scope="module")
def rows() -> list[Tensor]:
    generator = torch.Generator().manual_seed(2)
    return [torch.randint(1, VOCABULARY, (length,), generator=generator) for length in LENGTHS]


@pytest.fixture(scope="module")
def objective() -> BoundObjective:
    terms = {
        "labels": TrueLabels(weight=0.3, smoothing=0.1),
        "soft": SoftTargets(weight=0.5, temperature=2.0),
        "reverse": ReverseKl(weight=0.2),
        "top": TopK(weight=0.4, k=5, temperature=2.0),
    }
    return Objective(terms).bind(VOCABULARY, {"teacher": VOCABULARY})


def padded(rows: Sequence[Tensor], *, left: bool, to: int | None = None) -> dict[str, Tensor]:
    length = max(len(row) for row in rows) if to is None else to
    fill = [(length - len(row), 0) if left else (0, length - len(row)) for row in rows]
    ids = torch.stack([nn.functional.pad(row, sides, value=PAD) for row, sides in zip(rows, fill, strict=True)])
    ones = [nn.functional.pad(torch.ones_like(row), sides) for row, sides in zip(rows, fill, strict=True)]
    return {"input_ids": ids, "attention_mask": torch.stack(ones)}


def as_batch(inputs: dict[str, Tensor]) -> Batch:
    labels, mask = next_token_targets(inputs["input_ids"], inputs["attention_mask"])
    views = {"student": inputs, "teacher": inputs}
    return Batch(torch.arange(len(labels)), views, {"main": labels}, {"main": mask}, {"main": mask})


def packed(rows: Sequence[Tensor], length: int) -> Batch:
    made = pack(list(rows), length=length, pad_id=PAD)
    ids = made.document_ids
    follows = (ids[:, 1:] == ids[:, :-1]) & (made.attention_mask[:, 1:] > 0)
    mask = nn.functional.pad(follows, (0, 1), value=False)
    labels = nn.functional.pad(made.input_ids[:, 1:], (0, 1)) * mask
    inputs = {
        "input_ids": made.input_ids,
        "attention_mask": block_diagonal_mask(ids),
        "position_ids": made.position_ids,
    }
    views = {"student": inputs, "teacher": inputs}
    return Batch(torch.arange(len(labels)), views, {"main": labels}, {"main": mask}, {"main": mask})


def learnt(
    student: nn.Module, teacher: nn.Module, objective: BoundObjective, batches: Sequence[Batch]
) -> tuple[float, dict[str, Tensor]]:
    """Loss and gradients of a global batch that comes in pieces."""
    counts: dict[str, int] = {}
    for batch in batches:
        for name, count in objective.counts(batch).items():
            counts[name] = counts.get(name, 0) + count
    student.zero_grad()
    total = 0.0
    for batch in batches:
        with torch.no_grad():
            heard = {"teacher": Outputs(teacher(batch.inputs["teacher"]))}
        loss = objective(student(batch.inputs["student"]), heard, batch, counts).total
        loss.backward()
        total += loss.item()
    return total, {name: p.grad.clone() for name, p in student.named_parameters() if p.grad is not None}


WAYS: dict[str, Callable[[list[Tensor]], list[Batch]]] = {
    "accumulation 2": lambda rows: [as_batch(padded(rows[i : i + 4], left=False)) for i in (0, 4)],
    "accumulation 4": lambda rows: [as_batch(padded(rows[i : i + 2], left=False)) for i in (0, 2, 4, 6)],
    "one by one": lambda rows: [as_batch(padded([row], left=False)) for row in rows],
    "uneven pieces": lambda rows: [as_batch(padded(rows[:5], left=False)), as_batch(padded(rows[5:], left=False))],
    "ranks: every other row": lambda rows: [as_batch(padded(rows[i::2], left=False)) for i in (0, 1)],
    "padding left": lambda rows: [as_batch(padded(rows, left=True))],
    "padding left, accumulation 2": lambda rows: [as_batch(padded(rows[i::2], left=True)) for i in (0, 1)],
    "more padding": lambda rows: [as_batch(padded(rows, left=False, to=40))],
    "bucketing: long first": lambda rows: [
        as_batch(padded(rows[4:], left=False)),
        as_batch(padded(rows[:4], left=True)),
    ],
    "a row of one token": lambda rows: [as_batch(padded([*rows, torch.tensor([5])], left=False))],
    "packing into rows of 24": lambda rows: [packed(rows, 24)],
    "packing, accumulation 2": lambda rows: [packed(rows[:6], 20), packed(rows[6:], 20)],
}


@pytest.mark.parametrize("way", WAYS)
def test_13_loss_and_gradients_do_not_depend_on_how_the_batch_is_cut_padded_or_packed(
    way: str, student: nn.Module, teacher: nn.Module, objective: BoundObjective, rows: list[Tensor]
) -> None:
    expected, gradients = learnt(student, teacher, objective, [as_batch(padded(rows, left=False))])
    found, others = learnt(student, teacher, objective, WAYS[way](rows))
    assert found == pytest.approx(expected, rel=1e-9)
    assert max(float(each.abs().max()) for each in gradients.values()) > 1e-3
    for name, gradient in gradients.items():
        torch.testing.assert_close(others[name], gradient, rtol=1e-6, atol=1e-9)


def test_13_the_denominator_is_the_number_of_predicted_tokens(objective: BoundObjective, rows: list[Tensor]) -> None:
    batch = as_batch(padded(rows, left=False))
    assert set(objective.counts(batch).values()) == {sum(length - 1 for length in LENGTHS)}


def test_14_the_loss_in_evaluation_is_the_loss_in_training(
    student: nn.Module, teacher: nn.Module, rows: list[Tensor]
) -> None:
    from distil.tasks.tokens import CausalLanguageModel

    alone = Objective({"labels": TrueLabels()}).bind(VOCABULARY)
    batch = as_batch(padded(rows, left=False))
    trained = alone(student(batch.inputs["student"]), {}, batch, alone.counts(batch)).total.item()
    nats, tokens = CausalLanguageModel().ask(student, batch.inputs["student"], batch).sum(dim=0).tolist()
    assert nats / tokens == pytest.approx(trained, rel=1e-9)


def test_11_a_batch_without_anything_to_predict_gives_0_and_a_live_graph(
    student: nn.Module, teacher: nn.Module, objective: BoundObjective
) -> None:
    loss, gradients = learnt(student, teacher, objective, [as_batch(padded([torch.tensor([3])] * 2, left=False))])
    assert loss == 0
    assert gradients
    assert all(bool((each == 0).all()) for each in gradients.values())
