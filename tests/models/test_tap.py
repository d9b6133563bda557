"""Taps: what they capture, what they leave alone, and what they refuse (correctness, line 19)."""

import doctest
import fnmatch
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from distil.core.errors import ModelError
from distil.models import tap as module
from distil.models.builtin import ConvNet, Mlp
from distil.models.describe import Layer, ModelDescription, describe_model
from distil.models.tap import Outputs, Tap, Taps, resolve_tap, tap_shape
from distil.models.tap_config import TapConfig


def hooks(model: nn.Module) -> int:
    """All hooks of all modules."""
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return sum(len(getattr(each, kind)) for each in model.modules() for kind in kinds)


def observe(model: nn.Module, taps: list[Tap], inputs: Tensor) -> Outputs:
    with Taps(model, taps) as opened:
        return opened.observe(model, inputs)


def only(model: nn.Module, tap: Tap, inputs: Tensor) -> Tensor:
    return observe(model, [tap], inputs).taps[tap]


@pytest.fixture
def resnet() -> nn.Module:
    torch.manual_seed(0)
    return torchvision.models.resnet18(num_classes=5).eval()


@pytest.fixture
def image() -> Tensor:
    return torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))


# what is captured


def test_19_a_value_is_the_one_that_the_module_gave_and_the_logits_are_the_model_s() -> None:
    model = Mlp(num_inputs=4, widths=(3, 2), num_classes=5, dropout=0.0, input_dropout=0.0)
    inputs = torch.randn(6, 1, 2, 2)
    said = observe(model, [Tap("body.2"), Tap("body")], inputs)
    assert torch.equal(said.logits, model(inputs))
    assert torch.equal(said.taps[Tap("body.2")], model.body[:3](inputs))
    assert torch.equal(said.taps[Tap("body")], model.body(inputs))


def test_19_an_in_place_relu_after_a_tapped_layer_does_not_change_the_value() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(inplace=True), nn.Linear(8, 2))
    inputs = torch.randn(5, 4)
    value = only(model, Tap("0"), inputs)
    assert torch.equal(value, model[0](inputs))
    assert bool((value < 0).any())


def test_19_gradient_flows_through_a_captured_value_as_through_the_model() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(inplace=True), nn.Linear(8, 2))
    inputs = torch.randn(5, 4)
    said = observe(model, [Tap("0")], inputs)
    (said.taps[Tap("0")].square().sum() + said.logits.sum()).backward()
    found = model[0].weight.grad.clone()
    model.zero_grad()
    hidden = nn.functional.linear(inputs, model[0].weight, model[0].bias)
    (hidden.square().sum() + model[2](hidden.relu()).sum()).backward()
    torch.testing.assert_close(found, model[0].weight.grad)


def test_an_input_is_taken_before_the_module_runs_also_by_keyword_and_in_place() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.relu, self.head = nn.ReLU(inplace=True), nn.Linear(4, 2)

        def forward(self, inputs: Tensor) -> Tensor:
            return self.head(input=self.relu(inputs + 1))

    model, inputs = Net(), torch.randn(3, 4)
    taps = [Tap("relu", "input"), Tap("head", "input"), Tap("relu")]
    said = observe(model, taps, inputs)
    assert torch.equal(said.taps[Tap("relu", "input")], inputs + 1)
    assert torch.equal(said.taps[Tap("head", "input")], (inputs + 1).relu())
    assert torch.equal(said.taps[Tap("relu")], (inputs + 1).relu())


@pytest.mark.parametrize(
    "wrap",
    [
        lambda value: (value, None, "more"),
        lambda value: ["first", value],
        lambda value: {"hidden": value, "other": value + 1},
        lambda value: {"other": value + 1, "last_hidden_state": value},
    ],
)
def test_of_a_tuple_or_mapping_the_first_tensor_or_the_hidden_state_is_taken(wrap: Callable[[Tensor], Any]) -> None:
    class Inner(nn.Module):
        def forward(self, inputs: Tensor) -> Any:
            return wrap(inputs * 2)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Inner()

        def forward(self, inputs: Tensor) -> Any:
            self.inner(inputs)
            return {"loss": inputs.sum(), "logits": inputs * 3}

    inputs = torch.randn(2, 4)
    said = observe(Net(), [Tap("inner")], inputs)
    assert torch.equal(said.taps[Tap("inner")], inputs * 2)
    assert torch.equal(said.logits, inputs * 3)


