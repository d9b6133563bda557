"""From a configuration to a network: built from a seed, with weights from a verified file, never from a pickle."""

import copy
import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from distil.core.errors import IntegrityError, MissingExtraError, ModelError
from distil.core.files import sha256_of
from distil.core.seeds import seeded
from distil.models.builtin import ConvNet, Mlp
from distil.models.config import (
    ConvNetConfig,
    FileWeights,
    MlpConfig,
    ModelConfig,
    ModuleConfig,
    PretrainedWeights,
    TimmConfig,
    TorchvisionModelConfig,
    WeightsConfig,
)
from distil.models.text_config import HuggingFaceModelConfig, TextCnnConfig

PICKLES = {".pt", ".pth", ".bin", ".pkl", ".pickle", ".ckpt", ".joblib", ".npy"}


def build_model(
    config: ModelConfig,
    *,
    num_classes: int,
    image_shape: tuple[int, int, int],
    seed: int,
    weights: WeightsConfig | None = None,
) -> nn.Module:
    """The network, its initial weights drawn from the seed, then overwritten by ``weights`` where given.

    Args:
        config: which network.
        num_classes: outputs of its classifier.
        image_shape: channels, height and width of its input.
        seed: equal seeds give equal initial weights.
        weights: a file, or the published ones.

    Raises:
        ModelError: there is no such model, its settings are refused, or the weights do not fit.
        IntegrityError: the file is not the one the recipe names.
        MissingExtraError: the model's package is not installed.
    """
    with seeded(seed):
        model = _build(
            config, num_classes=num_classes, image_shape=image_shape, pretrained=_pretrained(config, weights)
        )
    if isinstance(weights, FileWeights):
        load_weights(model, weights)
    return model


def own_inputs(config: ModelConfig, weights: WeightsConfig | None) -> dict[str, Any]:
    """What a model asks of its input: the channels of its family, and what its published weights were trained with.

    That is resolution, mean and deviation. Empty where it asks for nothing.
    """
    match config:
        case TorchvisionModelConfig():
            if not _pretrained(config, weights):
                return {"channels": 3}
            from torchvision import models

            transforms = models.get_model_weights(config.name).DEFAULT.transforms()  # type: ignore[attr-defined]
            size = transforms.crop_size[0]
            return {"channels": 3, "size": size, "mean": tuple(transforms.mean), "std": tuple(transforms.std)}
        case TimmConfig() if _pretrained(config, weights):
            import timm

            published = timm.models.get_pretrained_cfg(config.name)
            if published is None:
                raise ModelError(f"timm publishes no weights for {config.name}; name a file")
            channels, height, width = published.input_size
            return {"channels": channels, "size": (height, width), "mean": published.mean, "std": published.std}
        case _:
            return {}


def load_weights(model: nn.Module, weights: FileWeights) -> None:
    """Loads a safetensors file into the model; names and shapes must fit exactly."""
    state = read_weights(Path(weights.path), sha256=weights.sha256)
    problems = _misfits(model.state_dict(), state)
    if problems:
        shown = "\n  ".join(problems[:8] + ([f"and {len(problems) - 8} more"] if len(problems) > 8 else []))
        raise ModelError(f"{weights.path}: the weights do not fit the model:\n  {shown}")
    model.load_state_dict(state)


def read_weights(path: Path, *, sha256: str | None = None) -> dict[str, Tensor]:
    """The tensors of a safetensors file. Nothing else is opened: other formats can run code when they are read."""
    if path.suffix.lower() in PICKLES:
        before, after = str(path), str(path.with_suffix(".safetensors"))
        raise ModelError(
            f"{path}: a {path.suffix} file can run code when it is opened, so distil does not. If you trust where it "
            f"is from, convert it once:\n"
            f"  import torch, safetensors.torch\n"
            f"  safetensors.torch.save_file(torch.load({before!r}, weights_only=True), {after!r})"
        )
    if not path.is_file():
        raise ModelError(f"{path}: no such file of weights")
    if sha256 is not None:
        found = sha256_of(path)
        if found != sha256:
            raise IntegrityError(f"{path}: its sha256 is {found}, and the recipe names {sha256}. Fetch the file again")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise IntegrityError(f"{path}: not a readable safetensors file: {error}") from error


