"""Tiny networks for texts, drawn at random, ready for a task."""

from typing import Any

from torch import nn

from distil.data.config import InputsConfig, TrainedTokenizerConfig
from distil.data.example import TextExamples
from distil.models.text_config import HuggingFaceModelConfig
from distil.tasks.network import Network, build_network
from distil.tasks.task import Task

SIZES: dict[str, dict[str, Any]] = {
    "bert": {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24},
    "llama": {
        **{"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24},
        "num_key_value_heads": 1,
    },
    "t5": {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 1, "num_heads": 2},
}
POSITIONS = {"max_position_embeddings": 32}


def config(family: str = "bert", **changes: Any) -> HuggingFaceModelConfig:
    """Settings of ``pooling`` and ``normalise`` are the network's, all others the model's."""
    own = {name: changes.pop(name) for name in ("pooling", "normalise") if name in changes}
    limits = {} if family == "t5" else POSITIONS
    return HuggingFaceModelConfig(config={"model_type": family, **SIZES[family], **limits, **changes}, **own)


def inputs(*, size: int = 60, max_length: int = 12, **changes: Any) -> InputsConfig:
    tokenizer = TrainedTokenizerConfig(kind="wordpiece", size=size)
    return InputsConfig(tokenizer=tokenizer, max_length=max_length, **changes)


def network(task: Task, examples: TextExamples, family: str = "bert", *, seed: int = 0, **changes: Any) -> Network:
    """In evaluation mode, with weights large enough that answers differ."""
    how = {name: changes.pop(name) for name in ("size", "max_length", "columns") if name in changes}
    made = build_network(config(family, **changes), inputs(**how), examples=examples, seed=seed, task=task)
    for parameter in made.model.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.3)
    made.model.eval()
    return made