def test_pre_activation_of_a_resnet_block_is_what_goes_into_its_last_relu(resnet: nn.Module, image: Tensor) -> None:
    """The block's one ReLU runs twice, in place; a margin is measured before the second."""
    name = "layer2.0"
    said = observe(resnet, [Tap(name, "pre-activation"), Tap(name, "input"), Tap(name)], image)
    block, inputs = resnet.get_submodule(name), said.taps[Tap(name, "input")]
    inner = nn.functional.relu(block.bn1(block.conv1(inputs)))
    by_hand = block.bn2(block.conv2(inner)) + block.downsample(inputs)
    torch.testing.assert_close(said.taps[Tap(name, "pre-activation")], by_hand)
    assert bool((by_hand < 0).any())
    torch.testing.assert_close(said.taps[Tap(name)], by_hand.relu())


def test_pre_activation_of_an_activation_is_its_input() -> None:
    model = ConvNet(channels=1, widths=(4,), num_classes=3, dropout=0.0).eval()
    inputs = torch.randn(2, 1, 6, 6)
    value = only(model, Tap("body.2", "pre-activation"), inputs)
    assert torch.equal(value, model.body[:2](inputs))


def test_pre_activation_where_there_is_no_activation_module_is_refused() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    with pytest.raises(ModelError, match=r"^0 has no activation module inside, so no pre-activation; tap the output"):
        Taps(model, [Tap("0", "pre-activation")])


# several calls, replicas, and shared modules


class Twice(nn.Module):
    """Runs one module twice in a pass."""

    def __init__(self) -> None:
        super().__init__()
        self.shared = nn.Linear(4, 4)
        self.same = self.shared

    def forward(self, inputs: Tensor) -> Tensor:
        return self.same(self.shared(inputs))


def test_19_a_module_that_runs_twice_needs_to_be_told_which_call() -> None:
    model, inputs = Twice(), torch.randn(3, 4)
    with (
        Taps(model, [Tap("shared")]) as taps,
        pytest.raises(ModelError, match=r"the module shared ran 2 times in one pass; say which call .*call: -1"),
    ):
        taps.observe(model, inputs)
    first, second = model.shared(inputs), model(inputs)
    wanted = {0: first, 1: second, -1: second, -2: first}
    said = observe(model, [Tap("shared", call=call) for call in wanted], inputs)
    for call, value in wanted.items():
        assert torch.equal(said.taps[Tap("shared", call=call)], value), call
    with Taps(model, [Tap("shared", call=2)]) as taps, pytest.raises(ModelError, match="there is no call 2"):
        taps.observe(model, inputs)


def test_a_shared_module_has_all_its_names() -> None:
    model, inputs = Twice(), torch.randn(3, 4)
    assert torch.equal(only(model, Tap("same", call=-1), inputs), model(inputs))


def test_a_module_that_does_not_run_is_named() -> None:
    class Idle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.idle = nn.Linear(2, 2), nn.Linear(2, 2)

        def forward(self, inputs: Tensor) -> Tensor:
            return self.used(inputs)

    model = Idle()
    with Taps(model, [Tap("idle")]) as taps, pytest.raises(ModelError, match="the module idle did not run"):
        taps.observe(model, torch.ones(1, 2))


