"""Which network for texts: one of transformers, published or drawn at random, or a small convolutional one."""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from distil.core.config import Config, Count, Probability

# of the top level, without dots: to find a package inside another would import the other
_PACKAGE = r"^[A-Za-z_]\w*(/[^/\\]+)*$"
_FILE = r"^[^/\\]+(/[^/\\]+)*\.gguf$"


class HuggingFaceModelConfig(Config):
    """A network of `transformers`: with the weights of a published model, or drawn at random.

    A published model is looked for in ``package``, then ``path``, then ``hub``; of these one or more are given. Its
    weights are safetensors or one GGUF file; code that comes with a model is never run, nor is a pickle opened.
    """

    kind: Literal["huggingface"] = "huggingface"
    package: Annotated[str, Field(pattern=_PACKAGE)] | None = None  # a folder of an installed package: name/folder
    path: str | None = None  # a local folder
    hub: str | None = None  # the model's id on the hub
    revision: str | None = None  # branch, tag or commit on the hub
    gguf: Annotated[str, Field(pattern=_FILE)] | None = None  # a file there to read instead of safetensors
    config: dict[str, Any] | None = None  # model_type and sizes of a network that is drawn at random
    settings: dict[str, Any] = Field(default_factory=dict)  # of a published model, changed, such as a dropout
    pooling: Literal["mean", "first"] = "mean"  # of sentence embeddings: over the real tokens, or the first of them
    normalise: bool = True  # of sentence embeddings: to length 1

    @field_validator("package", "gguf")
    @classmethod
    def _stays_inside(cls, value: str | None) -> str | None:
        if value is not None and ".." in value.split("/"):
            raise ValueError(f"{value!r} leads out of its folder")
        return value

    @model_validator(mode="after")
    def _one_origin(self) -> "HuggingFaceModelConfig":
        published = self.package is not None or self.path is not None or self.hub is not None
        if published == (self.config is not None):
            raise ValueError(
                "give a published model (package, path or hub), or config (model_type and sizes) for one that is drawn "
                "at random" + (", not both" if published else "")
            )
        if self.revision is not None and self.hub is None:
            raise ValueError("revision has an effect only together with hub")
        if self.gguf is not None and not published:
            raise ValueError("gguf names a file of a published model; it has no effect together with config")
        if self.settings and not published:
            raise ValueError("settings change those of a published model; put them into config")
        return self

    @model_validator(mode="after")
    def _names_its_type(self) -> "HuggingFaceModelConfig":
        if self.config is not None and not isinstance(self.config.get("model_type"), str):
            raise ValueError("config needs model_type, such as bert, gpt2 or llama")
        if "model_type" in self.settings:
            raise ValueError("settings cannot change model_type; the weights are of another network then")
        return self


class TextCnnConfig(Config):
    """Convolutions of several widths over the embedded tokens, and the largest answer of each filter.

    Source: Kim 2014, arXiv:1408.5882.
    """

    kind: Literal["text-cnn"] = "text-cnn"
    embedding: Count = 128  # features of a token
    widths: Count = 128  # filters of each kernel
    kernels: Annotated[tuple[Count, ...], Field(min_length=1)] = (2, 3, 4, 5)  # tokens that a filter sees
    dropout: Probability = 0.1  # before the classifier
