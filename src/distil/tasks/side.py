"""Networks as tasks ask them: about the sides of a pair, the windows of a long text, the tokens that there are."""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


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


class BiEncoder(nn.Module):
    r"""Whether two texts belong together, by the cosine of their embeddings.

    .. math:: z = (0, s \cos(u, v) + b)

    with the scale s and the bias b learned: the embeddings of a text do not depend on what it is compared with.

    Args:
        sides: which embeds both texts of an example.

    Source: Reimers and Gurevych 2019, arXiv:1908.10084 (two texts apart, compared by the cosine); scale and bias of a
    sigmoid as in Zhai et al. 2023, arXiv:2303.15343.
    """

    def __init__(self, sides: Sides) -> None:
        super().__init__()
        self.sides = sides
        self.scale, self.bias = nn.Parameter(torch.tensor(20.0)), nn.Parameter(torch.tensor(-10.0))

    @property
    def pretrained(self) -> object:
        return self.sides.pretrained

    def forward(self, inputs: Mapping[str, Tensor]) -> Float[Tensor, "batch 2"]:
        first, second = self.sides(inputs).chunk(2, dim=1)
        fits = self.scale * F.cosine_similarity(first, second, dim=1) + self.bias
        return torch.stack([torch.zeros_like(fits), fits], dim=1)


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