class Halves(nn.Module):
    """Runs a module on the two halves of a batch, as two replicas of it do, each in a thread of its own."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, inputs: Tensor) -> Tensor:
        answers: dict[int, Tensor] = {}

        def run(number: int, half: Tensor) -> None:
            answers[number] = self.inner(half)

        for number, half in enumerate(inputs.tensor_split(2)):
            thread = threading.Thread(target=run, args=(number, half))
            thread.start()
            thread.join()
        return torch.cat([answers[0], answers[1]])


@pytest.mark.parametrize("size", [2, 5, 8])
def test_19_replicas_give_the_value_of_the_whole_batch(size: int) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(inplace=True), nn.Linear(6, 2))
    inputs, taps = torch.randn(size, 4), [Tap("0"), Tap("1", "pre-activation"), Tap("2", "input")]
    alone = observe(model, taps, inputs)
    with Taps(model, taps) as opened:
        together = opened.observe(Halves(model), inputs)
    torch.testing.assert_close(together.logits, alone.logits)
    for each in taps:
        torch.testing.assert_close(together.taps[each], alone.taps[each])


def test_19_replicas_side_by_side_do_not_mix_their_pre_activations() -> None:
    """The second replica enters the activation before the first has left the block."""
    both_inside, other_is_done = threading.Barrier(2, timeout=10), threading.Event()

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.relu = nn.ReLU()

        def forward(self, inputs: Tensor) -> Tensor:
            value = self.relu(inputs)
            both_inside.wait()
            if inputs.device.type == "cpu":
                assert other_is_done.wait(timeout=10)
            return value

    class SideBySide(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block = Block()

        def forward(self, inputs: Tensor) -> Tensor:
            def run(half: Tensor) -> None:
                self.block(half)
                other_is_done.set()

            here, there = inputs.tensor_split([1])
            threads = [threading.Thread(target=run, args=(half,)) for half in (here, there.to("meta"))]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            return inputs

    value = only(SideBySide(), Tap("block", "pre-activation"), torch.randn(4, 3))
    assert value.shape == (4, 3)


# what is left alone


def test_19_every_step_starts_empty_and_nothing_is_held_between() -> None:
    model = nn.Linear(2, 2)
    model = nn.Sequential(model, nn.ReLU())
    with Taps(model, [Tap("0")]) as taps:
        first = taps.observe(model, torch.zeros(2, 2))
        second = taps.observe(model, torch.ones(3, 2))
        assert not any(taps._captured.values())
    assert first.taps[Tap("0")].shape == (2, 2)
    assert second.taps[Tap("0")].shape == (3, 2)


def test_19_passes_outside_observe_leave_nothing_behind(resnet: nn.Module, image: Tensor) -> None:
    taps = [Tap("layer1"), Tap("layer1.0", "pre-activation"), Tap("fc", "input")]
    alone = observe(resnet, taps, image)
    with Taps(resnet, taps) as opened:
        resnet(image + 1)  # a validation
        said = opened.observe(resnet, image)
        resnet(image - 1)
        again = opened.observe(resnet, image)
        assert not any(opened._captured.values())
    for each in taps:
        assert torch.equal(said.taps[each], alone.taps[each])
        assert torch.equal(again.taps[each], alone.taps[each])


def test_19_an_observation_that_fails_leaves_nothing_behind() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    with Taps(model, [Tap("0")]) as taps:

        def break_off(inputs: Tensor) -> Tensor:
            model(inputs)
            raise RuntimeError("in the middle")

        with pytest.raises(RuntimeError, match="in the middle"):
            taps.observe(break_off, torch.ones(1, 2))
        model(torch.ones(1, 2))
        assert taps.observe(model, torch.ones(4, 2)).taps[Tap("0")].shape == (4, 2)


def test_19_hooks_are_gone_after_close(resnet: nn.Module) -> None:
    before = hooks(resnet)
    taps = Taps(resnet, [Tap("layer1"), Tap("layer2", "pre-activation"), Tap("layer3", "input")])
    assert hooks(resnet) > before
    taps.close()
    assert hooks(resnet) == before
    taps.close()
    with Taps(resnet, [Tap("layer1")]):
        pass
    assert hooks(resnet) == before


@pytest.mark.parametrize("wrong", [Tap("layer9"), Tap("fc", "pre-activation"), Tap("layer1", "attention")])
def test_19_hooks_are_gone_after_an_error_in_the_constructor(wrong: Tap, resnet: nn.Module) -> None:
    before = hooks(resnet)
    with pytest.raises(ModelError):
        Taps(resnet, [Tap("layer1"), Tap("layer2", "pre-activation"), wrong])
    assert hooks(resnet) == before


def test_19_hooks_of_others_stay(resnet: nn.Module, image: Tensor) -> None:
    calls: list[int] = []
    resnet.layer1.register_forward_hook(lambda *_: calls.append(1))
    observe(resnet, [Tap("layer1")], image)
    resnet(image)
    assert len(calls) == 2


def test_20_two_observers_of_one_model_do_not_share_state() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2))
    with Taps(model, [Tap("0")]) as first, Taps(model, [Tap("0"), Tap("2")]) as second:
        one = first.observe(model, torch.ones(2, 2))
        other = second.observe(model, torch.zeros(5, 2))
        again = first.observe(model, torch.ones(2, 2))
    assert one.taps.keys() == {Tap("0")}
    assert other.taps.keys() == {Tap("0"), Tap("2")}
    assert [each.taps[Tap("0")].shape for each in (one, other, again)] == [(2, 3), (5, 3), (2, 3)]


class Recomputed(nn.Module):
    """Blocks whose activations are computed again in the backward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(4, 4), nn.ReLU(inplace=True), nn.Dropout(0.5)) for _ in range(3)
        )
        self.head = nn.Linear(4, 2)
        self.saves_memory = True

    def forward(self, inputs: Tensor) -> Tensor:
        for block in self.blocks:
            inputs = checkpoint(block, inputs, use_reentrant=False) if self.saves_memory else block(inputs)
        return self.head(inputs)


