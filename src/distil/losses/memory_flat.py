"""Losses on the logits of large vocabularies, from hidden states, a few tokens at a time.

The logits of all tokens are by far the largest tensors in the training of a language model: at 4,096 tokens and 151,936
ids one copy in float32 takes 2.5 GB, and a divergence with its gradient needs several. Here they exist for a chunk of
tokens alone, and its gradient is taken before the next chunk is made. Nothing is approximated, and nothing is written
twice: what is computed on a chunk are the losses on logits of this package, or any function like them.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeVar, cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from distil.core.errors import CompatibilityError
from distil.losses.output_head import OutputHead
from distil.losses.sparse import LargestClasses, SampledClasses

LOGITS_OF_A_CHUNK_ON_CPU = 1_300_000  # 5 MB in float32, so that the few copies that a loss needs stay in the cache
LOGITS_OF_A_CHUNK = 64_000_000  # elsewhere products of matrices must be large to be fast
FEWEST_TOKENS_OF_A_CHUNK = 32  # with fewer, reading the head once for each chunk takes longer than the products

Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True, eq=False)
class TeacherStates:
    """A teacher's hidden states, [*batch, teacher_hidden], and the head that makes logits of them. No gradient."""

    hidden: Float[Tensor, "*batch teacher_hidden"]
    head: OutputHead


Target = TeacherStates | LargestClasses | SampledClasses | Tensor


@dataclass(frozen=True, eq=False)
class FlatTerm:
    """One loss on the student's logits.

    Attributes:
        loss: a function of the student's logits and the target that has one value a token, where no token changes the
            value of another, such as ``partial(soft_target_kl, temperature=2.0)`` or ``label_cross_entropy``.
        target: what the logits are compared with, for the same tokens. ``TeacherStates``: the loss gets the teacher's
            logits, of the ids that the heads compare. ``LargestClasses`` and ``SampledClasses``, stored beforehand:
            their indices are positions among the ids compared. A tensor, [*batch, ...], such as labels: the loss gets
            the student's logits of every id.
        weight: >= 0; 0: not computed.
    """

    loss: Callable[..., Tensor]
    target: Target
    weight: int | float = 1.0


class FlatLoss(NamedTuple):
    """A loss: ``total`` is the sum over terms of weight times part; ``parts`` have no graph."""

    total: Tensor
    parts: Mapping[str, Tensor]


def _not_compiled(function: Function) -> Function:
    """Gradients are taken inside, which torch.compile cannot follow; what is around it, and the losses, it can."""
    return cast("Function", torch.compiler.disable(function))


@_not_compiled
def memory_flat_loss(
    student_hidden: Float[Tensor, "*batch hidden"],
    student_head: OutputHead,
    *,
    terms: Mapping[str, FlatTerm],
    mask: Bool[Tensor, "*batch"] | None = None,
    token_weights: Float[Tensor, "*batch"] | None = None,
    count: int | float = 1,
    chunk_tokens: int | None = None,
) -> FlatLoss:
    r"""The sum over tokens of weighted losses on logits, divided by a count, without the logits of all tokens.

    .. math:: \frac{1}{N} \sum_t m_t w_t \sum_k \lambda_k \ell_k(z_t, \text{target}_{kt})

    with z the student's logits, m the mask, w the weights of the tokens, lambda those of the terms and N the count.

    The gradients are computed chunk by chunk in the forward pass and kept for the backward pass, which multiplies them
    by the one number that it gets. So each product of matrices is made once, and what is kept has the size of the
    hidden states and of the head, in at least float32. ``memory_flat_values`` keeps nothing, computes twice, and has a
    value for each token.

    Args:
        student_hidden: what goes into the head; gradient flows here. For a causal model the caller shifts: the state at
            a position goes with the label of the next one.
        student_head: gradient flows to its weight and bias, where they are trained.
        terms: by name.
        mask: which tokens count; None: all. Others have no part in value and gradient, whatever their states and
            targets hold, and cost no time.
        token_weights: no gradient flows here. A weight of 0 is a mask.
        count: of the global batch, > 0, such as its number of tokens that count. Values of the pieces of a batch, each
            divided by it, add up to that of the whole. 0 is allowed where no token counts.
        chunk_tokens: tokens at a time; None: such that a copy of their logits has 5 MB in float32 on a CPU, 256 MB
            elsewhere, and at least 32. It changes memory and time, and the value in its rounding only.

    Returns:
        Total and parts in nats, in at least float32; 0 with a live graph where no token counts.

    Raises:
        CompatibilityError: heads, states, targets or labels do not fit together.
        ValueError: there is no term, or a number is outside its domain.

    Source: the chunks are established practice, gradients in the forward pass those of Hsu et al. 2024,
    arXiv:2410.10989, section 3.2 (one label term, one head).

    >>> from functools import partial
    >>> from distil.losses.logit import label_cross_entropy, soft_target_kl
    >>> hidden, head = torch.tensor([[0.0, 0.0]], requires_grad=True), OutputHead(torch.eye(4, 2))
    >>> soft = FlatTerm(partial(soft_target_kl, temperature=2.0), TeacherStates(hidden, head), weight=0.9)
    >>> true = FlatTerm(label_cross_entropy, torch.tensor([2]), weight=0.5)
    >>> memory_flat_loss(hidden, head, terms={"soft-targets": soft, "true-labels": true}).total
    tensor(0.6931, grad_fn=<DivBackward0>)
    """
    counted = _counted(student_hidden, mask, token_weights)
    job = _job(student_hidden, student_head, terms, chunk_tokens, counted)
    weights = _weights(student_hidden, token_weights, counted)
    divisor = _divisor(count, counted)
    total, values = _apply(_SumOfTokens, job, student_hidden, counted, weights)
    parts = (values * weights).sum(dim=1) / divisor
    return FlatLoss(total / divisor, dict(zip(job.terms, parts, strict=True)))


