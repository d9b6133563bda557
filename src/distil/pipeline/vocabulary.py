"""How networks read texts, and whether student and teacher do alike where they answer for tokens: before training."""

from collections.abc import Mapping
from typing import Any

from distil.core.errors import CompatibilityError
from distil.core.files import read_json, write_json
from distil.data.feed import AnyView
from distil.data.text_view import TextView
from distil.models.vocabulary import VocabularyMatch, match_vocabularies, vocabulary_facts
from distil.pipeline.context import Context
from distil.tasks.network import Network

FILE = "vocabularies.json"
DATA = "data.json"


def match_readers(context: Context, student: Network, teachers: Mapping[str, Network], arm: str) -> None:
    """Compares the tokens of a student with those of each teacher; says and stores what was found.

    Raises:
        CompatibilityError: they answer for tokens, and these are not the same, or texts are cut at other lengths.
    """
    if not context.task.answers_for_tokens:
        return
    if context.task.head != "seq2seq":  # whose answers are for the tokens that are written, however much is read
        for name, teacher in teachers.items():
            _require_length(student, teacher, f"arm {arm}, teacher {name}")
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


def record_tokenizers(context: Context, teachers: Mapping[str, AnyView], students: Mapping[str, AnyView]) -> None:
    """Adds to ``data.json`` by which tokenizer each network reads texts; of images nothing is added.

    Args:
        context: of the run.
        teachers: how they read, by name.
        students: how they read, by arm; where all read alike they are one entry, ``student``.
    """
    ours = {arm: view for arm, view in students.items() if isinstance(view, TextView)}
    first = next(iter(ours.values()), None)
    if first is None:
        return
    alike = all(view.reads_like(first) for view in ours.values())
    named = {"student": first} if alike else {f"student of {arm}": view for arm, view in ours.items()}
    known = {**named, **{name: view for name, view in teachers.items() if isinstance(view, TextView)}}
    data = read_json(context.directory.path / DATA)
    data["text"]["tokenizers"] = {
        name: {
            "digest": view.digest,
            "vocabulary": view.tokenizer.get_vocab_size(),
            "max_length": view.max_length,
        }
        for name, view in known.items()
    }
    context.directory.record(DATA, data)


def _require_length(student: Network, teacher: Network, where: str) -> None:
    assert isinstance(student.view, TextView)
    assert isinstance(teacher.view, TextView)
    ours, theirs = student.view.max_length, teacher.view.max_length
    if ours != theirs:
        raise CompatibilityError(
            f"{where}: the student's texts are cut at {ours:,} tokens and the teacher's at {theirs:,}, so one answers "
            "for tokens that the other does not read; give both the same inputs.max_length"
        )


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