def test_19_recomputed_blocks_leave_no_second_value_and_the_right_gradient() -> None:
    torch.manual_seed(0)
    model, inputs = Recomputed().train(), torch.randn(6, 4)
    taps = [Tap("blocks.0.0"), Tap("blocks.1"), Tap("blocks.2", "pre-activation")]

    def run(*, saves_memory: bool) -> tuple[Outputs, list[Tensor]]:
        model.saves_memory = saves_memory
        model.zero_grad()
        torch.manual_seed(3)
        with Taps(model, taps) as opened:
            said = opened.observe(model, inputs)
            (said.logits.sum() + sum(value.square().sum() for value in said.taps.values())).backward()
            assert not any(opened._captured.values())
            torch.manual_seed(3)
            assert torch.equal(opened.observe(model, inputs).logits, said.logits)  # once each, also after a backward
        return said, [parameter.grad.clone() for parameter in model.parameters()]

    (plain, expected), (saving, found) = run(saves_memory=False), run(saves_memory=True)
    for each in taps:
        assert torch.equal(saving.taps[each], plain.taps[each])
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.untyped
def test_19_a_compiled_model_gives_the_same_values_and_logits() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(inplace=True), nn.Sequential(nn.Linear(8, 8), nn.Tanh()))
    model.append(nn.Linear(8, 2))
    inputs, taps = torch.randn(5, 4), [Tap("0"), Tap("2"), Tap("2", "pre-activation"), Tap("3", "input")]
    plain = observe(model, taps, inputs)
    with Taps(model, taps) as opened:
        compiled = torch.compile(model)
        compiled(inputs)  # a validation first: what is compiled must not forget to capture later
        for _ in range(2):
            said = opened.observe(compiled, inputs)
            torch.testing.assert_close(said.logits, plain.logits)
            for each in taps:
                torch.testing.assert_close(said.taps[each], plain.taps[each])
        said.taps[Tap("0")].sum().backward()
    assert model[0].weight.grad is not None
    torch._dynamo.reset()


# which layer is meant


@pytest.fixture(scope="module")
def described() -> ModelDescription:
    return describe_model(torchvision.models.resnet18(num_classes=5), torch.randn(1, 3, 32, 32))


@pytest.mark.parametrize(
    ("at", "name"),
    [("layer2", "layer2"), ("layer3.0.conv1", "layer3.0.conv1"), ("layer?.1", None), ("*yer4", "layer4")],
)
def test_a_name_or_a_pattern_that_fits_one_layer(at: str, name: str | None, described: ModelDescription) -> None:
    if name is None:
        with pytest.raises(ModelError, match=r"'layer\?\.1' fits 4 layers \(layer1\.1, layer2\.1, .*a tap is one of"):
            resolve_tap(TapConfig(at=at), described)
    else:
        config = TapConfig(at=at, take="input", call=-1)
        assert resolve_tap(config, described) == Tap(name, "input", -1)


