"""The loop against a loop written by hand, against itself interrupted, and against what goes wrong elsewhere."""

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from distil.core.config import PlacementConfig
from distil.core.errors import NumericError, Preempted, ResourceError
from distil.core.events import read_events
from distil.core.interruption import Interruption
from distil.core.placement import Placement, place
from distil.core.seeds import derive
from distil.data.example import Examples, ImageExamples
from distil.data.feed import Feed
from distil.data.view import View
from distil.knowledge.response import KeptKnowledge, NoKnowledge, Responses
from distil.knowledge.teacher import Kept
from distil.models.tap import Outputs, Tap
from distil.objective.config import SoftTargets, TrueLabels
from distil.objective.objective import BoundObjective, Objective
from distil.objective.own_config import OwnTerm
from distil.objective.term import BoundTerm, TermInput
from distil.train.config import TrainingConfig
from distil.train.loop import Trained, Training, is_still_improving, train

VIEW = View(channels=1, height=4, width=4, mean=(0.0,), std=(1.0,))


@pytest.fixture
def placement() -> Placement:
    with place(PlacementConfig(device="cpu", threads=1)) as made:
        yield made


@pytest.fixture
def examples() -> Examples:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (50, 1, 4, 4), dtype=torch.uint8, generator=generator)
    labels = (images.float().mean(dim=(1, 2, 3)) > 127).long() + torch.arange(50) % 2
    return ImageExamples(ids=torch.arange(50), images=images, labels=labels, class_names=("a", "b", "c"))


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Flatten(), nn.Linear(16, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Dropout(0.3), nn.Linear(12, 3)
    )


def config(**settings: object) -> TrainingConfig:
    base = {"epochs": 3, "batch_size": 16, "keep": "last", "optimizer": {"kind": "adamw", "learning_rate": 0.01}}
    return TrainingConfig.model_validate(base | settings)


def run(
    examples: Examples,
    placement: Placement,
    folder: Path,
    training: TrainingConfig,
    *,
    model: nn.Module | None = None,
    objective: BoundObjective | None = None,
    knowledge: object = None,
    validate: object = None,
    interruption: Interruption | None = None,
    identity: str = "test",
    frozen: tuple[str, ...] = (),
) -> Trained:
    feed = Feed(examples, views={"student": VIEW}, batch_size=training.batch_size, seed=5)
    work = Training(
        config=training,
        model=model if model is not None else network(),
        view="student",
        objective=objective if objective is not None else Objective({"true-labels": TrueLabels()}).bind(3),
        knowledge=knowledge if knowledge is not None else NoKnowledge(),  # type: ignore[arg-type]
        feed=feed,
        validate=validate,  # type: ignore[arg-type]
        placement=placement,
        seed=9,
        folder=folder,
        identity=identity,
        frozen=frozen,
    )
    return train(work, interruption if interruption is not None else Interruption())


