"""The model card, read back with the Hub's own reader."""

import ast
import re
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from distil.core.errors import IntegrityError
from distil.report.card import code, front_matter, render_card, write_model_card
from distil.report.read import VERDICTS, read_run
from distil.report.record import RunRecord

from .run_directory_fixture import HOSTILE, change_json, write_run
from .text_run_fixture import write_language_model_run, write_text_classification_run


@pytest.fixture(scope="module")
def card(record: RunRecord) -> str:
    return render_card(record)


def test_the_hub_reads_the_card_with_its_results(tmp_path: Path) -> None:
    hub = pytest.importorskip("huggingface_hub", reason="huggingface-hub is in the extra distil[test]")
    root = write_run(tmp_path / "run")
    record = read_run(root)
    read = hub.ModelCard.load(write_model_card(root))
    results = {result.metric_type: result for result in read.data.eval_results}
    assert results["accuracy"].metric_value == record.student.evaluation.metrics["accuracy"]
    assert results["accuracy"].task_type == "image-classification"
    assert results["accuracy"].dataset_type == "scikit-learn-digits"
    assert results["accuracy"].dataset_split == "test"
    assert results["accuracy"].dataset_args == {"fingerprint": record.data["fingerprint"]}
    assert set(results) == {
        "accuracy",
        "negative_log_likelihood",
        "expected_calibration_error",
        "brier_score",
    }
    assert read.data.model_name == "digits"
    assert read.data.pipeline_tag == "image-classification"
    assert "knowledge-distillation" in read.data.tags
    assert read.data.license == "unknown"
    assert read.text.lstrip().startswith("# `digits`")


def test_a_data_set_of_the_hub_is_named(record: RunRecord) -> None:
    recipe = dict(record.recipe) | {"data": {"kind": "huggingface", "path": "mnist", "hub": "ylecun/mnist"}}
    matter = front_matter(replace(record, recipe=recipe))
    assert matter["datasets"] == ["ylecun/mnist"]
    assert matter["model-index"][0]["results"][0]["dataset"]["type"] == "ylecun/mnist"


def test_the_front_matter_is_safe_yaml_with_the_numbers_as_they_are(card: str, record: RunRecord) -> None:
    matter = yaml.safe_load(card.split("---\n")[1])
    assert matter == front_matter(record)


def test_a_metric_that_is_not_finite_is_left_out(record: RunRecord) -> None:
    model = record.student
    metrics = dict(model.evaluation.metrics) | {"brier_score": float("nan")}
    seeds = dict(record.arms["distilled"]) | {4: replace(model, evaluation=replace(model.evaluation, metrics=metrics))}
    matter = front_matter(replace(record, arms=dict(record.arms) | {"distilled": seeds}))
    assert "brier_score" not in [each["type"] for each in matter["model-index"][0]["results"][0]["metrics"]]


def test_the_verdict_stands_with_its_interval(card: str) -> None:
    assert "**BEATS.** Distillation helped" in card
    assert re.search(r"percentage points \(95% interval \+\d\.\d to \+\d\.\d over 1,078 test examples", card)
    assert "Students had 100 labels, the teacher 539" in card


def test_both_ways_of_use_are_shown_and_are_python(card: str) -> None:
    blocks = re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        ast.parse(block)
    assert "onnxruntime.InferenceSession" in blocks[0]
    assert "import distil" not in blocks[0]
    assert 'distil.load("digits")' in blocks[1]


def test_a_local_path_is_not_published(card: str, run_directory: Path) -> None:
    assert str(run_directory.parent) not in card


def test_calibration_limits_and_data_are_there(card: str, record: RunRecord) -> None:
    for heading in ("## Training data", "## Calibration", "## Limits", "## Evaluation of the student that ships"):
        assert heading in card
    assert record.data["fingerprint"] in card
    assert "too sure" in card


@pytest.mark.parametrize("verdict", VERDICTS)
def test_every_verdict_gives_a_card(tmp_path: Path, verdict: str) -> None:
    text = write_model_card(write_run(tmp_path / "run", verdict=verdict)).read_text(encoding="utf-8")
    assert f"**{verdict}.**" in text


def test_the_smallest_run_gives_a_card(bare_record: RunRecord) -> None:
    text = render_card(bare_record)
    assert "`distil export` makes one" in text
    assert "Only 1 seed" in text
    assert front_matter(bare_record)["library_name"] == "distil"


def test_without_a_shipped_student_there_is_no_card(record: RunRecord) -> None:
    with pytest.raises(IntegrityError, match=r"student.model\.json: missing"):
        render_card(replace(record, shipped=None))


def test_a_speed_up_that_is_not_claimed_is_not_in_the_card(tmp_path: Path, card: str) -> None:
    assert "4.12 times" in card
    shy = write_model_card(write_run(tmp_path / "run", claimed=False)).read_text(encoding="utf-8")
    assert "4.12 times" not in shy


