"""What terms are given of texts: real tokens, answers that count, and nothing of padding (correctness 11 and 13)."""

from collections.abc import Sequence
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from distil.core.errors import CompatibilityError
from distil.data.batch import Batch
from distil.losses.relation import relation_distance
from distil.losses.sparse import largest_classes
from distil.models.describe import ModelDescription, describe_model
from distil.models.huggingface import load_pretrained
from distil.models.tap import Outputs, Tap, Taps
from distil.models.text_config import HuggingFaceModelConfig
from distil.objective.attention_config import AttentionDistributions, AttentionMaps, QkvRelations
from distil.objective.contrast_config import SupervisedContrast
from distil.objective.feature_config import FeatureCosine, Hints
from distil.objective.objective import BoundObjective, Objective
from distil.objective.own_config import OwnTerm
from distil.objective.relation_config import RelationDistance, SimilarityPreserving
from distil.objective.response_config import BornAgain, SoftTargets, TopK, TrueLabels
from distil.objective.term import Binding, BoundTerm, TermInput
from distil.objective.term_config import TermConfig
from distil.objective.unit import Choice, unit_of

VOCABULARY, CLASSES = 16, 3
TEXTS = [[2, 5, 3], [2, 6, 7, 8, 9, 3], [2, 3], [2, 10, 11, 12, 3], [2, 13, 3]]
LAYER = "pretrained.bert.encoder.layer"
Inputs = dict[str, Tensor]


def bert(*, width: int = 8, layers: int = 2, seed: int = 0) -> nn.Module:
    pytest.importorskip("transformers")
    torch.manual_seed(seed)
    sizes = {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": 2, "intermediate_size": 12}
    network = load_pretrained(
        HuggingFaceModelConfig(config={"model_type": "bert", **sizes, "max_position_embeddings": 20}),
        head="classes",
        num_outputs=CLASSES,
        vocabulary_size=VOCABULARY,
        pad_token_id=0,
    )
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.5)
    return network.double().eval()


def padded(texts: Sequence[Sequence[int]], *, to: int = 0, filling: int = 0) -> Inputs:
    length = max(to, *map(len, texts))
    ids = [[*text, *[filling] * (length - len(text))] for text in texts]
    mask = [[1] * len(text) + [0] * (length - len(text)) for text in texts]
    return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}


def as_batch(inputs: Inputs, *, labels: Sequence[int] | None = None, teacher: Inputs | None = None) -> Batch:
    size = len(inputs["input_ids"])
    targets = torch.tensor(labels) if labels is not None else torch.arange(size) % CLASSES
    return Batch(
        ids=torch.arange(size),
        inputs={"student": inputs, "teacher": inputs if teacher is None else teacher},
        targets={"main": targets},
        present={"main": targets >= 0},
    )


@pytest.fixture(scope="module")
def student() -> nn.Module:
    return bert()


@pytest.fixture(scope="module")
def teacher() -> nn.Module:
    return bert(width=12, layers=3, seed=1).requires_grad_(False)


@pytest.fixture(scope="module")
def described(student: nn.Module, teacher: nn.Module) -> tuple[ModelDescription, ModelDescription]:
    one = padded(TEXTS[1:2])
    return describe_model(student, one), describe_model(teacher, one)


Described = tuple[ModelDescription, ModelDescription]
Learnt = tuple[float, dict[str, Tensor]]


def bound(term: Any, described: Described) -> BoundObjective:
    objective = Objective({"term": term}).bind(described[0], {"teacher": described[1]})
    objective.module.double()
    return objective


def observe(model: nn.Module, taps: Sequence[Tap], inputs: Any) -> Outputs:
    with Taps(model, taps) as opened:
        return opened.observe(model, inputs)


