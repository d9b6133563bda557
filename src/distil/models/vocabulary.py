"""Do two language models mean the same tokens? Their maps of tokens to ids are compared, never their widths."""

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from jaxtyping import Int
from torch import Tensor

from distil.core.errors import CompatibilityError, DataError

NUM_SHOWN = 5  # tokens that a message names
DECISIVE_ROLES = ("eos", "cls", "sep", "mask")  # of a special token: these change what a model is asked or taught
FOR_EQUAL_MAPS_ONLY = ("model", "post_processor", "added_tokens")  # what cuts text and follows from the tokens or ids


@dataclass(frozen=True, eq=False)
class VocabularyFacts:
    """What a model's tokens are, and which place in its output each has.

    Attributes:
        ids: the id of every token, added ones included.
        width: numbers in the model's output for a position, often more than there are tokens.
        special_tokens: the token of each role: bos, eos, unk, sep, pad, cls, mask; only roles that are known.
        may_lack_a_row: tokens that a tokenizer may have without a place in the output; so may those of a role, but for
            eos, without which no text ends.
        chat_template: what makes one text of a conversation; None: there is none.
        cutting: a hash of each part that decides how text is cut, by its name; empty where it cannot be read.

    Raises:
        CompatibilityError: tokenizer and model do not belong together.
    """

    ids: Mapping[str, int]
    width: int
    special_tokens: Mapping[str, str] = field(default_factory=dict)
    may_lack_a_row: frozenset[str] = frozenset()
    chat_template: str | None = None
    cutting: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.ids:
            raise CompatibilityError("the tokenizer has no tokens")
        unknown = {role: token for role, token in self.special_tokens.items() if token not in self.ids}
        if unknown:
            raise CompatibilityError(
                f"special tokens {unknown} are not among the tokenizer's tokens; add them to it first"
            )
        tolerated = (self.may_lack_a_row | {*self.special_tokens.values()}) - {self.special_tokens.get("eos")}
        homeless = [token for token in self.without_row() if token not in tolerated]
        if homeless:
            raise CompatibilityError(
                f"the model's output has {self.width:,} places and {len(homeless):,} tokens of the tokenizer have an "
                f"id outside of it: {_shown(homeless)}. Take the model's own tokenizer, or resize the model"
            )

    def without_row(self) -> list[str]:
        """Tokens that have no place in the model's output, in the order of their ids."""
        return sorted((token for token, id in self.ids.items() if not 0 <= id < self.width), key=self.ids.__getitem__)


@dataclass(frozen=True, eq=False)
class VocabularyMatch:
    """Which places of the student's output mean the same as which of the teacher's.

    Attributes:
        kind: ``equal``: the same ids for the same tokens, and outputs of one width; ``padded``: the same ids, and
            outputs of two widths; ``subset``: all tokens of one are among the other's, with these ids or others.
        num_shared: places that count. A place counts where a token names it and both outputs have it; all others are
            padding, and are left out of the distributions on both sides.
        student_ids: these places in the student's output; a number n stands for the first n.
        teacher_ids: the same tokens' places in the teacher's output, in the same order.
        student_width: numbers in the student's output for a position.
        teacher_width: numbers in the teacher's.
        notes: differences that change no meaning, as sentences.
    """

    kind: Literal["equal", "padded", "subset"]
    num_shared: int
    student_ids: int | Int[Tensor, " shared"]
    teacher_ids: int | Int[Tensor, " shared"]
    student_width: int
    teacher_width: int
    notes: tuple[str, ...] = ()

    @property
    def same_ids(self) -> bool:
        """Whether every shared token has one id on both sides."""
        return torch.equal(_as_tensor(self.student_ids), _as_tensor(self.teacher_ids))

    def describe(self) -> dict[str, Any]:
        """The match for a record: without the ids themselves."""
        return {
            "kind": self.kind,
            "num_shared": self.num_shared,
            "same_ids": self.same_ids,
            "student_width": self.student_width,
            "teacher_width": self.teacher_width,
            "notes": list(self.notes),
        }

    def __str__(self) -> str:
        outputs = f"{self.student_width:,} numbers in the student's output and {self.teacher_width:,} in the teacher's"
        ids = "" if self.same_ids else " under ids of their own"
        return f"vocabularies: {self.kind}; {self.num_shared:,} tokens shared{ids}, of {outputs}"