def test_a_hostile_class_name_stands_in_a_code_span_only(card: str) -> None:
    assert HOSTILE in card
    assert HOSTILE not in re.sub(r"(`+)(?!`).*?(?<!`)\1(?!`)", "", card)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cat", "`cat`"),
        ("a`b", "`` a`b ``"),
        ("``", "``` `` ```"),
        ("a|b", "`a\\|b`"),
        ("two\nlines", "`two lines`"),
        ("", "` `"),
    ],
)
def test_a_code_span_holds_anything(text: str, expected: str) -> None:
    assert code(text) == expected


def test_a_sentence_cannot_open_a_tag(record: RunRecord) -> None:
    verdict = replace(record.verdict, teacher_flag="<script>alert(1)</script>", notes=("<b>note</b>",))
    text = render_card(replace(record, verdict=verdict))
    assert "<script>" not in text
    assert "<b>" not in text
    assert "> **Read this first.** &lt;script>" in text


def test_a_text_classifier_is_used_with_texts(text_record: RunRecord) -> None:
    text = render_card(text_record)
    assert "# `reviews`, a distilled text classifier" in text
    assert 'student.predict(["a sentence"])' in text
    assert "Input: `input_ids`, `attention_mask`, int64, [batch, tokens]. A text is cut into tokens" in text
    assert "at most 64 of them: what is longer is cut at the end." in text
    assert "`numpy`, `onnxruntime` and `tokenizers`" in text
    assert "- `majority class`: Always the most frequent class." in text
    assert "texts of no class" in text
    assert "image" not in text.split("```python")[0]
    for block in re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL):
        ast.parse(block)


def test_pairs_are_asked_as_tuples(tmp_path: Path) -> None:
    root = write_text_classification_run(tmp_path / "run", columns=("premise", "hypothesis"))
    text = render_card(read_run(root))
    assert 'student.predict([("a premise", "a hypothesis")])' in text
    assert "The texts `premise` and `hypothesis` are read as a pair and cut" in text
    assert "of a pair the longer text" in text


def test_texts_that_are_read_one_by_one_are_no_pair(tmp_path: Path) -> None:
    root = write_text_classification_run(tmp_path / "run", columns=("sentence1", "sentence2"))
    change_json(root / "data.json", task="sentence-embedding")
    text = render_card(read_run(root))
    assert "a distilled sentence encoder" in text
    assert "The texts `sentence1` and `sentence2` are read one by one and cut" in text
    assert "of a pair" not in text


def test_the_hub_knows_the_task_and_every_metric(text_record: RunRecord, language_record: RunRecord) -> None:
    matter = front_matter(text_record)
    assert (matter["pipeline_tag"], matter["library_name"]) == ("text-classification", "transformers")
    assert matter["model-index"][0]["results"][0]["task"]["type"] == "text-classification"
    matter = front_matter(language_record)
    assert (matter["pipeline_tag"], matter["library_name"], matter["metrics"]) == (
        "text-generation",
        "distil",
        ["bits_per_byte"],
    )
    (result,) = matter["model-index"][0]["results"]
    metrics = {each["type"]: each["value"] for each in result["metrics"]}
    assert next(iter(metrics)) == "bits_per_byte"
    assert metrics == {
        name: value
        for name, value in language_record.student.evaluation.metrics.items()
        if name not in ("tokens", "bytes")
    }


def test_a_folder_for_transformers_is_named_only_where_it_is(text_record: RunRecord, tmp_path: Path) -> None:
    text = render_card(text_record)
    assert "`student/huggingface` is an ordinary folder that `AutoModelForSequenceClassification` loads" in text
    assert 'folder = "reviews/student/huggingface"' in text
    without = render_card(read_run(write_text_classification_run(tmp_path / "run", huggingface=False)))
    assert "transformers" not in without


def test_a_language_model_has_no_classes_and_no_calibration(language_record: RunRecord) -> None:
    text = render_card(language_record)
    assert "# `stories`, a distilled language model" in text
    assert 'outputs = student.logits(["a sentence"])' in text
    for absent in ("Classes:", "## Calibration", "calibration error", "one of its classes"):
        assert absent not in text
    assert re.search(r"Against `label-smoothing`, the best control: 0\.\d{4} bits per byte lower \(95%", text)
    assert "| bytes | 412,305 |" in text
    assert "not what is true" in text
    header, rule, row, *_ = [line for line in text.split("\n") if line.startswith("|")]
    assert header.count("|") == rule.count("|") == row.count("|") == 7


@pytest.mark.parametrize("verdict", VERDICTS)
def test_every_verdict_on_a_language_model_gives_a_card(tmp_path: Path, verdict: str) -> None:
    root = write_language_model_run(tmp_path / "run", verdict=verdict)
    assert f"**{verdict}.**" in write_model_card(root).read_text(encoding="utf-8")
