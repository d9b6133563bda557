"""A model of transformers behind one tensor: what goes in by name, and what comes out for each kind of head."""

import inspect
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from distil.core.errors import ModelError
from distil.models.huggingface_files import quiet

Head = Literal["classes", "token-classes", "spans", "causal-lm", "masked-lm", "seq2seq", "embedding"]

_POSITION_TABLES = ("position_embeddings", "position_embedding", "embed_positions", "wpe")


class OutputHeadParts(NamedTuple):
    r"""How a causal language model makes logits of its hidden states.

    .. math:: z = c \tanh(y / c), \quad y = s (W h + b)

    Attributes:
        weight: W, [vocabulary, features]; the parameter itself, tied or not.
        bias: b, [vocabulary].
        softcap: c; None: y is the logit.
        scale: s.
    """

    weight: Tensor
    bias: Tensor | None
    softcap: float | None
    scale: float


class HuggingFaceNetwork(nn.Module):
    """A model of transformers behind one tensor.

    What it takes: ``input_ids`` and ``attention_mask`` (1 where a token is real), and of all else only what the model
    has a use for: ``token_type_ids`` are left out where it knows one type or none. Positions are counted from the mask
    where the model counts from 0, so that padding may stand on either side; with ``position_ids`` they are as given.
    A mask [batch, 1, queries, keys] says which token sees which, as for several texts in a row.

    Attributes:
        pretrained: the model of transformers.
        head: what the output is: logits [batch, classes]; [batch, tokens, classes]; start and end of a span [batch,
            tokens, 2]; [batch, tokens, vocabulary]; or an embedding [batch, features].
        pooling: of an embedding: the mean over real tokens, or the first of them. A text without tokens gives 0.
        normalise: an embedding has length 1.
        drawn: names of weights that were not published and have been drawn at random instead.
        max_tokens: of the longest text it has positions for; None: its settings name no limit.
    """

    def __init__(
        self,
        pretrained: nn.Module,
        *,
        head: Head,
        pooling: Literal["mean", "first"] = "mean",
        normalise: bool = True,
        drawn: Iterable[str] = (),
    ) -> None:
        super().__init__()
        self.pretrained: Any = pretrained
        self.head, self.pooling, self.normalise, self.drawn = head, pooling, normalise, tuple(drawn)
        self._body_takes = _parameters(self._body) or _parameters(pretrained)  # a body may be wrapped
        self._takes = _parameters(pretrained) | (self._body_takes if _hands_on(pretrained) else set())
        self._counts_from_zero = "position_ids" in self._body_takes and _positions_start_at_zero(self._body)
        tables = list(_position_tables(self._body))
        self._counts_padding = not self._counts_from_zero and any(table.padding_idx is None for table in tables)
        limit = getattr(self.pretrained.config.get_text_config(), "max_position_embeddings", None)
        self.max_tokens = _longest(tables, limit)
        self._has_table = bool(tables)
        self._head_is_checked = False

    @property
    def _body(self) -> Any:
        return self.pretrained.base_model

    def forward(self, inputs: Mapping[str, Tensor]) -> Float[Tensor, "batch *rest"]:
        if self.head == "embedding":
            return self._embedding(self.hidden(inputs), _real_tokens(inputs))
        if self.head == "classes":
            real = _real_tokens(inputs)
            if isinstance(getattr(self.pretrained, "score", None), nn.Linear):
                # a decoder: by itself it would look for the last token that is another than that of padding
                return self.pretrained.score(_token_at(self.hidden(inputs), _last(real)))
            inputs = _from_first_token(inputs, real)  # an encoder: by itself it reads what stands first
        outputs = self.pretrained(**self._arguments(inputs, self._takes))
        if self.head == "spans":
            return torch.stack([outputs.start_logits, outputs.end_logits], dim=-1)
        return outputs.logits

    def hidden(self, inputs: Mapping[str, Tensor]) -> Float[Tensor, "batch tokens features"]:
        """What the body says of each token: that from which a causal language model's output head makes logits.

        Raises:
            ModelError: the model has no body apart from its head, or an input is not one of its own.
        """
        if self._body is self.pretrained and self.head != "embedding":
            raise ModelError(f"{type(self.pretrained).__name__} has no body apart from its head")
        return self._body(**self._arguments(inputs, self._body_takes)).last_hidden_state

    def output_head(self) -> OutputHeadParts:
        """How logits follow from ``hidden``, so that a loss can make them piece by piece.

        Raises:
            ModelError: it is no causal language model, or does more to its logits than is known here.
        """
        if self.head != "causal-lm":
            raise ModelError(f"the output head of a network for {self.head} is not taken apart; causal-lm's is")
        parts = _head_parts(self.pretrained)
        if not self._head_is_checked:
            self._check(parts)
            self._head_is_checked = True
        return parts

    @torch.no_grad()
    def require_causal(self) -> None:
        """Raises where what comes later changes what is said of a token; in evaluation mode.

        Raises:
            ModelError: it does, or the network does not run.
        """
        ids = torch.tensor([[0, 1], [0, 2]], device=self.pretrained.device)
        try:
            first, other = self({"input_ids": ids, "attention_mask": torch.ones_like(ids)})[:, 0]
        except RuntimeError as error:
            raise ModelError(f"{type(self.pretrained).__name__} does not run with its settings: {error}") from error
        if not torch.allclose(first, other, rtol=1e-3, atol=1e-5):
            raise ModelError(
                f"{type(self.pretrained).__name__} sees the tokens that it should say, so it is no causal language "
                "model; where its settings have is_decoder, set it to true"
            )

    def save_folder(self, path: Path) -> None:
        """Saves an ordinary folder of transformers: settings and weights, as safetensors, without a tokenizer."""
        with quiet():
            self.pretrained.save_pretrained(path)

    def _arguments(self, inputs: Mapping[str, Tensor], taken: set[str]) -> dict[str, Any]:
        arguments: dict[str, Any] = dict(inputs)
        # some add embeddings of words for types, and a table of one row says nothing
        if (getattr(self.pretrained.config, "type_vocab_size", None) or 0) < 2 or "token_type_ids" not in taken:
            arguments.pop("token_type_ids", None)
        unknown = sorted(set(arguments) - taken)
        if unknown:
            raise ModelError(f"{type(self.pretrained).__name__} takes no {', '.join(unknown)}")
        self._require_length(inputs["input_ids"])
        mask = arguments.get("attention_mask")
        if mask is not None and mask.ndim == 4 and not mask.is_floating_point():
            # fused attention takes a mask of another type than its scores without a word, and computes something else
            dtype = self._dtype_of_scores(mask.device)
            hidden = torch.finfo(dtype).min  # finite, as rows of -inf alone would become NaN
            arguments["attention_mask"] = torch.zeros_like(mask, dtype=dtype).masked_fill(mask == 0, hidden)
        if mask is not None and mask.ndim == 2:
            if self._counts_from_zero and "position_ids" in taken:
                arguments.setdefault("position_ids", (mask.cumsum(dim=1) - 1).masked_fill(mask == 0, 0))
            if self._counts_padding and not torch.compiler.is_compiling() and bool((mask[:, 0] == 0).any()):
                raise ModelError(f"{type(self.pretrained).__name__} counts padding as tokens; pad on the right")
        return arguments | ({"use_cache": False} if "use_cache" in taken else {})

    def _require_length(self, ids: Int[Tensor, "batch tokens"]) -> None:
        """Beyond a table of positions there is an error that does not say so; a compiled network has its own checks."""
        if torch.compiler.is_compiling() or not self._has_table or self.max_tokens is None:
            return
        if ids.shape[1] > self.max_tokens:
            raise ModelError(
                f"{type(self.pretrained).__name__} reads at most {self.max_tokens} tokens, and a text has "
                f"{ids.shape[1]}; cut texts to that length"
            )

    def _dtype_of_scores(self, device: torch.device) -> torch.dtype:
        if torch.is_autocast_enabled(device.type):
            return torch.get_autocast_dtype(device.type)
        return next(self.pretrained.parameters()).dtype

    def _embedding(
        self, hidden: Float[Tensor, "batch tokens features"], real: Int[Tensor, "batch tokens"]
    ) -> Float[Tensor, "batch features"]:
        if self.pooling == "mean":
            weights = real.unsqueeze(-1).to(hidden.dtype)
            pooled = (hidden * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)
        else:
            pooled = _token_at(hidden, real.argmax(dim=1)) * real.amax(dim=1, keepdim=True)
        return F.normalize(pooled, dim=-1) if self.normalise else pooled

    @torch.no_grad()
    def _check(self, parts: OutputHeadParts) -> None:
        modes = [(module, module.training) for module in self.modules()]
        ids = torch.arange(3, device=parts.weight.device).unsqueeze(0)
        probe = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        self.eval()
        try:
            with torch.autocast(parts.weight.device.type, enabled=False):
                expected, hidden = self(probe), self.hidden(probe)
        finally:
            for module, mode in modes:
                module.training = mode
        if hidden.shape[-1] != parts.weight.shape[1] or not torch.allclose(
            _logits(hidden, parts), expected, rtol=1e-3, atol=1e-4
        ):
            raise ModelError(
                f"{type(self.pretrained).__name__} does more to its logits than a product, a bias, a scale and a "
                "softcap, so its output head cannot be taken apart; take its logits as they are"
            )


