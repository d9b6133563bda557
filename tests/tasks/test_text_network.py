"""Networks for texts with the tokenizer they read by: whose, how long, and what a task makes of them."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from distil.core.errors import CompatibilityError, MissingExtraError, ModelError
from distil.data.config import InputsConfig
from distil.data.text_view import TextView
from distil.data.tokenizer import wordpiece_tokenizer
from distil.models.config import FileWeights, MlpConfig, PretrainedWeights
from distil.models.huggingface import load_pretrained
from distil.models.huggingface_network import HuggingFaceNetwork
from distil.models.text import TextCnn
from distil.models.text_config import HuggingFaceModelConfig, TextCnnConfig
from distil.tasks.choice import make_task
from distil.tasks.classification import Classification
from distil.tasks.config import (
    CausalLanguageModelConfig,
    MaskedLanguageModelConfig,
    QuestionAnsweringConfig,
    SentenceEmbeddingConfig,
    SequenceToSequenceConfig,
    TaskConfig,
    TextClassificationConfig,
    TokenClassificationConfig,
)
from distil.tasks.side import KnownTokens, Sides, Windows
from distil.tasks.text_network import MAX_LENGTH, build_text_model, for_task, text_view, with_facts_of
from tests.data.texts import make_texts
from tests.tasks.networks import config, inputs, network

pytest.importorskip("transformers")

TEXTS = ["red blue old", "green new", "old red small large", "blue red", "new old green"]
EXAMPLES = make_texts({"text": TEXTS, "other": TEXTS[::-1]}, labels=[0, 1, 2, 0, 1], class_names="abc")
ONE = replace(EXAMPLES, columns={"text": EXAMPLES.columns["text"]})
CNN = TextCnnConfig(embedding=4, widths=4, kernels=(2,))
TASK = Classification()


def made(task: TaskConfig, *, family: str = "bert", how: InputsConfig | None = None) -> TextView:
    return text_view(config(family), how or inputs(), examples=EXAMPLES, task=make_task(task))


# views


def test_a_vocabulary_of_its_own_is_made_from_the_columns_that_are_read() -> None:
    both = text_view(CNN, inputs(), examples=EXAMPLES, task=TASK)
    assert both.columns == ("text", "other")
    odd = replace(EXAMPLES, columns={**EXAMPLES.columns, "other": ("zzz zzz",) * 5})
    first = text_view(CNN, inputs(columns=("text",)), examples=odd, task=TASK)
    second = text_view(CNN, inputs(), examples=odd, task=TASK)
    assert first.columns == ("text",)
    assert first.tokenizer.token_to_id("z") is None
    assert second.tokenizer.token_to_id("z") is not None


@pytest.mark.parametrize("kind", ["characters", "wordpiece", "bpe"])
def test_each_kind_of_vocabulary_reads_what_it_was_made_from(kind: str) -> None:
    how = InputsConfig.model_validate(
        {"tokenizer": {"kind": kind, "size": 300, "lowercase": True}, "columns": ["text"]}
    )
    view = text_view(CNN, how, examples=EXAMPLES, task=TASK)
    read = view({"text": ["Red OLD"]})["input_ids"][0].tolist()
    assert view.tokenizer.token_to_id("[UNK]") not in read
    assert view.tokenizer.decode(read) == "red old"
    assert view.pad_id == view.tokenizer.token_to_id("[PAD]")
    assert view.max_length == MAX_LENGTH


def test_words_make_a_vocabulary_too() -> None:
    words = make_texts({"text": [text.split() for text in TEXTS]}, class_names=("O", "B-N"))
    view = text_view(CNN, inputs(), examples=words, task=make_task(TokenClassificationConfig()))
    assert view.tokenizer.token_to_id("red") is not None
    of_words = [encoding.word_ids[1:-1] for encoding in view.encodings(words.columns)]
    assert [max(each) + 1 for each in of_words] == [3, 2, 4, 2, 3]


@pytest.mark.parametrize(
    ("task", "facts"),
    [
        (TextClassificationConfig(), (False, False, None)),
        (SentenceEmbeddingConfig(), (True, False, None)),
        (CausalLanguageModelConfig(), (False, True, None)),
        (QuestionAnsweringConfig(stride=3), (False, True, 3)),
    ],
    ids=lambda value: getattr(value, "kind", ""),
)
def test_how_texts_are_put_together_is_the_task_s(task: TaskConfig, facts: tuple[Any, ...]) -> None:
    view = made(task)
    assert (view.apart, view.fixed, view.overlap) == facts
    assert view.max_length == 12


def test_20_equal_settings_give_equal_views_that_do_not_share_a_tokenizer() -> None:
    first, second = (made(TextClassificationConfig()) for _ in range(2))
    assert first.digest == second.digest
    assert first.tokenizer is not second.tokenizer
    short = made(TextClassificationConfig(), how=inputs(max_length=4))
    long_text = {"text": ["red blue old new green"], "other": ["red"]}
    assert short(long_text)["input_ids"].shape == (1, 4)
    assert first(long_text)["input_ids"].shape == (1, 9)


def test_a_view_that_is_cut_from_another_reads_by_a_copy_of_its_tokenizer() -> None:
    own = replace(made(TextClassificationConfig()), pad_id=2, start_id=3, type_ids=True)
    view = text_view(None, InputsConfig(max_length=5, columns=("other",)), examples=EXAMPLES, task=TASK, own=own)
    assert (view.max_length, view.columns, view.pad_id, view.start_id, view.type_ids) == (5, ("other",), 2, 3, True)
    assert view.tokenizer is not own.tokenizer
    assert view.tokenizer.get_vocab() == own.tokenizer.get_vocab()
    assert own(EXAMPLES.columns)["input_ids"].shape[1] > 5
    same = text_view(None, InputsConfig(), examples=EXAMPLES, task=TASK, own=own)
    assert same.digest == own.digest


def test_settings_of_images_are_refused() -> None:
    with pytest.raises(CompatibilityError, match=r"inputs\.size is for images, and the data are texts; remove it"):
        made(TextClassificationConfig(), how=InputsConfig(size=8))


def test_a_model_without_a_tokenizer_is_told_to_name_one() -> None:
    for model in (CNN, config()):
        with pytest.raises(ModelError, match=r"inputs\.tokenizer: the model has none of its own; set it, such as"):
            text_view(model, InputsConfig(), examples=EXAMPLES, task=TASK)


def test_a_column_that_is_not_there_is_named() -> None:
    with pytest.raises(CompatibilityError, match="body"):
        made(TextClassificationConfig(), how=inputs(columns=("text", "body")))


# published models


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of transformers with its tokenizer, whose padding is named in a file beside it."""
    folder = tmp_path_factory.mktemp("published")
    tokenizer = wordpiece_tokenizer(TEXTS, size=60)
    tokenizer.no_padding()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"pad_token": "[PAD]"}))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = load_pretrained(
            config(), head="classes", num_outputs=3, vocabulary_size=tokenizer.get_vocab_size(), pad_token_id=0
        )
    model.save_folder(folder)
    return folder


