"""Whether student and teacher read texts alike, where they answer for tokens: known before anything is trained."""

from collections.abc import Mapping
from typing import Any

from distil.core.errors import CompatibilityError
from distil.core.files import read_json, write_json
from distil.data.text_view import TextView
from distil.models.vocabulary import VocabularyMatch, match_vocabularies, vocabulary_facts
from distil.pipeline.context import Context
from distil.tasks.network import Network

FILE = "vocabularies.json"


def match_readers(context: Context, student: Network, teachers: Mapping[str, Network], arm: str) -> None:
    """Compares the tokens of a student with those of each teacher; says and stores what was found.

    Raises:
        CompatibilityError: they answer for tokens, and these are not the same.
    """
    if not context.task.answers_for_tokens:
        return
    matches = {name: match_networks(student, teacher) for name, teacher in teachers.items()}
    for name, match in matches.items():
        context.notice(f"arm {arm}, teacher {name}: {match}")
        if match.kind == "subset":
            raise CompatibilityError(
                f"arm {arm}, teacher {name}: {match}. Texts are then cut into other tokens, and the two answer for "
                "other places; give both the same tokenizer, or distil on texts by a task that judges them whole"
            )
    path = context.directory.path / FILE
    known: dict[str, Any] = read_json(path) if path.exists() else {}
    write_json(path, {**known, arm: {name: match.describe() for name, match in matches.items()}})


def match_networks(student: Network, teacher: Network) -> VocabularyMatch:
    """The vocabularies of two networks that answer for tokens."""
    facts = []
    for network in (student, teacher):
        assert isinstance(network.view, TextView)
        size = network.view.tokenizer.get_vocab_size()
        is_model = network.description.num_classes >= size
        facts.append(
            vocabulary_facts(network.view.tokenizer, width=network.description.num_classes if is_model else size)
        )
    return match_vocabularies(*facts)
