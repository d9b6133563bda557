"""Small networks for texts, and sentences that they can learn to judge. The networks take one mapping, as ours do."""

import string
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tokenizers
import torch
from tokenizers import models, pre_tokenizers, processors
from torch import Tensor, nn

MAX_LENGTH = 40
GOOD, BAD = ("good", "fine", "warm", "clever"), ("bad", "dull", "cold", "silly")
OTHERS = ("the", "film", "is", "very", "and", "was", "a", "story", "of", "long", "days", "it", "then")
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
NUM_WORDS = len(SPECIAL) + len(GOOD) + len(BAD) + len(OTHERS)
CLASS_NAMES = ["gut", "schlecht <&>", "无"]


def sentences(count: int, *, seed: int) -> tuple[list[str], np.ndarray]:
    """Of 1 to 14 words; class 0 has a good word, class 1 a bad one, class 2 neither."""
    generator = np.random.default_rng(seed)
    texts, labels = [], generator.integers(0, 3, count)
    for label in labels:
        words = [str(word) for word in generator.choice(OTHERS, generator.integers(0, 14))]
        decisive = [str(generator.choice((GOOD, BAD, OTHERS)[label]))]
        place = int(generator.integers(0, len(words) + 1))
        texts.append(" ".join([*words[:place], *decisive, *words[place:]]))
    return texts, labels.astype(np.int64)


def word_tokenizer() -> Any:
    """[CLS] words [SEP], and of pairs [CLS] words [SEP] words [SEP]."""
    vocabulary = {word: number for number, word in enumerate((*SPECIAL, *GOOD, *BAD, *OTHERS))}
    tokenizer = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    ends = [("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ends
    )
    return tokenizer


def character_tokenizer() -> Any:
    vocabulary = {token: number for number, token in enumerate((*SPECIAL, *string.ascii_lowercase, " "))}
    tokenizer = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(tokenizers.Regex("."), "isolated")
    return tokenizer


def tokenise(
    tokenizer: Any, texts: Sequence[Any], names: Sequence[str] = ("input_ids", "attention_mask"), *, side: str = "right"
) -> dict[str, np.ndarray]:
    """Padded to the longest."""
    tokenizer = type(tokenizer).from_str(tokenizer.to_str())
    tokenizer.enable_truncation(MAX_LENGTH)
    tokenizer.enable_padding(direction=side)
    read = tokenizer.encode_batch(list(texts))
    known = {
        "input_ids": [each.ids for each in read],
        "attention_mask": [each.attention_mask for each in read],
        "token_type_ids": [each.type_ids for each in read],
    }
    return {name: np.array(known[name], np.int64) for name in names}


def tags(inputs: Mapping[str, np.ndarray]) -> np.ndarray:
    """0 for a good word, 1 for a bad one, 2 for others; -1, not asked for, for what is no word."""
    first = len(SPECIAL)
    ids = inputs["input_ids"]
    kinds = np.select([ids < first, ids < first + len(GOOD), ids < first + len(GOOD) + len(BAD)], [-1, 0, 1], 2)
    return kinds.astype(np.int64)


def describe(
    names: Sequence[str],
    *,
    class_names: Sequence[str] = CLASS_NAMES,
    output: str = "logits",
    max_length: int = MAX_LENGTH,
) -> dict[str, Any]:
    """The content of labels_and_preprocessing.json."""
    return {
        "format": 1,
        "class_names": list(class_names),
        "input": {
            "kind": "text",
            "names": list(names),
            "dtype": "int64",
            "layout": "[batch, tokens]",
            "max_length": max_length,
        },
        "preprocessing": {
            "tokenizer": "tokenizer.json",
            "max_length": max_length,
            "padding": "longest",
            "truncation": True,
            "columns": ["sentence"],
        },
        "output": {"name": output},
    }


class CharacterCnn(nn.Module):
    """Embedding, convolution, the largest answer over real tokens."""

    def __init__(self, *, width: int = 48, num_classes: int = 3) -> None:
        super().__init__()
        self.embedding = nn.Embedding(len(SPECIAL) + 27, 16)
        self.convolution = nn.Conv1d(16, width, 5, padding=2)
        self.head = nn.Linear(width, num_classes)

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        real = inputs["attention_mask"].bool().unsqueeze(1)
        answers = self.convolution(self.embedding(inputs["input_ids"]).transpose(1, 2) * real)
        return self.head(torch.relu(answers).masked_fill(~real, 0).amax(dim=2))


class Transformer(nn.Module):
    """A tiny BERT of transformers."""

    def __init__(self) -> None:
        import transformers

        super().__init__()
        sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
        config = transformers.BertConfig(
            vocab_size=NUM_WORDS, max_position_embeddings=MAX_LENGTH, num_labels=3, **sizes
        )
        self.pretrained = transformers.BertForSequenceClassification(config)

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        return self.pretrained(**inputs).logits


class Embedder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.map = nn.Embedding(NUM_WORDS, 48), nn.Linear(48, 48)

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        return mean_of_tokens(self.map(self.embedding(inputs["input_ids"])), inputs)


class Tagger(nn.Module):
    """Classes of each token."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(NUM_WORDS, 48), nn.Linear(48, 3)

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        return self.head(self.embedding(inputs["input_ids"]))


def mean_of_tokens(hidden: Tensor, inputs: Mapping[str, Tensor]) -> Tensor:
    real = inputs["attention_mask"].unsqueeze(-1).to(hidden.dtype)
    return nn.functional.normalize((hidden * real).sum(dim=1) / real.sum(dim=1), dim=-1)


def as_tensors(inputs: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    return {name: torch.from_numpy(value) for name, value in inputs.items()}


def compute(model: nn.Module, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
    with torch.no_grad():
        return model(as_tensors(inputs)).numpy()


def train(model: nn.Module, inputs: Mapping[str, np.ndarray], targets: np.ndarray, *, epochs: int) -> nn.Module:
    """Targets of -1 are not asked for."""
    tensors, answers = as_tensors(inputs), torch.from_numpy(targets)
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    generator = torch.Generator().manual_seed(0)
    model.train()
    for _ in range(epochs):
        for rows in torch.randperm(len(answers), generator=generator).split(64):
            optimiser.zero_grad()
            logits = model({name: value[rows] for name, value in tensors.items()})
            loss = nn.functional.cross_entropy(logits.flatten(0, -2), answers[rows].flatten(), ignore_index=-1)
            loss.backward()
            optimiser.step()
    return model.eval()