def equal(left: Mapping[str, torch.Tensor], right: Mapping[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def test_31_fabric_on_one_device_gives_the_bits_of_a_plain_loop(
    examples: Examples, placement: Placement, tmp_path: Path
) -> None:
    training = config(schedule="constant")
    model = network()
    decayed = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    others = [parameter for parameter in model.parameters() if parameter.ndim <= 1]
    optimizer = torch.optim.AdamW([{"params": decayed}, {"params": others, "weight_decay": 0.0}], lr=0.01)
    feed = Feed(examples, views={"student": VIEW}, batch_size=16, seed=5)
    model.train()
    for step in range(3 * feed.steps_per_epoch):
        torch.manual_seed(derive("step", 9, step))
        batch = feed.batch(step)
        loss = F.cross_entropy(model(batch.inputs["student"]), batch.targets["main"], reduction="sum") / len(batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    trained = run(examples, placement, tmp_path, training)
    assert equal(trained.weights, model.state_dict())


@pytest.mark.parametrize("stop_after", [1, 3, 4, 5])
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_31_interrupted_twice_and_resumed_gives_equal_bits_and_events(
    stop_after: int, optimizer: str, examples: Examples, placement: Placement, tmp_path: Path
) -> None:
    training = config(optimizer={"kind": optimizer, "learning_rate": 0.01}, keep="best")

    def validate(model: nn.Module) -> dict[str, float]:
        return measure(model, examples)

    unbroken = run(examples, placement, tmp_path / "unbroken", training, validate=validate)
    for _ in range(2):
        stopping = _StopAfter(stop_after)
        with pytest.raises(Preempted):
            run(examples, placement, tmp_path / "broken", training, validate=validate, interruption=stopping)
    resumed = run(examples, placement, tmp_path / "broken", training, validate=validate)
    assert equal(resumed.weights, unbroken.weights)
    assert (resumed.kept_epoch, resumed.epochs) == (unbroken.kept_epoch, unbroken.epochs)
    assert events(tmp_path / "broken") == events(tmp_path / "unbroken")


class _StopAfter(Interruption):
    """Asks to stop after some steps."""

    def __init__(self, steps: int) -> None:
        self._left = steps

    @property
    def requested(self) -> bool:
        self._left -= 1
        return self._left <= 0


def measure(model: nn.Module, examples: Examples) -> dict[str, float]:
    model.eval()
    with torch.no_grad():
        logits = model(VIEW(examples.images.float() / 255))
    model.train()
    accuracy = (logits.argmax(1) == examples.labels).double().mean().item()
    return {"accuracy": accuracy, "negative_log_likelihood": F.cross_entropy(logits, examples.labels).item()}


def events(folder: Path) -> list[dict[str, object]]:
    return [
        {key: value for key, value in event.items() if key != "seconds"}
        for event in read_events(folder / "events.jsonl")
    ]


def test_a_checkpoint_of_another_training_is_not_resumed(
    examples: Examples, placement: Placement, tmp_path: Path
) -> None:
    with pytest.raises(Preempted):
        run(examples, placement, tmp_path, config(), interruption=_StopAfter(5), identity="old")
    fresh = run(examples, placement, tmp_path / "fresh", config())
    assert equal(run(examples, placement, tmp_path, config(), identity="new").weights, fresh.weights)


@pytest.mark.parametrize("size", [1, 3, 5, 16])
def test_13_accumulated_micro_batches_give_the_training_of_the_whole_batch(
    size: int, examples: Examples, placement: Placement, tmp_path: Path
) -> None:
    half_labelled = examples.hide_labels(keep=torch.arange(50) % 3 == 0)
    said = Kept(examples.ids, Outputs(torch.randn(50, 3)))
    objective = Objective({"a": TrueLabels(weight=0.3), "b": SoftTargets(weight=0.7)}).bind(3, {"teacher": 3})

    def plain() -> nn.Module:
        torch.manual_seed(1)
        return nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3)).double()

    results = []
    for folder, micro in (("whole", None), ("pieces", size)):
        training = config(micro_batch_size=micro, optimizer={"kind": "sgd", "learning_rate": 0.05})
        feed = Feed(half_labelled, views={"student": VIEW}, batch_size=16, seed=5)
        work = Training(
            config=training,
            model=nn.Sequential(_ToDouble(), plain()),
            view="student",
            objective=objective,
            knowledge=KeptKnowledge({"teacher": said}),
            feed=feed,
            validate=None,
            placement=placement,
            seed=9,
            folder=tmp_path / folder,
            identity="test",
        )
        trained = train(work, Interruption())
        results.append((trained.weights, events(tmp_path / folder)))
    for name, whole in results[0][0].items():
        torch.testing.assert_close(results[1][0][name], whole, rtol=1e-10, atol=1e-12)
    losses = [[event["loss"] for event in told if event["event"] == "epoch"] for _, told in results]
    assert losses[1] == pytest.approx(losses[0], rel=1e-6)


class _ToDouble(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.double()


def test_14_the_loss_reported_for_the_training_batch_is_the_loss_of_evaluation(
    examples: Examples, placement: Placement, tmp_path: Path
) -> None:
    frozen = config(epochs=1, batch_size=50, optimizer={"kind": "sgd", "learning_rate": 1e-30, "weight_decay": 0})
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    metrics = measure(model, examples)
    run(examples, placement, tmp_path, frozen, model=model)
    (epoch,) = [event for event in events(tmp_path) if event["event"] == "epoch"]
    assert epoch["loss"] == pytest.approx(metrics["negative_log_likelihood"], rel=1e-6)


def test_08_the_loss_reported_is_the_sum_of_weight_times_part(
    examples: Examples, placement: Placement, tmp_path: Path
) -> None:
    said = Kept(examples.ids, Outputs(torch.randn(50, 3)))
    terms = {"labels": TrueLabels(weight=0.25), "soft": SoftTargets(weight=0.75), "off": TrueLabels(weight=0)}
    knowledge = KeptKnowledge({"teacher": said})
    run(
        examples, placement, tmp_path, config(), objective=Objective(terms).bind(3, {"teacher": 3}), knowledge=knowledge
    )
    for event in [event for event in events(tmp_path) if event["event"] == "epoch"]:
        assert event["weights"] == {"labels": 0.25, "soft": 0.75}
        total = sum(event["weights"][name] * part for name, part in event["parts"].items())
        assert event["loss"] == pytest.approx(total)


def test_17_the_student_trains_in_train_mode_after_every_validation(
    examples: Examples, placement: Placement, tmp_path: Path
) -> None:
    modes: list[bool] = []
    model = network()
    model[4].register_forward_hook(lambda module, *_: modes.append(module.training))

    def validate(candidate: nn.Module) -> dict[str, float]:
        from distil.data.feed import evaluation_batches
        from distil.tasks.classification import validation_metrics
        from distil.tasks.score import score

        return validation_metrics(score(candidate, evaluation_batches(examples, views={"m": VIEW}), view="m"))

    run(examples, placement, tmp_path, config(), model=model, validate=validate)
    per_epoch = [True] * 4 + [False]
    assert modes == per_epoch * 3


def test_16_a_checkpoint_holds_the_student_and_nothing_of_the_teacher(
    examples: Examples, placement: Placement, tmp_path: Path
) -> None:
    from safetensors.torch import load_file

    teacher = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))

    def knowledge(batch: object) -> Responses:
        return {"teacher": Outputs(teacher(batch.inputs["student"]).detach())}  # type: ignore[attr-defined]

    objective = Objective({"soft": SoftTargets()}).bind(3, {"teacher": 3})
    with pytest.raises(Preempted):
        run(
            examples,
            placement,
            tmp_path,
            config(),
            objective=objective,
            knowledge=knowledge,
            interruption=_StopAfter(2),
        )
    (folder,) = (tmp_path / "checkpoints").glob("step-*")
    assert load_file(folder / "model.safetensors").keys() == network().state_dict().keys()
    assert len(load_file(folder / "optimizer.safetensors")) == 3 * len(list(network().parameters()))
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_20_two_trainings_in_one_process_do_not_share_state(
    examples: Examples, placement: Placement, tmp_path: Path
) -> None:
    alone = run(examples, placement, tmp_path / "a", config())
    torch.rand(100)
    run(examples, placement, tmp_path / "b", config(epochs=1, optimizer="sgd"), model=network(3))
    again = run(examples, placement, tmp_path / "c", config())
    assert equal(alone.weights, again.weights)


