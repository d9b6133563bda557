"""The student of texts that leaves: read by this library, and by transformers without it (correctness 35)."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from distil.core.errors import DataError
from distil.core.files import read_json
from distil.data.config import TextConfig
from distil.data.text_source import read_texts
from distil.data.text_view import TextView
from distil.data.tokenizer import load_tokenizer
from distil.evaluate.prediction import load_predictions
from distil.models.describe import ModelDescription
from distil.pipeline.run import RunResult, run
from distil.pipeline.shipped import load
from distil.pipeline.text_shipping import FOLDER, TOKENIZER, for_export, save_text_student, transformers_network
from distil.recipe.load import parse_recipe
from distil.tasks.choice import make_task
from distil.tasks.config import SentenceEmbeddingConfig, TextClassificationConfig
from distil.tasks.network import Network
from tests.data.texts import make_texts
from tests.suites.test_text_tasks import recipe_of, sentence
from tests.tasks.networks import network

pytest.importorskip("transformers")

TINY = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
MODELS: dict[str, dict[str, Any]] = {
    "bert": {"model_type": "bert", **TINY, "max_position_embeddings": 64},
    "distilbert": {
        **{"model_type": "distilbert", "dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 24},
        "max_position_embeddings": 64,
    },
}
READ = {"tokenizer": {"kind": "wordpiece", "size": 300}, "max_length": 24}
CNN = {"kind": "text-cnn", "embedding": 8, "widths": 8, "kernels": [2, 3]}
WITHOUT_DISTIL = """
import json, sys
sys.modules["distil"] = None
import torch
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer

folder, kind, texts = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
tokenizer = AutoTokenizer.from_pretrained(folder)
columns = list(zip(*texts)) if isinstance(texts[0], list) else [texts]
read = tokenizer(*map(list, columns), padding=True, truncation=True, return_tensors="pt")
assert read["input_ids"].shape[1] <= tokenizer.model_max_length
with torch.no_grad():
    if kind == "classes":
        said = AutoModelForSequenceClassification.from_pretrained(folder).eval()(**read).logits
    else:
        hidden = AutoModel.from_pretrained(folder).eval()(**read).last_hidden_state
        real = read["attention_mask"].unsqueeze(-1)
        said = torch.nn.functional.normalize((hidden * real).sum(dim=1) / real.sum(dim=1), dim=-1)
print(json.dumps(said.tolist()))
"""


def of_transformers(folder: Path, texts: Any, *, kind: str = "classes") -> np.ndarray:
    """What the folder's model says, in a fresh process that cannot import this library."""
    command = [sys.executable, "-W", "ignore", "-c", WITHOUT_DISTIL, str(folder), kind, json.dumps(texts)]
    answer = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    assert answer.returncode == 0, answer.stderr[-2000:]
    return np.array(json.loads(answer.stdout.splitlines()[-1]))


def require_agreement(found: np.ndarray, expected: np.ndarray) -> None:
    """Answers of a network with random weights hardly differ, so they are held against how far texts are apart.

    Rounding is about 1e-4 of that, types of tokens that are left out three times that.
    """
    apart = expected.std(axis=0).min()
    assert apart > 1e-6
    assert np.abs(found - expected).max() < 0.01 * apart


def finish(written: dict[str, Any], run_directory: Path) -> RunResult:
    return run(parse_recipe(json.dumps(written)), run_directory)


def recipe(name: str, data: dict[str, Any], model: dict[str, Any], student: dict[str, Any]) -> dict[str, Any]:
    training = {"epochs": 1, "batch_size": 32}
    return {
        "name": name,
        "data": {"kind": "text", **data},
        "teacher": {"model": {"kind": "huggingface", "config": model}, "inputs": READ, "training": training},
        "student": student,
        "objective": {"labels": "true-labels", "teacher": "soft-targets"},
        "training": training,
        "controls": ["scratch"],
        "seeds": 1,
        "placement": {"threads": 1},
    }


CUT = {"from_teacher": {"layers": 1, "keep": "last"}}


