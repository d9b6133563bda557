"""Tiny models of transformers with random weights, all of whose sizes differ, for tests of what is cut from them."""

from typing import Any

import torch
import transformers
from torch import Tensor, nn

from distil.models.shrink_architecture import ARCHITECTURES

TOKENS = 40
ENCODER = {
    "vocab_size": TOKENS,
    "hidden_size": 24,
    "num_hidden_layers": 4,
    "num_attention_heads": 6,
    "intermediate_size": 20,
    "max_position_embeddings": 18,
}
DECODER = {**ENCODER, "num_key_value_heads": 3, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
SETTINGS: dict[str, dict[str, Any]] = {
    "bert": ENCODER,
    "roberta": ENCODER,
    "xlm-roberta": ENCODER,
    "distilbert": {
        **{"vocab_size": TOKENS, "dim": 24, "n_layers": 4, "n_heads": 6, "hidden_dim": 20},
        "max_position_embeddings": 18,
    },
    "gpt2": {
        **{"vocab_size": TOKENS, "n_embd": 24, "n_layer": 4, "n_head": 6, "n_positions": 18, "n_inner": 20},
        **{"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0},
    },
    "llama": DECODER,
    "mistral": DECODER,
    "qwen2": DECODER,
    "qwen3": {**DECODER, "head_dim": 4},
}
CLASSES = [
    (family, architecture.class_prefix + ending)
    for family, architecture in ARCHITECTURES.items()
    for ending in architecture.heads
]
CLASSIFIERS = [(family, name) for family, name in CLASSES if name.endswith("ForSequenceClassification")]


def build(family: str, name: str, *, seed: int = 0, **changes: Any) -> Any:
    """A model in evaluation mode. Norms and biases are random, too: where they are 1 and 0, a mistake could hide."""
    cls = getattr(transformers, name)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = cls(cls.config_class(**{**SETTINGS[family], **changes})).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim == 1:
                    parameter.add_(0.3 * torch.randn_like(parameter))
                else:
                    parameter.copy_(0.3 * torch.randn_like(parameter))
    return model


def classifier(family: str = "bert", **changes: Any) -> Any:
    return build(family, ARCHITECTURES[family].class_prefix + "ForSequenceClassification", **changes)


def texts(model: nn.Module, *, seed: int = 0) -> dict[str, Tensor]:
    """Three texts of 7, 5 and 3 tokens, padded on the right."""
    ids = torch.randint(3, TOKENS, (3, 7), generator=torch.Generator().manual_seed(seed))
    mask = (torch.arange(7) < torch.tensor([[7], [5], [3]])).long()
    batch = {"input_ids": torch.where(mask.bool(), ids, model.config.pad_token_id), "attention_mask": mask}
    if type(model).__name__.endswith("ForMultipleChoice"):
        return {name: value.unsqueeze(0) for name, value in batch.items()}
    return batch


def answer(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """The first tensor that a model answers with: logits, or the last hidden states."""
    with torch.no_grad():
        return model(**batch)[0]