def test_a_loss_that_is_not_finite_stops_with_the_ids_and_saves_nothing(
    examples: Examples, placement: Placement, tmp_path: Path
) -> None:
    said = torch.randn(50, 3)
    said[17] = float("nan")
    knowledge = KeptKnowledge({"teacher": Kept(examples.ids, Outputs(said))})
    training = config(checkpoint_seconds=0, batch_size=5)
    objective = Objective({"s": SoftTargets()}).bind(3, {"teacher": 3})
    with pytest.raises(NumericError, match=r"step \d+: the loss is nan .*on the examples \[.*17.*\]"):
        run(examples, placement, tmp_path, training, objective=objective, knowledge=knowledge)
    for path in (tmp_path / "checkpoints").glob("step-*/model.safetensors"):
        from safetensors.torch import load_file

        assert all(bool(torch.isfinite(tensor).all()) for tensor in load_file(path).values())


def test_best_keeps_the_weights_of_the_best_epoch_and_last_those_of_the_last(
    examples: Examples, placement: Placement, tmp_path: Path
) -> None:
    def scripted() -> object:
        script = iter([0.5, 0.9, 0.7])
        return lambda model: {"accuracy": next(script), "negative_log_likelihood": 1.0}

    best = run(examples, placement, tmp_path / "best", config(keep="best"), validate=scripted())
    two = run(examples, placement, tmp_path / "two", config(epochs=2, schedule="constant"))
    constant = run(
        examples, placement, tmp_path / "constant", config(keep="best", schedule="constant"), validate=scripted()
    )
    assert (best.kept_epoch, best.epochs) == (2, 3)
    assert equal(constant.weights, two.weights)
    assert run(examples, placement, tmp_path / "last", config(), validate=scripted()).kept_epoch == 3


