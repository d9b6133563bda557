"""Reading a run directory: everything is found, what is optional may be missing, what is wrong is named."""

import base64
import json
import subprocess
import sys
from pathlib import Path

import pytest

from distil.core.errors import IntegrityError, RecipeError
from distil.report.read import read_run
from distil.report.record import RunRecord

from .run_directory_fixture import EPOCHS, HOSTILE, NUM_TEST, change_json, write_run
from .text_run_fixture import write_language_model_run, write_text_classification_run


@pytest.fixture
def own(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run")


def test_everything_is_read(record: RunRecord) -> None:
    assert record.verdict.verdict == "BEATS"
    assert list(record.teachers) == ["teacher"]
    assert list(record.arms) == ["scratch", "label-smoothing", "permuted-knowledge", "distilled"]
    assert list(record.arms["distilled"]) == [0, 1, 2, 3, 4]
    student = record.arms["distilled"][4]
    assert len(student.epochs) == EPOCHS
    assert student.kept_epoch == EPOCHS - 3
    assert set(student.epochs[0].parts) == {"true-labels", "soft-targets"}
    assert sum(map(sum, student.evaluation.confusion)) == NUM_TEST
    assert [each.name for each in record.exports] == ["onnx-fp32", "onnx-int8", "teachers/teacher/onnx-fp32"]
    assert record.exports[2].teacher == "teacher"
    assert record.data["class_names"][3] == HOSTILE
    assert record.recipe["name"] == "digits"
    assert record.shipped is not None


def test_pictures_become_data_uris(record: RunRecord, run_directory: Path) -> None:
    assert record.gallery is not None
    image = record.gallery.examples[0].image
    assert image is not None
    content = base64.b64decode(image.removeprefix("data:image/png;base64,"))
    assert content == (run_directory / "evaluation" / "gallery" / "0.png").read_bytes()


def test_optional_parts_may_be_missing(bare_record: RunRecord) -> None:
    assert bare_record.exports == ()
    assert bare_record.gallery is None
    assert bare_record.summary is None
    assert bare_record.verdict.interval is None


def test_arms_come_in_the_order_of_the_recipe(own: Path) -> None:
    verdict = json.loads((own / "verdict.json").read_text())
    change_json(own / "verdict.json", arms=dict(sorted(verdict["arms"].items())))
    assert list(read_run(own).arms) == ["scratch", "label-smoothing", "permuted-knowledge", "distilled"]


def test_given_teacher_weights_have_no_epochs(own: Path) -> None:
    (own / "teachers" / "teacher" / "events.jsonl").unlink()
    assert read_run(own).teachers["teacher"].epochs == ()


@pytest.mark.parametrize(
    "path", ["verdict.json", "recipe.resolved.yaml", "data.json", "arms/scratch/seed-2/evaluation.json"]
)
def test_a_missing_file_is_named_with_what_to_do(own: Path, path: str) -> None:
    (own / path).unlink()
    with pytest.raises(IntegrityError, match="distil run") as caught:
        read_run(own)
    assert str(own / path) in str(caught.value)
    assert "missing" in str(caught.value)


def test_a_missing_directory_is_the_callers_mistake(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no such run directory"):
        read_run(tmp_path / "nowhere")


def test_broken_json_is_named(own: Path) -> None:
    (own / "data.json").write_text('{"fingerprint": ', encoding="utf-8")
    with pytest.raises(IntegrityError, match=r"data\.json: not in the form"):
        read_run(own)


def test_a_missing_key_is_named(own: Path) -> None:
    path = own / "arms" / "scratch" / "seed-1" / "evaluation.json"
    content = json.loads(path.read_text())
    del content["num_parameters"]
    path.write_text(json.dumps(content))
    with pytest.raises(IntegrityError, match=r"seed-1.evaluation\.json.*'num_parameters' is missing"):
        read_run(own)


def test_another_format_is_refused(own: Path) -> None:
    change_json(own / "verdict.json", format=2)
    with pytest.raises(IntegrityError, match="format 2, expected 1"):
        read_run(own)


def test_an_unknown_verdict_is_refused(own: Path) -> None:
    change_json(own / "verdict.json", verdict="WINS")
    with pytest.raises(IntegrityError, match=r"WINS.*BEATS"):
        read_run(own)


def test_unknown_keys_are_left_alone(own: Path) -> None:
    change_json(own / "exports" / "onnx-fp32" / "parity.json", new_key=1)
    assert read_run(own).exports[0].parity is not None


def test_a_line_cut_off_by_a_kill_is_left_out(own: Path) -> None:
    path = own / "arms" / "scratch" / "seed-0" / "events.jsonl"
    with path.open("a", encoding="utf-8") as stream:
        stream.write('{"event": "epo')
    assert len(read_run(own).arms["scratch"][0].epochs) == EPOCHS


def test_a_broken_line_in_the_middle_is_named(own: Path) -> None:
    path = own / "arms" / "scratch" / "seed-0" / "events.jsonl"
    lines = path.read_text().splitlines()
    lines[4] = "{"
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(IntegrityError, match=r"events\.jsonl:5"):
        read_run(own)


def test_a_picture_outside_of_the_run_is_not_put_into_the_page(own: Path) -> None:
    (own.parent / "secret.png").write_bytes(b"\x89PNG\r\n\x1a\nsecret")
    gallery = json.loads((own / "evaluation" / "gallery.json").read_text())
    gallery["examples"][0]["image"] = "../../secret.png"
    change_json(own / "evaluation" / "gallery.json", **gallery)
    with pytest.raises(IntegrityError, match="outside of the run directory"):
        read_run(own)


def test_only_a_png_is_a_picture(own: Path) -> None:
    (own / "evaluation" / "gallery" / "0.png").write_bytes(b"<svg onload='alert(1)'/>")
    with pytest.raises(IntegrityError, match="not a PNG"):
        read_run(own)


def test_a_shipped_student_that_is_no_arm_is_refused(own: Path) -> None:
    change_json(own / "student" / "model.json", seed=17)
    with pytest.raises(IntegrityError, match=r"seed 17 of arm 'distilled'"):
        read_run(own)


def test_a_confusion_that_does_not_fit_the_classes_is_refused(own: Path) -> None:
    change_json(own / "arms" / "scratch" / "seed-0" / "evaluation.json", confusion=[[1, 0], [0, 1]])
    with pytest.raises(IntegrityError, match="not 10 x 10"):
        read_run(own)


def test_the_room_imports_no_torch() -> None:
    code = "import sys, distil.report.html, distil.report.card; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_what_texts_add_is_read(text_record: RunRecord, record: RunRecord) -> None:
    assert {name: each.value for name, each in text_record.verdict.baselines.items()} == {
        "majority class": 0.509,
        "TF-IDF and logistic regression": 0.823,
    }
    assert text_record.summary is not None
    assert [each.interval for each in text_record.summary.slices] == [(0.014, 0.088), (-0.061, 0.02), None]
    assert text_record.gallery is not None
    assert HOSTILE in (text_record.gallery.examples[0].text or "")
    assert text_record.has_huggingface_folder
    assert text_record.latency_input == "one text of 32 tokens"
    assert (record.verdict.baselines, record.has_huggingface_folder) == ({}, False)
    assert record.latency_input == "one image"


def test_a_task_without_classes_has_no_confusion(language_record: RunRecord) -> None:
    assert language_record.student.evaluation.confusion == ()
    assert not language_record.verdict.higher_is_better


def test_a_task_with_classes_may_have_no_confusion_if_an_example_has_several(tmp_path: Path) -> None:
    root = write_language_model_run(tmp_path / "run")
    change_json(root / "data.json", task="token-classification", class_names=["O", "B-PER"])
    assert read_run(root).student.evaluation.confusion == ()


def test_one_class_for_each_text_needs_its_confusion(tmp_path: Path) -> None:
    root = write_text_classification_run(tmp_path / "run")
    change_json(root / "arms" / "scratch" / "seed-0" / "evaluation.json", confusion=[])
    with pytest.raises(IntegrityError, match="not 2 x 2"):
        read_run(root)
