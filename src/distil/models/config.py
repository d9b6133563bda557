"""Which network: two that are built in, any of timm or torchvision by name, or one made by a Python function."""

import functools
import hashlib
import inspect
from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_serializer, field_validator

from distil.core.config import Config, Count, Probability, StringIsKind
from distil.models.text_config import HuggingFaceModelConfig, TextCnnConfig


class MlpConfig(Config):
    """A multilayer perceptron on the flattened image: linear, ReLU, dropout for each width; a linear classifier.

    Without widths it is a linear model.
    """

    kind: Literal["mlp"] = "mlp"
    widths: tuple[Count, ...]
    dropout: Probability = 0.0  # of hidden units
    input_dropout: Probability = 0.0  # of pixels


class ConvNetConfig(Config):
    """A plain convolutional network: for each width a 3x3 convolution, batch normalisation, ReLU, 2x2 max-pooling."""

    kind: Literal["convnet"] = "convnet"
    widths: Annotated[tuple[Count, ...], Field(min_length=1)]
    dropout: Probability = 0.0  # before the classifier


class TimmConfig(Config):
    """A model of `timm` by name, such as resnet18 or mobilenetv3_small_100, with its own settings."""

    kind: Literal["timm"] = "timm"
    name: str
    settings: dict[str, Any] = Field(default_factory=dict)


class TorchvisionModelConfig(Config):
    """A classification model of `torchvision` by name, such as resnet18, with its own settings."""

    kind: Literal["torchvision"] = "torchvision"
    name: str
    settings: dict[str, Any] = Field(default_factory=dict)


def _describe_callable(value: Any) -> str:
    """Source of a function, and the plain values it was bound to: a change of either makes another network."""
    if isinstance(value, functools.partial):
        return f"partial {_describe_callable(value.func)} {value.args} {sorted(value.keywords.items())}"
    try:
        source = inspect.getsource(value)
    except (OSError, TypeError):
        source = repr(getattr(value, "__qualname__", type(value).__name__))
    bound = getattr(value, "__defaults__", None) or ()
    cells = [cell.cell_contents for cell in getattr(value, "__closure__", None) or ()]
    return f"{source} {[each for each in (*bound, *cells) if isinstance(each, (bool, int, float, str, tuple, list))]}"


class ModuleConfig(Config):
    """Any network, made by a Python function without arguments. From Python only: a recipe file never names code."""

    kind: Literal["module"] = "module"
    make: Callable[[], Any]  # -> torch.nn.Module; its random initial weights are drawn from the run's seed

    @field_validator("make", mode="before")
    @classmethod
    def _callable(cls, value: Any) -> Any:
        if not callable(value):
            raise ValueError("kind module takes a function from Python; a recipe file cannot name code")
        return value

    @field_serializer("make")
    def _fingerprint(self, value: Callable[[], Any]) -> str:
        return "python:" + hashlib.sha256(_describe_callable(value).encode()).hexdigest()


ModelConfig = Annotated[
    Annotated[
        MlpConfig
        | ConvNetConfig
        | TimmConfig
        | TorchvisionModelConfig
        | HuggingFaceModelConfig
        | TextCnnConfig
        | ModuleConfig,
        Field(discriminator="kind"),
    ],
    StringIsKind,
]


class FileWeights(Config):
    """Weights in a safetensors file."""

    kind: Literal["file"] = "file"
    path: str
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None  # refused where the file has another


class PretrainedWeights(Config):
    """The weights that timm, torchvision or a folder of transformers have for the model."""

    kind: Literal["pretrained"] = "pretrained"


class IncludedWeights(Config):
    """The weights that the network of a Python function comes with."""

    kind: Literal["included"] = "included"


def _expand_weights(value: Any) -> Any:
    """The words pretrained and included stand for themselves; any other string is a path."""
    if isinstance(value, str):
        return {"kind": value} if value in ("pretrained", "included") else {"kind": "file", "path": value}
    if isinstance(value, dict) and "kind" not in value and "path" in value:
        return {"kind": "file", **value}
    return value


WeightsConfig = Annotated[
    Annotated[FileWeights | PretrainedWeights | IncludedWeights, Field(discriminator="kind")],
    BeforeValidator(_expand_weights),
]