def test_plateau_stops_once_the_loss_has_not_fallen_for_the_patience(
    examples: Examples, placement: Placement, tmp_path: Path
) -> None:
    script = iter([0.9, 0.5, 0.6, 0.7, 0.8, 0.9])
    training = config(epochs=50, until={"kind": "plateau", "patience": 3}, schedule="constant")
    trained = run(
        examples,
        placement,
        tmp_path,
        training,
        validate=lambda model: {"accuracy": 0.5, "negative_log_likelihood": next(script)},
    )
    assert trained.epochs == 5


def test_max_norm_and_gradient_clip_take_effect(examples: Examples, placement: Placement, tmp_path: Path) -> None:
    plain = run(examples, placement, tmp_path / "plain", config())
    bounded = run(examples, placement, tmp_path / "bounded", config(max_norm=0.3))
    clipped = run(examples, placement, tmp_path / "clipped", config(gradient_clip=1e-4, optimizer="sgd"))
    unclipped = run(examples, placement, tmp_path / "unclipped", config(optimizer="sgd"))
    assert bounded.weights["1.weight"].norm(dim=1).max() <= 0.3 + 1e-6 < plain.weights["1.weight"].norm(dim=1).max()
    start = network().state_dict()["1.weight"]
    assert (clipped.weights["1.weight"] - start).norm() < 0.1 * (unclipped.weights["1.weight"] - start).norm()


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ([1.0] * 9, None),
        ([1.0] * 20, False),
        ([2.0 - 0.09 * epoch for epoch in range(20)], True),
        ([1.0] * 18 + [0.985, 0.985], False),
    ],
)
def test_still_improving_compares_the_last_tenth_with_the_one_before(
    losses: list[float], expected: bool | None
) -> None:
    assert is_still_improving(losses) is expected


def test_the_global_random_state_is_as_before(examples: Examples, placement: Placement, tmp_path: Path) -> None:
    model = network()
    torch.manual_seed(123)
    expected = torch.rand(1)
    torch.manual_seed(123)
    run(examples, placement, tmp_path, config(epochs=1), model=model)
    assert torch.equal(torch.rand(1), expected)


def test_weights_that_break_in_the_last_step_are_no_result(
    examples: Examples, placement: Placement, tmp_path: Path
) -> None:
    model = network()
    model[1].weight.register_hook(lambda gradient: gradient * float("nan"))
    with pytest.raises(NumericError, match="is not finite; nothing is saved"):
        run(examples, placement, tmp_path, config(epochs=1, batch_size=50), model=model)


