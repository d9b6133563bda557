"""A plain network for texts, so that a first run needs no other package than a tokenizer."""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from distil.models.text_config import TextCnnConfig


class TextCnn(nn.Module):
    """Convolutions over the embedded tokens, the largest answer of each filter over the real ones, a classifier.

    A filter is asked once for each real token, with that token in its middle; beyond the ends of the text it sees
    zeros. So a text may be shorter than a filter, and padding on either side changes nothing. A text without tokens
    gets what the classifier says of zeros.

    Source: Kim 2014, arXiv:1408.5882 (CNN-rand), whose filters are asked for whole windows only.
    """

    def __init__(self, config: TextCnnConfig, *, vocabulary_size: int, num_classes: int) -> None:
        super().__init__()
        self.kernels = config.kernels
        self.embedding = nn.Embedding(vocabulary_size, config.embedding)
        self.convolutions = nn.ModuleList(nn.Conv1d(config.embedding, config.widths, size) for size in config.kernels)
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = nn.Linear(len(config.kernels) * config.widths, num_classes)

    def forward(self, inputs: Mapping[str, Tensor]) -> Float[Tensor, "batch classes"]:
        real = inputs["attention_mask"].unsqueeze(1)
        tokens = self.embedding(inputs["input_ids"]).transpose(1, 2) * real
        largest = []
        for size, convolution in zip(self.kernels, self.convolutions, strict=True):
            # by hand: the convolution's own padding warns where the size is even
            answers = F.relu(convolution(F.pad(tokens, ((size - 1) // 2, size // 2))))
            largest.append((answers * real).amax(dim=2))  # they are at least 0, so one that is put to 0 is never chosen
        return self.classifier(self.dropout(torch.cat(largest, dim=1)))