def learn(objective: BoundObjective, student: nn.Module, teacher: nn.Module, batches: Sequence[Batch]) -> Learnt:
    """Loss and every gradient of a global batch that comes in these pieces."""
    parameters = {**dict(student.named_parameters()), **dict(objective.module.named_parameters())}
    for parameter in parameters.values():
        parameter.grad = None
    count = sum(objective.counts(batch)["term"] for batch in batches)
    total = 0.0
    for batch in batches:
        said = observe(student, objective.requires.student_taps, batch.inputs["student"])
        with torch.no_grad():
            heard = observe(teacher, objective.requires.teacher_taps["teacher"], batch.inputs["teacher"])
        loss = objective(said, {"teacher": heard}, batch, {"term": count}).total
        loss.backward()
        total += loss.item()
    return total, {name: p.grad.clone() for name, p in parameters.items() if p.grad is not None}


def assert_same(found: Learnt, expected: Learnt) -> None:
    assert found[0] == pytest.approx(expected[0], rel=1e-9)
    largest = max(float(each.abs().max()) for each in expected[1].values())
    assert largest > 0.01 * expected[0]
    assert found[1].keys() == expected[1].keys()
    for name, gradient in expected[1].items():
        torch.testing.assert_close(found[1][name], gradient, rtol=1e-7, atol=1e-9 * largest)


# layers of tokens

FEATURES = [Hints(), Hints(normalise=True), Hints(regressor="mlp"), FeatureCosine()]
ON_BATCHES = [RelationDistance(), SimilarityPreserving()]
ATTENTION = [AttentionMaps(), AttentionMaps(scores=True), AttentionDistributions(), QkvRelations(relation_heads=4)]


def name_of(term: Any) -> str:
    settings = ", ".join(f"{key}={value}" for key, value in term.model_dump(exclude_defaults=True).items())
    return f"{term.kind} {settings}".strip()


@pytest.mark.parametrize("term", [*FEATURES, *ON_BATCHES, *ATTENTION], ids=name_of)
def test_11_more_padding_changes_neither_value_nor_gradient(
    term: Any, student: nn.Module, teacher: nn.Module, described: Described
) -> None:
    objective = bound(term, described)
    expected = learn(objective, student, teacher, [as_batch(padded(TEXTS))])
    for inputs in (padded(TEXTS, to=11), padded(TEXTS, to=11, filling=7)):
        assert_same(learn(objective, student, teacher, [as_batch(inputs)]), expected)


@pytest.mark.parametrize("term", [*FEATURES, *ATTENTION], ids=name_of)
def test_11_a_row_without_any_token_changes_neither_value_nor_gradient(
    term: Any, student: nn.Module, teacher: nn.Module, described: Described
) -> None:
    objective = bound(term, described)
    expected = learn(objective, student, teacher, [as_batch(padded(TEXTS))])
    assert_same(learn(objective, student, teacher, [as_batch(padded([*TEXTS, []]))]), expected)


@pytest.mark.parametrize("term", FEATURES, ids=name_of)
def test_11_a_batch_without_any_token_gives_0_and_a_live_graph(
    term: Any, student: nn.Module, teacher: nn.Module, described: Described
) -> None:
    loss, gradients = learn(bound(term, described), student, teacher, [as_batch(padded([[], []], to=3))])
    assert loss == 0
    assert gradients
    assert all(bool((each == 0).all()) for each in gradients.values())


@pytest.mark.parametrize("sizes", [(2, 3), (1, 4), (1, 1, 1, 1, 1)], ids=str)
@pytest.mark.parametrize("term", [*FEATURES, *ATTENTION], ids=name_of)
def test_13_micro_batches_add_up_however_long_their_texts_are(
    term: Any, sizes: tuple[int, ...], student: nn.Module, teacher: nn.Module, described: Described
) -> None:
    objective = bound(term, described)
    expected = learn(objective, student, teacher, [as_batch(padded(TEXTS))])
    starts = [sum(sizes[:position]) for position in range(len(sizes))]
    pieces = [TEXTS[start : start + size] for start, size in zip(starts, sizes, strict=True)]
    assert_same(learn(objective, student, teacher, [as_batch(padded(piece)) for piece in pieces]), expected)


