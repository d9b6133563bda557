"""Terms on embeddings, bound. What a network says is the embeddings of one text or more, side by side."""

from typing import assert_never

from jaxtyping import Float
from torch import Tensor

from distil.losses.contrast import info_nce
from distil.losses.squared_error import feature_squared_error
from distil.objective.embedding_config import EmbeddingContrast, EmbeddingMse, EmbeddingTerm
from distil.objective.term import Binding, BoundTerm, FunctionTerm, TermInput


def bind_embedding(term: EmbeddingTerm, binding: Binding) -> BoundTerm:
    """The term as a module.

    Raises:
        CompatibilityError: the widths do not fit each other, or there are not two texts.
    """
    ours = binding.student.num_classes
    match term:
        case EmbeddingMse():
            theirs = binding.required_teacher.num_classes
            if ours not in (theirs, 2 * theirs):  # data have two columns of text at most
                raise binding.refuse(
                    f"the student's embeddings have {ours} numbers in all and the teacher's {theirs}; set "
                    f"task.features to {theirs}"
                )
            return FunctionTerm(_distance)
        case EmbeddingContrast():
            if ours % 2:
                raise binding.refuse("it compares two texts of a pair; the data need two columns of text")
            return FunctionTerm(lambda said: _contrast(said, temperature=term.temperature))
        case _:
            assert_never(term)


def _distance(said: TermInput) -> Float[Tensor, " batch"]:
    """Mean over the student's texts and over features."""
    teacher = said.teacher_logits
    texts = said.student.logits.unflatten(1, (-1, teacher.shape[1]))
    return feature_squared_error(texts, teacher.unsqueeze(1).expand_as(texts))


def _contrast(said: TermInput, *, temperature: float) -> Float[Tensor, ""]:
    first, second = said.student.logits.chunk(2, dim=1)
    there = info_nce(first, second, temperature=temperature, detach_teacher=False)
    back = info_nce(second, first, temperature=temperature, detach_teacher=False)
    return (there + back) / 2