def vocabulary_facts(tokenizer: Any, *, width: int, special_tokens: Mapping[str, str] | None = None) -> VocabularyFacts:
    """The facts about a tokenizer and the output of the model that reads its ids.

    Args:
        tokenizer: one of transformers, or a ``tokenizers.Tokenizer``.
        width: numbers in the model's output for a position.
        special_tokens: tokens by role, such as ``{"eos": "</s>"}``, where the tokenizer does not say, as a
            ``tokenizers.Tokenizer`` does not; they take the place of what it says.

    Raises:
        CompatibilityError: this is no tokenizer, or it does not belong to the model.
    """
    if not hasattr(tokenizer, "get_vocab"):
        raise CompatibilityError(
            f"{type(tokenizer).__name__} is no tokenizer; give one of transformers or a tokenizers.Tokenizer"
        )
    stated = getattr(tokenizer, "special_tokens_map", {})
    roles = {role.removesuffix("_token"): token for role, token in stated.items() if isinstance(token, str)}
    parts = _parts(getattr(tokenizer, "backend_tokenizer", tokenizer))
    template = getattr(tokenizer, "chat_template", None)
    if not isinstance(template, str | None):  # several, by name
        template = json.dumps(template, sort_keys=True)
    return VocabularyFacts(
        ids=dict(tokenizer.get_vocab()),
        width=width,
        special_tokens=roles | dict(special_tokens or {}),
        may_lack_a_row=frozenset(token["content"] for token in parts.get("added_tokens", []) if token["special"]),
        chat_template=template,
        cutting={name: _digest(part) for name, part in parts.items()},
    )


def match_vocabularies(
    student: VocabularyFacts, teacher: VocabularyFacts, *, accept: Collection[str] = ()
) -> VocabularyMatch:
    """How the outputs of student and teacher are brought together, if they can be.

    Args:
        student: facts about the student's tokens.
        teacher: facts about the teacher's.
        accept: roles of special tokens, such as ``eos``, that may differ although that changes meaning.

    Raises:
        CompatibilityError: the same tokens have other ids; neither vocabulary is a part of the other; or the tokens
            that end, part or hide text differ.
        ValueError: a role to accept is not one that would be refused.

    >>> facts = VocabularyFacts({"a": 0, "b": 1, "c": 2}, width=3)
    >>> print(match_vocabularies(facts, VocabularyFacts(facts.ids, width=4)))
    vocabularies: padded; 3 tokens shared, of 3 numbers in the student's output and 4 in the teacher's
    """
    if not set(accept) <= set(DECISIVE_ROLES):
        raise ValueError(f"accept is {sorted(accept)}; only roles of {list(DECISIVE_ROLES)} would be refused")
    if student.ids == teacher.ids:
        kind = "equal" if student.width == teacher.width else "padded"
    elif student.ids.keys() == teacher.ids.keys():
        raise _permuted(student, teacher)
    elif student.ids.keys() < teacher.ids.keys() or teacher.ids.keys() < student.ids.keys():
        kind = "subset"
    else:
        raise _different(student, teacher)
    pairs = _shared_pairs(student, teacher)
    role_notes = _compare_special_tokens(student, teacher, accept)
    return VocabularyMatch(
        kind=kind,
        num_shared=len(pairs),
        student_ids=_as_ids([ours for ours, _ in pairs]),
        teacher_ids=_as_ids([theirs for _, theirs in pairs]),
        student_width=student.width,
        teacher_width=teacher.width,
        notes=(*_notes_on_tokens(student, teacher, pairs), *role_notes, *_notes_on_text(student, teacher)),
    )