def test_a_name_that_is_itself_a_pattern_of_others_means_itself() -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.add_module("a*", nn.Linear(2, 2))
            self.add_module("ab", nn.Linear(2, 2))

        def forward(self, inputs: Tensor) -> Tensor:
            return self.get_submodule("ab")(self.get_submodule("a*")(inputs))

    assert resolve_tap(TapConfig(at="a*"), describe_model(Named(), torch.ones(1, 2))).name == "a*"


def test_a_pattern_that_fits_many_shows_a_few(described: ModelDescription) -> None:
    many = len(fnmatch.filter([layer.name for layer in described.layers], "layer*"))
    with pytest.raises(ModelError, match=rf"'layer\*' fits {many} layers \((layer[\w.]+, ){{6}}\.\.\.\)"):
        resolve_tap(TapConfig(at="layer*"), described)


@pytest.mark.parametrize(
    ("at", "message"),
    [
        ("layer5", r"there is no layer 'layer5'; did you mean layer\d, layer\d, layer\d\?\. `distil inspect` lists"),
        ("zzz", r"there is no layer 'zzz'\. `distil inspect` lists them"),
        ("zzz*", r"there is no layer 'zzz\*'\. `distil inspect`"),
    ],
)
def test_22_a_layer_that_is_not_there_is_refused(at: str, message: str, described: ModelDescription) -> None:
    with pytest.raises(ModelError, match=message):
        resolve_tap(TapConfig(at=at), described)


def test_a_module_that_is_not_there_is_refused_with_the_one_that_was_meant() -> None:
    model = Mlp(num_inputs=4, widths=(3,), num_classes=2, dropout=0.0, input_dropout=0.0)
    with pytest.raises(ModelError, match=r"there is no module 'clasifier' to tap; did you mean classifier\?"):
        Taps(model, [Tap("clasifier")])


def test_22_depth_0_is_the_first_layer_and_1_the_last_before_the_classifier(described: ModelDescription) -> None:
    shapes = {at: tap_shape(resolve_tap(TapConfig(at=at), described), described) for at in (0.0, 0.5, 1.0)}
    # 40 layers with weights before the classifier: conv1 is the first, the 20th ends layer2, then pooling ends the body
    assert shapes == {0.0: (64, 16, 16), 0.5: (128, 4, 4), 1.0: (512, 1, 1)}
    depths = {layer.name: layer.depth for layer in described.layers}
    found = [depths[resolve_tap(TapConfig(at=at / 20), described).name] for at in range(21)]
    assert found == sorted(found)
    assert max(found) < 1


def test_22_depth_0_is_no_layer_without_weights_before_the_first() -> None:
    model = Mlp(num_inputs=4, widths=(3, 2), num_classes=5, dropout=0.0, input_dropout=0.5)
    described = describe_model(model, torch.randn(1, 1, 2, 2))
    assert tap_shape(resolve_tap(TapConfig(at=0), described), described) == (3,)
    assert tap_shape(resolve_tap(TapConfig(at=1), described), described) == (2,)


def test_a_depth_of_a_network_without_layers_before_its_classifier_is_refused() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    with pytest.raises(ModelError, match=r"at depth 0\.5 there is no layer before the classifier"):
        resolve_tap(TapConfig(at=0.5), describe_model(model, torch.ones(1, 1, 2, 2)))


@pytest.mark.parametrize("take", ["output", "input", "pre-activation"])
@pytest.mark.parametrize("name", ["resnet18", "vit", "mobilenet"])
def test_the_shape_of_a_tap_is_that_of_its_value(name: str, take: Any) -> None:
    torch.manual_seed(0)
    made: dict[str, Callable[[], nn.Module]] = {
        "resnet18": lambda: torchvision.models.resnet18(num_classes=5),
        "mobilenet": lambda: torchvision.models.mobilenet_v3_small(num_classes=5),
        "vit": lambda: timm.create_model("vit_tiny_patch16_224", img_size=32, patch_size=8, depth=2, num_classes=5),
    }
    model, inputs = made[name]().eval(), torch.randn(2, 3, 32, 32)
    description = describe_model(model, inputs)
    shapes = {Tap(layer.name, take): each for layer in description.layers if (each := shape(layer, take, description))}
    assert len(shapes) >= 7
    with torch.no_grad():
        said = observe(model, list(shapes), inputs)
    assert {each: tuple(said.taps[each].shape[1:]) for each in shapes} == shapes


