"""A network for texts, ready for a task: with the tokenizer it reads by and a description of both."""

import functools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from distil.core.errors import CompatibilityError, ModelError
from distil.core.seeds import seeded
from distil.data.config import HuggingFaceTokenizerConfig, InputsConfig, TokenizerConfig, TrainedTokenizerConfig
from distil.data.example import TextExamples
from distil.data.text_view import TextView, require_columns
from distil.data.tokenizer import bpe_tokenizer, character_tokenizer, load_tokenizer, pad_id, wordpiece_tokenizer
from distil.models.config import FileWeights, ModelConfig, WeightsConfig
from distil.models.huggingface import load_pretrained
from distil.models.huggingface_files import package_folder
from distil.models.huggingface_network import HuggingFaceNetwork
from distil.models.load import load_weights
from distil.models.text import TextCnn
from distil.models.text_config import HuggingFaceModelConfig, TextCnnConfig
from distil.tasks.language import Ranking, SentenceEmbedding
from distil.tasks.side import BiEncoder, KnownTokens, Sides, Windows
from distil.tasks.task import Task
from distil.tasks.tokens import QuestionAnswering

MAX_LENGTH = 128


def text_view(
    model: ModelConfig | None, inputs: InputsConfig, *, examples: TextExamples, task: Task, own: TextView | None = None
) -> TextView:
    """How a model reads texts.

    Args:
        model: whose own tokenizer is taken where ``inputs`` names none.
        inputs: what the recipe says.
        examples: whose texts a vocabulary of its own is made from.
        task: what the text is read for.
        own: the view of the network that this one is cut from.

    Raises:
        CompatibilityError: a setting is for images, the data have no such column, or a network that is cut from another
            is to have a tokenizer of its own.
        ModelError: there is no tokenizer.
    """
    if inputs.of_images:
        raise CompatibilityError(f"inputs.{inputs.of_images[0]} is for images, and the data are texts; remove it")
    columns = inputs.columns if inputs.columns is not None else tuple(examples.columns)
    require_columns(columns, examples.columns)
    length = inputs.max_length if inputs.max_length is not None else (own.max_length if own else MAX_LENGTH)
    if own is not None:
        if inputs.tokenizer is not None:
            raise CompatibilityError(
                "student.inputs.tokenizer: a student with the teacher's weights reads by the teacher's tokenizer; "
                "remove it"
            )
        return replace(own, columns=columns, max_length=length, tokenizer=_copy(own.tokenizer), _known={})
    tokenizer = _copy(_tokenizer(model, inputs.tokenizer, examples, columns))
    return TextView(
        tokenizer,
        columns,
        length,
        apart=task.head == "embedding",
        fixed=task.fixed_length,
        overlap=task.overlap,
        pad_id=pad_id(tokenizer),
    )


def build_text_model(
    config: ModelConfig,
    view: TextView,
    *,
    num_outputs: int | None,
    task: Task,
    seed: int,
    weights: WeightsConfig | None,
) -> nn.Module:
    """The network, from the view's input to one tensor.

    Raises:
        ModelError: it is no network for texts, or cannot be built.
    """
    size = view.tokenizer.get_vocab_size()
    with seeded(seed):
        match config:
            case HuggingFaceModelConfig():
                classes = None if task.head == "embedding" else num_outputs
                network = load_pretrained(
                    config, head=task.head, num_outputs=classes, vocabulary_size=size, pad_token_id=view.pad_id
                )
                if task.head == "seq2seq" and config.config is not None and "eos_token_id" not in config.config:
                    _give_an_end(network, view)
                model = for_task(network, task, num_tokens=size)
            case TextCnnConfig():
                if task.head != "classes":
                    raise ModelError(f"a model of kind {config.kind} answers for whole texts; take one of huggingface")
                assert num_outputs is not None
                model = TextCnn(config, vocabulary_size=size, num_classes=num_outputs)
            case _:
                raise ModelError(
                    f"a model of kind {config.kind} takes images, and the data are texts; use huggingface or text-cnn"
                )
    if isinstance(weights, FileWeights):
        load_weights(model, weights)
    elif weights is not None and (not isinstance(config, HuggingFaceModelConfig) or config.config is not None):
        raise ModelError(f"weights: {weights.kind} is for a published model; this one is drawn at random")
    return model


