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

from .run_directory_fixture import HOSTILE, write_run


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
