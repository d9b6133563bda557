"""Where the data come from, how they are split, and how one model's input is made from an example."""

import hashlib
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import ConfigDict, Field, field_serializer, field_validator, model_validator

from distil.core.config import Config, Count, Fraction, NonNegative, Positive, Probability, StringIsKind, Whole


class ValidationConfig(Config):
    """Which examples choose between epochs and settings: exactly one of the three."""

    fraction: Fraction | None = None  # a stratified share of the training examples
    last: Count | None = None  # the last n training examples, in the source's own order
    split: str | None = None  # a split that the source already has

    @model_validator(mode="after")
    def _exactly_one(self) -> "ValidationConfig":
        if sum(value is not None for value in (self.fraction, self.last, self.split)) != 1:
            raise ValueError("give exactly one of fraction, last, split; or the word none")
        return self


class SourceConfig(Config):
    """What every source of data has."""

    names_splits: ClassVar[bool] = False  # whether the source comes in splits with names

    split_seed: Whole = 0
    examples: Annotated[Count, Field(ge=2)] | None = (
        None  # of the source's training split, a stratified choice; None: all
    )
    validation: ValidationConfig | Literal["none"] = ValidationConfig(fraction=0.1)
    labels: Count | Literal["all"] = "all"  # n: students may see the labels of n training examples, a stratified choice

    @field_validator("validation", mode="before")
    @classmethod
    def _null_is_none(cls, value: Any) -> Any:
        return "none" if value is None else value

    @model_validator(mode="after")
    def _has_the_split(self) -> "SourceConfig":
        wanted = self.validation.split if isinstance(self.validation, ValidationConfig) else None
        if wanted is not None and not self.names_splits:
            raise ValueError(f"validation: this source has no split {wanted!r}; give fraction or last")
        return self


class DigitsConfig(SourceConfig):
    """scikit-learn's 1,797 handwritten digits of 8x8 pixels: no network, no download."""

    kind: Literal["digits"] = "digits"
    test: Fraction = 0.5


class HuggingFaceConfig(SourceConfig):
    """A data set of labelled images as `datasets` reads it: Parquet folder, folder of images by class, or hub id."""

    names_splits = True

    kind: Literal["huggingface"] = "huggingface"
    path: str | None = None  # a folder: $DISTIL_DATA/path where that is there, else path as it stands
    hub: str | None = None  # the data set's id on the hub, used where there is no such folder
    revision: str | None = None  # branch, tag or commit on the hub
    image: str = "image"
    label: str = "label"
    train: str = "train"
    test: str | Fraction = "test"  # a split of the source, or a share of the training split
    size: tuple[Count, Count] | None = None  # [height, width] all images are decoded to

    @model_validator(mode="after")
    def _somewhere(self) -> "HuggingFaceConfig":
        if self.path is None and self.hub is None:
            raise ValueError("give path (a folder), hub (an id), or both")
        if self.revision is not None and self.hub is None:
            raise ValueError("revision has an effect only together with hub")
        return self

    @model_validator(mode="after")
    def _splits_apart(self) -> "HuggingFaceConfig":
        validation = self.validation.split if isinstance(self.validation, ValidationConfig) else None
        names = [name for name in (self.train, validation, self.test) if isinstance(name, str)]
        if len(set(names)) != len(names):
            raise ValueError(f"train, validation and test must be different splits; they are {names}")
        return self


