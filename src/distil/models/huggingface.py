"""From a configuration to a network of transformers: published weights that fit it, or random ones."""

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from distil.core.errors import MissingExtraError, ModelError
from distil.models.huggingface_files import (
    GENERATION,
    NUM_SHOWN,
    find_folder,
    quiet,
    read_gguf,
    read_settings,
    read_state,
    without_code,
)
from distil.models.huggingface_network import Head, HuggingFaceNetwork
from distil.models.text_config import HuggingFaceModelConfig

_AUTO_CLASSES: dict[Head, str] = {
    "classes": "AutoModelForSequenceClassification",
    "token-classes": "AutoModelForTokenClassification",
    "spans": "AutoModelForQuestionAnswering",
    "causal-lm": "AutoModelForCausalLM",
    "masked-lm": "AutoModelForMaskedLM",
    "seq2seq": "AutoModelForSeq2SeqLM",
    "embedding": "AutoModel",
}
_OF_CLASSES: tuple[Head, ...] = ("classes", "token-classes")
_TRAINED_ANEW: tuple[Head, ...] = (*_OF_CLASSES, "spans")  # heads that a published model may come without
_NOT_FOR_RECIPES = {
    **dict.fromkeys(("num_labels", "id2label", "label2id", "problem_type"), "it follows from the task"),
    "pad_token_id": "it follows from the tokenizer",
    **dict.fromkeys(("dtype", "torch_dtype"), "weights are float32 here"),
    **dict.fromkeys(("use_cache", "output_hidden_states", "return_dict"), "it has no effect here"),
    **dict.fromkeys(("architectures", "transformers_version", "is_encoder_decoder"), "it follows from model_type"),
}
_SETTINGS_TOO = {  # that are not in the class: former names, and what only some models have
    "rope_parameters": ("rope_theta", "rope_scaling"),
    "is_encoder_decoder": ("decoder_start_token_id",),
}


def load_pretrained(
    config: HuggingFaceModelConfig,
    *,
    head: Head,
    num_outputs: int | None,
    vocabulary_size: int | None,
    pad_token_id: int | None,
) -> HuggingFaceNetwork:
    """A network of transformers in training mode: a published one, or one drawn at random as ``config`` says.

    What a published model has no weights for is drawn from torch's generator. Only a head for classes or spans may be
    without; the network's ``drawn`` names it.

    Args:
        config: which network.
        head: what it says of a text.
        num_outputs: classes; None: as many as the published model has, or the head is for something else.
        vocabulary_size: tokens of the tokenizer that it reads by; None: not known.
        pad_token_id: that tokenizer's.

    Raises:
        ModelError: there is no such model, it cannot have this head, a setting is wrong, or the weights do not fit.
        IntegrityError: a file cannot be read.
        MissingExtraError: a package is not installed.
    """
    try:
        import transformers
    except ImportError as error:
        raise MissingExtraError("transformers", extra="text", purpose="a model of kind huggingface") from error
    _require_effect(config, head, num_outputs)
    with quiet():
        if config.config is not None:
            settings = _own_settings(transformers, config.config, vocabulary_size, pad_token_id)
            pretrained, drawn = _build(transformers, settings, head, num_outputs, "config"), ()
        else:
            pretrained, drawn = _published(transformers, config, head, num_outputs)
            _require_tokens(len(pretrained.get_input_embeddings().weight), vocabulary_size, pad_token_id)
            if pretrained.config.pad_token_id is None:
                pretrained.config.pad_token_id = pad_token_id
    _leave_out_what_is_not_used(pretrained, head)
    network = HuggingFaceNetwork(
        pretrained, head=head, pooling=config.pooling, normalise=config.normalise, drawn=drawn
    ).eval()
    if head == "causal-lm":
        network.require_causal()
    return network.train()


