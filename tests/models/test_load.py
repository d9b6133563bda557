import pickle
import re
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from distil.core.errors import IntegrityError, MissingExtraError, ModelError
from distil.core.files import sha256_of
from distil.models.config import (
    ConvNetConfig,
    FileWeights,
    IncludedWeights,
    MlpConfig,
    ModelConfig,
    ModuleConfig,
    PretrainedWeights,
    TimmConfig,
    TorchvisionModelConfig,
    WeightsConfig,
)
from distil.models.load import PICKLES, build_model, own_inputs, read_weights

MLP = MlpConfig(widths=(5, 4), dropout=0.1)
SHAPE = (1, 3, 4)


def build(
    config: ModelConfig, *, seed: int = 0, weights: WeightsConfig | None = None, shape: tuple[int, int, int] = SHAPE
) -> nn.Module:
    return build_model(config, num_classes=3, image_shape=shape, seed=seed, weights=weights)


def same(first: nn.Module, second: nn.Module) -> bool:
    one, other = first.state_dict(), second.state_dict()
    return one.keys() == other.keys() and all(torch.equal(tensor, other[name]) for name, tensor in one.items())


class Canary:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self._path,)


@pytest.mark.parametrize("config", [MLP, ConvNetConfig(widths=(4, 4)), ModuleConfig(make=lambda: nn.Linear(4, 3))])
def test_20_equal_seeds_give_equal_weights_whatever_was_drawn_before(config: ModelConfig) -> None:
    torch.manual_seed(0)
    first = build(config, seed=7)
    torch.rand(13)
    state = torch.random.get_rng_state()
    assert same(build(config, seed=7), first)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not same(build(config, seed=8), first)


def test_20_a_function_that_gives_one_network_twice_gives_two() -> None:
    network = nn.Linear(4, 3)
    config = ModuleConfig(make=lambda: network)
    first, second = build(config), build(config)
    with torch.no_grad():
        first.weight.zero_()  # type: ignore[operator, union-attr]
    assert same(second, network)
    assert network.weight.abs().sum() > 0


def test_a_network_takes_images_and_answers_for_the_classes() -> None:
    for config in (MLP, ConvNetConfig(widths=(4, 6))):
        assert build(config, shape=(3, 6, 5))(torch.randn(2, 3, 6, 5)).shape == (2, 3)


def test_timm_builds_by_name_without_weights_or_network() -> None:
    model = build(TimmConfig(name="resnet18", settings={"drop_rate": 0.1}), shape=(1, 32, 32))
    assert model.eval()(torch.randn(2, 1, 32, 32)).shape == (2, 3)
    assert same(model, build(TimmConfig(name="resnet18", settings={"drop_rate": 0.1}), shape=(1, 32, 32)))