class TextConfig(SourceConfig):
    """Texts as `datasets` reads them: a folder of Parquet, CSV, JSON lines or plain text files, or a hub id.

    Which columns hold what is said here; what a task does not use must be left out.
    """

    names_splits = True

    kind: Literal["text"] = "text"
    path: str | None = None  # a folder: $DISTIL_DATA/path where that is there, else path as it stands
    hub: str | None = None  # the data set's id on the hub, used where there is no such folder
    subset: str | None = None  # the configuration of a hub data set, such as a language
    revision: str | None = None  # branch, tag or commit on the hub
    text: str | tuple[str, str] = "text"  # the column that is read; two: a pair, such as question and context
    label: str | None = None  # column: class numbers or names; of several labels a list; of words a list of tags
    target: str | None = None  # column: the text to write, of sequence to sequence
    answers: str | None = None  # column in the layout of SQuAD: {text: [...], answer_start: [...]}
    score: str | None = None  # column: how alike the two texts are, for sentence embeddings
    class_names: tuple[str, ...] | None = None  # None: the column's own, or every label that occurs, in sorted order
    layout: Literal["rows", "answer-sentences"] = "rows"  # answer-sentences: from SQuAD, each sentence of a context is
    # a candidate for its question; class 1 holds the answer, and the candidates of a question are a group
    group: str | None = None  # column: examples of one group, such as an article, are resampled together
    chunk_bytes: Annotated[Count, Field(ge=16)] | None = None  # rows joined, then cut at whitespace
    train: str = "train"
    test: str | Fraction = "test"

    @model_validator(mode="after")
    def _somewhere(self) -> "TextConfig":
        if self.path is None and self.hub is None:
            raise ValueError("give path (a folder), hub (an id), or both")
        for name in ("revision", "subset"):
            if getattr(self, name) is not None and self.hub is None:
                raise ValueError(f"{name} has an effect only together with hub")
        if self.layout == "answer-sentences" and (self.answers is None or isinstance(self.text, str)):
            raise ValueError("layout answer-sentences needs text: [QUESTION, CONTEXT] and answers")
        return self

    @model_validator(mode="after")
    def _splits_apart(self) -> "TextConfig":
        validation = self.validation.split if isinstance(self.validation, ValidationConfig) else None
        names = [name for name in (self.train, validation, self.test) if isinstance(name, str)]
        if len(set(names)) != len(names):
            raise ValueError(f"train, validation and test must be different splits; they are {names}")
        return self

    @model_validator(mode="after")
    def _all_have_an_effect(self) -> "TextConfig":
        given = [
            name
            for name in ("label", "target", "answers", "score", "class_names", "group")
            if getattr(self, name) is not None
        ]
        if self.chunk_bytes is not None:
            idle = given if self.layout == "rows" else [*given, "layout"]
            if idle or not isinstance(self.text, str):
                what = f"remove {', '.join(idle)}" if idle else "text must be one column"
                raise ValueError(f"chunk_bytes joins the texts of all rows and nothing else of them; {what}")
        elif self.layout == "answer-sentences" and given != ["answers"]:
            idle = [name for name in given if name != "answers"]
            raise ValueError(f"layout answer-sentences has classes and groups of its own; remove {', '.join(idle)}")
        return self

    @property
    def text_columns(self) -> tuple[str, ...]:
        return (self.text,) if isinstance(self.text, str) else self.text