def test_21_a_published_model_reads_by_its_own_tokenizer(published: Path) -> None:
    model = HuggingFaceModelConfig(path=str(published))
    view = text_view(model, InputsConfig(columns=("text",)), examples=EXAMPLES, task=TASK)
    assert view.tokenizer.get_vocab() == wordpiece_tokenizer(TEXTS, size=60).get_vocab()
    assert view.pad_id == 0
    named = InputsConfig.model_validate({"tokenizer": {"kind": "huggingface", "path": str(published)}})
    other = text_view(CNN, named, examples=EXAMPLES, task=TASK)
    assert other.tokenizer.get_vocab() == view.tokenizer.get_vocab()


def test_a_published_model_comes_with_its_weights_and_the_seed_changes_none(published: Path) -> None:
    model = HuggingFaceModelConfig(path=str(published))
    view = text_view(model, InputsConfig(columns=("text",)), examples=EXAMPLES, task=TASK)
    built = [
        build_text_model(model, view, num_outputs=3, task=TASK, seed=seed, weights=PretrainedWeights()).state_dict()
        for seed in (0, 1)
    ]
    assert all(torch.equal(built[0][name], built[1][name]) for name in built[0])


# networks


def build(model: Any, task: TaskConfig, **settings: Any) -> nn.Module:
    chosen = make_task(task)
    view = text_view(model, inputs(), examples=EXAMPLES, task=chosen)
    outputs = settings.pop("num_outputs", chosen.num_outputs(EXAMPLES))
    return build_text_model(model, view, num_outputs=outputs, task=chosen, weights=None, **{"seed": 0, **settings})