@pytest.fixture(scope="module")
def reviews(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real sentences, a few of them, and their classes."""
    folder = Path(os.environ["DISTIL_DATA"]) / "sst2"
    if not folder.is_dir():
        pytest.skip(f"no real data in {folder}; set DISTIL_DATA")
    _, splits = read_texts(TextConfig(path=str(folder), text="sentence", label="label"))
    target = tmp_path_factory.mktemp("reviews")
    for split, count in (("train", 120), ("test", 60)):
        examples = splits[split].select(torch.arange(count))
        pairs = zip(examples.columns["sentence"], examples.labels.tolist(), strict=True)
        lines = [json.dumps({"sentence": text, "label": label}) for text, label in pairs]
        (target / f"{split}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return target


@pytest.fixture(scope="module")
def cut(reviews: Path, tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    """A finished run whose student is cut from a BERT. Tests only look at it."""
    data = {"path": str(reviews), "text": "sentence", "label": "label"}
    return finish(recipe("cut", data, MODELS["bert"], CUT), tmp_path_factory.mktemp("cut") / "run")


@pytest.fixture(scope="module")
def convolutional(reviews: Path, tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    """The same with a small student of its own."""
    data = {"path": str(reviews), "text": "sentence", "label": "label"}
    student = {"model": CNN, "inputs": READ}
    return finish(recipe("cnn", data, MODELS["bert"], student), tmp_path_factory.mktemp("cnn") / "run")


def texts_of(reviews: Path) -> list[str]:
    lines = (reviews / "test.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["sentence"] for line in lines]


def measured(result: RunResult) -> Any:
    seed = read_json(result.directory / "student" / "model.json")["seed"]
    return load_predictions(result.directory / f"arms/distilled/seed-{seed}/predictions.parquet")


def test_35_transformers_reads_the_student_alone_and_says_the_same_of_real_texts(cut: RunResult, reviews: Path) -> None:
    texts = texts_of(reviews)
    expected = load(cut.directory).logits(texts).numpy()
    found = of_transformers(cut.directory / "student" / FOLDER, texts)
    assert expected.std() > 1e-4
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert max(len(text.split()) for text in texts) > 24, "some text is cut"


def test_35_the_loaded_student_says_what_was_measured(cut: RunResult, convolutional: RunResult, reviews: Path) -> None:
    for result in (cut, convolutional):
        student = load(result.directory)
        logits = student.logits(texts_of(reviews)).numpy()
        said = measured(result)
        np.testing.assert_allclose(logits, said.logits, rtol=1e-4, atol=1e-5)
        assert student.predict(texts_of(reviews)[:3]) == [str(label) for label in said.decisions[:3]]
        assert student.class_names == ("0", "1")
        assert not student.model.training


def test_the_student_s_folder_has_a_tokenizer_and_what_can_be_read_without_this_library(
    cut: RunResult, convolutional: RunResult
) -> None:
    names = {path.name for path in (cut.directory / "student" / FOLDER).iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"} <= names
    assert not any(name.endswith((".bin", ".pt", ".py")) for name in names)
    assert (cut.directory / "student" / TOKENIZER).is_file()
    assert (convolutional.directory / "student" / TOKENIZER).is_file()
    assert not (convolutional.directory / "student" / FOLDER).exists()
    for result in (cut, convolutional):
        listed = read_json(result.directory / "manifest.json")["stages"]["student/model"]["files"]
        there = [path for path in (result.directory / "student").rglob("*") if path.is_file()]
        assert {str(path.relative_to(result.directory)) for path in there} == set(listed)


def test_11_texts_alone_and_beside_longer_ones_are_judged_alike(cut: RunResult, convolutional: RunResult) -> None:
    texts = ["a film", "a very long and rather dull film about nothing , told at great length", "fine"]
    for result in (cut, convolutional):
        student = load(result.directory)
        together = student.logits(texts)
        alone = torch.cat([student.logits([text]) for text in texts])
        torch.testing.assert_close(alone, together, rtol=1e-4, atol=1e-5)


# other networks and tasks


def made_up(tmp_path: Path, kind: str, **changes: Any) -> RunResult:
    (tmp_path / "data").mkdir()
    written = recipe_of(kind, tmp_path / "data", **changes)
    return finish(written, tmp_path / "run")


@pytest.fixture(scope="module")
def ranked(tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    """A finished run whose student reads pairs of texts. Tests only look at it."""
    return made_up(tmp_path_factory.mktemp("ranked"), "ranking")


PAIRS = [(f"which {number}", sentence(number)) for number in range(6)]


def test_35_pairs_are_read_as_pairs(ranked: RunResult) -> None:
    student = load(ranked.directory)
    assert student.logits(PAIRS).shape == (6, 2)
    swapped = student.logits([(second, first) for first, second in PAIRS])
    said = student.logits(PAIRS)
    assert float((swapped - said).abs().max()) > 0.1 * float(said.std(dim=0).min()), "the order of the texts counts"
    with pytest.raises(DataError, match="each example needs 2 texts: question, candidate"):
        student.logits(["which 1"])


def test_35_transformers_reads_pairs_as_the_student_does(ranked: RunResult) -> None:
    expected = load(ranked.directory).logits(PAIRS).numpy()
    found = of_transformers(ranked.directory / "student" / FOLDER, [list(pair) for pair in PAIRS])
    require_agreement(found, expected)


def test_35_a_network_without_types_of_tokens_is_read_by_transformers_too(tmp_path: Path) -> None:
    teacher = {
        "model": {"kind": "huggingface", "config": MODELS["distilbert"]},
        "inputs": READ,
        "training": {"epochs": 1, "batch_size": 16},
    }
    result = made_up(tmp_path, "ranking", teacher=teacher)
    expected = load(result.directory).logits(PAIRS).numpy()
    found = of_transformers(result.directory / "student" / FOLDER, [list(pair) for pair in PAIRS])
    require_agreement(found, expected)


def test_35_embeddings_of_transformers_are_the_student_s(tmp_path: Path) -> None:
    result = made_up(tmp_path, "sentence-embedding")
    pairs = [(sentence(number), sentence(number + 3)) for number in range(5)]
    expected = load(result.directory).logits(pairs).numpy()
    folder = result.directory / "student" / FOLDER
    sides = [of_transformers(folder, [pair[side] for pair in pairs], kind="embedding") for side in (0, 1)]
    np.testing.assert_allclose(np.concatenate(sides, axis=1), expected, rtol=1e-4, atol=1e-5)


def test_35_a_student_pools_as_it_was_trained(tmp_path: Path) -> None:
    model = {"kind": "huggingface", "config": MODELS["bert"], "pooling": "first", "normalise": False}
    teacher = {"model": model, "inputs": READ, "training": {"epochs": 1, "batch_size": 16}}
    result = made_up(tmp_path, "sentence-embedding", teacher=teacher)
    inside = transformers_network(load(result.directory).model)
    assert inside is not None
    assert (inside.pooling, inside.normalise) == ("first", False)


# saving


def saved(folder: Path) -> tuple[Network, list[Path]]:
    examples = make_texts({"text": ["red blue", "old new", "green"]}, labels=[0, 1, 0], class_names="ab")
    made = network(make_task(TextClassificationConfig()), examples)
    assert isinstance(made.view, TextView)
    return made, save_text_student(folder, made.model, made.view)


def test_every_file_that_is_written_is_named(tmp_path: Path) -> None:
    _, files = saved(tmp_path)
    assert set(files) == {path for path in tmp_path.rglob("*") if path.is_file()}
    assert files[0] == tmp_path / TOKENIZER


def test_the_tokenizer_is_that_of_the_view_without_its_length(tmp_path: Path) -> None:
    made, _ = saved(tmp_path)
    assert isinstance(made.view, TextView)
    for folder in (tmp_path, tmp_path / FOLDER):
        again = load_tokenizer(folder)
        assert again.get_vocab() == made.view.tokenizer.get_vocab()
        text = "red blue " * 9
        assert len(again.encode(text).ids) > made.view.max_length
    settings = read_json(tmp_path / FOLDER / "tokenizer_config.json")
    assert settings["model_max_length"] == made.view.max_length
    named = {role: settings[f"{role}_token"] for role in ("pad", "unk", "cls", "sep", "mask")}
    assert named == {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
    assert made.view.tokenizer.truncation is not None, "the view cuts texts as before"


def test_padding_of_another_name_is_named_in_the_folder_too(tmp_path: Path) -> None:
    made, _ = saved(tmp_path)
    assert isinstance(made.view, TextView)
    content = made.view.tokenizer.to_str().replace("[PAD]", "<|endoftext|>")
    view = replace(made.view, tokenizer=type(made.view.tokenizer).from_str(content), _known={})
    save_text_student(tmp_path, made.model, view)
    assert read_json(tmp_path / FOLDER / "tokenizer_config.json").get("pad_token") == "<|endoftext|>"


def test_a_network_of_another_kind_is_saved_with_its_tokenizer_alone(tmp_path: Path) -> None:
    made, _ = saved(tmp_path)
    assert isinstance(made.view, TextView)
    (tmp_path / "plain").mkdir()
    assert save_text_student(tmp_path / "plain", nn.Linear(1, 1), made.view) == [tmp_path / "plain" / TOKENIZER]
    assert transformers_network(nn.Linear(1, 1)) is None
    assert transformers_network(nn.Sequential(made.model)) is made.model


# what a device gets


def test_35_a_device_embeds_one_text_at_a_time() -> None:
    examples = make_texts({"text": ["red blue", "old new"], "other": ["green", "red old blue"]})
    made = network(make_task(SentenceEmbeddingConfig(features=5)), examples)
    model, view = for_export(made)
    assert isinstance(view, TextView)
    assert isinstance(made.view, TextView)
    assert (view.columns, view.apart) == (("text",), False)
    with torch.no_grad():
        both = made.model(made.view(examples.columns))
        for side, name in ((0, "text"), (1, "other")):
            one = model(view({"text": examples.columns[name]}))
            assert one.shape == (2, 5)
            torch.testing.assert_close(one, both[:, 5 * side : 5 * side + 5])


def test_other_networks_are_exported_as_they_are() -> None:
    examples = make_texts({"text": ["red blue", "old new", "green"]}, labels=[0, 1, 0], class_names="ab")
    made = network(make_task(TextClassificationConfig()), examples)
    assert for_export(made) == (made.model, made.view)
    described = ModelDescription(num_classes=2)
    assert for_export(Network(nn.Identity(), made.view, described))[1] is made.view