def shape(layer: Layer, take: Any, description: ModelDescription) -> tuple[int, ...] | None:
    if layer.calls > 1:
        return None
    try:
        return tap_shape(Tap(layer.name, take), description)
    except ModelError:
        return None


def test_a_value_that_a_layer_does_not_have_is_refused(described: ModelDescription) -> None:
    with pytest.raises(ModelError, match=r"layer fc \(Linear\) has no pre-activation that could be captured"):
        tap_shape(Tap("fc", "pre-activation"), described)
    with pytest.raises(ModelError, match=r"layer fc \(Linear\) has no attention that could be captured"):
        tap_shape(Tap("fc", "attention"), described)
    with pytest.raises(ModelError, match=r"there is no layer 'layre1'; did you mean layer1"):
        tap_shape(Tap("layre1"), described)


def test_outputs_of_some_examples() -> None:
    said = Outputs(torch.arange(6.0).view(3, 2), {Tap("a"): torch.arange(3.0)})
    some = said.rows(torch.tensor([True, False, True]))
    assert some.logits.tolist() == [[0, 1], [4, 5]]
    assert some.taps[Tap("a")].tolist() == [0, 2]
    assert said.to("cpu").taps[Tap("a")].tolist() == [0, 1, 2]


def test_11_outputs_of_some_tokens_are_those_of_the_true_places_row_by_row_and_have_no_taps() -> None:
    logits = torch.arange(12.0).view(2, 3, 2)
    said = Outputs(logits, {Tap("a"): torch.arange(6.0).view(2, 3)})
    chosen = torch.tensor([[True, False, True], [False, True, False]])
    some = said.rows(chosen)
    assert some.logits.tolist() == [[0, 1], [4, 5], [8, 9]]
    assert dict(some.taps) == {}
    assert said.rows(torch.zeros_like(chosen)).logits.shape == (0, 2)


def test_28_the_likeliest_classes_that_were_kept_go_along_with_their_examples_and_tokens() -> None:
    classes = torch.tensor([[[1, 0], [2, 1]], [[0, 2], [1, 2]], [[2, 0], [0, 1]]])  # [examples, tokens, kept]
    shares, rest = -classes.float(), torch.arange(6.0).view(3, 2)
    said = Outputs(torch.empty(3, 2, 0), largest=(classes, shares, rest))
    of_examples = said.rows(torch.tensor([2, 0])).largest
    assert of_examples is not None
    assert of_examples[0].tolist() == [classes[2].tolist(), classes[0].tolist()]
    assert of_examples[2].tolist() == [[4, 5], [0, 1]]
    of_tokens = said.rows(torch.tensor([[False, True], [True, False], [False, False]]))
    assert of_tokens.logits.shape == (2, 0)
    assert of_tokens.largest is not None
    assert [value.tolist() for value in of_tokens.largest] == [[[2, 1], [0, 2]], [[-2, -1], [0, -2]], [1, 2]]
    moved = said.to("meta")
    assert moved.largest is not None
    assert {value.device.type for value in (moved.logits, *moved.largest)} == {"meta"}
    assert Outputs(torch.zeros(2, 3)).rows(torch.tensor([0])).largest is None


def test_21_named_inputs_are_observed_as_they_are_and_counted_by_their_rows() -> None:
    """A network that is called on two halves of a batch: its replicas are put together by the number of examples."""

    class Halves(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inside = nn.Linear(2, 3)

        def forward(self, inputs: dict[str, Tensor]) -> Tensor:
            return torch.cat([self.inside(half) for half in inputs["values"].chunk(2)])

    model, inputs = Halves(), {"values": torch.randn(4, 2), "attention_mask": torch.ones(4, 7)}
    with Taps(model, [Tap("inside")]) as opened:
        said = opened.observe(model, inputs)
    torch.testing.assert_close(said.taps[Tap("inside")], model.inside(inputs["values"]))
    torch.testing.assert_close(said.logits, said.taps[Tap("inside")])


def test_the_example_in_the_docstring_is_true() -> None:
    results = doctest.testmod(module)
    assert results.attempted >= 3
    assert results.failed == 0


@pytest.fixture(autouse=True)
def seed() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield
