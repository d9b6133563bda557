"""The last layer of a language model: hidden states become one logit for each token id."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from distil.core.errors import CompatibilityError
from distil.losses.tensor import at_least_float32


@dataclass(frozen=True, eq=False)
class OutputHead:
    r"""How hidden states become logits, with what is easily forgotten around the product of matrices.

    .. math:: z = c \tanh(y / c), \quad y = s (W h + b)

    with s the scale and c the softcap, for the first ``num_ids`` rows of W and b. The rows after them are padding that
    no token has: they are left out, which is to give them -inf and never 0; they get no gradient.

    It holds the tensors that it is given and no copies, so a parameter goes in once and follows its training.

    Attributes:
        weight: W, one row a token id; gradient flows here, also where it is tied to the embeddings.
        bias: b.
        scale: s > 0. A model that divides its logits has 1 over its divisor.
        softcap: c > 0, the largest size of a logit; None: no limit.
        num_ids: token ids that exist; None: as many as rows.
        shared_ids: those that are compared with the other model, in the order in which the other names the same tokens;
            None: all. Probabilities are then those among the shared ids. A loss on labels counts every id all the same.

    Raises:
        CompatibilityError: the parts do not fit each other.
        ValueError: the scale or the softcap is not above 0.

    Source: the softcap is that of Gemma 2 (arXiv:2408.00118, section 2), the scale that of Cohere and, as a divisor, of
    Granite models.

    >>> head = OutputHead(torch.eye(3), softcap=2.0, num_ids=2)
    >>> head.logits(torch.tensor([[100.0, 0.0, 50.0]]))
    tensor([[2., 0.]])
    """

    weight: Float[Tensor, "rows hidden"]
    bias: Float[Tensor, " bias_rows"] | None = None
    scale: int | float = 1.0
    softcap: int | float | None = None
    num_ids: int | None = None
    shared_ids: Int[Tensor, " shared"] | None = None

    def __post_init__(self) -> None:
        num_rows = len(self.weight)
        if not self.scale > 0:
            raise ValueError(f"scale is {self.scale}; it must be above 0")
        if self.softcap is not None and not self.softcap > 0:
            raise ValueError(f"softcap is {self.softcap}; it must be above 0, or None for no limit")
        if self.bias is not None and len(self.bias) != num_rows:
            raise CompatibilityError(f"the bias has {len(self.bias):,} entries and the weight {num_rows:,} rows")
        if self.num_ids is not None and not 1 <= self.num_ids <= num_rows:
            raise CompatibilityError(f"num_ids is {self.num_ids:,}; it must be 1 to {num_rows:,}, the weight's rows")
        if self.shared_ids is not None:
            _require_ids(self.shared_ids, self.size)

    @property
    def size(self) -> int:
        """The number of token ids, without padding."""
        return len(self.weight) if self.num_ids is None else self.num_ids

    @property
    def num_compared(self) -> int:
        """The number of token ids that are compared with the other model."""
        return self.size if self.shared_ids is None else len(self.shared_ids)

    def logits(self, hidden: Float[Tensor, "*batch features"]) -> Float[Tensor, "*batch ids"]:
        """One logit for each token id that exists, in float32 where the product is in half precision."""
        self.require_states(hidden)
        bias = None if self.bias is None else self.bias[: self.size]
        return self.shaped(F.linear(hidden, self.weight[: self.size], bias))

    def shaped(self, products: Float[Tensor, "*batch ids"]) -> Float[Tensor, "*batch ids"]:
        """Logits, of W h + b: scaled and capped."""
        logits = at_least_float32(products)
        if self.scale != 1:
            logits = logits * self.scale
        return logits if self.softcap is None else self.softcap * torch.tanh(logits / self.softcap)

    def compared(self, logits: Float[Tensor, "*batch ids"]) -> Float[Tensor, "*batch shared"]:
        """The logits of the shared ids, in their order."""
        return logits if self.shared_ids is None else logits.index_select(-1, self.shared_ids)

    def require_states(self, hidden: Float[Tensor, "*batch features"]) -> None:
        """Raises CompatibilityError where the hidden states have another width than the head takes."""
        if hidden.shape[-1] != self.weight.shape[-1]:
            raise CompatibilityError(
                f"the hidden states have {hidden.shape[-1]:,} features and the head takes {self.weight.shape[-1]:,}; "
                "give each model's states with its own head"
            )

    def lowered(self, dtype: torch.dtype) -> "OutputHead":
        """The same head in another precision, without gradient."""
        weight, bias = self.weight.detach(), None if self.bias is None else self.bias.detach()
        return replace(self, weight=weight.to(dtype), bias=None if bias is None else bias.to(dtype))


def _require_ids(ids: Tensor, num_ids: int) -> None:
    lowest, highest = (int(ids.min()), int(ids.max())) if len(ids) else (0, -1)
    if lowest < 0 or not 0 <= highest < num_ids:
        raise CompatibilityError(
            f"shared_ids go from {lowest:,} to {highest:,}; they must be at least one of 0 to {num_ids - 1:,}"
        )
    if len(ids.unique()) < len(ids):
        raise CompatibilityError("shared_ids name a token id twice; each must be named once")