def _require_effect(config: HuggingFaceModelConfig, head: Head, num_outputs: int | None) -> None:
    unused = [name for name in ("pooling", "normalise") if name in config.model_fields_set]
    if unused and head != "embedding":
        raise ModelError(f"model: {' and '.join(unused)} is for sentence embeddings, and this network is for {head}")
    if num_outputs is not None and head not in _OF_CLASSES:
        raise ValueError(f"num_outputs is {num_outputs}, and a network for {head} has no classes")
    if num_outputs is None and head in _OF_CLASSES and config.config is not None:
        raise ValueError(f"a network for {head} that is drawn at random needs num_outputs")


def _own_settings(
    library: Any, given: Mapping[str, Any], vocabulary_size: int | None, pad: int | None
) -> dict[str, Any]:
    """Settings of a network that is drawn at random, for the tokens that there are."""
    kind = _config_class(library, given, "config")
    chosen = _checked(kind, {name: value for name, value in given.items() if name != "model_type"})
    known = {"vocab_size": vocabulary_size, "pad_token_id": pad}
    settings = {name: value for name, value in known.items() if value is not None} | chosen
    if "vocab_size" not in settings:
        raise ModelError("config: vocab_size is not known, as no tokenizer is; set it")
    _require_tokens(settings["vocab_size"], vocabulary_size, pad)
    # the class's own ids are those of another tokenizer
    defaults = {name: getattr(kind(), name, None) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    outside = [name for name, id in defaults.items() if isinstance(id, int) and id >= settings["vocab_size"]]
    return {"model_type": given["model_type"], **dict.fromkeys(outside), **settings}


def _published(
    library: Any, config: HuggingFaceModelConfig, head: Head, num_outputs: int | None
) -> tuple[Any, tuple[str, ...]]:
    """A network with published weights, and the names of those that were not published."""
    folder = find_folder(config)
    file = folder / config.gguf if config.gguf is not None else None
    settings = read_settings(folder) if file is None else read_gguf(file)
    settings |= _checked(_config_class(library, settings, str(folder)), config.settings)
    with torch.device("meta"):
        empty = _build(library, settings, head, num_outputs, str(file or folder))
    state = _own_copies(read_state(folder) if file is None else read_gguf(file, empty))
    try:
        # of these tensors alone: given a folder, transformers would look for other formats and for code in it
        pretrained, report = type(empty).from_pretrained(
            None,
            config=empty.config,
            state_dict=state,
            generation_config=_generation(library, folder) if file is None else None,
            dtype=torch.float32,
            ignore_mismatched_sizes=True,  # they are in the report
            output_loading_info=True,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
        )
    except Exception as error:  # of many kinds; none of them names the folder
        raise ModelError(f"{folder}: cannot be loaded: {type(error).__name__}: {error}") from error
    problems = _misfits(pretrained, report, head)
    if problems:
        more = [f"and {len(problems) - NUM_SHOWN} more"] if len(problems) > NUM_SHOWN else []
        shown = "\n  ".join(problems[:NUM_SHOWN] + more)
        raise ModelError(f"{file or folder}: the weights do not fit {type(pretrained).__name__}:\n  {shown}")
    return pretrained, tuple(sorted(name for name in report["missing_keys"] if head in _TRAINED_ANEW))


def _own_copies(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """In memory of torch's own: where a file is mapped, sums would round as its header is long."""
    return {
        name: value.to(torch.float32, copy=True) if value.is_floating_point() else value.clone()
        for name, value in state.items()
    }


def _generation(library: Any, folder: Path) -> Any:
    """How the published model writes texts; the network has no use for it, and it is saved with it."""
    return library.GenerationConfig.from_pretrained(folder) if (folder / GENERATION).is_file() else None


def _config_class(library: Any, settings: Mapping[str, Any], where: str) -> Any:
    kind = settings["model_type"]
    if kind in library.CONFIG_MAPPING:
        return library.CONFIG_MAPPING[kind]
    if "auto_map" in settings:
        raise ModelError(
            f"{where}: model_type {kind!r} is made by code that comes with the model, which distil never runs; take a "
            "model that transformers has itself"
        )
    raise ModelError(f"{where}: transformers has no model_type {kind!r}{_near(kind, library.CONFIG_MAPPING)}")


def _checked(kind: Any, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings by the names that the class stores them under; an unknown one is an error."""
    known = set(kind().to_dict()) | set(kind.attribute_map)
    known |= {also for name, more in _SETTINGS_TOO.items() if name in known and getattr(kind(), name) for also in more}
    problems = []
    for name in settings:
        if name in _NOT_FOR_RECIPES:
            problems.append(f"{name} cannot be set: {_NOT_FOR_RECIPES[name]}")
        elif name not in known:
            problems.append(f"{kind.model_type} has no setting {name!r}{_near(name, known - set(_NOT_FOR_RECIPES))}")
    if problems:
        raise ModelError("model of kind huggingface: " + "; ".join(problems))
    return {kind.attribute_map.get(name, name): value for name, value in settings.items()}


def _build(library: Any, settings: Mapping[str, Any], head: Head, num_outputs: int | None, where: str) -> Any:
    kind = _config_class(library, settings, where)
    auto = getattr(library, _AUTO_CLASSES[head])
    try:
        config = kind.from_dict(without_code(settings))
        if head == "spans":
            config.num_labels = 2
        elif num_outputs is not None:
            config.num_labels = num_outputs
        if type(config) in auto._model_mapping and not (head == "embedding" and config.is_encoder_decoder):
            return auto.from_config(config, trust_remote_code=False, dtype=torch.float32)
    except Exception as error:  # of many kinds, from a size that does not divide another to a type that is wrong
        raise ModelError(f"{where}: transformers refuses the settings of {kind.model_type}: {error}") from error
    raise ModelError(f"{where}: transformers has no network of model_type {kind.model_type!r} for {head}")


def _misfits(pretrained: Any, report: Mapping[str, Any], head: Head) -> list[str]:
    """What is wrong with published weights: all but a missing head that is trained, and heads of another kind."""
    body, prefix = pretrained.base_model, f"{pretrained.base_model_prefix}."
    parts, modules = dict(body.named_children()), dict(pretrained.named_modules())

    def may_be_drawn(name: str) -> bool:
        of_head = body is not pretrained and not name.startswith(prefix)
        return (head in _TRAINED_ANEW and of_head) or _of_pooler(name)

    def of_another_head(name: str) -> bool:
        own = name.removeprefix(prefix).partition(".")[0] in parts or name.rpartition(".")[0] in modules
        return not own or _of_pooler(name)

    return [
        *(
            f"{name} has shape {list(found)}, and the model's has {list(expected)}"
            for name, found, expected in sorted(report["mismatched_keys"])
        ),
        *(f"{name} is missing" for name in sorted(report["missing_keys"]) if not may_be_drawn(name)),
        *(f"{name} is not in the model" for name in sorted(report["unexpected_keys"]) if not of_another_head(name)),
    ]


def _of_pooler(name: str) -> bool:
    """A layer in the body that only a head for classes uses."""
    return "pooler" in name.split(".")


def _require_tokens(rows: int, vocabulary_size: int | None, pad: int | None) -> None:
    if max(vocabulary_size or 0, (pad or 0) + 1) > rows:
        raise ModelError(
            f"the model has embeddings of {rows:,} tokens, and the tokenizer has {vocabulary_size:,}, with padding "
            f"number {pad}; take the model's own tokenizer"
        )


def _leave_out_what_is_not_used(pretrained: Any, head: Head) -> None:
    if head == "embedding" and getattr(pretrained, "pooler", None) is not None:
        pretrained.pooler = None  # embeddings are pooled here
    # no gradient would go to the embedding of the padding token, which may be a token of texts too, as the last one is
    words = pretrained.get_input_embeddings().weight
    for module in pretrained.modules():
        if isinstance(module, nn.Embedding) and module.weight is words:
            module.padding_idx = None


def _near(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, known, n=3)
    return f"; did you mean {', '.join(close)}?" if close else ""