def test_13_the_denominator_is_the_number_of_real_tokens(described: Described) -> None:
    batch = as_batch(padded(TEXTS, to=9), labels=[0, -1, 1, -1, 2])
    tokens, examples, labelled = sum(map(len, TEXTS)), len(TEXTS), 3
    counts = {
        name: bound(term, described).counts(batch)["term"]
        for name, term in {
            "hints": Hints(),
            "relation": RelationDistance(),
            "attention": AttentionMaps(),
            "responses": SoftTargets(),
            "labels": TrueLabels(),
        }.items()
    }
    assert counts == {
        "hints": tokens,
        "relation": examples,
        "attention": examples,
        "responses": examples,
        "labels": labelled,
    }


def test_11_the_cosine_of_tokens_is_the_mean_over_all_real_ones_by_hand(
    student: nn.Module, described: Described
) -> None:
    other = bert(seed=5).requires_grad_(False)
    objective = bound(FeatureCosine(), (described[0], describe_model(other, padded(TEXTS[1:2]))))
    batch = as_batch(padded(TEXTS, to=8))
    found, _ = learn(objective, student, other, [batch])
    taps = [Tap(f"{LAYER}.{number}") for number in (0, 1)]
    assert objective.requires.student_taps == tuple(taps)
    distances = []
    for text in TEXTS:  # each by itself, so that there is no padding
        ours, theirs = (observe(model, taps, padded([text])).taps for model in (student, other))
        cosines = [F.cosine_similarity(ours[tap][0], theirs[tap][0], dim=-1) for tap in taps]
        distances += (1 - torch.stack(cosines)).mean(dim=0).tolist()
    assert len(distances) == sum(map(len, TEXTS))
    assert found == pytest.approx(sum(distances) / len(distances))


def test_11_relations_are_between_the_means_of_real_tokens(
    student: nn.Module, teacher: nn.Module, described: Described
) -> None:
    objective = bound(RelationDistance(), described)
    found, _ = learn(objective, student, teacher, [as_batch(padded(TEXTS, to=8))])
    means = []
    for model, taps in (
        (student, objective.requires.student_taps),
        (teacher, objective.requires.teacher_taps["teacher"]),
    ):
        (tap,) = taps
        means.append(torch.stack([observe(model, taps, padded([text])).taps[tap][0].mean(dim=0) for text in TEXTS]))
    assert found == pytest.approx(relation_distance(means[0], means[1]).item())


def test_relations_need_the_whole_batch(student: nn.Module, teacher: nn.Module, described: Described) -> None:
    objective = bound(RelationDistance(), described)
    pieces = [as_batch(padded(TEXTS[:2])), as_batch(padded(TEXTS[2:]))]
    with pytest.raises(CompatibilityError, match=r"got 2 of 5; remove training\.micro_batch_size"):
        learn(objective, student, teacher, pieces)


def test_pooled_layers_are_compared_text_by_text(student: nn.Module, teacher: nn.Module, described: Described) -> None:
    pooler = {"student": "pretrained.bert.pooler", "teacher": "pretrained.bert.pooler"}
    objective = bound(Hints.model_validate({"layers": [pooler]}), described)
    assert objective.counts(as_batch(padded(TEXTS))) == {"term": len(TEXTS)}
    expected = learn(objective, student, teacher, [as_batch(padded(TEXTS))])
    assert_same(learn(objective, student, teacher, [as_batch(padded(TEXTS, to=9))]), expected)


# layers that do not fit


def test_23_a_layer_of_tokens_and_one_of_whole_texts_are_not_alike(described: Described) -> None:
    layers = [{"student": f"{LAYER}.1", "teacher": "pretrained.bert.pooler"}]
    with pytest.raises(
        CompatibilityError,
        match=rf"term 'term': {LAYER}.1 has a vector for each token and pretrained.bert.pooler one for the whole text",
    ):
        bound(Hints.model_validate({"layers": layers}), described)


