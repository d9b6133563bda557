"""Correctness, lines 21 and 24: whether student and teacher read the same tokens is known before the run."""

import json
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from torch import nn

from distil.check.finding import Finding
from distil.check.teacher import Candidate, build_candidate
from distil.check.tokenizer import chat_template, check_reading, check_tokenizers, share_read_alike
from distil.data.config import HuggingFaceTokenizerConfig, InputsConfig, TrainedTokenizerConfig
from distil.data.split import load_splits
from distil.data.text_view import TextView
from distil.data.tokenizer import bpe_tokenizer, character_tokenizer
from distil.knowledge.teacher import FrozenTeacher
from distil.models.describe import ModelDescription
from distil.models.text_config import HuggingFaceModelConfig, TextCnnConfig
from distil.recipe.recipe import Teacher
from distil.recipe.resolve import resolve
from distil.tasks.choice import make_task
from distil.tasks.classification import Classification
from distil.tasks.config import CausalLanguageModelConfig, TokenClassificationConfig
from distil.tasks.network import Network
from distil.tasks.task import Task

from .test_text import LETTERS, examples
from .text_fixture import recipe_of

TEXTS = examples({"text": ["ab cd", "hgfe"]})


def network(tokenizer: Any, *, max_length: int = 16) -> Network:
    return Network(nn.Identity(), TextView(tokenizer, ("text",), max_length), ModelDescription(num_classes=20))


def candidate(tokenizer: Any, **more: Any) -> Candidate:
    config = Teacher(model=TextCnnConfig())
    return Candidate("big", config, network(tokenizer, **more), FrozenTeacher("big", nn.Identity()), None)


def compared(ours: Any, theirs: Any, task: Task, **more: Any) -> Finding:
    teacher = candidate(theirs, **more)
    (finding,) = check_tokenizers(network(ours), teacher, TEXTS, task, arm="distilled", published=False)
    return finding


def characters(letters: str = LETTERS) -> Any:
    return character_tokenizer([letters], size=20)


CAUSAL, TAGS = make_task(CausalLanguageModelConfig()), make_task(TokenClassificationConfig())


@pytest.mark.parametrize("task", [Classification(), CAUSAL, TAGS])
def test_equal_tokenizers_are_fine(task: Task) -> None:
    finding = compared(characters(), characters(), task)
    assert finding.level == "fine"
    assert finding.what.startswith(
        "arm distilled: the student and the teacher big: vocabularies: equal; 14 tokens shared"
    )
    assert "100% of 2 texts are cut into the same tokens" in finding.what


def test_24_the_same_tokens_under_other_ids_are_wrong_for_tokens_and_a_note_for_whole_texts() -> None:
    other = characters("hgfedcba " + "h" * 3)  # the most frequent character has another number
    for task in (CAUSAL, TAGS):
        finding = compared(characters(), other, task)
        assert finding.level == "wrong"
        assert "under other ids" in finding.what
        assert "another one" in finding.why
    note = compared(characters(), other, Classification())
    assert note.level == "fine"
    assert "under other ids" in note.what


def test_24_other_vocabularies_are_wrong_for_tokens_and_a_note_for_whole_texts() -> None:
    other = bpe_tokenizer(["ab cd hgfe"] * 3, size=300)
    assert compared(characters(), other, TAGS).level == "wrong"
    note = compared(characters(), other, Classification())
    assert note.level == "fine"
    assert "which a task on whole texts does not need" in note.what


def test_24_a_part_of_the_tokens_is_wrong_for_tokens_as_the_run_refuses_it() -> None:
    part = characters("abcdefgh ")
    whole = characters("abcdefgh xyz")
    ours = tokenizers.Tokenizer.from_str(whole.to_str())
    finding = compared(part, ours, TAGS)
    assert finding.level == "wrong"
    assert compared(part, ours, Classification()).level == "fine"


def test_another_length_reads_other_tokens() -> None:
    assert compared(characters(), characters(), TAGS, max_length=5).level == "wrong"
    assert compared(characters(), characters(), Classification(), max_length=5).level == "fine"


def test_the_share_of_texts_that_are_read_alike() -> None:
    long, short = (TextView(characters(), ("text",), length) for length in (16, 6))
    assert share_read_alike(long, short, TEXTS) == 0.5  # 7 and 6 tokens