class ArraysConfig(SourceConfig):
    """Images and labels that are in memory already. From Python only."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    kind: Literal["arrays"] = "arrays"
    images: Any  # uint8 [examples, channels, height, width]
    labels_of_images: Any  # whole numbers [examples]
    class_names: tuple[str, ...]
    test: Fraction = 0.5

    @field_validator("images", "labels_of_images")
    @classmethod
    def _array(cls, value: Any) -> np.ndarray:
        if not isinstance(value, np.ndarray):
            raise ValueError("kind arrays takes numpy arrays from Python; a recipe file cannot hold them")
        return value

    @field_serializer("images", "labels_of_images")
    def _fingerprint(self, value: np.ndarray) -> str:
        header = f"{value.dtype.str} {value.shape} ".encode()
        return "array:" + hashlib.sha256(header + np.ascontiguousarray(value).tobytes()).hexdigest()


DataConfig = Annotated[
    Annotated[DigitsConfig | HuggingFaceConfig | TextConfig | ArraysConfig, Field(discriminator="kind")],
    StringIsKind,
]


class HuggingFaceTokenizerConfig(Config):
    """The tokenizer of a model: in an installed package (`package/folder`), a folder, or on the hub; tried in order."""

    kind: Literal["huggingface"] = "huggingface"
    package: str | None = None
    path: str | None = None
    hub: str | None = None
    revision: str | None = None
    gguf: str | None = None  # a GGUF file there, that holds the tokenizer too

    @model_validator(mode="after")
    def _somewhere(self) -> "HuggingFaceTokenizerConfig":
        if self.package is None and self.path is None and self.hub is None:
            raise ValueError("give package, path or hub")
        return self


class TrainedTokenizerConfig(Config):
    """A vocabulary of its own, made from the training texts."""

    kind: Literal["characters", "wordpiece", "bpe"]
    size: Count = 8_000  # of the vocabulary, special tokens counted
    lowercase: bool = True


TokenizerConfig = Annotated[
    Annotated[HuggingFaceTokenizerConfig | TrainedTokenizerConfig, Field(discriminator="kind")], StringIsKind
]


class InputsConfig(Config):
    """How a model's input is made from an image or a text; what is left out comes from the model.

    An image stays as it is where nothing is said. ``size``, ``channels``, ``mean`` and ``std`` are for images, the
    others for texts; the wrong ones are refused.
    """

    size: tuple[Count, Count] | Count | None = None  # height and width
    channels: Literal[1, 3] | None = None
    mean: tuple[float, ...] | float | None = None  # of pixels in 0..1, taken off before the division by std
    std: tuple[Positive, ...] | Positive | None = None
    tokenizer: TokenizerConfig | None = None  # None: the model's own
    max_length: Annotated[Count, Field(ge=4)] | None = None  # tokens; longer texts are cut. None: 128
    columns: tuple[str, ...] | None = None  # which of the data's texts the model reads; None: all

    @property
    def of_images(self) -> list[str]:
        return [name for name in ("size", "channels", "mean", "std") if getattr(self, name) is not None]

    @property
    def of_texts(self) -> list[str]:
        return [name for name in ("tokenizer", "max_length", "columns") if getattr(self, name) is not None]


class ShuffledOrderConfig(Config):
    """All examples in random order, another in each epoch."""

    kind: Literal["shuffled"] = "shuffled"


class BalancedOrderConfig(Config):
    """Every batch has some classes with equally many labelled examples each, for terms that compare classes."""

    kind: Literal["balanced"] = "balanced"
    classes_per_batch: Count
    examples_per_class: Count

    @property
    def batch_size(self) -> int:
        return self.classes_per_batch * self.examples_per_class


class BucketedOrderConfig(Config):
    """Texts of like length in a batch, so that less is padded; batches in random order, others in each epoch."""

    kind: Literal["bucketed"] = "bucketed"
    batches: Annotated[Count, Field(ge=2)] = 50  # so many batches' worth of random examples are sorted by length


OrderConfig = Annotated[
    Annotated[ShuffledOrderConfig | BalancedOrderConfig | BucketedOrderConfig, Field(discriminator="kind")],
    StringIsKind,
]


class ShiftConfig(Config):
    """Moves the image by whole pixels along each axis, drawn per image from -pixels..pixels; black moves in."""

    kind: Literal["shift"] = "shift"
    pixels: Count


class FlipConfig(Config):
    """Mirrors the image left to right."""

    kind: Literal["flip"] = "flip"
    probability: Annotated[float, Field(strict=True, gt=0, le=1)] = 0.5


class AffineConfig(Config):
    """Rotates, moves, scales and shears the image about its centre, bilinear, with black outside."""

    kind: Literal["affine"] = "affine"
    degrees: NonNegative = 0.0
    translate: NonNegative = 0.0  # a share of the size
    scale: tuple[Positive, Positive] = (1.0, 1.0)
    shear: NonNegative = 0.0  # degrees, along x

    @model_validator(mode="after")
    def _does_something(self) -> "AffineConfig":
        if self.scale[0] > self.scale[1]:
            raise ValueError(f"scale is {list(self.scale)}; the smaller number comes first")
        if not (self.degrees or self.translate or self.shear or self.scale != (1.0, 1.0)):
            raise ValueError("an affine without degrees, translate, scale or shear changes nothing; leave it out")
        return self


class TorchvisionConfig(Config):
    """A transform of `torchvision.transforms.v2`, by the name of its class, with its own settings; keeps the size."""

    kind: Literal["torchvision"] = "torchvision"
    name: Literal[
        "AugMix",
        "ColorJitter",
        "ElasticTransform",
        "GaussianBlur",
        "RandAugment",
        "RandomAdjustSharpness",
        "RandomAffine",
        "RandomAutocontrast",
        "RandomCrop",
        "RandomEqualize",
        "RandomErasing",
        "RandomGrayscale",
        "RandomInvert",
        "RandomPerspective",
        "RandomPosterize",
        "RandomResizedCrop",
        "RandomRotation",
        "RandomSolarize",
        "RandomVerticalFlip",
        "TrivialAugmentWide",
    ]
    settings: dict[str, Any] = Field(default_factory=dict)


ImageAugmentationConfig = ShiftConfig | FlipConfig | AffineConfig | TorchvisionConfig


class TransferConfig(Config):
    """Words masked, and the text sometimes cut to a few words in a row, for texts (Tang et al. 2019, arXiv:1903.12136).

    The label stays that of the whole text; a teacher says what it thinks of what is left.
    """

    kind: Literal["transfer"] = "transfer"
    probability: Annotated[float, Field(strict=True, gt=0, le=1)] = 0.5  # that a text is changed in this epoch
    mask: Probability = 0.1  # that a word is masked
    ngram: Probability = 0.25  # that only 1 to 5 words in a row stay
    mask_token: str = "[MASK]"


AugmentationConfig = Annotated[
    Annotated[ImageAugmentationConfig | TransferConfig, Field(discriminator="kind")],
    StringIsKind,
]