def test_33_initial_weights_are_a_function_of_the_seed_and_leave_the_generator_alone() -> None:
    for model in (CNN, config()):
        torch.manual_seed(7)
        expected = torch.rand(1)
        torch.manual_seed(7)
        first, again, other = (build(model, TextClassificationConfig(), seed=seed).state_dict() for seed in (0, 0, 1))
        assert torch.equal(torch.rand(1), expected)
        name = next(name for name, value in first.items() if value.ndim == 2)
        assert torch.equal(first[name], again[name])
        assert not torch.equal(first[name], other[name])


@pytest.mark.parametrize(
    ("task", "family", "kind"),
    [
        (TextClassificationConfig(), "bert", HuggingFaceNetwork),
        (TokenClassificationConfig(), "bert", HuggingFaceNetwork),
        (MaskedLanguageModelConfig(), "bert", HuggingFaceNetwork),
        (CausalLanguageModelConfig(), "llama", HuggingFaceNetwork),
        (SequenceToSequenceConfig(), "t5", HuggingFaceNetwork),
        (QuestionAnsweringConfig(stride=2), "bert", Windows),
        (SentenceEmbeddingConfig(), "bert", Sides),
    ],
    ids=lambda value: getattr(value, "kind", ""),
)
def test_what_a_task_puts_around_a_network(task: TaskConfig, family: str, kind: type[nn.Module]) -> None:
    model = build(config(family), task)
    assert type(model) is kind
    (inside,) = [each for each in model.modules() if isinstance(each, HuggingFaceNetwork)]
    assert inside.head == make_task(task).head


def test_embeddings_are_as_wide_as_the_task_says() -> None:
    plain, wider = build(config(), SentenceEmbeddingConfig()), build(config(), SentenceEmbeddingConfig(features=5))
    assert isinstance(plain, Sides)
    assert isinstance(wider, Sides)
    assert isinstance(plain.projection, nn.Identity)
    assert isinstance(wider.projection, nn.Linear)
    assert (wider.projection.in_features, wider.projection.out_features) == (16, 5)
    again = build(config(), SentenceEmbeddingConfig(features=5))
    assert torch.equal(again.projection.weight, wider.projection.weight)  # type: ignore[union-attr]


def test_24_places_beyond_the_tokenizer_s_tokens_are_left_out() -> None:
    task = make_task(CausalLanguageModelConfig())
    view = text_view(config("llama"), inputs(), examples=ONE, task=task)
    size = view.tokenizer.get_vocab_size()
    wider = config("llama", vocab_size=size + 8)
    model = build_text_model(wider, view, num_outputs=None, task=task, seed=0, weights=None)
    assert isinstance(model, KnownTokens)
    assert model.eval()(view(ONE.columns)).shape[-1] == size
    bare = next(each for each in model.modules() if isinstance(each, HuggingFaceNetwork))
    assert for_task(bare, task, num_tokens=size + 8) is bare


def test_a_small_network_answers_for_whole_texts_alone() -> None:
    assert isinstance(build(CNN, TextClassificationConfig()), TextCnn)
    with pytest.raises(ModelError, match="kind text-cnn answers for whole texts; take one of huggingface"):
        build(CNN, TokenClassificationConfig(), num_outputs=2)