def test_torchvision_builds_by_name_without_weights_or_network() -> None:
    model = build(TorchvisionModelConfig(name="resnet18"), shape=(3, 32, 32))
    assert model.eval()(torch.randn(2, 3, 32, 32)).shape == (2, 3)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (TimmConfig(name="resnet19"), "timm has no model 'resnet19'; did you mean .*resnet18"),
        (TorchvisionModelConfig(name="resnet19"), "torchvision has no model 'resnet19'; did you mean .*resnet18"),
        (TorchvisionModelConfig(name="fasterrcnn_resnet50_fpn"), "torchvision has no model"),
        (TimmConfig(name="zzzzzzzz"), "timm has no model 'zzzzzzzz'$"),
        (TimmConfig(name="resnet18", settings={"colour": 1}), "timm model resnet18 refuses its settings .*colour"),
        (TorchvisionModelConfig(name="resnet18", settings={"colour": 1}), "resnet18 refuses its settings .*colour"),
        (ModuleConfig(make=lambda: 3), "the function returned int, not a torch.nn.Module"),
    ],
)
def test_a_model_that_cannot_be_built_says_why(config: ModelConfig, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        build(config, shape=(3, 32, 32))


@pytest.mark.parametrize(("kind", "module"), [(TimmConfig, "timm"), (TorchvisionModelConfig, "torchvision")])
def test_without_the_package_the_pip_line_is_given(
    kind: type[TimmConfig], module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=r"pip install 'distil\[vision\]'"):
        build(kind(name="resnet18"))


@pytest.mark.parametrize("config", [MLP, ModuleConfig(make=lambda: nn.Linear(4, 3))])
def test_models_without_published_weights_say_so(config: ModelConfig) -> None:
    with pytest.raises(ModelError, match=f"a model of kind {config.kind} has no published weights; name a file"):
        build(config, weights=PretrainedWeights())


def test_published_weights_keep_their_own_classifier(monkeypatch: pytest.MonkeyPatch) -> None:
    import timm

    asked: list[dict[str, object]] = []

    def create(name: str, **settings: object) -> nn.Module:
        asked.append(settings)
        return nn.Linear(1, 1000)

    monkeypatch.setattr(timm, "create_model", create)
    build(TimmConfig(name="resnet18"), weights=PretrainedWeights())
    build(TimmConfig(name="resnet18"))
    build(TimmConfig(name="resnet18", settings={"num_classes": 7}), weights=PretrainedWeights())
    assert asked == [
        {"pretrained": True, "in_chans": 1},
        {"pretrained": False, "in_chans": 1, "num_classes": 3},
        {"pretrained": True, "in_chans": 1, "num_classes": 7},
    ]


def test_included_weights_are_those_of_the_function() -> None:
    def make() -> nn.Module:
        model = nn.Linear(4, 3)
        nn.init.constant_(model.weight, 0.25)
        return model

    model = build(ModuleConfig(make=make), weights=IncludedWeights())
    assert torch.equal(model.weight, torch.full((3, 4), 0.25))  # type: ignore[arg-type]


def test_21_published_weights_bring_their_own_inputs() -> None:
    vision = own_inputs(TorchvisionModelConfig(name="resnet18"), PretrainedWeights())
    imagenet = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
    assert vision == {"channels": 3, "size": 224, **imagenet}
    timm_s = own_inputs(TimmConfig(name="resnet18"), PretrainedWeights())
    assert timm_s == {"channels": 3, "size": (224, 224), **imagenet}
    assert own_inputs(TorchvisionModelConfig(name="resnet18"), None) == {"channels": 3}
    assert own_inputs(TimmConfig(name="resnet18"), None) == {}
    assert own_inputs(MLP, FileWeights(path="x")) == {}


def test_a_timm_model_that_nobody_published_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    import timm

    monkeypatch.setattr(timm.models, "get_pretrained_cfg", lambda name: None)
    with pytest.raises(ModelError, match="timm publishes no weights for resnet18"):
        own_inputs(TimmConfig(name="resnet18"), PretrainedWeights())


def test_weights_from_a_file_replace_the_drawn_ones(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    saved = build(MLP, seed=1)
    save_file(saved.state_dict(), path)
    weights = FileWeights(path=str(path), sha256=sha256_of(path))
    assert same(build(MLP, seed=2, weights=weights), saved)


def test_30_a_file_with_another_hash_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file(build(MLP).state_dict(), path)
    expected = sha256_of(path)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(IntegrityError, match=f"its sha256 is {sha256_of(path)}, and the recipe names {expected}"):
        build(MLP, weights=FileWeights(path=str(path), sha256=expected))


def test_misfits_are_named_all_at_once(tmp_path: Path) -> None:
    state = build(MLP).state_dict()
    state["classifier.weight"] = torch.zeros(7, 4)
    state["head.bias"] = state.pop("classifier.bias")
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(ModelError) as caught:
        build(MLP, weights=FileWeights(path=str(tmp_path / "model.safetensors")))
    assert str(caught.value).splitlines()[1:] == [
        "  classifier.weight has shape [7, 4], and the model's has [3, 4]",
        "  classifier.bias is missing from the file",
        "  head.bias is not in the model",
    ]


def test_many_misfits_are_cut_short(tmp_path: Path) -> None:
    save_file({f"layer{number}": torch.zeros(1) for number in range(20)}, tmp_path / "model.safetensors")
    with pytest.raises(ModelError) as caught:
        build(MLP, weights=FileWeights(path=str(tmp_path / "model.safetensors")))
    assert len(str(caught.value).splitlines()) == 1 + 8 + 1
    assert str(caught.value).endswith("and 18 more")


@pytest.mark.parametrize("suffix", [*sorted(PICKLES), ".PT", ".Pth"])
def test_a_malicious_pickle_is_refused_and_does_not_run(tmp_path: Path, suffix: str) -> None:
    path, canary = tmp_path / f"model{suffix}", tmp_path / "canary"
    path.write_bytes(pickle.dumps(Canary(canary)))
    with pytest.raises(ModelError, match="can run code when it is opened"):
        build(MLP, weights=FileWeights(path=str(path)))
    assert not canary.exists()
    pickle.loads(path.read_bytes())  # noqa: S301 - the trap itself works
    assert canary.exists()


@pytest.mark.parametrize("name", ["model.safetensors", "model", "model.pt.safetensors"])
def test_a_pickle_under_another_name_does_not_run_either(tmp_path: Path, name: str) -> None:
    path, canary = tmp_path / name, tmp_path / "canary"
    path.write_bytes(pickle.dumps(Canary(canary)))
    with pytest.raises(IntegrityError, match="not a readable safetensors file"):
        build(MLP, weights=FileWeights(path=str(path)))
    assert not canary.exists()


def test_a_refused_file_is_not_opened_even_where_it_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="convert it once"):
        read_weights(tmp_path / "absent.pt")
    with pytest.raises(ModelError, match="no such file of weights"):
        read_weights(tmp_path / "absent.safetensors")


@pytest.mark.parametrize("config", [MLP, ConvNetConfig(widths=(4,)), TorchvisionModelConfig(name="resnet18")])
def test_the_conversion_in_the_message_works(tmp_path: Path, config: ModelConfig) -> None:
    folder = tmp_path / "it's a folder"
    folder.mkdir()
    shape = (3, 32, 32)
    model = build(config, seed=1, shape=shape)
    torch.save(model.state_dict(), folder / "model.pt")
    with pytest.raises(ModelError) as caught:
        read_weights(folder / "model.pt")
    lines = re.findall(r"^  (.*)$", str(caught.value), flags=re.MULTILINE)
    assert len(lines) == 2
    exec("\n".join(lines), {})
    converted = folder / "model.safetensors"
    assert load_file(converted).keys() == model.state_dict().keys()
    assert same(build(config, seed=2, shape=shape, weights=FileWeights(path=str(converted))), model)


def test_30_a_file_cut_short_is_named(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file(build(MLP).state_dict(), path)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(IntegrityError, match=r"model\.safetensors: not a readable safetensors file"):
        read_weights(path)
