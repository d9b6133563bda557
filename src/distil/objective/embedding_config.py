"""Terms on embeddings of whole texts, of tasks that ask for nothing else."""

from typing import Literal

from distil.core.config import Positive
from distil.objective.term_config import TeacherTermConfig, TermConfig


class EmbeddingMse(TeacherTermConfig):
    """Squared distance of the student's embeddings of a text and of its translation from the teacher's of the text."""

    knowledge = "responses"
    targets = frozenset({"embeddings"})
    source = "Reimers and Gurevych 2020, arXiv:2004.09813"
    summary = "the vector that the teacher gives a text, also for its translation"

    kind: Literal["embedding-mse"] = "embedding-mse"


class EmbeddingContrast(TermConfig):
    """Each text is to be told from the others of the batch by the text it is paired with, in both directions."""

    scope = "batch"
    knowledge = "labels"
    targets = frozenset({"embeddings"})
    source = "van den Oord, Li, Vinyals 2018, arXiv:1807.03748; both directions as in arXiv:2103.00020"
    summary = "pairs of the data nearer than other pairs"

    kind: Literal["embedding-contrast"] = "embedding-contrast"
    temperature: Positive = 0.05


EmbeddingTerm = EmbeddingMse | EmbeddingContrast