def teacher_input_ids(
    input_ids: Int[Tensor, "*batch tokens"],
    match: VocabularyMatch,
    *,
    attention_mask: Int[Tensor, "*batch tokens"] | None = None,
) -> Int[Tensor, "*batch tokens"]:
    """What the teacher is given to read the same tokens as the student: the student's ids, by the teacher's numbers.

    Args:
        input_ids: of the student.
        match: of the two vocabularies.
        attention_mask: 0 at padding, which may have no counterpart: there any id is put that the teacher has.

    Returns:
        Ids of the same shape: position by position the same tokens. Where the ids are the same, so is the result.

    Raises:
        DataError: the text has tokens that the teacher does not know.
    """
    ours, theirs = (_as_tensor(ids).to(input_ids.device) for ids in (match.student_ids, match.teacher_ids))
    table = theirs.new_full((match.student_width,), -1)
    table[ours] = theirs
    inside = (input_ids >= 0) & (input_ids < match.student_width)
    translated = torch.where(inside, table[input_ids.where(inside, 0)], -1)
    if attention_mask is not None:
        translated = translated.where((attention_mask != 0) | (translated >= 0), theirs[0])
    if bool((translated < 0).any()):
        missing = sorted(set(input_ids[translated < 0].tolist()))
        raise DataError(
            f"the teacher does not know the tokens with ids {_shown(missing)} of the student. Cut the text with the "
            "tokenizer that has fewer tokens, or give the attention mask, if they are padding"
        )
    return translated


def _shared_pairs(student: VocabularyFacts, teacher: VocabularyFacts) -> list[tuple[int, int]]:
    """Ids of one token on both sides, by the student's id, where both outputs have a place for it."""
    both = student.ids.keys() & teacher.ids.keys()
    named = {(student.ids[token], teacher.ids[token]) for token in both}
    pairs = sorted(
        (ours, theirs) for ours, theirs in named if 0 <= ours < student.width and 0 <= theirs < teacher.width
    )
    if not pairs:
        raise CompatibilityError("no token has a place in both outputs; take the tokenizers that belong to the models")
    if not len({ours for ours, _ in pairs}) == len({theirs for _, theirs in pairs}) == len(pairs):
        raise CompatibilityError(
            "tokens that share an id in one tokenizer have ids of their own in the other, so their probabilities "
            "cannot be compared. Use the teacher's tokenizer for the student"
        )
    return pairs


def _permuted(student: VocabularyFacts, teacher: VocabularyFacts) -> CompatibilityError:
    other = sorted((t for t, id in student.ids.items() if teacher.ids[t] != id), key=student.ids.__getitem__)
    shown = ", ".join(f"{token!r} is {student.ids[token]} and {teacher.ids[token]}" for token in other[:NUM_SHOWN])
    return CompatibilityError(
        f"student and teacher have the same {len(student.ids):,} tokens, but {len(other):,} of them under other ids "
        f"(student's and teacher's): {shown}. Use one tokenizer for both: with other ids a model reads other text"
    )


def _different(student: VocabularyFacts, teacher: VocabularyFacts) -> CompatibilityError:
    num_both = len(student.ids.keys() & teacher.ids.keys())
    return CompatibilityError(
        f"the vocabularies are different: {num_both:,} tokens in common, {num_both / len(student.ids):.1%} of the "
        f"student's {len(student.ids):,} and {num_both / len(teacher.ids):.1%} of the teacher's {len(teacher.ids):,}. "
        f"Only the student has {_shown(_only(student, teacher))}; only the teacher {_shown(_only(teacher, student))}. "
        "Use the teacher's tokenizer for the student, or a term on whole sequences, or train the student on text that "
        "the teacher wrote; logits of different tokenizers are not aligned by this version"
    )


