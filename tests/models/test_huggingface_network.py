"""One tensor for each head, the same however a text is padded, and the parts of the network that others take."""

import copy
import json
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from distil.core.errors import ModelError
from distil.models.attention import attention_layers
from distil.models.describe import describe_model
from distil.models.huggingface import load_pretrained
from distil.models.huggingface_network import Head, HuggingFaceNetwork
from distil.models.tap import Tap, Taps
from distil.models.text_config import HuggingFaceModelConfig

transformers = pytest.importorskip("transformers")

PAD = 1
SIZES = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 20}
HEADS: tuple[Head, ...] = get_args(Head)
FOR_TOKENS = ("token-classes", "spans", "causal-lm", "masked-lm")
PAIRS = [
    *(("bert", head) for head in HEADS if head not in ("seq2seq", "causal-lm")),
    *((kind, head) for kind in ("gpt2", "llama") for head in HEADS if head not in ("seq2seq", "masked-lm")),
    ("t5", "seq2seq"),
    ("roberta", "embedding"),
    ("distilbert", "classes"),
]
TEXTS = ([5, 6, 7, 8, 9, 10], [11, 12, 13], [14])


def tiny(kind: str, head: Head, *, seed: int = 0, pooling: Any = None, normalise: bool = True, **more: Any) -> Any:
    """A network of two layers, 24 wide, for 30 tokens, with weights large enough that everything matters."""
    head_dim = {"head_dim": 6} if kind == "gemma2" else {}
    sizes = {
        "bert": SIZES | {"intermediate_size": 32},
        "roberta": SIZES | {"intermediate_size": 32, "type_vocab_size": 1},
        "llama": SIZES | {"intermediate_size": 32, "num_key_value_heads": 2},
        "gpt2": SIZES,
        "distilbert": SIZES | {"hidden_dim": 32},
        "bart": {"d_model": 24, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32}
        | {"encoder_attention_heads": 4, "decoder_attention_heads": 4, "max_position_embeddings": 20},
        "t5": {"d_model": 24, "num_layers": 2, "num_heads": 4, "d_kv": 6, "d_ff": 32, "decoder_start_token_id": PAD},
    }.get(kind, SIZES | {"intermediate_size": 32, "num_key_value_heads": 2} | head_dim)
    chosen = {} if head != "embedding" else {"normalise": normalise} | ({"pooling": pooling} if pooling else {})
    config = HuggingFaceModelConfig.model_validate({"config": {"model_type": kind, **sizes, **more}, **chosen})
    torch.manual_seed(seed)
    num_outputs = 3 if "classes" in head else None
    network = load_pretrained(config, head=head, num_outputs=num_outputs, vocabulary_size=30, pad_token_id=PAD).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return network


def batch(*texts: list[int], before: int = 0, after: int = 0, left: bool = False) -> dict[str, Tensor]:
    """Padded to the longest on one side, and by so many tokens more."""
    longest = max(map(len, texts))
    gaps = [longest - len(text) for text in texts]
    around = [(before + gap, after) if left else (before, gap + after) for gap in gaps]
    rows = [[PAD] * one + text + [PAD] * other for text, (one, other) in zip(texts, around, strict=True)]
    real = [[0] * one + [1] * len(text) + [0] * other for text, (one, other) in zip(texts, around, strict=True)]
    return {"input_ids": torch.tensor(rows), "attention_mask": torch.tensor(real)}


def for_decoder(inputs: dict[str, Tensor], head: Head) -> dict[str, Tensor]:
    if head != "seq2seq":
        return inputs
    return inputs | {"decoder_input_ids": torch.tensor([[PAD, 5, 6]]).repeat(len(inputs["input_ids"]), 1)}


def real_part(outputs: Tensor, inputs: dict[str, Tensor], head: Head, row: int) -> Tensor:
    return outputs[row][inputs["attention_mask"][row].bool()] if head in FOR_TOKENS else outputs[row]


# Outputs


@pytest.mark.parametrize(("kind", "head"), PAIRS)
def test_21_the_output_is_what_transformers_says(kind: str, head: Head) -> None:
    network = tiny(kind, head)
    inputs = for_decoder(batch(TEXTS[0], TEXTS[0][::-1]), head)
    found, theirs = network(inputs), network.pretrained(**inputs)
    match head:
        case "embedding":
            expected = F.normalize(theirs.last_hidden_state.mean(dim=1), dim=-1)
        case "spans":
            expected = torch.stack([theirs.start_logits, theirs.end_logits], dim=-1)
            assert found.shape == (2, 6, 2)
        case _:
            expected = theirs.logits
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("kind", "head"), PAIRS)
def test_12_padding_left_and_right_agrees_with_unbatched(kind: str, head: Head) -> None:
    network = tiny(kind, head)
    alone = [network(for_decoder(batch(text), head))[0] for text in TEXTS]
    for left, before, after in ((False, 0, 0), (False, 0, 3), (True, 0, 0), (True, 2, 1)):
        inputs = for_decoder(batch(*TEXTS, left=left, before=before, after=after), head)
        found = network(inputs)
        assert found.isfinite().all()
        for row, expected in enumerate(alone):
            torch.testing.assert_close(real_part(found, inputs, head, row), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("kind", "head"), [("bert", "classes"), ("gpt2", "causal-lm"), ("llama", "causal-lm")])