def _pretrained(config: ModelConfig, weights: WeightsConfig | None) -> bool:
    if not isinstance(weights, PretrainedWeights):
        return False
    if not isinstance(config, (TimmConfig, TorchvisionModelConfig)):
        raise ModelError(f"weights: pretrained: a model of kind {config.kind} has no published weights; name a file")
    return True


def _build(config: ModelConfig, *, num_classes: int, image_shape: tuple[int, int, int], pretrained: bool) -> nn.Module:
    channels, height, width = image_shape
    match config:
        case MlpConfig():
            return Mlp(
                num_inputs=channels * height * width,
                widths=config.widths,
                num_classes=num_classes,
                dropout=config.dropout,
                input_dropout=config.input_dropout,
            )
        case ConvNetConfig():
            return ConvNet(channels=channels, widths=config.widths, num_classes=num_classes, dropout=config.dropout)
        case TimmConfig():
            return _timm(config, num_classes=num_classes, channels=channels, pretrained=pretrained)
        case TorchvisionModelConfig():
            return _torchvision(config, num_classes=num_classes, pretrained=pretrained)
        case HuggingFaceModelConfig() | TextCnnConfig():
            raise ModelError(f"a model of kind {config.kind} reads texts, and the data are images")
        case ModuleConfig():
            model = config.make()
            if not isinstance(model, nn.Module):
                raise ModelError(
                    f"model of kind module: the function returned {type(model).__name__}, not a torch.nn.Module"
                )
            return copy.deepcopy(model)  # a function may give the same network twice; arms and seeds never share one


def _timm(config: TimmConfig, *, num_classes: int, channels: int, pretrained: bool) -> nn.Module:
    try:
        import timm
    except ImportError as error:
        raise MissingExtraError("timm", extra="vision", purpose=f"the model {config.name}") from error
    if not timm.is_model(config.name):
        raise ModelError(_unknown_model("timm", config.name, timm.list_models()))
    # published weights keep their own classes: another number would put random weights in place of the classifier
    settings = {"in_chans": channels, **({} if pretrained else {"num_classes": num_classes}), **config.settings}
    try:
        return timm.create_model(config.name, pretrained=pretrained, **settings)
    except (TypeError, ValueError, RuntimeError, AssertionError, KeyError) as error:
        raise ModelError(f"timm model {config.name} refuses its settings {settings}: {error}") from error


def _torchvision(config: TorchvisionModelConfig, *, num_classes: int, pretrained: bool) -> nn.Module:
    try:
        from torchvision import models
    except ImportError as error:
        raise MissingExtraError("torchvision", extra="vision", purpose=f"the model {config.name}") from error
    names = models.list_models(module=models)
    if config.name not in names:
        raise ModelError(_unknown_model("torchvision", config.name, names))
    settings = config.settings if pretrained else {"num_classes": num_classes, **config.settings}
    try:
        return models.get_model(config.name, weights="DEFAULT" if pretrained else None, **settings)
    except (TypeError, ValueError, RuntimeError, AssertionError, KeyError) as error:
        raise ModelError(f"torchvision model {config.name} refuses its settings {settings}: {error}") from error


def _unknown_model(library: str, name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=3)
    return f"{library} has no model {name!r}" + (f"; did you mean {', '.join(near)}?" if near else "")


def _misfits(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> list[str]:
    missing = [f"{name} is missing from the file" for name in expected if name not in found]
    extra = [f"{name} is not in the model" for name in found if name not in expected]
    shapes = [
        f"{name} has shape {list(found[name].shape)}, and the model's has {list(expected[name].shape)}"
        for name in expected
        if name in found and found[name].shape != expected[name].shape
    ]
    return shapes + missing + extra