def _compare_special_tokens(student: VocabularyFacts, teacher: VocabularyFacts, accept: Collection[str]) -> list[str]:
    """Notes on roles that differ; an error names all that change what the models are asked or taught."""
    notes, problems = [], []
    for role in sorted({*student.special_tokens, *teacher.special_tokens}):
        ours, theirs = student.special_tokens.get(role), teacher.special_tokens.get(role)
        if ours == theirs:
            continue
        if ours is None or theirs is None:
            side = "teacher" if ours is None else "student"
            notes.append(f"Only the {side}'s tokenizer names a token for {role}: {ours or theirs!r}.")
            continue
        difference = f"{role} is {ours!r} ({student.ids[ours]}) for the student and {theirs!r} ({teacher.ids[theirs]}) "
        difference += "for the teacher"
        if role in DECISIVE_ROLES and role not in accept:
            problems.append(difference)
        else:
            notes.append(difference[0].upper() + difference[1:] + ".")
    if problems:
        raise CompatibilityError(
            f"special tokens differ: {'; '.join(problems)}. The teacher would teach other ends or parts of a text than "
            "the labels do. Give the student's tokenizer the teacher's tokens, or accept the role by name"
        )
    return notes


def _notes_on_tokens(student: VocabularyFacts, teacher: VocabularyFacts, pairs: list[tuple[int, int]]) -> list[str]:
    notes = []
    for side, facts, other in (("student", student, teacher), ("teacher", teacher, student)):
        without, only = facts.without_row(), _only(facts, other)
        if without:
            notes.append(f"The {side}'s output has no place for {len(without):,} special tokens: {_shown(without)}.")
        if only:
            notes.append(f"{len(only):,} tokens are the {side}'s alone and are left out: {_shown(only)}.")
        padding = facts.width - len({id for id in facts.ids.values() if 0 <= id < facts.width})
        if padding:
            notes.append(f"{padding:,} places of the {side}'s output are padding, which no token names.")
    if any(ours != theirs for ours, theirs in pairs):
        notes.append("The ids differ: the teacher must be given its own ids of the tokens that the student reads.")
    return notes


def _notes_on_text(student: VocabularyFacts, teacher: VocabularyFacts) -> list[str]:
    """What cuts text and makes conversations. The ids mean the same, but the teacher may know other rows of them."""
    notes = []
    if student.chat_template != teacher.chat_template:
        notes.append("The chat templates differ: make text of a conversation with one of them, for both models.")
    if not student.cutting or not teacher.cutting:
        side = "teacher" if student.cutting else "student"
        return [*notes, f"How the {side}'s tokenizer cuts text cannot be read and was not compared."]
    skipped = () if student.ids == teacher.ids else FOR_EQUAL_MAPS_ONLY
    parts = sorted({*student.cutting, *teacher.cutting} - {*skipped})
    differing = [part for part in parts if student.cutting.get(part) != teacher.cutting.get(part)]
    if differing:
        notes.append(f"The tokenizers cut text differently ({', '.join(differing)}): cut it with one, for both models.")
    return notes


def _parts(backend: Any) -> dict[str, Any]:
    """What decides how a Rust tokenizer cuts text, without the map of tokens to ids; empty for other tokenizers."""
    if not hasattr(backend, "to_str"):
        return {}
    whole = json.loads(backend.to_str())
    if isinstance(whole["model"].get("vocab"), dict):  # a list has scores, which decide where text is cut
        del whole["model"]["vocab"]
    added = sorted(whole["added_tokens"], key=lambda token: token["content"])
    parts = {name: whole[name] for name in ("normalizer", "pre_tokenizer", "model", "post_processor", "decoder")}
    return parts | {"added_tokens": [{**token, "id": None} for token in added]}


def _digest(part: Any) -> str:
    return hashlib.sha256(json.dumps(part, sort_keys=True).encode()).hexdigest()


def _only(one: VocabularyFacts, other: VocabularyFacts) -> list[str]:
    return sorted(one.ids.keys() - other.ids.keys(), key=one.ids.__getitem__)


def _shown(values: Collection[Any]) -> str:
    few = ", ".join(repr(value) for value in list(values)[:NUM_SHOWN])
    return f"{few} and {len(values) - NUM_SHOWN:,} more" if len(values) > NUM_SHOWN else few


def _as_ids(ids: list[int]) -> int | Tensor:
    return len(ids) if ids == list(range(len(ids))) else torch.tensor(ids)


def _as_tensor(ids: int | Tensor) -> Tensor:
    return torch.arange(ids) if isinstance(ids, int) else ids