def _parameters(module: nn.Module) -> set[str]:
    named = inspect.signature(module.forward).parameters.values()
    return {each.name for each in named if each.kind not in (each.VAR_KEYWORD, each.VAR_POSITIONAL)}


def _hands_on(module: nn.Module) -> bool:
    """Whether it passes to its body what it does not name itself."""
    return any(each.kind is each.VAR_KEYWORD for each in inspect.signature(module.forward).parameters.values())


def _position_tables(body: nn.Module) -> Iterator[Any]:
    """Embeddings of absolute positions."""
    for name, module in body.named_modules():
        if isinstance(module, nn.Embedding) and name.rpartition(".")[2] in _POSITION_TABLES:
            yield module


def _longest(tables: Iterable[Any], limit: int | None) -> int | None:
    """The limit that the settings name, without the rows that are kept for padding."""
    padded = next((table for table in tables if table.padding_idx is not None), None)
    return limit if padded is None else padded.num_embeddings - padded.padding_idx - 1


def _positions_start_at_zero(body: nn.Module) -> bool:
    """Not so where there is a row for padding, as in RoBERTa, which counts by itself; or the first is another."""
    starts = [buffer.flatten()[0] for name, buffer in body.named_buffers() if name.rpartition(".")[2] == "position_ids"]
    return all(table.padding_idx is None for table in _position_tables(body)) and not any(starts)