def for_task(model: HuggingFaceNetwork, task: Task, *, num_tokens: int) -> nn.Module:
    """The network as the task asks it: of several texts at once where an example has several, of real tokens alone.

    Args:
        model: of transformers.
        task: that it is for.
        num_tokens: of its tokenizer.
    """
    settings: Any = model.pretrained.config
    if task.head == "seq2seq":
        _give_a_start(model)
    match task:
        case SentenceEmbedding():
            width: int = settings.hidden_size
            return Sides(model, width=width, features=task.features or width)
        case Ranking() if task.head == "embedding":
            return BiEncoder(Sides(model, width=settings.hidden_size, features=settings.hidden_size))
        case QuestionAnswering():
            return Windows(model)
        case _ if task.head in ("causal-lm", "masked-lm", "seq2seq"):
            known = settings.vocab_size == num_tokens
            return model if known else KnownTokens(model, num_tokens=num_tokens)
        case _:
            return model


def _give_a_start(model: HuggingFaceNetwork) -> None:
    """A decoder drawn at random starts from padding, as T5's does, where its settings name nothing."""
    settings: Any = model.pretrained.config
    if getattr(settings, "decoder_start_token_id", None) is None:
        settings.decoder_start_token_id = settings.pad_token_id
        generation: Any = model.pretrained.generation_config  # type: ignore[union-attr]
        generation.decoder_start_token_id = settings.pad_token_id


def _give_an_end(model: HuggingFaceNetwork, view: TextView) -> None:
    """A decoder drawn at random ends where its tokenizer ends a text, and not at a number of its class's own."""
    encoding = view.uncut.encode("a")
    if not encoding.ids or not encoding.special_tokens_mask[-1]:
        raise ModelError(
            "inputs.tokenizer: it puts no token at the end of a text, so a decoder that is drawn at random could not "
            "learn where to stop; take one that does, such as {kind: wordpiece, size: 8000}"
        )
    settings: Any = model.pretrained.config
    generation: Any = model.pretrained.generation_config  # type: ignore[union-attr]
    settings.eos_token_id = generation.eos_token_id = encoding.ids[-1]


def with_facts_of(view: TextView, model: nn.Module) -> TextView:
    """The view with what the network says of its input: types of tokens, and where a decoder starts and ends."""
    settings = getattr(getattr(model, "pretrained", None), "config", None)
    start, end = (getattr(settings, name, None) for name in ("decoder_start_token_id", "eos_token_id"))
    return replace(
        view,
        type_ids=(getattr(settings, "type_vocab_size", None) or 0) > 1,
        start_id=view.pad_id if start is None else start,
        end_id=0 if not isinstance(end, int) else end,
        _known={},
    )


def _tokenizer(
    model: ModelConfig | None, config: TokenizerConfig | None, examples: TextExamples, columns: Sequence[str]
) -> Any:
    match config:
        case HuggingFaceTokenizerConfig():
            return _loaded(config)
        case TrainedTokenizerConfig():
            texts = tuple(text for name in columns for text in examples.columns[name])
            return _trained(config.kind, config.size, config.lowercase, tuple(_words(text) for text in texts))
        case None if isinstance(model, HuggingFaceModelConfig) and model.config is None:
            return _loaded(model)
        case None:
            raise ModelError(
                "inputs.tokenizer: the model has none of its own; set it, such as {kind: wordpiece, size: 8000}"
            )


def _loaded(place: HuggingFaceTokenizerConfig | HuggingFaceModelConfig) -> Any:
    folder = package_folder(place.package) if place.package is not None else None
    found = str(folder) if folder is not None else place.path if place.path is not None else place.hub
    assert found is not None
    return load_tokenizer(found, revision=place.revision if found == place.hub else None, gguf_file=place.gguf)


@functools.lru_cache(maxsize=8)
def _trained(kind: str, size: int, lowercase: bool, texts: tuple[str, ...]) -> Any:
    match kind:
        case "characters":
            return character_tokenizer(texts, size=size, lowercase=lowercase)
        case "wordpiece":
            return wordpiece_tokenizer(texts, size=size, lowercase=lowercase)
        case _:
            return bpe_tokenizer(texts, size=size, lowercase=lowercase)


def _words(text: Any) -> str:
    return text if isinstance(text, str) else " ".join(text)


def _copy(tokenizer: Any) -> Any:
    """A view changes truncation; another view of the same tokenizer must not see that."""
    return type(tokenizer).from_str(tokenizer.to_str())
