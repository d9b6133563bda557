"""From a term's configuration to the term bound to two networks."""

from typing import assert_never

from torch import Tensor

from distil.models.tap import Outputs
from distil.objective.alignment import AlignedPair, resolve_layers
from distil.objective.attention import bind_attention
from distil.objective.attention_config import AttentionTerm
from distil.objective.config import Term
from distil.objective.contrast import bind_contrast
from distil.objective.contrast_config import ContrastTerm
from distil.objective.embedding import bind_embedding
from distil.objective.embedding_config import EmbeddingTerm
from distil.objective.feature import bind_feature
from distil.objective.feature_config import FeatureTerm
from distil.objective.feature_learned import bind_feature_learned
from distil.objective.feature_learned_config import FeatureLearnedTerm
from distil.objective.label import bind_label
from distil.objective.label_config import LabelTerm
from distil.objective.own_config import OwnTerm
from distil.objective.relation import bind_relation
from distil.objective.relation_config import RelationTerm
from distil.objective.response import bind_response
from distil.objective.response_config import ResponseTerm
from distil.objective.term import Binding, BoundTerm, TermInput


def bind_term(term: Term, binding: Binding) -> BoundTerm:
    """The term as a module; its initial weights come from torch's random state.

    Raises:
        CompatibilityError: the term cannot be computed for these networks.
    """
    if isinstance(term, OwnTerm):
        if type(term).value is OwnTerm.value:
            raise binding.refuse(f"the class {type(term).__name__} has no method value(self, said), which computes it")
        if term.uses_layers and binding.teacher is None:
            raise binding.refuse(
                "uses_layers compares layers with a teacher's, and needs_teacher says that it has none"
            )
        return _Own(term, binding, resolve_layers(term, binding) if term.uses_layers else ())
    if isinstance(term, LabelTerm):
        return bind_label(term, binding)
    if isinstance(term, AttentionTerm):
        return bind_attention(term, binding)
    if isinstance(term, RelationTerm):
        return bind_relation(term, binding)
    if isinstance(term, ContrastTerm):
        return bind_contrast(term, binding)
    if isinstance(term, FeatureTerm):
        return bind_feature(term, binding)
    if isinstance(term, FeatureLearnedTerm):
        return bind_feature_learned(term, binding)
    if isinstance(term, EmbeddingTerm):
        return bind_embedding(term, binding)
    if isinstance(term, ResponseTerm):
        return bind_response(term, binding)
    assert_never(term)


class _Own(BoundTerm):
    """A user's term."""

    def __init__(self, term: OwnTerm, binding: Binding, pairs: tuple[AlignedPair, ...]) -> None:
        super().__init__(pairs)
        self._term, self._binding = term, binding

    def forward(self, said: TermInput) -> Tensor:
        student = Outputs(said.student.logits, {tap: said.student.taps[tap] for tap in self.student_taps})
        teacher = said.teacher and Outputs(said.teacher_logits, {t: said.teacher.taps[t] for t in self.teacher_taps})
        value = self._term.value(TermInput(student, teacher, said.labels, said.ids))
        expected = (len(said.ids),) if self._term.scope == "example" else ()
        if value.shape != expected:
            raise self._binding.refuse(
                f"its value has shape {tuple(value.shape)}, and with scope {self._term.scope!r} it must be {expected}: "
                "one number for each example, or one for the batch"
            )
        return value
