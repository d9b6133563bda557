"""Do student and teacher read the same tokens, and are they told what kind of token each is?"""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from distil.check.finding import Finding
from distil.check.teacher import Candidate, called
from distil.core.errors import CompatibilityError, DistilError
from distil.data.config import HuggingFaceTokenizerConfig, InputsConfig
from distil.data.example import TextExamples
from distil.data.text_view import TextView
from distil.models.config import ModelConfig
from distil.models.huggingface_files import find_folder
from distil.models.huggingface_network import HuggingFaceNetwork
from distil.models.text_config import HuggingFaceModelConfig
from distil.models.vocabulary import VocabularyFacts, match_vocabularies, vocabulary_facts
from distil.tasks.network import Network
from distil.tasks.task import Task
from distil.tasks.tokens import QuestionAnswering

NAMED = {"cls": ("[CLS]",), "sep": ("[SEP]",), "mask": ("[MASK]", "<mask>"), "unk": ("[UNK]", "<unk>")}
LANGUAGE = ("causal-lm", "masked-lm", "seq2seq")  # heads that answer with a number for each token
FROM_SETTINGS = ("bos", "eos", "pad")


def check_tokenizers(
    student: Network, candidate: Candidate, examples: TextExamples, task: Task, *, arm: str, published: bool
) -> Iterator[Finding]:
    """The two by their tokens and by how they cut real texts. Answers for tokens need the same ones on both sides.

    Args:
        student: as it starts.
        candidate: that it listens to.
        examples: whose texts are cut.
        task: of both.
        arm: of the student, for messages.
        published: whether the student is a published model, or cut from one.
    """
    ours, theirs = _text_view(student), _text_view(candidate.network)
    who = f"arm {arm}: the student and {called(candidate.name)}"
    for_tokens = task.answers_for_tokens or isinstance(task, QuestionAnswering)
    is_language = task.head in LANGUAGE
    try:
        match = match_vocabularies(
            facts_of(student, published=published), facts_of(candidate.network, published=candidate.published)
        )
    except CompatibilityError as error:
        reason = str(error) if for_tokens else str(error).partition(". ")[0]  # what to do is of no use to whole texts
        said, notes, is_same = f"{who}: {reason}", (), False
    else:
        shared = f"vocabularies: {match.kind}; {match.num_shared:,} tokens shared"
        said, notes, is_same = f"{who}: {match if is_language else shared}", match.notes, match.kind != "subset"
    alike = share_read_alike(ours, theirs, examples)
    said += f"; {alike:.0%} of {len(examples)} texts are cut into the same tokens"
    if set(ours.columns) != set(theirs.columns):
        said += f" (columns {', '.join(ours.columns)} and {', '.join(theirs.columns)})"
    listed = "".join(f" {note}" for note in notes)
    if for_tokens and (alike < 1 or not is_same):
        yield Finding(
            "wrong",
            f"{said}.{listed}",
            why="the teacher's answer for a token is held against the student's for another one",
            remedy="give the student the teacher's tokenizer, max_length and columns, or compare whole texts",
        )
    else:
        free = "" if for_tokens or alike == 1 else ", which a task on whole texts does not need"
        yield Finding("fine", f"{said}{free}.{listed}")


def check_reading(who: str, network: Network, config: ModelConfig | None, inputs: InputsConfig) -> Iterator[Finding]:
    """What one network is told beside the tokens: which text of a pair each is of, and conversations."""
    view = _text_view(network)
    if len(view.columns) == 2 and not view.apart:
        yield _types(who, network, view)
    if isinstance(_core(network), HuggingFaceNetwork) and _core(network).head == "causal-lm":
        template = chat_template(config, inputs)
        if template is not None:
            yield Finding(
                "fine",
                f"{who}: it was made for conversations (its tokenizer has a chat template of {len(template)} "
                "characters); the texts of this recipe are read as they stand",
            )