class Labelled(OwnTerm):
    needs_labels = True
    uses_layers = True

    def value(self, said: TermInput) -> Tensor:
        return said.student.logits.sum(dim=-1)


def test_a_term_that_needs_a_label_for_each_token_is_refused(described: Described) -> None:
    with pytest.raises(CompatibilityError, match="tokens have none; choose pooled layers"):
        bound(Labelled(), described)
    pooler = {"student": "pretrained.bert.pooler", "teacher": "pretrained.bert.pooler"}
    assert bound(Labelled.model_validate({"layers": [pooler]}), described).weights == {"term": 1.0}


def test_23_a_teacher_that_reads_to_another_length_is_refused(
    student: nn.Module, teacher: nn.Module, described: Described
) -> None:
    batch = as_batch(padded(TEXTS), teacher=padded(TEXTS, to=8))
    for term in (Hints(), RelationDistance()):
        with pytest.raises(
            CompatibilityError, match=r"has 8 tokens and the student's text 6; .* by the same tokenizer and to"
        ):
            learn(bound(term, described), student, teacher, [batch])


@pytest.mark.parametrize("term", [Hints(), AttentionMaps()], ids=name_of)
def test_23_a_teacher_whose_texts_have_other_tokens_is_refused(
    term: Any, student: nn.Module, teacher: nn.Module, described: Described
) -> None:
    """Cut by another tokenizer, texts may by chance have equally many tokens at most, and others each."""
    other = [[2, 5, 5, 5, 3], [2, 6, 3], [2, 9, 9, 9, 9, 3], [2, 10, 3], [2, 3]]
    batch = as_batch(padded(TEXTS), teacher=padded(other))
    with pytest.raises(CompatibilityError):
        learn(bound(term, described), student, teacher, [batch])


def test_a_teacher_that_is_not_asked_live_has_no_input_to_compare(described: Described) -> None:
    batch = as_batch(padded(TEXTS))
    kept = Batch(batch.ids, {"student": batch.inputs["student"]}, batch.targets, batch.present)
    said = {Tap("tokens"): randn(5, 6, 4)}
    given = Choice(kept, task="main", view="student").given(
        Hints(teacher="teacher"), "token", Outputs(randn(5, 3), said), Outputs(randn(5, 3), said)
    )
    assert given.student.taps[Tap("tokens")].shape == (sum(map(len, TEXTS)), 4)


def test_an_input_without_a_mask_is_named(student: nn.Module, teacher: nn.Module, described: Described) -> None:
    inputs = {"input_ids": padded(TEXTS[:1])["input_ids"]}
    with pytest.raises(CompatibilityError, match=r"the input 'student' of the batch has no attention_mask \[batch"):
        bound(Hints(), described).counts(as_batch(inputs))


# answers for tokens

LABELS = torch.tensor([[1, 0, 2, 0], [0, 2, 1, 1]])
POSITIONS = torch.tensor([[True, True, False, False], [True, True, True, False]])
PRESENT = torch.tensor([[True, False, False, False], [True, True, False, True]])  # the last is no position


def of_tokens() -> Batch:
    return Batch(
        ids=torch.tensor([7, 9]),
        inputs={"student": padded([[2, 5], [2, 6, 3]], to=4)},
        targets={"main": LABELS},
        present={"main": PRESENT},
        positions={"main": POSITIONS},
    )


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def answered(term: Any, logits: Tensor, heard: Tensor | Outputs) -> tuple[Tensor, BoundObjective]:
    objective = Objective({"term": term}).bind(CLASSES, {"teacher": CLASSES})
    batch = of_tokens()
    return objective(logits, {"teacher": heard}, batch, objective.counts(batch)).total, objective


