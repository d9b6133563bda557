"""Terms on embeddings as a recipe writes them."""

from typing import Any

import pytest
from pydantic import ValidationError

from distil.objective.embedding_config import EmbeddingContrast, EmbeddingMse


def test_what_they_need() -> None:
    mse, contrast = EmbeddingMse(), EmbeddingContrast()
    assert (mse.needs_teacher, mse.scope) == (True, "example")
    assert (contrast.needs_teacher, contrast.scope, contrast.temperature) == (False, "batch", 0.05)
    assert mse.targets == contrast.targets == {"embeddings"}
    assert not mse.needs_labels
    assert not contrast.needs_labels  # the pairs are the inputs


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (EmbeddingContrast, {"temperature": 0}, "greater than 0"),
        (EmbeddingContrast, {"teacher": "teacher"}, "Extra inputs"),
        (EmbeddingMse, {"temperature": 1}, "Extra inputs"),
        (EmbeddingMse, {"weight": -1}, "greater than or equal to 0"),
    ],
)
def test_what_cannot_be_is_refused(kind: Any, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        kind(**settings)
