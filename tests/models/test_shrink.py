"""Students cut from tiny teachers: the same where nothing is cut, ordinary folders, and the teacher untouched."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from distil.core.errors import ModelError
from distil.models.importance import measure_importance
from distil.models.shrink import describe_cut, kept_layers, shrink
from distil.models.shrink_config import ShrinkConfig
from tests.models.tiny_transformers import CLASSES, answer, build, classifier, texts

pytest.importorskip("transformers", reason="models of transformers are cut")

STACKS = {"bert": "encoder", "roberta": "encoder", "distilbert": "transformer", "gpt2": "", "llama": "", "qwen2": ""}
LISTS = {"gpt2": "h", "llama": "layers", "qwen2": "layers"}
WITH_OUTPUT_TIED = ["BertForMaskedLM", "RobertaForMaskedLM", "DistilBertForMaskedLM", "GPT2LMHeadModel"]
FRESH_PROCESS = """
import json, sys
sys.modules["distil"] = None  # any import of it is an error
import torch, transformers
from pathlib import Path
from safetensors.torch import load_file, save_file
for folder in sys.argv[1:]:
    auto = getattr(transformers, (Path(folder) / "auto.txt").read_text())
    model, loading = auto.from_pretrained(folder, output_loading_info=True)
    assert not any(loading[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")), loading
    with torch.no_grad():
        said = model(**load_file(folder + "/inputs.safetensors"))[0]
    save_file({"said": said.contiguous()}, folder + "/said.safetensors")
    tied = model.get_output_embeddings()
    if model.config.tie_word_embeddings and tied is not None:
        assert tied.weight is model.get_input_embeddings().weight
"""


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def cut(model: Any, **settings: Any) -> Any:
    return shrink(model, ShrinkConfig(**settings), importance=measure_importance(model, [texts(model)]))


@pytest.mark.parametrize(("family", "name"), CLASSES)
def test_a_student_of_all_layers_and_full_widths_answers_with_the_same_bits(family: str, name: str) -> None:
    model = build(family, name)
    student = shrink(model, ShrinkConfig(layers=4, hidden=24, heads=6, feed_forward=20))
    assert type(student) is type(model)
    assert torch.equal(answer(student, texts(model)), answer(model, texts(model)))
    assert student.config.to_dict() == model.config.to_dict()


@pytest.mark.parametrize(
    ("there", "settings", "expected"),
    [
        (6, {"layers": 3}, (0, 2, 5)),  # 2.5 is a half, and goes to the even number
        (6, {"layers": 2}, (0, 5)),
        (12, {"layers": 6}, (0, 2, 4, 7, 9, 11)),
        (12, {"layers": 4}, (0, 4, 7, 11)),
        (12, {"layers": 3}, (0, 6, 11)),
        (6, {"layers": 6}, (0, 1, 2, 3, 4, 5)),
        (1, {"hidden": 24}, (0,)),
        (6, {"hidden": 24}, (0, 1, 2, 3, 4, 5)),
        (6, {"layers": 2, "keep": "first"}, (0, 1)),
        (6, {"layers": 2, "keep": "last"}, (4, 5)),
        (6, {"layers": 1, "keep": "last"}, (5,)),
        (6, {"keep": (1, 4)}, (1, 4)),
    ],
)
def test_22_which_layers_stay_by_hand(there: int, settings: dict[str, Any], expected: tuple[int, ...]) -> None:
    model = build("bert", "BertModel", num_hidden_layers=there)
    assert kept_layers(model, ShrinkConfig(**settings)) == expected


@pytest.mark.parametrize("there", [2, 5, 12, 13])
def test_22_spaced_layers_are_each_once_with_the_first_and_the_last(there: int) -> None:
    model = build("bert", "BertModel", num_hidden_layers=there)
    for num in range(2, there + 1):
        kept = kept_layers(model, ShrinkConfig(layers=num))
        assert len(kept) == num == len(set(kept))
        assert (kept[0], kept[-1]) == (0, there - 1)
        assert list(kept) == sorted(kept)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"layers": 5}, "layers is 5 and the model has 4"),
        ({"keep": (0, 4)}, "keep names layer 4 and the model has layers 0 to 3"),
    ],
)
def test_22_layers_that_are_not_there_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        shrink(classifier(), ShrinkConfig(**settings))


@pytest.mark.parametrize("family", STACKS)
def test_a_student_of_fewer_layers_is_the_teacher_without_the_others(family: str) -> None:
    model = classifier(family)
    student = shrink(model, ShrinkConfig(keep=(0, 3)))
    stack = model.base_model.get_submodule(STACKS[family])
    layers = getattr(stack, LISTS.get(family, "layer"))
    setattr(stack, LISTS.get(family, "layer"), nn.ModuleList([layers[0], layers[3]]))
    assert torch.equal(answer(student, texts(model)), answer(model, texts(model)))


SMALL = {
    "BertForSequenceClassification": "AutoModelForSequenceClassification",
    "BertForTokenClassification": "AutoModelForTokenClassification",
    "BertForMaskedLM": "AutoModelForMaskedLM",
    "BertModel": "AutoModel",
    "RobertaForSequenceClassification": "AutoModelForSequenceClassification",
    "RobertaForMaskedLM": "AutoModelForMaskedLM",
    "DistilBertForQuestionAnswering": "AutoModelForQuestionAnswering",
    "DistilBertForMaskedLM": "AutoModelForMaskedLM",
    "GPT2LMHeadModel": "AutoModelForCausalLM",
    "LlamaForCausalLM": "AutoModelForCausalLM",
    "Qwen2ForCausalLM": "AutoModelForCausalLM",
    "Qwen3ForSequenceClassification": "AutoModelForSequenceClassification",
}


def test_35_saved_it_is_an_ordinary_folder_that_another_process_loads_without_this_library(tmp_path: Path) -> None:
    folders, said = [], {}
    for name, auto in SMALL.items():
        family = next(family for family, known in CLASSES if known == name)
        model = build(family, name, **({"tie_word_embeddings": True} if name.endswith("CausalLM") else {}))
        student = cut(model, layers=2, hidden=16, heads=4, feed_forward=10)
        folder = tmp_path / name
        student.save_pretrained(folder)
        save_file(texts(model), folder / "inputs.safetensors")
        (folder / "auto.txt").write_text(auto)
        said[name] = answer(student, texts(model))
        assert not {file.suffix for file in folder.iterdir()} & {".py", ".bin", ".pkl"}
        config = (folder / "config.json").read_text()
        assert not [word for word in ("distil.", "auto_map", "trust_remote_code", str(tmp_path)) if word in config]
        assert json.loads(config)["architectures"] == [name]
        folders.append(str(folder))
    done = subprocess.run(
        [sys.executable, "-c", FRESH_PROCESS, *folders], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    for name, expected in said.items():
        there = load_file(tmp_path / name / "said.safetensors")["said"]
        torch.testing.assert_close(there, expected, rtol=1e-5, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}")


def test_the_sizes_stand_in_the_configuration_under_the_keys_of_the_family(tmp_path: Path) -> None:
    settings = {"layers": 2, "hidden": 16, "heads": 4, "feed_forward": 10}
    expected = {
        "distilbert": {"n_layers": 2, "dim": 16, "n_heads": 4, "hidden_dim": 10},
        "gpt2": {"n_layer": 2, "n_embd": 16, "n_head": 4, "n_inner": 10},
        "qwen2": {"num_hidden_layers": 2, "hidden_size": 16, "num_attention_heads": 4, "num_key_value_heads": 2},
        "llama": {"num_hidden_layers": 2, "hidden_size": 16, "intermediate_size": 10, "head_dim": 4},
    }
    for family, keys in expected.items():
        cut(classifier(family), **settings).save_pretrained(tmp_path / family)
        written = json.loads((tmp_path / family / "config.json").read_text())
        assert {key: written[key] for key in keys} == keys
        assert written["vocab_size"] == 40


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "qwen3"])
def test_a_head_keeps_its_size_where_it_is_not_the_width_over_the_number(family: str, tmp_path: Path) -> None:
    """hidden 24 of 2 heads would be 12 features a head; the teacher's have 4, also where no key says so."""
    model = classifier(family)
    student = cut(model, heads=2)
    student.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["head_dim"] == 4
    again = type(model).from_pretrained(tmp_path)
    assert torch.equal(answer(again, texts(model)), answer(student, texts(model)))


def test_a_feed_forward_that_no_key_gives_is_written_once_the_stream_is_cut() -> None:
    model = classifier("gpt2", n_inner=None)
    student = cut(model, hidden=12)
    assert student.config.n_inner == 96
    assert student.transformer.h[0].mlp.c_fc.weight.shape == (12, 96)
    assert shrink(model, ShrinkConfig(layers=2)).config.n_inner is None


def test_kinds_of_layers_go_with_their_layers() -> None:
    kinds = ["full_attention", "sliding_attention", "full_attention", "sliding_attention"]
    model = classifier("qwen2", layer_types=kinds, use_sliding_window=True, sliding_window=2)
    student = shrink(model, ShrinkConfig(keep=(1, 2, 3)))
    assert student.config.layer_types == kinds[1:]
    plain = shrink(model, ShrinkConfig(keep=(0, 2)))
    assert plain.config.layer_types == ["full_attention", "full_attention"]


@pytest.mark.parametrize("name", [*WITH_OUTPUT_TIED, "LlamaForCausalLM", "Qwen2ForCausalLM"])
def test_tied_weights_are_one_in_the_student_and_after_loading(name: str, tmp_path: Path) -> None:
    family = next(family for family, known in CLASSES if known == name)
    student = cut(build(family, name, tie_word_embeddings=True), layers=2, hidden=16, heads=4)
    student.save_pretrained(tmp_path)
    again = type(student).from_pretrained(tmp_path)
    for model in (student, again):
        assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    with torch.no_grad():
        again.get_input_embeddings().weight[5] = 7.0
    assert bool((again.get_output_embeddings().weight[5] == 7.0).all())


def test_weights_that_are_not_tied_stay_apart() -> None:
    student = cut(build("llama", "LlamaForCausalLM", tie_word_embeddings=False), layers=2)
    assert student.lm_head.weight is not student.model.embed_tokens.weight
    assert not torch.equal(student.lm_head.weight, student.model.embed_tokens.weight)


def test_weights_that_are_tied_by_name_only_are_refused() -> None:
    """A copy would lose one of the two."""
    model = build("llama", "LlamaForCausalLM", tie_word_embeddings=True)
    model.lm_head.weight = nn.Parameter(torch.randn(40, 24))
    with pytest.raises(ModelError, match=r"lm_head\.weight differ from the weights that they are tied to"):
        shrink(model, ShrinkConfig(layers=2))


@pytest.mark.parametrize("family", ["bert", "gpt2", "llama"])
def test_the_teacher_is_untouched_and_shares_nothing(family: str) -> None:
    model = classifier(family)
    before, config, said = snapshot(model), model.config.to_dict(), answer(model, texts(model))
    random_state = torch.random.get_rng_state()
    student = cut(model, layers=2, hidden=16, heads=4, feed_forward=10)
    assert torch.equal(torch.random.get_rng_state(), random_state)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.fill_(3.0)
    student.config.hidden_size = 1
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.config.to_dict() == config
    assert torch.equal(answer(model, texts(model)), said)


def test_16_a_student_of_a_frozen_teacher_can_be_trained_and_keeps_type_and_mode() -> None:
    model = classifier().requires_grad_(False).to(torch.bfloat16)
    student = shrink(model, ShrinkConfig(layers=2))
    assert all(parameter.requires_grad for parameter in student.parameters())
    assert {parameter.dtype for parameter in student.parameters()} == {torch.bfloat16}
    assert not any(module.training for module in student.modules())
    assert shrink(model.train(), ShrinkConfig(layers=2)).training


def test_a_model_built_without_pooler_stays_without() -> None:
    import transformers

    model = transformers.BertModel(build("bert", "BertModel").config, add_pooling_layer=False).eval()
    student = shrink(model, ShrinkConfig(layers=2))
    assert student.pooler is None
    assert len(student.state_dict()) == len(model.state_dict()) - 2 * 16


@pytest.mark.parametrize("trained", [True, False])
def test_the_embedding_of_the_padding_token_is_trained_where_the_teachers_is(trained: bool) -> None:
    model = classifier()
    if trained:
        model.bert.embeddings.word_embeddings.padding_idx = None
    student = shrink(model, ShrinkConfig(layers=2))
    batch = texts(model)
    student(input_ids=torch.zeros_like(batch["input_ids"])).logits.sum().backward()
    gradient = student.bert.embeddings.word_embeddings.weight.grad
    assert gradient is not None
    assert bool(gradient[model.config.pad_token_id].any()) == trained


def test_what_is_said_for_generation_goes_along() -> None:
    model = build("gpt2", "GPT2LMHeadModel")
    model.generation_config.max_new_tokens = 17
    student = shrink(model, ShrinkConfig(layers=2))
    assert student.generation_config.max_new_tokens == 17
    assert student.generation_config is not model.generation_config
    prompt = {name: value[:1, :4] for name, value in texts(model).items()}
    assert student.generate(**prompt, max_new_tokens=3, min_new_tokens=3, do_sample=False).shape == (1, 7)


@pytest.mark.parametrize(
    ("family", "settings", "message"),
    [
        ("bert", {"hidden": 32}, "hidden is 32 and the model has 24; a student has at most as many"),
        ("llama", {"heads": 7}, "heads is 7 and the model has 6"),
        ("bert", {"feed_forward": 21}, "feed_forward is 21 and the model has 20"),
        ("bert", {"heads": 3}, "heads is 3 and hidden 24; .* give heads 3 together with hidden 12"),
        ("gpt2", {"heads": 3, "hidden": 16}, "give heads 3 together with hidden 12"),
        ("distilbert", {"hidden": 18}, "hidden is 18; in this family it must be a multiple of a head's 4 features"),
        ("bert", {"heads": 3, "key_value_heads": 3, "hidden": 12}, "every head of this model has its own keys"),
        ("llama", {"heads": 3}, "heads is 3 and 2 heads share one key-value head; give a multiple of 2, or say"),
        ("llama", {"heads": 4, "key_value_heads": 1}, "serves 2; that many have at most 2"),
        ("llama", {"heads": 4, "key_value_heads": 4}, "key_value_heads is 4 and the model has 3"),
        ("llama", {"hidden": 16}, "cannot be loaded with these sizes: .*16.*6"),
        ("bert", {"vocabulary": 30}, "vocabulary is 30 and the model has 40 tokens; cut it first, .*shrink_vocabulary"),
    ],
)
def test_sizes_that_the_teacher_or_its_family_cannot_have_are_refused(
    family: str, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ModelError, match=f"(?s){message}"):
        cut(classifier(family), **settings)


def test_all_that_does_not_fit_is_said_at_once() -> None:
    with pytest.raises(ModelError, match=r"hidden is 32.*feed_forward is 99.*vocabulary is 7"):
        shrink(classifier(), ShrinkConfig(hidden=32, feed_forward=99, vocabulary=7))


def test_a_vocabulary_that_has_been_cut_is_no_more_to_do() -> None:
    model = classifier()
    student = shrink(model, ShrinkConfig(vocabulary=40, layers=2))
    assert student.config.num_hidden_layers == 2


@pytest.mark.parametrize(
    ("family", "settings", "expected"),
    [
        (
            "bert",
            {"layers": 3},
            "layers 0, 2, 3 of 4; all 24 hidden channels; all 6 heads; all 20 feed-forward neurons",
        ),
        (
            "bert",
            {"hidden": 16, "feed_forward": 5},
            "layers 0, 1, 2, 3 of 4; 16 of 24 hidden channels; 4 of 6 heads; 5 of 20 feed-forward neurons",
        ),
        (
            "llama",
            {"keep": (3,), "heads": 4},
            "layers 3 of 4; all 24 hidden channels; 4 of 6 heads; 2 of 3 key-value heads; all 20 feed-forward neurons",
        ),
    ],
)
def test_22_a_cut_is_described_in_one_line(family: str, settings: dict[str, Any], expected: str) -> None:
    assert describe_cut(classifier(family), ShrinkConfig(**settings)) == expected


def test_the_blocks_of_the_guide_run_as_they_stand(repository: Path, tmp_path: Path) -> None:
    page = (repository / "docs/guide/students-from-teachers.md").read_text(encoding="utf-8")
    code = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    namespace: dict[str, Any] = {"folder": tmp_path}
    with torch.random.fork_rng():
        for block in code:
            exec(compile(block, "students-from-teachers.md", "exec"), namespace)  # the page is ours
    assert len(code) == 5
    assert f"`{describe_cut(namespace['teacher'], namespace['cut'])}`" in page
    assert namespace["again"].config.hidden_size == 16
    assert namespace["its_tokenizer"].get_vocab_size() < namespace["tokenizer"].get_vocab_size()