@_not_compiled
def memory_flat_values(
    student_hidden: Float[Tensor, "*batch hidden"],
    student_head: OutputHead,
    *,
    terms: Mapping[str, FlatTerm],
    mask: Bool[Tensor, "*batch"] | None = None,
    chunk_tokens: int | None = None,
) -> FlatLoss:
    r"""For each token the sum of weighted losses on logits, without the logits of all tokens.

    .. math:: m_t \sum_k \lambda_k \ell_k(z_t, \text{target}_{kt})

    with z the student's logits, m the mask and lambda the weights of the terms. Any function may follow, as the
    backward pass computes each chunk again once it knows the gradient of each value: nothing is kept between the two
    but what was given. Where a weighted sum follows, ``memory_flat_loss`` takes less time.

    Args:
        student_hidden, student_head, terms, mask, chunk_tokens: as for ``memory_flat_loss``.

    Returns:
        Total and parts in nats, [*batch], in at least float32; 0 for tokens that do not count.

    Raises:
        CompatibilityError: heads, states, targets or labels do not fit together.
        ValueError: there is no term, or a number is outside its domain.

    Source: computing again rather than keeping is Chen et al. 2016, arXiv:1604.06174.
    """
    counted = _counted(student_hidden, mask, None)
    job = _job(student_hidden, student_head, terms, chunk_tokens, counted)
    total, values = _apply(_ValuesOfTokens, job, student_hidden, counted)
    shape = student_hidden.shape[:-1]
    parts = {name: each.reshape(shape) for name, each in zip(job.terms, values, strict=True)}
    return FlatLoss(total.reshape(shape), parts)


@dataclass(frozen=True, eq=False)
class _Job:
    """What is to be computed, the same for each chunk. Targets are [tokens, ...] and have no graph."""

    head: OutputHead
    terms: Mapping[str, FlatTerm]
    chunk_tokens: int
    autocast: torch.dtype | None
    differentiable: bool

    def values(self, logits: Tensor, rows: Tensor) -> Iterator[Tensor]:
        """For each term in turn those of a chunk, [chunk]."""
        for term in self.terms.values():
            ours = logits if isinstance(term.target, Tensor) else self.head.compared(logits)
            yield term.loss(ours, _target(term.target, rows))

    def weighted(self, values: Tensor) -> Tensor:
        """The sum over terms of weight times value; not as a product of matrices, which autocast would lower."""
        weights = values.new_tensor([[term.weight] for term in self.terms.values()])
        return (weights * values).sum(dim=0)


