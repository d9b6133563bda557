"""Students that start from a teacher's weights: the same where all is kept, and never the teacher itself."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from distil.core.errors import CompatibilityError, ModelError
from distil.core.inputs import Inputs
from distil.data.config import InputsConfig
from distil.data.example import TextExamples
from distil.data.text_view import TextView
from distil.models.config import MlpConfig
from distil.models.huggingface_network import HuggingFaceNetwork
from distil.models.shrink_config import ShrinkConfig
from distil.models.text_config import TextCnnConfig
from distil.tasks.choice import make_task
from distil.tasks.classification import Classification
from distil.tasks.config import (
    CausalLanguageModelConfig,
    MaskedLanguageModelConfig,
    QuestionAnsweringConfig,
    RankingConfig,
    SentenceEmbeddingConfig,
    TaskConfig,
    TextClassificationConfig,
    TokenClassificationConfig,
)
from distil.tasks.cut import build_student, cut_network
from distil.tasks.network import Network
from distil.tasks.task import Task
from tests.data.texts import make_texts
from tests.tasks.networks import network

pytest.importorskip("transformers")

COLOURS = ("red", "blue", "green", "old", "new", "small", "large", "warm", "cold", "dry")
TEXTS = [" ".join(COLOURS[(3 * row + step) % 10] for step in range(2 + row % 4)) for row in range(12)]
ALL = ShrinkConfig(layers=2)
ONE = ShrinkConfig(layers=1, keep="last")


def classified() -> TextExamples:
    return make_texts({"text": TEXTS}, labels=[row % 3 for row in range(12)], class_names="abc")


def paired() -> TextExamples:
    return make_texts({"text": TEXTS, "other": TEXTS[::-1]})


def tagged() -> TextExamples:
    words = [text.split() for text in TEXTS]
    tags = [[len(word) % 2 for word in row] for row in words]
    return replace(make_texts({"text": words}, class_names=("O", "B-N")), wanted={"labels": tuple(tags)})


def answered() -> TextExamples:
    answers = [{"text": [text.split()[0]], "answer_start": [0]} for text in TEXTS]
    return make_texts({"question": ["old"] * 12, "context": TEXTS}, answers=answers)


CASES: dict[str, tuple[TaskConfig, TextExamples, str]] = {
    "classes": (TextClassificationConfig(), classified(), "bert"),
    "tags": (TokenClassificationConfig(), tagged(), "bert"),
    "masked": (MaskedLanguageModelConfig(), make_texts({"text": TEXTS}), "bert"),
    "causal": (CausalLanguageModelConfig(), make_texts({"text": TEXTS}), "llama"),
    "answers": (QuestionAnsweringConfig(stride=2), answered(), "bert"),
    "embeddings": (SentenceEmbeddingConfig(), paired(), "bert"),
}


def teacher_for(case: str, **changes: Any) -> tuple[Network, TextExamples, Task]:
    config, examples, family = CASES[case]
    task = make_task(config)
    made = network(task, examples, family, **changes)
    made.model.requires_grad_(False)
    return made, examples, task


def answers(made: Network, examples: TextExamples, task: Task) -> Tensor:
    (batch,) = list(task.batches(examples.select(torch.arange(4)), {"model": made.view}))
    inputs: Inputs = batch.inputs["model"]
    with torch.no_grad():
        return made.model.eval()(inputs)


def core(made: Network) -> HuggingFaceNetwork:
    return next(each for each in made.model.modules() if isinstance(each, HuggingFaceNetwork))


def text_of(made: Network) -> TextView:
    assert isinstance(made.view, TextView)
    return made.view


@pytest.mark.parametrize("case", CASES)
def test_a_student_that_keeps_all_layers_says_what_its_teacher_says(case: str) -> None:
    teacher, examples, task = teacher_for(case)
    student = cut_network(teacher, ALL, InputsConfig(), examples=examples, task=task)
    expected = answers(teacher, examples, task)
    assert torch.equal(answers(student, examples, task), expected)
    assert float(expected[expected.isfinite()].std()) > 1e-3
    assert student.description.num_classes == teacher.description.num_classes
    assert text_of(student).digest == text_of(teacher).digest


@pytest.mark.parametrize("case", CASES)
def test_16_a_student_s_weights_are_its_own_and_trained_while_the_teacher_s_stay(case: str) -> None:
    teacher, examples, task = teacher_for(case)
    before = {name: value.clone() for name, value in teacher.model.state_dict().items()}
    student = cut_network(teacher, ONE, InputsConfig(), examples=examples, task=task)
    assert all(parameter.requires_grad for parameter in student.model.parameters())
    assert not any(parameter.requires_grad for parameter in teacher.model.parameters())
    shared = {each.data_ptr() for each in teacher.model.parameters()} & {
        p.data_ptr() for p in student.model.parameters()
    }
    assert not shared
    with torch.no_grad():
        for parameter in student.model.parameters():
            parameter.add_(1.0)
    assert all(torch.equal(before[name], value) for name, value in teacher.model.state_dict().items())


def test_22_the_layers_that_stay_are_the_teacher_s_and_so_is_the_class_head() -> None:
    teacher, examples, task = teacher_for("classes")
    student = cut_network(teacher, ONE, InputsConfig(), examples=examples, task=task)
    theirs, ours = core(teacher).pretrained, core(student).pretrained
    assert len(ours.bert.encoder.layer) == 1
    for one, other in (
        (ours.bert.encoder.layer[0], theirs.bert.encoder.layer[1]),
        (ours.bert.embeddings, theirs.bert.embeddings),
        (ours.bert.pooler, theirs.bert.pooler),
        (ours.classifier, theirs.classifier),
    ):
        pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
        assert all(torch.equal(*pair) for pair in pairs)
    assert not torch.equal(answers(student, examples, task), answers(teacher, examples, task))


def test_pooling_and_length_of_embeddings_are_the_teacher_s() -> None:
    teacher, examples, task = teacher_for("embeddings", pooling="first", normalise=False)
    student = cut_network(teacher, ALL, InputsConfig(), examples=examples, task=task)
    assert (core(student).pooling, core(student).normalise) == ("first", False)
    assert torch.equal(answers(student, examples, task), answers(teacher, examples, task))


def test_widths_are_cut_by_what_the_texts_need() -> None:
    teacher, examples, task = teacher_for("classes")
    config = ShrinkConfig(feed_forward=12, layers=2)
    student = cut_network(teacher, config, InputsConfig(), examples=examples, task=task)
    assert core(student).pretrained.config.intermediate_size == 12
    assert student.description.num_parameters < teacher.description.num_parameters
    again = cut_network(teacher, config, InputsConfig(), examples=examples, task=task)
    assert torch.equal(answers(again, examples, task), answers(student, examples, task))


def test_the_student_reads_to_a_length_of_its_own_and_the_teacher_s_view_stays() -> None:
    teacher, examples, task = teacher_for("classes")
    student = cut_network(teacher, ALL, InputsConfig(max_length=5), examples=examples, task=task)
    long = {"text": [" ".join(COLOURS)]}
    assert text_of(student)(long)["input_ids"].shape == (1, 5)
    assert text_of(teacher)(long)["input_ids"].shape == (1, 12)


# a smaller vocabulary


def test_24_a_cut_vocabulary_gives_a_view_with_the_smaller_tokenizer_and_the_same_answers() -> None:
    rare = ["uncommon thing", *TEXTS[1:]]
    examples = replace(classified(), columns={"text": tuple(rare)})
    task = Classification()
    teacher = network(task, examples, size=60)
    teacher.model.requires_grad_(False)
    there = text_of(teacher).tokenizer.get_vocab_size()
    kept = there - 4
    common = examples.select(torch.arange(1, 12))
    config = ShrinkConfig(vocabulary=kept)
    student = cut_network(teacher, config, InputsConfig(), examples=common, task=task)
    assert text_of(student).tokenizer.get_vocab_size() == kept
    assert core(student).pretrained.get_input_embeddings().weight.shape[0] == kept
    assert text_of(teacher).tokenizer.get_vocab_size() == there
    # frequent texts are cut into the same tokens, so the same is said of them
    torch.testing.assert_close(answers(student, common, task), answers(teacher, common, task))
    read = text_of(student)(common.columns)["input_ids"]
    assert int(read.max()) < kept


def test_24_a_language_model_answers_for_the_tokens_that_stay() -> None:
    teacher, examples, task = teacher_for("causal")
    kept = text_of(teacher).tokenizer.get_vocab_size() - 2
    student = cut_network(teacher, ShrinkConfig(vocabulary=kept), InputsConfig(), examples=examples, task=task)
    assert student.description.num_classes == kept


def test_24_the_padding_has_its_new_number() -> None:
    """The tokenizers of Qwen and GPT-2 have their padding behind all other tokens."""
    teacher, examples, task = teacher_for("classes")
    tokenizer = text_of(teacher).tokenizer
    tokenizer.add_special_tokens(["<|pad|>"])
    last = tokenizer.token_to_id("<|pad|>")
    pretrained = core(teacher).pretrained
    pretrained.resize_token_embeddings(last + 1)
    pretrained.config.pad_token_id = last
    teacher = replace(teacher, view=replace(text_of(teacher), pad_id=last, _known={}))
    student = cut_network(teacher, ShrinkConfig(vocabulary=last - 2), InputsConfig(), examples=examples, task=task)
    assert text_of(student).pad_id == text_of(student).tokenizer.token_to_id("<|pad|>")


# embeddings through a projection


def projected() -> tuple[Network, TextExamples, Task]:
    examples, task = paired(), make_task(SentenceEmbeddingConfig(features=5))
    teacher = network(task, examples)
    teacher.model.requires_grad_(False)
    return teacher, examples, task


def test_31_the_projection_of_a_student_does_not_depend_on_what_was_drawn_before() -> None:
    teacher, examples, task = projected()
    found = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        student = build_student(
            None,
            ALL,
            InputsConfig(),
            teachers={"teacher": teacher},
            teacher=None,
            examples=examples,
            seed=0,
            task=task,
        )
        found.append(answers(student, examples, task))
    assert torch.equal(found[0], found[1])


def test_a_student_that_keeps_all_layers_keeps_the_projection_too() -> None:
    teacher, examples, task = projected()
    student = cut_network(teacher, ALL, InputsConfig(), examples=examples, task=task)
    assert torch.equal(answers(student, examples, task), answers(teacher, examples, task))


def test_a_bi_encoder_keeps_the_scale_and_bias_of_its_teacher() -> None:
    examples, task = paired(), make_task(RankingConfig(scorer="bi-encoder"))
    examples = replace(examples, class_names=("other", "right"))
    teacher = network(task, examples)
    with torch.no_grad():
        for parameter, value in zip((teacher.model.scale, teacher.model.bias), (3.0, -2.0), strict=True):
            parameter.fill_(value)  # type: ignore[operator]
    student = cut_network(teacher, ALL, InputsConfig(), examples=examples, task=task)
    assert torch.equal(answers(student, examples, task), answers(teacher, examples, task))


def test_31_a_projection_of_another_width_is_the_seed_s() -> None:
    teacher, examples, task = projected()
    narrow = ShrinkConfig(layers=2, hidden=8)
    first, again, other = (
        cut_network(teacher, narrow, InputsConfig(), examples=examples, task=task, seed=seed) for seed in (0, 0, 1)
    )
    said = [answers(each, examples, task) for each in (first, again, other)]
    assert torch.equal(said[0], said[1])
    assert not torch.equal(said[0], said[2])


# whose student


def build(config: Any, teachers: dict[str, Network], teacher: str | None, **changes: Any) -> Network:
    return build_student(
        config,
        None if config is not None else ALL,
        changes.get("inputs", InputsConfig()),
        teachers=teachers,
        teacher=teacher,
        examples=classified(),
        seed=changes.get("seed", 0),
        task=Classification(),
    )


def test_of_two_teachers_one_must_be_named() -> None:
    first, _, _ = teacher_for("classes")
    second, _, _ = teacher_for("classes", seed=1)
    teachers = {"first": first, "second": second}
    with pytest.raises(
        CompatibilityError, match=r"student\.teacher: name the teacher that it is cut from: first, second"
    ):
        build(None, teachers, None)
    with pytest.raises(CompatibilityError, match=r"there is no teacher 'third'; there are first, second"):
        build(None, teachers, "third")
    task = Classification()
    for name, teacher in teachers.items():
        student = build(None, teachers, name)
        assert torch.equal(answers(student, classified(), task), answers(teacher, classified(), task))
    alone = build(None, {"second": second}, None)
    assert torch.equal(answers(alone, classified(), task), answers(second, classified(), task))


def test_without_a_teacher_there_is_nothing_to_cut() -> None:
    with pytest.raises(CompatibilityError, match=r"student\.teacher: name the teacher"):
        build(None, {}, None)


def test_33_a_network_of_its_own_starts_from_the_seed_alone() -> None:
    inputs = InputsConfig.model_validate({"tokenizer": {"kind": "wordpiece", "size": 60}, "max_length": 8})
    config, task = TextCnnConfig(embedding=4, widths=4, kernels=(2,)), Classification()
    first, again, other = (build(config, {}, None, inputs=inputs, seed=seed) for seed in (0, 0, 1))
    said = [answers(each, classified(), task) for each in (first, again, other)]
    assert torch.equal(said[0], said[1])
    assert not torch.equal(said[0], said[2])


def test_a_teacher_of_another_kind_cannot_be_cut() -> None:
    inputs = InputsConfig.model_validate({"tokenizer": {"kind": "wordpiece", "size": 60}, "max_length": 8})
    teacher = build(TextCnnConfig(embedding=4, widths=4, kernels=(2,)), {}, None, inputs=inputs)
    with pytest.raises(ModelError, match=r"the teacher is no model of kind huggingface; give student\.model"):
        build(None, {"teacher": teacher}, None)
    with pytest.raises(ModelError, match=r"kind mlp takes images, and the data are texts; use huggingface or text-cnn"):
        build(MlpConfig(widths=(4,)), {}, None, inputs=inputs)


def test_24_a_student_with_the_teacher_s_weights_reads_by_the_teacher_s_tokenizer() -> None:
    teacher, _, _ = teacher_for("classes")
    other = InputsConfig.model_validate({"tokenizer": {"kind": "characters", "size": 20}})
    with pytest.raises(CompatibilityError, match=r"student\.inputs\.tokenizer: .* by the teacher's tokenizer; remove"):
        build(None, {"teacher": teacher}, None, inputs=other)


def test_a_module_around_the_teacher_s_network_does_not_hide_it() -> None:
    teacher, examples, task = teacher_for("classes")
    wrapped = replace(teacher, model=nn.Sequential(teacher.model))
    student = cut_network(wrapped, ALL, InputsConfig(), examples=examples, task=task)
    assert torch.equal(answers(student, examples, task), answers(teacher, examples, task))
