"""Networks as tasks ask them: about the sides of a pair, the windows of a long text, the tokens that there are."""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Sides(nn.Module):
    """Each text of an example embedded by the same network; the embeddings stand side by side.

    Args:
        network: from token ids to one embedding a text.
        width: of its embeddings.
        features: of the embeddings that are wanted; another number is met by a learned linear map.
    """

    def __init__(self, network: nn.Module, *, width: int, features: int) -> None:
        super().__init__()
        self.network = network
        self.projection = nn.Identity() if features == width else nn.Linear(width, features)

    @property
    def pretrained(self) -> object:
        return self.network.pretrained

    def forward(self, inputs: Mapping[str, Tensor]) -> Float[Tensor, "batch features"]:
        num_texts = inputs["input_ids"].shape[1]
        each = {name: value.flatten(0, 1) for name, value in inputs.items()}
        return self.projection(self.network(each)).unflatten(0, (-1, num_texts)).flatten(1)


class Windows(nn.Module):
    """Start and end scores of all windows of an example in one row, so that windows compete for the answer.

    Source: Clark and Gardner 2018, arXiv:1710.10723, section 3.2 (shared normalisation). What is no token of a context
    gets -inf.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    @property
    def pretrained(self) -> object:
        return self.network.pretrained

    def forward(self, inputs: Mapping[str, Tensor]) -> Float[Tensor, "batch 2 positions"]:
        context = inputs["context_mask"].bool().flatten(1)
        each = {name: value.flatten(0, 1) for name, value in inputs.items() if name != "context_mask"}
        scores = self.network(each).unflatten(0, (len(context), -1)).flatten(1, 2).transpose(1, 2)
        return scores.masked_fill(~context.unsqueeze(1), -torch.inf)


class KnownTokens(nn.Module):
    """A language model without the places of its vocabulary that no token stands for.

    Vocabularies are often padded to a round width. What the model says there is left out, so that the others add up
    to 1 and models padded to other widths compare.

    Args:
        network: from token ids to logits.
        num_tokens: of the tokenizer.
    """

    def __init__(self, network: nn.Module, *, num_tokens: int) -> None:
        super().__init__()
        self.network, self.num_tokens = network, num_tokens

    @property
    def pretrained(self) -> object:
        return self.network.pretrained

    def forward(self, inputs: Mapping[str, Tensor]) -> Float[Tensor, "batch tokens known"]:
        return self.network(inputs)[..., : self.num_tokens]