def test_a_validation_that_is_not_finite_is_a_numeric_error(
    examples: Examples, placement: Placement, tmp_path: Path
) -> None:
    def broken(model: nn.Module) -> dict[str, float]:
        return {"accuracy": 0.5, "negative_log_likelihood": float("inf")}

    with pytest.raises(NumericError, match="validation gives"):
        run(examples, placement, tmp_path, config(), validate=broken)


def test_full_memory_is_a_resource_error_with_a_remedy(
    examples: Examples, placement: Placement, tmp_path: Path
) -> None:
    model = network()

    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("out of memory")

    model.register_forward_hook(full)
    with pytest.raises(ResourceError, match=r"Set training\.micro_batch_size below 16"):
        run(examples, placement, tmp_path, config(), model=model)


# projectors, memory and frozen layers


class Hint(OwnTerm):
    """A hint that is learned, with a memory."""


class BoundHint(BoundTerm):
    """A projector to a remembered mean of what the teacher says, which moves at every step."""

    def __init__(self) -> None:
        super().__init__(student_taps=(Tap("3"),))
        torch.manual_seed(7)
        self.projector = nn.Linear(12, 3)
        self.register_buffer("mean", torch.zeros(3))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.sizes: list[int] = []

    def forward(self, said: TermInput) -> torch.Tensor:
        self.sizes.append(len(said.ids))
        self.steps += 1
        self.mean.mul_(0.9).add_(0.1 * said.teacher_logits.mean(dim=0))
        target = said.teacher_logits - self.mean
        return (self.projector(said.student.taps[Tap("3")]) - target).square().sum(dim=1)


def hint(weight: float = 1.0) -> BoundObjective:
    terms = {"hint": Hint(teacher="teacher", weight=weight), "labels": TrueLabels(weight=0.5)}
    labels = Objective({"labels": terms["labels"]}).bind(3)._bound["labels"]
    return BoundObjective(terms, {"hint": BoundHint(), "labels": labels}, task="main")


@pytest.fixture
def heard(examples: Examples) -> KeptKnowledge:
    generator = torch.Generator().manual_seed(4)
    return KeptKnowledge({"teacher": Kept(examples.ids, Outputs(torch.randn(50, 3, generator=generator)))})


def test_18_projectors_are_trained_and_in_the_checkpoint_and_not_in_the_trained_weights(
    examples: Examples, placement: Placement, tmp_path: Path, heard: KeptKnowledge
) -> None:
    from safetensors.torch import load_file

    objective = hint()
    before = objective.module[0].projector.weight.detach().clone()
    with pytest.raises(Preempted):
        run(examples, placement, tmp_path, config(), objective=objective, knowledge=heard, interruption=_StopAfter(3))
    (folder,) = (tmp_path / "checkpoints").glob("step-*")
    saved = load_file(folder / "objective.safetensors")
    assert set(saved) == {"0.projector.weight", "0.projector.bias", "0.mean", "0.steps"}
    assert saved["0.steps"] == 3
    assert not torch.equal(saved["0.projector.weight"], before)
    assert load_file(folder / "model.safetensors").keys() == network().state_dict().keys()
    learned = len(list(network().parameters())) + 2
    assert len(load_file(folder / "optimizer.safetensors")) == 3 * learned
    trained = run(examples, placement, tmp_path, config(), objective=hint(), knowledge=heard)
    assert trained.weights.keys() == network().state_dict().keys()