def test_11_a_term_on_the_teacher_takes_the_answers_at_positions_alone() -> None:
    student, teacher = randn(2, 4, 3).requires_grad_(), randn(2, 4, 3, seed=1)
    found, objective = answered(SoftTargets(temperature=1.0), student, teacher)
    expected = F.kl_div(
        student[POSITIONS].log_softmax(-1), teacher[POSITIONS].log_softmax(-1), reduction="batchmean", log_target=True
    )
    assert found.item() == pytest.approx(expected.item())
    (gradient,) = torch.autograd.grad(found, student)
    assert torch.equal(gradient.abs().sum(dim=-1) > 0, POSITIONS)
    assert objective.counts(of_tokens()) == {"term": 5}


def test_11_a_term_on_labels_takes_those_that_are_known_too() -> None:
    student = randn(2, 4, 3).requires_grad_()
    found, objective = answered(TrueLabels(), student, randn(2, 4, 3))
    counted = POSITIONS & PRESENT
    assert found.item() == pytest.approx(F.cross_entropy(student[counted], LABELS[counted]).item())
    (gradient,) = torch.autograd.grad(found, student)
    assert torch.equal(gradient.abs().sum(dim=-1) > 0, counted)
    assert objective.counts(of_tokens()) == {"term": 3}


def test_27_what_is_said_where_nothing_counts_changes_nothing() -> None:
    student, teacher = randn(2, 4, 3), randn(2, 4, 3, seed=1)
    changed = student.masked_fill(~POSITIONS.unsqueeze(-1), 1e4)
    for term in (SoftTargets(), TrueLabels(), BornAgain()):
        assert answered(term, student, teacher)[0].item() == answered(term, changed, teacher)[0].item()


def test_29_of_a_teacher_of_whom_only_the_likeliest_classes_were_kept_the_same_answers_count() -> None:
    student, teacher = randn(2, 4, 3), randn(2, 4, 3, seed=1)
    term = TopK(k=2, temperature=2.0)
    kept = largest_classes(teacher, k=2, temperature=2.0)
    assert kept.log_rest is not None
    largest = (kept.indices, kept.log_probabilities, kept.log_rest)
    sparse = Outputs(kept.log_probabilities[..., :0], largest=largest)
    dense = answered(term, student, teacher)[0].item()
    assert answered(term, student, sparse)[0].item() == pytest.approx(dense)
    everywhere = torch.ones_like(POSITIONS)
    chosen = sparse.rows(everywhere)
    assert chosen.largest is not None
    assert [value.shape[0] for value in chosen.largest] == [8, 8, 8]


def test_answers_carry_the_number_of_their_example() -> None:
    given = Choice(of_tokens(), task="main", view="student").given(
        SoftTargets(), "answer", Outputs(randn(2, 4, 3)), Outputs(randn(2, 4, 3))
    )
    assert given.ids.tolist() == [7, 7, 9, 9, 9]
    assert given.labels.tolist() == LABELS[POSITIONS].tolist()
    assert given.mask is None


def test_11_a_kept_answer_is_as_wide_as_the_batch_and_no_wider() -> None:
    """The kept one has places for the windows of longer texts, of which nothing is said."""
    batch = Batch(
        ids=torch.tensor([7]),
        inputs={},
        targets={"main": torch.tensor([[0, 1]])},
        present={"main": torch.ones(1, 2, dtype=torch.bool)},
        positions={"main": torch.ones(1, 2, dtype=torch.bool)},
    )
    student, teacher = randn(1, 2, 3), randn(1, 2, 3, seed=1)
    kept = F.pad(teacher, (0, 4), value=-torch.inf)
    choice = Choice(batch, task="main", view="student")
    given = choice.given(SoftTargets(), "answer", Outputs(student), Outputs(kept))
    assert torch.equal(given.teacher_logits, teacher[0])
    other = choice.given(SoftTargets(), "answer", Outputs(student), Outputs(F.pad(teacher, (0, 4))))
    assert other.teacher_logits.shape == (2, 7)  # something is said there, so the two do not fit