def test_12_hidden_states_agree_too(kind: str, head: Head) -> None:
    network = tiny(kind, head)
    for left in (False, True):
        inputs = batch(*TEXTS, left=left)
        hidden = network.hidden(inputs)
        for row, text in enumerate(TEXTS):
            seen = hidden[row][inputs["attention_mask"][row].bool()]
            torch.testing.assert_close(seen, network.hidden(batch(text))[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize(("kind", "head"), [("bert", "classes"), ("gpt2", "causal-lm"), ("llama", "causal-lm")])
def test_11_padding_gets_no_gradient_and_changes_none(kind: str, head: Head, left: bool) -> None:
    gradients = []
    for padding in (0, 3):
        network = tiny(kind, head)
        inputs = batch(*TEXTS, before=padding * left, after=padding * (not left), left=left)
        outputs = network(inputs)
        counted = outputs[inputs["attention_mask"].bool()] if head in FOR_TOKENS else outputs
        counted.square().sum().backward()
        gradients.append({name: each.grad for name, each in network.named_parameters()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-4, atol=1e-4, msg=name)
    if kind == "bert":  # elsewhere the output head has a row for padding too
        words = gradients[0]["pretrained.bert.embeddings.word_embeddings.weight"]
        assert words[PAD].abs().sum() == 0
        assert words[5:14].abs().sum(dim=1).min() > 0


@pytest.mark.parametrize("kind", ["llama", "bart"])
def test_12_the_embedding_of_a_padding_token_that_ends_texts_is_trained(kind: str) -> None:
    network = tiny(kind, "causal-lm", tie_word_embeddings=False)
    words = network.pretrained.get_input_embeddings().weight
    network(batch([5, PAD, 6]))[0, 2].sum().backward()
    assert words.grad[PAD].abs().sum() > 0


@pytest.mark.parametrize("left", [False, True])
def test_12_a_decoder_reads_the_last_token_though_it_equals_padding(left: bool) -> None:
    network = tiny("gpt2", "classes")
    ends, other = [5, 6, PAD], [7, 8, 9, 10]
    expected = network.pretrained.score(network.hidden(batch(ends)))[0, -1]
    torch.testing.assert_close(network(batch(ends, other, left=left))[0], expected, rtol=1e-5, atol=1e-5)


def test_a_model_that_counts_padding_as_tokens_refuses_it_on_the_left() -> None:
    network = tiny("bart", "seq2seq")
    network(for_decoder(batch(*TEXTS), "seq2seq"))
    with pytest.raises(ModelError, match="counts padding as tokens; pad on the right"):
        network(for_decoder(batch(*TEXTS, left=True), "seq2seq"))


# Inputs


def test_21_token_types_go_to_a_model_that_knows_them_alone() -> None:
    second = torch.tensor([[0, 0, 0, 1, 1, 1]])
    for kind, matters in (("bert", True), ("gpt2", False), ("roberta", False), ("distilbert", False)):
        network = tiny(kind, "embedding")
        plain = network(batch(TEXTS[0]))
        typed = network(batch(TEXTS[0]) | {"token_type_ids": second})
        assert torch.equal(plain, typed) is not matters
    bert = tiny("bert", "classes")
    expected = bert.pretrained(**batch(TEXTS[0]), token_type_ids=second).logits
    torch.testing.assert_close(bert(batch(TEXTS[0]) | {"token_type_ids": second}), expected)


def test_an_input_that_the_model_does_not_take_is_an_error() -> None:
    with pytest.raises(ModelError, match="BertForSequenceClassification takes no pixel_values, words"):
        tiny("bert", "classes")(batch(TEXTS[0]) | {"words": torch.ones(1), "pixel_values": torch.ones(1)})


@pytest.mark.parametrize("take_attention", [False, True])  # which switches to another implementation of attention
@pytest.mark.parametrize(("kind", "head"), [("bert", "masked-lm"), ("llama", "causal-lm"), ("gpt2", "causal-lm")])
def test_texts_in_a_row_do_not_see_each_other(kind: str, head: Head, take_attention: bool) -> None:
    network = tiny(kind, head)
    texts = TEXTS[:2]
    sees = torch.block_diag(*(torch.ones(len(text), len(text), dtype=torch.long) for text in texts))
    packed = {
        "input_ids": torch.tensor([[token for text in texts for token in text]]),
        "attention_mask": (sees if kind == "bert" else sees.tril())[None, None],
        "position_ids": torch.tensor([[place for text in texts for place in range(len(text))]]),
    }
    attention = [Tap(attention_layers(network)[0].name, "attention")] if take_attention else []
    with Taps(network, attention) as taps:
        found = taps.observe(network, packed).logits[0]
    expected = torch.cat([network(batch(text))[0] for text in texts])
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_a_mask_of_pairs_is_refused_where_one_answer_is_asked_for() -> None:
    inputs = {"input_ids": torch.tensor([[5, 6]]), "attention_mask": torch.ones(1, 1, 2, 2)}
    for head in ("classes", "embedding"):
        with pytest.raises(ModelError, match=r"one answer for a text needs attention_mask \[batch, tokens\]"):
            tiny("bert", head)(inputs)


def test_without_a_mask_all_tokens_are_real() -> None:
    asked: list[tuple[str, Head]] = [("bert", "embedding"), ("gpt2", "classes"), ("llama", "causal-lm")]
    for kind, head in asked:
        network = tiny(kind, head)
        torch.testing.assert_close(network({"input_ids": torch.tensor([TEXTS[0]])}), network(batch(TEXTS[0])))


def test_the_longest_text_does_not_count_the_rows_for_padding() -> None:
    for kind, longest in (("bert", 20), ("gpt2", 20), ("roberta", 20 - PAD - 1)):
        network = tiny(kind, "embedding")
        assert network.max_tokens == longest
        network(batch([5] * longest))
        with pytest.raises(ModelError, match=f"reads at most {longest} tokens, and a text has {longest + 1}"):
            network(batch([5] * (longest + 1)))
    llama = tiny("llama", "causal-lm")  # which computes its positions
    assert llama.max_tokens == 20
    llama(batch([5] * 21))
    assert tiny("t5", "seq2seq").max_tokens is None


# Embeddings


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("normalise", [False, True])
@pytest.mark.parametrize("pooling", ["mean", "first"])
def test_an_embedding_is_pooled_over_real_tokens(pooling: str, normalise: bool, left: bool) -> None:
    network = tiny("bert", "embedding", pooling=pooling, normalise=normalise)
    found = network(batch(*TEXTS, left=left))
    for row, text in enumerate(TEXTS):
        tokens = network.pretrained(**batch(text)).last_hidden_state[0]
        expected = tokens.mean(dim=0) if pooling == "mean" else tokens[0]
        expected = expected / expected.norm() if normalise else expected
        torch.testing.assert_close(found[row], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("pooling", ["mean", "first"])
def test_the_embedding_of_a_text_without_tokens_is_0(pooling: str) -> None:
    inputs = batch([5, 6], [7, 8])
    inputs["attention_mask"][1] = 0
    found = tiny("bert", "embedding", pooling=pooling)(inputs)
    assert found[1].abs().sum() == 0
    torch.testing.assert_close(found[0].norm(), torch.tensor(1.0))


# The output head


def of_head(hidden: Tensor, parts: Any) -> Tensor:
    logits = parts.scale * (hidden @ parts.weight.T + (0 if parts.bias is None else parts.bias))
    return logits if parts.softcap is None else parts.softcap * torch.tanh(logits / parts.softcap)


@pytest.mark.parametrize(
    ("kind", "more", "expected"),
    [
        ("llama", {}, (False, None, 1.0)),
        ("llama", {"tie_word_embeddings": True}, (False, None, 1.0)),
        ("gpt2", {}, (False, None, 1.0)),
        ("phi", {"num_attention_heads": 2}, (True, None, 1.0)),
        ("gemma2", {"final_logit_softcapping": 0.5}, (False, 0.5, 1.0)),
        ("granite", {"logits_scaling": 8.0}, (False, None, 0.125)),
        ("cohere", {"logit_scale": 0.25}, (False, None, 0.25)),
        ("bart", {}, (False, None, 1.0)),
    ],
)
def test_09_logits_follow_from_hidden_states_and_the_parts_of_the_head(
    kind: str, more: dict[str, Any], expected: tuple[Any, ...]
) -> None:
    network = tiny(kind, "causal-lm", **more)
    parts = network.output_head()
    inputs = batch(*TEXTS)
    torch.testing.assert_close(of_head(network.hidden(inputs), parts), network(inputs), rtol=1e-4, atol=1e-5)
    assert (parts.bias is not None, parts.softcap, parts.scale) == expected
    tied = network.pretrained.config.tie_word_embeddings
    assert (parts.weight is network.pretrained.get_input_embeddings().weight) == tied
    assert parts.weight is network.pretrained.get_output_embeddings().weight


def test_asking_for_the_head_leaves_the_network_as_it_was() -> None:
    network = tiny("gpt2", "causal-lm").train()
    network.pretrained.transformer.drop.eval()
    state = torch.random.get_rng_state()
    network.output_head()
    assert network.training
    assert network.pretrained.transformer.h[0].training
    assert not network.pretrained.transformer.drop.training
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(parameter.grad is None for parameter in network.parameters())


def test_a_head_that_does_more_is_not_taken_apart() -> None:
    network = tiny("bert", "causal-lm", is_decoder=True)
    with pytest.raises(ModelError, match="BertLMHeadModel does more to its logits than a product"):
        network.output_head()
    llama = tiny("llama", "causal-lm")
    llama.pretrained.lm_head.register_forward_hook(lambda _, __, logits: logits + 0.01)
    with pytest.raises(ModelError, match="does more to its logits"):
        llama.output_head()
    with pytest.raises(ModelError, match="a network for masked-lm is not taken apart"):
        tiny("bert", "masked-lm").output_head()


def test_a_model_without_a_body_of_its_own_has_no_hidden_states_to_give() -> None:
    with pytest.raises(ModelError, match="T5ForConditionalGeneration has no body apart from its head"):
        tiny("t5", "seq2seq").hidden(batch(TEXTS[0]))


# As a network among others


@pytest.mark.parametrize(("kind", "head"), [("bert", "classes"), ("gpt2", "causal-lm"), ("bert", "embedding")])
def test_a_saved_folder_is_one_of_transformers_and_knows_nothing_of_us(
    kind: str, head: Head, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = tiny(kind, head)
    network.save_folder(tmp_path / "saved")
    files = {each.name: each.read_bytes() for each in (tmp_path / "saved").iterdir()}
    assert (
        {"config.json", "model.safetensors"}
        <= set(files)
        <= {*("config.json", "model.safetensors", "generation_config.json")}
    )
    assert all(b"distil" not in content and b"pretrained." not in content for content in files.values())
    assert json.loads(files["config.json"])["architectures"] == [type(network.pretrained).__name__]
    loaded = type(network.pretrained).from_pretrained(tmp_path / "saved", local_files_only=True)
    again = HuggingFaceNetwork(loaded, head=head).eval()
    capsys.readouterr()
    assert torch.equal(again(batch(*TEXTS)), network(batch(*TEXTS)))


@pytest.mark.parametrize(("kind", "head"), [("bert", "classes"), ("gpt2", "causal-lm"), ("llama", "causal-lm")])
def test_layers_are_found_described_and_tapped(kind: str, head: Head) -> None:
    network = tiny(kind, head)
    inputs = batch(*TEXTS)
    layers = attention_layers(network)
    assert [layer.num_heads for layer in layers] == [4, 4]
    description = describe_model(network, inputs)
    assert description.num_classes == (3 if head == "classes" else 30)
    assert description.num_parameters == network.pretrained.num_parameters()
    assert {layer.name for layer in layers} <= {layer.name for layer in description.layers}
    taps = [Tap(layers[1].name, take) for take in ("attention", "queries")]
    with Taps(network, taps) as opened:
        seen = opened.observe(network, inputs)
    attention = seen.taps[taps[0]]
    assert attention.shape == (3, 4, 6, 6)
    to_padding = attention[1, :, :3, 3:]
    assert to_padding.abs().max() == 0
    torch.testing.assert_close(seen.logits, network(inputs), rtol=1e-5, atol=1e-5)


def test_15_evaluation_mode_reaches_every_dropout() -> None:
    for network in (tiny("bert", "classes"), tiny("gpt2", "causal-lm")):
        inputs = batch(TEXTS[0])
        assert torch.equal(network(inputs), network(inputs))
        network.train()
        assert not torch.equal(network(inputs), network(inputs))
        nn.Sequential(network).eval()
        assert torch.equal(network(inputs), network(inputs))


def test_20_a_copy_shares_nothing() -> None:
    network = tiny("gpt2", "causal-lm")
    before = network(batch(TEXTS[0]))
    other = copy.deepcopy(network)
    assert torch.equal(other(batch(TEXTS[0])), before)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    assert torch.equal(network(batch(TEXTS[0])), before)
    assert other.output_head().weight is other.pretrained.get_input_embeddings().weight