def test_31_an_objective_with_a_projector_trains_as_a_plain_loop_does(
    examples: Examples, placement: Placement, tmp_path: Path, heard: KeptKnowledge
) -> None:
    model, term = network(), BoundHint()
    parameters = [*model.parameters(), *term.projector.parameters()]
    groups = [
        {"params": [parameter for parameter in parameters if parameter.ndim > 1]},
        {"params": [parameter for parameter in parameters if parameter.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=0.01)
    feed, captured = Feed(examples, views={"student": VIEW}, batch_size=16, seed=5), []
    model.train()
    model[3].register_forward_hook(lambda _, __, output: captured.append(output))
    for step in range(3 * feed.steps_per_epoch):
        torch.manual_seed(derive("step", 9, step))
        batch = feed.batch(step)
        logits, teacher = model(batch.inputs["student"]), heard(batch)["teacher"]
        values = term(TermInput(Outputs(logits, {Tap("3"): captured.pop()}), teacher, batch.targets["main"], batch.ids))
        labels = F.cross_entropy(logits, batch.targets["main"], reduction="sum") / len(batch)
        (values.sum() / len(batch) + 0.5 * labels).backward()
        optimizer.step()
        optimizer.zero_grad()
    trained = run(examples, placement, tmp_path, config(schedule="constant"), objective=hint(), knowledge=heard)
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(trained.weights[name], tensor, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("stop_after", [1, 4, 6])
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_31_resumed_with_projector_and_memory_gives_equal_bits(
    stop_after: int, optimizer: str, examples: Examples, placement: Placement, tmp_path: Path, heard: KeptKnowledge
) -> None:
    training = config(optimizer={"kind": optimizer, "learning_rate": 0.01}, micro_batch_size=5)
    whole = hint()
    unbroken = run(examples, placement, tmp_path / "unbroken", training, objective=whole, knowledge=heard)
    for _ in range(2):
        with pytest.raises(Preempted):
            run(
                examples,
                placement,
                tmp_path / "broken",
                training,
                objective=hint(),
                knowledge=heard,
                interruption=_StopAfter(stop_after),
            )
    last = hint()
    resumed = run(examples, placement, tmp_path / "broken", training, objective=last, knowledge=heard)
    assert equal(resumed.weights, unbroken.weights)
    assert equal(last.module.state_dict(), whole.module.state_dict())
    assert events(tmp_path / "broken") == events(tmp_path / "unbroken")


def test_gradient_clip_is_of_the_whole_gradient_projectors_included(
    examples: Examples, placement: Placement, tmp_path: Path, heard: KeptKnowledge
) -> None:
    clip = 1e-3
    training = config(
        epochs=1, batch_size=50, gradient_clip=clip, schedule="constant",
        optimizer={"kind": "sgd", "learning_rate": 1.0, "momentum": 0.0, "weight_decay": 0.0},
    )  # fmt: skip
    objective, model = hint(weight=100.0), network()
    learned = [*model.parameters(), *objective.module.parameters()]
    before = [parameter.detach().clone() for parameter in learned]
    run(examples, placement, tmp_path, training, model=model, objective=objective, knowledge=heard)
    moved = [after.detach() - start for after, start in zip(learned, before, strict=True)]
    assert torch.stack([each.norm() for each in moved]).norm().item() == pytest.approx(clip, rel=1e-3)
    assert all(each.norm() > 0 for each in moved[-2:])


def test_19_the_loop_leaves_no_hooks_and_validation_reaches_no_term(
    examples: Examples, placement: Placement, tmp_path: Path, heard: KeptKnowledge
) -> None:
    objective, model = hint(), network()
    run(
        examples,
        placement,
        tmp_path,
        config(epochs=2),
        model=model,
        objective=objective,
        knowledge=heard,
        validate=lambda candidate: measure(candidate, examples),
    )
    assert objective.module[0].sizes == [16, 16, 16, 2] * 2
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_19_hooks_and_frozen_layers_are_undone_after_an_error(
    examples: Examples, placement: Placement, tmp_path: Path, heard: KeptKnowledge
) -> None:
    model = network()
    model[1].weight.register_hook(lambda gradient: gradient * float("nan"))
    with pytest.raises(NumericError):
        run(
            examples,
            placement,
            tmp_path,
            config(epochs=1),
            model=model,
            objective=hint(),
            knowledge=heard,
            frozen=("5.*",),
        )
    assert not any(module._forward_hooks for module in model.modules())
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_frozen_layers_keep_their_bits_weights_and_buffers(
    optimizer: str, examples: Examples, placement: Placement, tmp_path: Path, heard: KeptKnowledge
) -> None:
    model = network()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    training = config(
        optimizer={"kind": optimizer, "learning_rate": 0.1, "weight_decay": 0.1}, max_norm=0.2, gradient_clip=1.0
    )
    trained = run(
        examples,
        placement,
        tmp_path,
        training,
        model=model,
        objective=hint(),
        knowledge=heard,
        frozen=("1.*", "2.*"),
        validate=lambda candidate: _scored(candidate, examples),
    )
    changed = {name for name, tensor in before.items() if not torch.equal(trained.weights[name], tensor)}
    assert changed == {"5.weight", "5.bias"}
    assert all(parameter.requires_grad for parameter in model.parameters())


def _scored(model: nn.Module, examples: Examples) -> dict[str, float]:
    from distil.data.feed import evaluation_batches
    from distil.tasks.classification import validation_metrics
    from distil.tasks.score import score

    return validation_metrics(score(model, evaluation_batches(examples, views={"m": VIEW}), view="m"))


def test_31_a_training_with_frozen_layers_resumes_to_equal_bits(
    examples: Examples, placement: Placement, tmp_path: Path
) -> None:
    unbroken = run(examples, placement, tmp_path / "unbroken", config(), frozen=("2.*",))
    with pytest.raises(Preempted):
        run(examples, placement, tmp_path / "broken", config(), frozen=("2.*",), interruption=_StopAfter(4))
    resumed = run(examples, placement, tmp_path / "broken", config(), frozen=("2.*",))
    assert equal(resumed.weights, unbroken.weights)
    assert not equal(unbroken.weights, run(examples, placement, tmp_path / "free", config()).weights)


def test_memory_that_is_not_finite_stops_and_is_not_saved(
    examples: Examples, placement: Placement, tmp_path: Path, heard: KeptKnowledge
) -> None:
    objective = hint()
    objective.module[0].register_buffer("broken", torch.tensor(float("inf")))
    with pytest.raises(NumericError, match=r"objective 0\.broken is not finite; nothing is saved"):
        run(examples, placement, tmp_path, config(epochs=1), objective=objective, knowledge=heard)


class Watched(BoundTerm):
    """Its value is weighed by a number that it sets itself after each epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("factor", torch.ones(()))

    def forward(self, said: TermInput) -> torch.Tensor:
        return self.factor * (said.student.logits - said.teacher_logits).square().sum(dim=1)

    def observe(self, validation_loss: float) -> dict[str, float]:
        self.factor.mul_(0.5).add_(0.1 * validation_loss)
        return {"factor": self.factor.item()}


def test_31_what_a_term_sets_itself_after_an_epoch_is_told_and_resumes_to_equal_bits(
    examples: Examples, placement: Placement, tmp_path: Path, heard: KeptKnowledge
) -> None:
    def objective() -> BoundObjective:
        return BoundObjective({"own": Hint(teacher="teacher")}, {"own": Watched()}, task="main")

    def go(folder: str, interruption: Interruption | None = None) -> Trained:
        return run(
            examples, placement, tmp_path / folder, config(), objective=objective(), knowledge=heard,
            validate=lambda candidate: measure(candidate, examples), interruption=interruption,
        )  # fmt: skip

    unbroken = go("unbroken")
    for steps in (4, 2):
        with pytest.raises(Preempted):
            go("broken", _StopAfter(steps))
    assert equal(go("broken").weights, unbroken.weights)
    told = [event["adapted"] for event in events(tmp_path / "unbroken") if event["event"] == "epoch"]
    assert len({each["own.factor"] for each in told}) == 3
    assert events(tmp_path / "broken") == events(tmp_path / "unbroken")