class _SumOfTokens(torch.autograd.Function):
    """The sum of weighted values; its gradients are computed in the forward pass.

    The first backward pass gives them away, so that there is no copy of the size of the head; another one over the same
    graph computes them again.
    """

    @staticmethod
    def forward(
        ctx: Any,
        job: _Job,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        counted: Tensor | None,
        weights: Tensor,
    ) -> tuple[Tensor, Tensor]:
        inputs = (hidden, weight, bias)
        wanted = ctx.needs_input_grad[1:4] if job.differentiable else (False, False, False)
        gradients = _Gradients(inputs, wanted, weights) if any(wanted) else None
        values = _walk(job, inputs, counted, gradients)
        ctx.job, ctx.gradients = job, gradients
        ctx.save_for_backward(*inputs, counted, weights)
        ctx.mark_non_differentiable(values)
        return (job.weighted(values) * weights).sum(), values

    @staticmethod
    def backward(ctx: Any, upstream: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        _require_first_derivative()
        *inputs, counted, weights = ctx.saved_tensors
        gradients, ctx.gradients = ctx.gradients, None
        if gradients is None:
            gradients = _Gradients(inputs, ctx.needs_input_grad[1:4], weights)
            _walk(ctx.job, inputs, counted, gradients)
        return (None, *gradients.results(upstream), None, None)


class _ValuesOfTokens(torch.autograd.Function):
    """Weighted values; the backward pass computes each chunk again."""

    @staticmethod
    def forward(
        ctx: Any, job: _Job, hidden: Tensor, weight: Tensor, bias: Tensor | None, counted: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        values = _walk(job, (hidden, weight, bias), counted)
        ctx.job = job
        ctx.save_for_backward(hidden, weight, bias, counted)
        ctx.mark_non_differentiable(values)
        return job.weighted(values), values

    @staticmethod
    def backward(ctx: Any, upstream: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        _require_first_derivative()
        *inputs, counted = ctx.saved_tensors
        gradients = _Gradients(inputs, ctx.needs_input_grad[1:4], upstream)
        _walk(ctx.job, inputs, counted, gradients)
        return (None, *gradients.results(), None)


def _require_first_derivative() -> None:
    """A second one would silently lack this loss."""
    if torch.is_grad_enabled():
        raise RuntimeError(
            "a memory-flat loss has first derivatives only and was differentiated with create_graph=True; "
            "use the losses on logits for a second derivative"
        )


class _Gradients:
    """Of the hidden states, the weight and the bias, where wanted; those of the head are added up in float32.

    Attributes:
        upstream: the gradient of each token's weighted value, [tokens].
    """

    def __init__(self, inputs: Sequence[Tensor | None], wanted: Sequence[bool], upstream: Tensor) -> None:
        self.upstream = upstream
        self._dtypes = [None if each is None else each.dtype for each in inputs]
        self._sums = [
            torch.zeros(each.shape, dtype=_precise(each), device=each.device) if want and each is not None else None
            for each, want in zip(inputs, wanted, strict=True)
        ]

    def add(self, rows: Tensor, slope: Tensor, states: Tensor, weight: Tensor) -> None:
        """The share of a chunk, from the gradient of its products."""
        of_hidden, of_weight, of_bias = self._sums
        size = len(weight)  # the rows after it are padding
        if of_hidden is not None:
            of_hidden[rows] = (slope @ weight).to(of_hidden.dtype)
        if of_weight is not None and of_weight.dtype == slope.dtype:
            of_weight[:size].addmm_(slope.T, states)  # in place: no second tensor of the size of the head
        elif of_weight is not None:
            of_weight[:size] += slope.T @ states
        if of_bias is not None:
            of_bias[:size] += slope.sum(dim=0, dtype=of_bias.dtype)

    def results(self, factor: Tensor | None = None) -> list[Tensor | None]:
        """In the precision of the inputs, times the factor. They are given away: what is here is not used again."""
        sums = self._sums if factor is None else [None if each is None else each.mul_(factor) for each in self._sums]
        return [None if each is None else each.to(dtype) for each, dtype in zip(sums, self._dtypes, strict=True)]


def _walk(
    job: _Job, inputs: Sequence[Tensor | None], counted: Tensor | None, gradients: _Gradients | None = None
) -> Tensor:
    """Values [terms, tokens], chunk by chunk, and 0 for tokens that do not count; gradients where they are wanted."""
    hidden, weight, bias = inputs
    assert hidden is not None
    assert weight is not None
    values = torch.zeros(len(job.terms), len(hidden), dtype=_precise(hidden), device=hidden.device)
    with torch.no_grad(), torch.autocast(hidden.device.type, enabled=False):
        job = _lowered(job)
        states = hidden.to(job.autocast or hidden.dtype)
        weight = weight[: job.head.size].to(job.autocast or weight.dtype)
        bias = None if bias is None else bias[: job.head.size].to(weight.dtype)
        for rows in _chunks(hidden, counted, job.chunk_tokens):
            values[:, rows] = _chunk(job, states[rows], weight, bias, rows, gradients)
    return values


def _chunk(
    job: _Job, states: Tensor, weight: Tensor, bias: Tensor | None, rows: Tensor, gradients: _Gradients | None
) -> Tensor:
    """Values of a chunk, [terms, chunk]. All that has the size of its logits is gone when it returns."""
    products = F.linear(states, weight, bias)
    if gradients is None:
        return torch.stack(list(job.values(job.head.shaped(products), rows)))
    with torch.enable_grad():
        shaped = job.head.shaped(products.requires_grad_())
    values, slope = _values_and_slope(job, shaped.detach(), rows, gradients.upstream[rows])
    (slope,) = torch.autograd.grad(shaped, products, slope)
    gradients.add(rows, slope, states, weight)
    return values


def _values_and_slope(job: _Job, logits: Tensor, rows: Tensor, upstream: Tensor) -> tuple[Tensor, Tensor]:
    """Of a chunk: values, [terms, chunk], and the gradient of its logits. The graph of a term ends before the next."""
    logits.requires_grad_()
    values: list[Tensor] = []
    slope: Tensor | None = None
    with torch.enable_grad():
        for term, value in zip(job.terms.values(), job.values(logits, rows), strict=True):
            (share,) = torch.autograd.grad(value, logits, term.weight * upstream)
            slope = share if slope is None else slope + share  # not in place: a share may be a view of one number
            values.append(value.detach())
    assert slope is not None
    return torch.stack(values), slope


def _apply(
    function: type[torch.autograd.Function], job: _Job, hidden: Tensor, *rest: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The total and, without a graph, the values of the terms, [terms, tokens]."""
    flat = hidden.reshape(-1, hidden.shape[-1])
    total, values = cast("tuple[Tensor, Tensor]", function.apply(job, flat, job.head.weight, job.head.bias, *rest))
    return total, values


def _job(
    hidden: Tensor,
    head: OutputHead,
    terms: Mapping[str, FlatTerm],
    chunk_tokens: int | None,
    counted: Tensor | None,
) -> _Job:
    head.require_states(hidden)
    if chunk_tokens is None:
        most = LOGITS_OF_A_CHUNK_ON_CPU if hidden.device.type == "cpu" else LOGITS_OF_A_CHUNK
        chunk_tokens = max(FEWEST_TOKENS_OF_A_CHUNK, most // head.size)
    if chunk_tokens < 1:
        raise ValueError(f"chunk_tokens is {chunk_tokens}; it must be at least 1, or None to have it chosen")
    for name, term in terms.items():
        if not 0 <= term.weight < math.inf:
            raise ValueError(f"term {name!r}: the weight is {term.weight}; it must be at least 0 and finite")
    flat = {
        name: replace(term, target=_flat_target(name, term.target, head, hidden.shape[:-1], counted))
        for name, term in terms.items()
        if term.weight > 0
    }
    if not flat:
        raise ValueError("there is no term with a weight above 0; at least one is needed")
    return _Job(head, flat, chunk_tokens, _autocast_dtype(hidden), torch.is_grad_enabled())


def _flat_target(name: str, target: Target, head: OutputHead, batch: torch.Size, counted: Tensor | None) -> Target:
    """The target as [tokens, ...], after a look at whether it fits.

    Class numbers are looked at as well, as one that does not exist would stop a GPU without a word of where.
    """
    if isinstance(target, TeacherStates):
        if target.head.num_compared != head.num_compared:
            raise CompatibilityError(
                f"term {name!r}: the student's head compares {head.num_compared:,} token ids and the teacher's "
                f"{target.head.num_compared:,}; say with num_ids how many exist without padding, and with shared_ids "
                "on both heads which are the same tokens"
            )
        target.head.require_states(target.hidden)
        return replace(target, hidden=_flat(name, target.hidden, batch))
    if isinstance(target, Tensor):
        flat = _flat(name, target, batch)
        _require_numbers(name, flat, head.size, counted)
        return flat
    kept = _each(target, lambda values: _flat(name, values, batch))
    _require_numbers(name, kept.indices, head.num_compared, counted)
    return kept


def _flat(name: str, values: Tensor, batch: torch.Size) -> Tensor:
    if values.shape[: len(batch)] != batch:
        raise CompatibilityError(
            f"term {name!r}: the student's states are of tokens {tuple(batch)} and the target has shape "
            f"{tuple(values.shape)}; both must be for the same tokens"
        )
    return values.detach().reshape(-1, *values.shape[len(batch) :])


def _require_numbers(name: str, numbers: Tensor, size: int, counted: Tensor | None) -> None:
    if numbers.is_floating_point():
        return
    numbers = numbers if counted is None else numbers[counted]
    wrong = numbers[(numbers < 0) | (numbers >= size)]
    if len(wrong):
        raise CompatibilityError(
            f"term {name!r}: token id {int(wrong[0]):,} is not among the student's {size:,}, which are counted from 0; "
            "leave tokens without a label out by the mask"
        )


@torch.no_grad()
def _target(target: Target, rows: Tensor) -> Any:
    """What the loss gets, for the tokens of a chunk."""
    if isinstance(target, TeacherStates):
        return target.head.compared(target.head.logits(target.hidden[rows]))
    if isinstance(target, Tensor):
        return target[rows]
    return _each(target, lambda values: values[rows])


def _each(kept: LargestClasses | SampledClasses, change: Callable[[Tensor], Tensor]) -> LargestClasses | SampledClasses:
    return kept._replace(**{name: change(values) for name, values in kept._asdict().items() if values is not None})


def _lowered(job: _Job) -> _Job:
    """The job with teachers in the precision of autocast."""
    if job.autocast is None:
        return job
    terms: dict[str, FlatTerm] = {}
    for name, term in job.terms.items():
        target = term.target
        if isinstance(target, TeacherStates):
            target = TeacherStates(target.hidden.to(job.autocast), target.head.lowered(job.autocast))
        terms[name] = replace(term, target=target)
    return replace(job, terms=terms)


def _counted(hidden: Tensor, mask: Tensor | None, token_weights: Tensor | None) -> Tensor | None:
    """Which tokens count, [tokens]; None: all."""
    for what, given in (("mask", mask), ("token_weights", token_weights)):
        if given is not None and given.shape != hidden.shape[:-1]:
            raise CompatibilityError(
                f"{what} has shape {tuple(given.shape)} and the states are of tokens {tuple(hidden.shape[:-1])}"
            )
    weighted = None if token_weights is None else token_weights.detach().reshape(-1) != 0
    if mask is None or weighted is None:
        return weighted if mask is None else mask.reshape(-1)
    return mask.reshape(-1) & weighted


def _weights(hidden: Tensor, token_weights: Tensor | None, counted: Tensor | None) -> Tensor:
    """Of each token, [tokens]; 0 where it does not count."""
    if token_weights is None:
        weights = torch.ones(hidden.shape[:-1].numel(), dtype=_precise(hidden), device=hidden.device)
    else:
        weights = token_weights.detach().reshape(-1).to(_precise(hidden))
    return weights if counted is None else weights.masked_fill(~counted, 0.0)


def _divisor(count: int | float, counted: Tensor | None) -> int | float:
    if count == 0 and counted is not None and not bool(counted.any()):
        return 1
    if not count > 0:
        raise ValueError(f"count is {count}; it must be above 0, as there are tokens that count")
    return count


def _chunks(hidden: Tensor, counted: Tensor | None, chunk_tokens: int) -> Sequence[Tensor]:
    rows = torch.arange(len(hidden), device=hidden.device) if counted is None else counted.nonzero().squeeze(1)
    return rows.split(chunk_tokens) if len(rows) else ()


def _precise(values: Tensor) -> torch.dtype:
    return torch.promote_types(values.dtype, torch.float32)


def _autocast_dtype(hidden: Tensor) -> torch.dtype | None:
    """The precision of products of matrices, where autocast is on; it leaves float64 alone."""
    kind = hidden.device.type
    if not torch.is_autocast_enabled(kind) or hidden.dtype == torch.float64:
        return None
    return torch.get_autocast_dtype(kind)