def test_networks_that_read_other_columns_are_compared_by_those_that_both_read() -> None:
    pairs = examples({"de": ["ab cd", "hgfe"], "en": ["a", "b"]})
    both, one = (TextView(characters(), columns, 16, apart=True) for columns in (("de", "en"), ("en",)))
    assert share_read_alike(both, one, pairs) == 1.0
    other = TextView(bpe_tokenizer(["xy"], size=300), ("en",), 16, apart=True)
    assert share_read_alike(both, other, pairs) == 1.0
    other = TextView(bpe_tokenizer(["xy"], size=300), ("de",), 16, apart=True)
    assert share_read_alike(both, other, pairs) == 0.5  # they write the space of the first in different ways


def test_two_ends_of_a_text_are_found(tmp_path: Path) -> None:
    """Published models say which token ends a text; a network drawn at random has the number of its class."""
    resolved = resolve(recipe_of("causal-lm", tmp_path))
    task, splits = make_task(resolved.tasks["main"]), load_splits(resolved.data)
    ours = build_candidate("teacher", resolved.teachers["teacher"], splits, task)
    theirs = build_candidate("teacher", resolved.teachers["teacher"], splits, task)
    theirs.network.model.pretrained.config.eos_token_id = 9  # type: ignore[union-attr]
    drawn = list(check_tokenizers(ours.network, theirs, splits.train, task, arm="a", published=False))  # type: ignore[arg-type]
    assert [finding.level for finding in drawn] == ["fine"]
    published = Candidate(
        "teacher", Teacher(model=HuggingFaceModelConfig(path="there")), theirs.network, theirs.frozen, None
    )
    (finding,) = check_tokenizers(ours.network, published, splits.train, task, arm="a", published=True)  # type: ignore[arg-type]
    assert (finding.level, "eos is" in finding.what) == ("wrong", True)


# conversations and types of tokens


def test_a_chat_template_is_found_beside_the_tokenizer(tmp_path: Path) -> None:
    place = HuggingFaceModelConfig(path=str(tmp_path))
    assert chat_template(place, InputsConfig()) is None
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": "{{ a }}"}))
    assert chat_template(place, InputsConfig()) == "{{ a }}"
    (tmp_path / "chat_template.jinja").write_text("{{ b }}")
    assert chat_template(place, InputsConfig()) == "{{ b }}"
    other = InputsConfig(tokenizer=HuggingFaceTokenizerConfig(path=str(tmp_path)))
    assert chat_template(TextCnnConfig(), other) == "{{ b }}"


def test_models_without_files_have_no_chat_template(tmp_path: Path) -> None:
    assert chat_template(TextCnnConfig(), InputsConfig(tokenizer=TrainedTokenizerConfig(kind="bpe"))) is None
    assert chat_template(HuggingFaceModelConfig(config={"model_type": "bert"}), InputsConfig()) is None
    assert chat_template(HuggingFaceModelConfig(path=str(tmp_path / "gone")), InputsConfig()) is None
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": {"default": "x", "tool": "y"}}))
    assert chat_template(HuggingFaceModelConfig(path=str(tmp_path)), InputsConfig()) == '{"default": "x", "tool": "y"}'


def reading_of(kind: str, folder: Path, *overrides: str, no_types: bool = False) -> list[Finding]:
    resolved = resolve(recipe_of(kind, folder, *overrides))
    task, splits = make_task(resolved.tasks["main"]), load_splits(resolved.data)
    made = build_candidate("teacher", resolved.teachers["teacher"], splits, task).network
    if no_types:
        made.view.tokenizer.post_processor = tokenizers.processors.TemplateProcessing(  # type: ignore[union-attr]
            single="[CLS] $A", pair="[CLS] $A $B", special_tokens=[("[CLS]", 2)]
        )
    return list(check_reading("teacher big", made, resolved.teachers["teacher"].model, InputsConfig()))


def test_21_a_model_with_types_of_tokens_and_a_tokenizer_without_are_suspicious(tmp_path: Path) -> None:
    (fine,) = reading_of("question-answering", tmp_path)
    assert (fine.level, fine.what) == ("fine", "teacher big: it is told which text of a pair each token is of")
    (finding,) = reading_of("question-answering", tmp_path, no_types=True)
    assert finding.level == "suspicious"
    assert "its tokenizer says 0 for all" in finding.what


def test_a_model_without_types_is_not_told_any(tmp_path: Path) -> None:
    without = "teacher.model.config.type_vocab_size=1"
    (finding,) = reading_of("question-answering", tmp_path, without)
    assert (finding.level, "though the tokenizer would know" in finding.what) == ("fine", True)


def test_of_single_texts_and_texts_read_apart_no_type_is_said(tmp_path: Path) -> None:
    assert reading_of("text-classification", tmp_path) == []
    assert reading_of("sentence-embedding", tmp_path) == []