def facts_of(network: Network, *, published: bool) -> VocabularyFacts:
    """Its tokens with their roles; as many places as its output has or, of one that says no tokens, its embeddings.

    Args:
        network: with its view.
        published: whether its settings are of its own tokenizer; those of a network that was drawn at random name the
            first and last tokens of whatever tokenizer its class was made for.

    Raises:
        CompatibilityError: tokenizer and network do not belong together.
    """
    view, core = _text_view(network), _core(network)
    tokenizer = view.tokenizer
    roles = {role: name for role, names in NAMED.items() for name in names if tokenizer.token_to_id(name) is not None}
    width = max(tokenizer.get_vocab().values()) + 1
    if isinstance(core, HuggingFaceNetwork):
        width = network.description.num_classes if core.head in LANGUAGE else len(_embeddings(core))
        named = FROM_SETTINGS if published else ("pad",)
        ids = {role: getattr(core.pretrained.config, f"{role}_token_id", None) for role in named}
        tokens = {role: tokenizer.id_to_token(number) for role, number in ids.items() if isinstance(number, int)}
        roles |= {role: token for role, token in tokens.items() if token is not None}
    return vocabulary_facts(tokenizer, width=width, special_tokens=roles)


def _embeddings(core: HuggingFaceNetwork) -> Any:
    return core.pretrained.get_input_embeddings().weight


def share_read_alike(ours: TextView, theirs: TextView, examples: TextExamples) -> float:
    """The share of texts, 0..1, that two views cut into the same tokens; of the columns that both read."""
    both = tuple(name for name in ours.columns if name in theirs.columns)
    one, other = (replace(view, columns=both or view.columns, _known={}) for view in (ours, theirs))
    pairs = zip(one.windows(examples.columns), other.windows(examples.columns), strict=True)
    alike = [[each.tokens for each in row] == [each.tokens for each in beside] for row, beside in pairs]
    return sum(alike) / len(alike)


def chat_template(config: ModelConfig | None, inputs: InputsConfig) -> str | None:
    """What makes one text of a conversation, beside the tokenizer that is read by; None: there is none in its files."""
    place = inputs.tokenizer if isinstance(inputs.tokenizer, HuggingFaceTokenizerConfig) else config
    if not isinstance(place, HuggingFaceModelConfig | HuggingFaceTokenizerConfig):
        return None
    if isinstance(place, HuggingFaceModelConfig) and place.config is not None:
        return None
    try:
        folder = find_folder(HuggingFaceModelConfig(**_place(place)))
    except DistilError:
        return None
    return _of_gguf(folder / place.gguf) if place.gguf is not None else _of_folder(folder)


def _place(config: HuggingFaceModelConfig | HuggingFaceTokenizerConfig) -> dict[str, Any]:
    return {name: getattr(config, name) for name in ("package", "path", "hub", "revision", "gguf")}


def _of_folder(folder: Path) -> str | None:
    if (folder / "chat_template.jinja").is_file():
        return (folder / "chat_template.jinja").read_text(encoding="utf-8")
    settings = folder / "tokenizer_config.json"
    found = json.loads(settings.read_text(encoding="utf-8")).get("chat_template") if settings.is_file() else None
    return found if isinstance(found, str | None) else json.dumps(found)  # several, by name


def _of_gguf(path: Path) -> str | None:
    try:
        from gguf import GGUFReader
    except ImportError:
        return None
    field = GGUFReader(path).get_field("tokenizer.chat_template")
    return None if field is None else str(field.contents())


def _types(who: str, network: Network, view: TextView) -> Finding:
    core = _core(network)
    takes = isinstance(core, HuggingFaceNetwork) and (getattr(core.pretrained.config, "type_vocab_size", 0) or 0) > 1
    encoding = view.tokenizer.encode("a", "a")
    makes = any(encoding.type_ids)
    if takes and not (makes and view.type_ids):
        return Finding(
            "suspicious",
            f"{who}: it can be told which text of a pair a token is of, and its tokenizer says 0 for all",
            why="a model that was trained with types of tokens gets an input that it has not seen",
            remedy="take the model's own tokenizer, whose file makes types for the second text",
        )
    if takes:
        return Finding("fine", f"{who}: it is told which text of a pair each token is of")
    made = ", though the tokenizer would know" if makes else ""
    return Finding("fine", f"{who}: it is not told which text of a pair a token is of; it has no types of tokens{made}")


def _text_view(network: Network) -> TextView:
    assert isinstance(network.view, TextView)
    return network.view


def _core(network: Network) -> Any:
    parts = network.model.modules()
    return next((each for each in parts if isinstance(each, HuggingFaceNetwork)), network.model)
