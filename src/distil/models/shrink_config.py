"""A student cut from its teacher, as a recipe writes it: how many layers, how wide, which tokens."""

from itertools import pairwise
from typing import Annotated, Literal

from pydantic import Field, model_validator

from distil.core.config import Config, Count, Whole

KeptLayers = Annotated[tuple[Whole, ...], Field(min_length=1)]


class ShrinkConfig(Config):
    """What of a teacher the student keeps. What is not given stays as it is; at least one must be.

    ``keep`` says which layers, by numbers from 0: ``spaced`` is the first, the last and as evenly as can be between
    (layer ``round(i * (N - 1) / (n - 1))`` for i from 0 to n - 1 of n out of N, halves to the even number), ``first``
    and ``last`` are one end, and a list names them.
    """

    layers: Count | None = None
    keep: Literal["spaced", "first", "last"] | KeptLayers = "spaced"
    hidden: Count | None = None  # width of the stream that runs through all layers
    heads: Count | None = None  # attention heads of each layer, as many as there are queries
    key_value_heads: Count | None = None  # None: groups of query heads go as a whole, with their key-value head
    feed_forward: Count | None = None  # width between the two feed-forward layers
    vocabulary: Count | None = None  # number of tokens

    @model_validator(mode="after")
    def _names_its_layers(self) -> "ShrinkConfig":
        if isinstance(self.keep, tuple):
            if any(later <= earlier for earlier, later in pairwise(self.keep)):
                raise ValueError(f"keep is {list(self.keep)}; layers are named in ascending order, each once")
            if self.layers is not None and self.layers != len(self.keep):
                raise ValueError(f"layers is {self.layers} and keep names {len(self.keep)}; leave out layers")
        elif self.layers is None and self.keep != "spaced":
            raise ValueError(f"keep: {self.keep} has an effect only together with layers; say how many")
        elif self.layers == 1 and self.keep == "spaced":
            raise ValueError("a single layer cannot be both the first and the last; say keep: first or keep: last")
        return self

    @model_validator(mode="after")
    def _groups_its_heads(self) -> "ShrinkConfig":
        if self.key_value_heads is None:
            return self
        if self.heads is None:
            raise ValueError("key_value_heads has an effect only together with heads; say how many heads")
        if self.heads % self.key_value_heads != 0:
            raise ValueError(
                f"heads is {self.heads} and key_value_heads {self.key_value_heads}; each key-value head serves the "
                "same number of heads, so heads must be a multiple of it"
            )
        return self

    @model_validator(mode="after")
    def _cuts_something(self) -> "ShrinkConfig":
        sizes = (self.layers, self.hidden, self.heads, self.feed_forward, self.vocabulary)
        if all(size is None for size in sizes) and isinstance(self.keep, str):
            raise ValueError("give at least one of layers, hidden, heads, feed_forward, vocabulary")
        return self