def _real_tokens(inputs: Mapping[str, Tensor]) -> Int[Tensor, "batch tokens"]:
    mask = inputs.get("attention_mask")
    if mask is None:
        return torch.ones_like(inputs["input_ids"])
    if mask.ndim != 2:
        raise ModelError(f"one answer for a text needs attention_mask [batch, tokens]; it is {list(mask.shape)}")
    return mask.long()


def _from_first_token(inputs: Mapping[str, Tensor], real: Int[Tensor, "batch tokens"]) -> dict[str, Tensor]:
    """Padding that stands before a text is put after it."""
    places = torch.arange(real.shape[1], device=real.device) + real.argmax(dim=1, keepdim=True)
    places = torch.where(places < real.shape[1], places, places - real.shape[1])
    return {name: value.gather(1, places) if value.shape == real.shape else value for name, value in inputs.items()}


def _last(real: Int[Tensor, "batch tokens"]) -> Int[Tensor, " batch"]:
    return (real * torch.arange(real.shape[1], device=real.device)).argmax(dim=1)


def _token_at(
    hidden: Float[Tensor, "batch tokens features"], places: Int[Tensor, " batch"]
) -> Float[Tensor, "batch features"]:
    # of the shape, as a length would be a number in an exported graph and not the size of the batch
    return hidden[torch.arange(hidden.shape[0], device=hidden.device), places]


def _logits(hidden: Float[Tensor, "*batch features"], parts: OutputHeadParts) -> Float[Tensor, "*batch vocabulary"]:
    products = F.linear(hidden, parts.weight, parts.bias) * parts.scale
    return products if parts.softcap is None else parts.softcap * torch.tanh(products / parts.softcap)


def _head_parts(pretrained: Any) -> OutputHeadParts:
    output, config = pretrained.get_output_embeddings(), pretrained.config.get_text_config()
    if output is None:
        raise ModelError(f"{type(pretrained).__name__} does not say which of its layers makes logits")
    divisor = getattr(config, "logits_scaling", None)  # Granite
    factors = (getattr(config, name, None) for name in ("logit_scale", "lm_head_multiplier"))  # Cohere, Falcon-H1
    scale = 1 / divisor if divisor is not None else next((each for each in factors if each is not None), 1.0)
    return OutputHeadParts(
        output.weight, getattr(output, "bias", None), getattr(config, "final_logit_softcapping", None), scale
    )
