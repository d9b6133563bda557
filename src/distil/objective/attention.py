"""Terms on attention, bound: what of which attention layers is compared, and with which formula."""

from collections.abc import Callable, Sequence
from typing import assert_never

import torch
from jaxtyping import Float
from torch import Tensor

from distil.losses.attention import (
    attention_kl,
    attention_map_mse,
    attention_scores,
    common_divisors,
    listed,
    qkv_relation_kl,
    value_relation_kl,
)
from distil.models.describe import ModelDescription, Shape
from distil.models.tap import Tap
from distil.models.tap_config import Take
from distil.objective.alignment import resolve_layers
from distil.objective.attention_config import AttentionDistributions, AttentionMaps, AttentionTerm, QkvRelations
from distil.objective.term import Binding, BoundTerm, TermInput

Formula = Callable[..., Tensor]  # (student, teacher, mask=)
Compared = tuple[Tap, Tap, Formula]  # of the student, of the teacher
RELATED: tuple[Take, ...] = ("queries", "keys", "values")


def bind_attention(term: AttentionTerm, binding: Binding) -> BoundTerm:
    """The term as a module, without anything to learn.

    Raises:
        CompatibilityError: a network has no attention, or theirs cannot be compared: heads, tokens or widths differ.
    """
    _require_attention(binding)
    pairs = [(pair.student, pair.teacher) for pair in resolve_layers(term, binding)]
    match term:
        case AttentionMaps(scores=True):
            queries, keys = (_compared(pairs, take, attention_map_mse, term, binding) for take in ("queries", "keys"))
            return ScorePairs(queries, keys)
        case AttentionMaps():
            compared = _compared(pairs, "attention", attention_map_mse, term, binding)
            return AttentionPairs(compared, num_pairs=len(pairs))
        case AttentionDistributions():
            compared = _compared(pairs, "attention", attention_kl, term, binding)
            compared += _compared(pairs, "values", value_relation_kl, term, binding)
            return AttentionPairs(compared, num_pairs=len(pairs))
        case QkvRelations():

            def formula(student: Tensor, teacher: Tensor, *, mask: Tensor | None) -> Tensor:
                return qkv_relation_kl(student, teacher, relation_heads=term.relation_heads, mask=mask)

            compared = [each for take in RELATED for each in _compared(pairs, take, formula, term, binding)]
            _require_divisible(compared, term.relation_heads, binding)
            return AttentionPairs(compared, num_pairs=len(compared))
        case _:
            assert_never(term)


class AttentionPairs(BoundTerm):
    """The sum of formulas on what was taken from the attention of both networks, for each of ``num_pairs``."""

    def __init__(self, compared: Sequence[Compared], *, num_pairs: int) -> None:
        super().__init__(
            student_taps=tuple(dict.fromkeys(each[0] for each in compared)),
            teacher_taps=tuple(dict.fromkeys(each[1] for each in compared)),
        )
        self._compared, self._num_pairs = tuple(compared), num_pairs

    def forward(self, said: TermInput) -> Float[Tensor, " batch"]:
        assert said.teacher is not None
        values = [
            formula(said.student.taps[student], said.teacher.taps[teacher], mask=said.mask)
            for student, teacher, formula in self._compared
        ]
        return torch.stack(values).sum(dim=0) / self._num_pairs


class ScorePairs(BoundTerm):
    """The mean over pairs of layers of the error of their scores, made of what was taken as queries and keys."""

    def __init__(self, queries: Sequence[Compared], keys: Sequence[Compared]) -> None:
        super().__init__(
            student_taps=tuple(dict.fromkeys(each[0] for each in (*queries, *keys))),
            teacher_taps=tuple(dict.fromkeys(each[1] for each in (*queries, *keys))),
        )
        self._pairs = tuple(zip(queries, keys, strict=True))

    def forward(self, said: TermInput) -> Float[Tensor, " batch"]:
        assert said.teacher is not None
        ours, theirs = said.student.taps, said.teacher.taps
        values = [
            formula(
                attention_scores(ours[queries], ours[keys]),
                attention_scores(theirs[their_queries], theirs[their_keys]),
                mask=said.mask,
            )
            for (queries, their_queries, formula), (keys, their_keys, _) in self._pairs
        ]
        return torch.stack(values).mean(dim=0)


def _compared(
    pairs: Sequence[tuple[Tap, Tap]], take: Take, formula: Formula, term: AttentionTerm, binding: Binding
) -> list[Compared]:
    """The same layers with ``take``, once their shapes are seen to fit."""
    found: list[Compared] = []
    for pair in pairs:
        student, teacher = (_taking(tap, take, term, binding) for tap in pair)
        ours = _shape(student, binding.student, binding)
        theirs = _shape(teacher, binding.required_teacher, binding)
        if ours[1] != theirs[1] or (take == "attention" and ours[2] != theirs[2]):
            raise binding.refuse(
                f"the student's {student.name} has {ours[1]} tokens and the teacher's {teacher.name} {theirs[1]}; "
                "attention is compared token by token, so choose a student with the teacher's patches and resolution"
            )
        if not isinstance(term, QkvRelations) and ours[0] != theirs[0]:
            raise binding.refuse(
                f"the {take} of the student's {student.name} are of {ours[0]} heads and those of the teacher's "
                f"{teacher.name} of {theirs[0]}, and heads are compared one by one; use qkv-relations, which splits "
                "both alike"
            )
        found.append((student, teacher, formula))
    return found


def _taking(tap: Tap, take: Take, term: AttentionTerm, binding: Binding) -> Tap:
    if tap.take != term.takes:
        raise binding.refuse(f"it compares attention, and layers take {tap.take!r} of {tap.name}; leave `take` out")
    return Tap(tap.name, take, tap.call)


def _shape(tap: Tap, description: ModelDescription, binding: Binding) -> Shape:
    shape = next(layer for layer in description.layers if layer.name == tap.name).attention_shapes.get(tap.take)
    if shape is None:
        raise binding.refuse(f"the layer {tap.name} has no {tap.take} that could be captured; choose another layer")
    return shape


def _require_attention(binding: Binding) -> None:
    for who, description in (("student", binding.student), ("teacher", binding.required_teacher)):
        if not any(layer.attention_shapes for layer in description.layers):
            raise binding.refuse(
                f"the {who} has no attention that could be read; use a transformer, or a term on features or relations "
                "such as feature-cosine, hints or relation-distance"
            )


def _require_divisible(compared: Sequence[Compared], relation_heads: int, binding: Binding) -> None:
    widths: dict[int, None] = {}
    for student, teacher, _ in compared:
        for tap, description in ((student, binding.student), (teacher, binding.required_teacher)):
            heads, _, features = _shape(tap, description, binding)
            widths[heads * features] = None
    if any(width % relation_heads for width in widths):
        raise binding.refuse(
            f"relation_heads is {relation_heads}, which does not divide the widths of queries, keys and values "
            f"({listed(list(widths))}); all are divided by {listed(common_divisors(*widths))}"
        )
