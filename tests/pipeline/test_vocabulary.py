"""What is known before training of how student and teacher read texts (correctness 24)."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from distil.core.errors import CompatibilityError
from distil.core.files import read_json
from distil.data.example import TextExamples
from distil.data.text_view import TextView
from distil.data.view import View
from distil.pipeline.context import Context
from distil.pipeline.opening import opened
from distil.pipeline.run import run
from distil.pipeline.vocabulary import FILE, match_networks, match_readers, record_tokenizers
from distil.recipe.load import parse_recipe
from distil.recipe.resolve import resolve
from distil.tasks.network import Network, build_network
from tests.suites.test_text_tasks import BERT, recipe_of
from tests.tasks.networks import config, inputs

pytest.importorskip("transformers")


def recipe(kind: str, folder: Path, **changes: Any) -> dict[str, Any]:
    folder.mkdir(exist_ok=True)
    return recipe_of(kind, folder, **changes)


@pytest.fixture
def context(tmp_path: Path) -> Iterator[Context]:
    """Of masked language modelling, where networks answer for tokens."""
    resolved = resolve(parse_recipe(json.dumps(recipe("masked-lm", tmp_path / "data"))))
    with opened(resolved, tmp_path / "run") as found:
        yield found


def made(context: Context, **how: Any) -> Network:
    sizes = {"vocab_size": how.pop("vocab_size")} if "vocab_size" in how else {}
    return build_network(config(**sizes), inputs(**how), examples=context.splits.train, seed=0, task=context.task)


def notices(context: Context) -> str:
    return (context.directory.path / "events.jsonl").read_text(encoding="utf-8")


def test_24_equal_vocabularies_are_noted_and_written_for_each_arm_and_teacher(context: Context) -> None:
    student, teachers = made(context), {"first": made(context), "second": made(context)}
    match_readers(context, student, teachers, "distilled")
    match_readers(context, student, {"first": teachers["first"]}, "scratch")
    size = student.description.num_classes
    written = read_json(context.directory.path / FILE)
    expected = {
        "kind": "equal",
        "num_shared": size,
        "same_ids": True,
        "student_width": size,
        "teacher_width": size,
        "notes": [],
    }
    assert written == {"distilled": {"first": expected, "second": expected}, "scratch": {"first": expected}}
    assert f"arm distilled, teacher second: vocabularies: equal; {size:,} tokens shared" in notices(context)


def test_24_a_padded_model_is_equal_once_its_padding_is_left_out(context: Context) -> None:
    student = made(context)
    padded = made(context, vocab_size=student.description.num_classes + 9)
    found = match_networks(student, padded)
    assert found.kind == "equal"
    assert found.num_shared == student.description.num_classes
    match_readers(context, student, {"teacher": padded}, "distilled")


def test_24_a_part_of_the_teacher_s_tokens_is_refused_with_the_reason(context: Context) -> None:
    student, teacher = made(context, size=50), made(context, size=60)
    few, many = (each.view.tokenizer.get_vocab() for each in (student, teacher))  # type: ignore[union-attr]
    assert few.keys() < many.keys()
    for ours, theirs in ((student, teacher), (teacher, student)):
        with pytest.raises(
            CompatibilityError,
            match=r"arm distilled, teacher large: vocabularies: subset; 50 tokens shared.*\. Texts are then cut into "
            "other tokens, and the two answer for other places; give both the same tokenizer, or distil on texts by",
        ):
            match_readers(context, ours, {"large": theirs}, "distilled")
    assert not (context.directory.path / FILE).exists()
    assert "vocabularies: subset" in notices(context)


def test_24_other_tokens_are_refused(context: Context) -> None:
    characters = inputs().model_copy(update={"columns": ("text",)}).model_dump(exclude_none=True)
    characters["tokenizer"] = {"kind": "characters", "size": 40}
    student = build_network(
        config(),
        type(inputs()).model_validate(characters),
        examples=context.splits.train,
        seed=0,
        task=context.task,
    )
    with pytest.raises(CompatibilityError, match=r"the vocabularies are different: \d+ tokens in common"):
        match_readers(context, student, {"teacher": made(context)}, "distilled")


def test_23_texts_that_are_cut_at_other_lengths_are_refused(context: Context) -> None:
    with pytest.raises(CompatibilityError, match="max_length"):
        match_readers(context, made(context, max_length=8), {"teacher": made(context, max_length=12)}, "distilled")


def test_tasks_on_whole_texts_may_read_by_any_tokenizer(tmp_path: Path) -> None:
    resolved = resolve(parse_recipe(json.dumps(recipe("text-classification", tmp_path / "data"))))
    with opened(resolved, tmp_path / "run") as context:
        assert isinstance(context.splits.train, TextExamples)
        match_readers(context, made(context, size=50), {"teacher": made(context, size=60)}, "distilled")
        assert not (context.directory.path / FILE).exists()


def test_tags_of_words_need_the_same_tokens_though_no_network_answers_with_tokens(tmp_path: Path) -> None:
    resolved = resolve(parse_recipe(json.dumps(recipe("token-classification", tmp_path / "data"))))
    with opened(resolved, tmp_path / "run") as context:
        found = match_networks(made(context), made(context))
        assert (found.kind, found.student_width) == ("equal", made(context).view.tokenizer.get_vocab_size())  # type: ignore[union-attr]
        with pytest.raises(CompatibilityError, match="arm distilled, teacher teacher: vocabularies: subset"):
            match_readers(context, made(context, size=40), {"teacher": made(context, size=60)}, "distilled")


def test_24_a_run_is_stopped_before_any_student_is_trained(tmp_path: Path) -> None:
    student = {
        "model": {"kind": "huggingface", "config": BERT},
        "inputs": {"tokenizer": {"kind": "wordpiece", "size": 60}, "max_length": 24},
    }
    written = recipe("masked-lm", tmp_path / "data", student=student)
    with pytest.raises(CompatibilityError, match="teacher teacher: vocabularies: subset"):
        run(parse_recipe(json.dumps(written)), tmp_path / "run")
    assert (tmp_path / "run" / "teachers").is_dir()
    assert not (tmp_path / "run" / "arms").exists()


def test_the_tokenizers_of_a_run_are_on_record(context: Context) -> None:
    teacher, student, other = made(context).view, made(context, max_length=8).view, made(context, size=40).view
    record_tokenizers(context, {"big": teacher}, {"scratch": student, "distilled": student})
    written = read_json(context.directory.path / "data.json")["text"]
    assert written["columns"] == ["text"]
    assert isinstance(student, TextView)
    assert isinstance(teacher, TextView)
    size = teacher.tokenizer.get_vocab_size()
    assert written["tokenizers"] == {
        "student": {"digest": student.digest, "vocabulary": size, "max_length": 8},
        "big": {"digest": teacher.digest, "vocabulary": size, "max_length": 12},
    }
    record_tokenizers(context, {}, {"scratch": student, "distilled": other})
    written = read_json(context.directory.path / "data.json")["text"]["tokenizers"]
    assert list(written) == ["student of distilled", "student of scratch"]


def test_of_images_no_tokenizer_is_on_record(context: Context) -> None:
    before = read_json(context.directory.path / "data.json")
    record_tokenizers(context, {}, {"scratch": View(1, 8, 8, (0.0,), (1.0,))})
    assert read_json(context.directory.path / "data.json") == before


def test_a_writer_may_read_more_than_its_student(tmp_path: Path) -> None:
    resolved = resolve(parse_recipe(json.dumps(recipe("sequence-to-sequence", tmp_path / "data"))))
    with opened(resolved, tmp_path / "run") as context:
        networks = [
            build_network(
                config("t5"), inputs(max_length=length), examples=context.splits.train, seed=0, task=context.task
            )
            for length in (8, 12)
        ]
        match_readers(context, networks[0], {"teacher": networks[1]}, "distilled")
        assert read_json(context.directory.path / FILE)["distilled"]["teacher"]["kind"] == "equal"