def test_a_network_for_images_is_refused() -> None:
    with pytest.raises(ModelError, match="kind mlp takes images, and the data are texts; use huggingface or text-cnn"):
        build(MlpConfig(widths=(4,)), TextClassificationConfig())


def test_weights_come_from_a_file_and_published_ones_only_where_there_are_some(tmp_path: Path) -> None:
    view = text_view(CNN, inputs(), examples=EXAMPLES, task=TASK)

    def built(seed: int, weights: Any) -> nn.Module:
        return build_text_model(CNN, view, num_outputs=3, task=TASK, seed=seed, weights=weights)

    first = built(0, None).state_dict()
    save_file(first, tmp_path / "weights.safetensors")
    loaded = built(1, FileWeights(path=str(tmp_path / "weights.safetensors"))).state_dict()
    assert all(torch.equal(first[name], loaded[name]) for name in first)
    for model in (CNN, config()):
        with pytest.raises(
            ModelError, match="weights: pretrained is for a published model; this one is drawn at random"
        ):
            build_text_model(model, view, num_outputs=3, task=TASK, seed=0, weights=PretrainedWeights())


# what a network says of its input


def test_21_types_are_made_where_the_network_knows_several() -> None:
    assert with_facts_of(made(TextClassificationConfig()), build(config(), TextClassificationConfig())).type_ids
    one = build(config(type_vocab_size=1), TextClassificationConfig())
    assert not with_facts_of(made(TextClassificationConfig()), one).type_ids
    assert not with_facts_of(made(TextClassificationConfig()), build(CNN, TextClassificationConfig())).type_ids


def test_12_a_decoder_starts_from_padding_where_its_settings_name_nothing() -> None:
    made_network = network(make_task(SequenceToSequenceConfig()), replace(ONE, wanted={"target": tuple(TEXTS)}), "t5")
    view = made_network.view
    assert isinstance(view, TextView)
    assert view.start_id == view.pad_id
    pretrained: Any = made_network.model.pretrained
    assert pretrained.generation_config.decoder_start_token_id == view.pad_id


def test_12_a_decoder_drawn_at_random_ends_where_its_tokenizer_ends_a_text() -> None:
    made_network = network(make_task(SequenceToSequenceConfig()), replace(ONE, wanted={"target": tuple(TEXTS)}), "t5")
    view = made_network.view
    assert isinstance(view, TextView)
    (encoding,) = view.encodings({"text": ["red"]})
    pretrained: Any = made_network.model.pretrained
    assert pretrained.generation_config.eos_token_id == encoding.ids[-1]
    assert view.end_id == encoding.ids[-1]


def test_12_an_end_that_the_settings_name_stays_and_a_tokenizer_without_one_is_refused() -> None:
    task, examples = make_task(SequenceToSequenceConfig()), replace(ONE, wanted={"target": tuple(TEXTS)})
    view = network(task, examples, "t5", eos_token_id=7).view
    assert isinstance(view, TextView)
    assert view.end_id == 7
    plain = text_view(config("t5"), inputs(), examples=ONE, task=task)
    content = json.loads(plain.tokenizer.to_str()) | {"post_processor": None}
    bare = replace(plain, tokenizer=type(plain.tokenizer).from_str(json.dumps(content)), _known={})
    with pytest.raises(ModelError, match="it puts no token at the end of a text"):
        build_text_model(config("t5"), bare, num_outputs=None, task=task, seed=0, weights=None)


def test_a_network_that_says_nothing_of_its_input_reads_as_before() -> None:
    view = made(TextClassificationConfig())
    found = with_facts_of(view, nn.Identity())
    assert (found.type_ids, found.start_id, found.end_id) == (False, view.pad_id, 0)
    assert found.tokenizer is view.tokenizer


def test_a_missing_library_names_the_pip_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    how = InputsConfig.model_validate({"tokenizer": {"kind": "characters", "size": 31}})
    with pytest.raises(MissingExtraError, match=r"distil\[text\]"):
        text_view(CNN, how, examples=EXAMPLES, task=TASK)