def test_24_a_teacher_that_answers_for_other_tokens_is_refused() -> None:
    for other in (randn(2, 5, 3), randn(1, 4, 3)):
        with pytest.raises(CompatibilityError, match=r"for \[2, 4\] tokens and the teacher for .* the same tokenizer"):
            answered(SoftTargets(), randn(2, 4, 3), other)


# one label an example


def chosen(term: TermConfig, unit: Literal["answer", "example", "token"], present: Sequence[bool]) -> TermInput:
    batch = as_batch(padded(TEXTS), labels=[0 if known else -1 for known in present])
    said = {Tap("a"): torch.arange(5.0), Tap("tokens"): randn(5, 6, 4)}
    return Choice(batch, task="main", view="student").given(
        term, unit, Outputs(randn(5, 3), said), Outputs(randn(5, 3), said)
    )


def test_11_a_term_that_needs_labels_gets_the_examples_that_have_one() -> None:
    present = [True, False, True, True, False]
    given = chosen(SupervisedContrast(), "example", present)
    assert given.ids.tolist() == [0, 2, 3]
    assert given.labels.tolist() == [0, 0, 0]
    assert given.student.taps[Tap("a")].tolist() == [0.0, 2.0, 3.0]
    assert given.mask is not None
    assert given.mask.sum(dim=1).tolist() == [3, 2, 5]
    assert chosen(SoftTargets(), "answer", present).ids.tolist() == [0, 1, 2, 3, 4]


def test_11_a_term_on_a_batch_of_tokens_that_needs_labels_gets_the_means_of_the_labelled() -> None:
    given = chosen(SupervisedContrast(), "token", [False, True, True, False, False])
    tokens = randn(5, 6, 4)
    expected = torch.stack([tokens[1].mean(dim=0), tokens[2, :2].mean(dim=0)])
    torch.testing.assert_close(given.student.taps[Tap("tokens")], expected)
    assert given.ids.tolist() == [1, 2]


def test_tokens_carry_the_number_of_their_example() -> None:
    given = chosen(Hints(), "token", [True] * 5)
    assert given.ids.tolist() == [row for row, text in enumerate(TEXTS) for _ in text]
    assert given.teacher is not None
    assert given.teacher.taps[Tap("tokens")].shape == (sum(map(len, TEXTS)), 4)


def test_a_term_that_compares_labelled_texts_is_refused_where_tokens_have_the_labels(described: Described) -> None:
    objective = bound(SupervisedContrast(), described)
    batch = Batch(
        ids=torch.arange(2),
        inputs={"student": padded([[2, 5], [2, 6, 3]], to=4)},
        targets={"main": LABELS},
        present={"main": PRESENT},
        positions={"main": POSITIONS},
    )
    taps = {tap: randn(2, 4, 8) for tap in objective.requires.student_taps}
    theirs = {tap: randn(2, 4, 12) for tap in objective.requires.teacher_taps["teacher"]}
    said, heard = Outputs(randn(2, 4, 3), taps), Outputs(randn(2, 4, 3), theirs)
    with pytest.raises(CompatibilityError):
        objective(said, {"teacher": heard}, batch, objective.counts(batch))


def test_images_have_one_unit_an_example() -> None:
    class Seen(BoundTerm):
        pass

    image = ModelDescription(num_classes=3)
    binding = Binding("term", image, image)
    assert unit_of(SoftTargets(), Seen(), binding) == "answer"
    assert unit_of(TrueLabels(), Seen(), binding) == "answer"
    assert unit_of(Hints(), Seen(), binding) == "example"
    batch = Batch(
        torch.arange(2), {"student": torch.zeros(2, 1, 2, 2)}, {"main": LABELS[0, :2]}, {"main": PRESENT[1, :2]}
    )
    given = Choice(batch, task="main", view="student").given(Hints(), "example", Outputs(randn(2, 3)), None)
    assert given.mask is None
    assert given.teacher is None
    assert given.labels.tolist() == [1, 0]
