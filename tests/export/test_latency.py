import json
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distil.core.errors import ExportError
from distil.export import latency
from distil.export.integrity import write_record
from distil.export.latency import Contestant, judge_speed_up, main, median_interval
from distil.export.samples import read_samples

from . import texts

KEYS = {
    "format", "threads", "batch_size", "rounds", "p50_ms", "p95_ms", "p50_interval", "load_ms", "cpu", "reference",
    "speed_up", "pid",
}  # fmt: skip


def make_blocks(
    median_ms: float, *, seed: int, noise: float = 0.05, drift: np.ndarray | None = None, rounds: int = 30
) -> np.ndarray:
    """Times as machines give them: a skewed tail, and a level that changes from round to round."""
    generator = np.random.default_rng(seed)
    level = np.exp(noise * generator.normal(size=(rounds, 1)))
    if drift is not None:
        level = level * drift[:, None]
    return median_ms * level * np.exp(0.1 * np.abs(generator.normal(size=(rounds, 40))))


@pytest.mark.parametrize("seed", range(20))
def test_35_no_speed_up_is_claimed_for_a_model_against_itself(seed: int) -> None:
    result = judge_speed_up(make_blocks(1.0, seed=seed), make_blocks(1.0, seed=1000 + seed))
    assert not result["claimed"]
    assert result["interval"][0] <= result["ratio"] <= result["interval"][1]


def test_the_same_samples_twice_overlap() -> None:
    blocks = make_blocks(1.0, seed=0)
    result = judge_speed_up(blocks, blocks)
    assert result["ratio"] == 1
    assert result["interval"] == [1, 1]
    assert not result["claimed"]
    assert result["why"].startswith("no difference is shown: the 95% intervals of the medians overlap")


@pytest.mark.parametrize("seed", range(5))
def test_twice_as_fast_is_claimed(seed: int) -> None:
    result = judge_speed_up(make_blocks(0.5, seed=seed), make_blocks(1.0, seed=1000 + seed))
    assert result["claimed"]
    assert result["why"].startswith("faster")
    assert result["interval"][0] < 2 < result["interval"][1]
    assert result["interval"][1] - result["interval"][0] < 0.4


def test_slower_is_never_a_speed_up() -> None:
    result = judge_speed_up(make_blocks(2.0, seed=0), make_blocks(1.0, seed=1))
    assert not result["claimed"]
    assert result["why"].startswith("slower")
    assert result["ratio"] == pytest.approx(0.5, rel=0.1)


def test_a_percent_is_not_claimed_however_sure_it_is() -> None:
    artefact, reference = make_blocks(1.0, seed=0, noise=1e-4), make_blocks(1.01, seed=0, noise=1e-4)
    assert median_interval(artefact)[1] < median_interval(reference)[0]
    for first, second in ((artefact, reference), (reference, artefact)):
        result = judge_speed_up(first, second)
        assert not result["claimed"]
        assert "may be below 5% is not claimed" in result["why"]


def test_overlapping_medians_are_not_claimed_even_where_the_ratio_is_sure() -> None:
    """A drift that both share leaves the ratio exact and each median unsure: the rule asks for both."""
    drift = np.exp(np.linspace(-0.5, 0.5, 30))
    artefact = make_blocks(1.0, seed=0, noise=1e-3, drift=drift)
    reference = make_blocks(1.1, seed=1, noise=1e-3, drift=drift)
    result = judge_speed_up(artefact, reference)
    assert latency.SMALLEST_CLAIM < result["interval"][0] < result["interval"][1] < 1.15
    assert not result["claimed"]
    assert "overlap" in result["why"]


def test_the_interval_holds_the_median_about_as_often_as_it_says() -> None:
    median = np.median(make_blocks(1.0, seed=1, rounds=20_000))
    intervals = [median_interval(make_blocks(1.0, seed=seed)) for seed in range(100, 200)]
    held = sum(low <= median <= high for low, high in intervals)
    assert 88 <= held <= 99


def test_one_slow_round_of_a_thousand_samples_does_not_make_the_interval_narrow() -> None:
    """Rounds are drawn, not samples: 20 rounds at 20 levels are 20 observations, however long each is."""
    levels = np.linspace(1.0, 2.0, 20)[:, None]
    blocks = np.broadcast_to(levels, (20, 1000)).copy()
    low, high = median_interval(blocks)
    assert high - low > 0.2


def test_a_long_block_is_resampled_by_its_quantiles() -> None:
    long = make_blocks(1.0, seed=3)
    repeated = np.repeat(long, 10, axis=1)
    assert median_interval(repeated) == pytest.approx(median_interval(long), rel=0.01)


class FakeSession:
    def __init__(self, name: str, calls: list[str], seconds: float = 0.0) -> None:
        self.name, self.calls, self.seconds = name, calls, seconds

    def run(self, *_: Any) -> None:
        self.calls.append(self.name)
        time.sleep(self.seconds)


def make_contestants(calls: list[str]) -> list[Contestant]:
    inputs = [np.zeros((1, 1, 2, 2), np.float32)]
    return [Contestant(Path(name), name, FakeSession(name, calls), inputs, 0.0) for name in "abc"]


@pytest.mark.untyped
def test_rounds_go_forwards_and_backwards_in_turn() -> None:
    calls: list[str] = []
    blocks = latency._measure_rounds(make_contestants(calls), [4, 5, 6], rounds=3)
    assert [array.shape for array in blocks] == [(3, 4), (3, 5), (3, 6)]
    turns = [name for index, name in enumerate(calls) if index == 0 or calls[index - 1] != name]
    assert "".join(turns) == "abcba" + "bc"  # a b c, c b a, a b c, with equal neighbours joined


@pytest.mark.untyped
def test_a_run_is_timed_alone_in_milliseconds() -> None:
    contestant = Contestant(Path("a"), "a", FakeSession("a", [], seconds=0.002), [np.zeros(1, np.float32)], 0.0)
    times = latency._time_block(contestant, 5)
    assert times.shape == (5,)
    assert 2.0 <= times.min() < 50


@pytest.mark.untyped
def test_every_directory_gets_its_report(artefacts: Path, tmp_path: Path) -> None:
    exports = tmp_path / "exports"
    student = Path(shutil.copytree(artefacts / "mlp-fp32", exports / "onnx-fp32"))
    small = Path(shutil.copytree(artefacts / "mlp-int8", exports / "onnx-int8"))
    teacher = Path(shutil.copytree(artefacts / "convnet-fp32", exports / "teachers" / "teacher" / "onnx-fp32"))
    reports = latency.measure_latency([student, small], reference=teacher, rounds=4, seconds=0.1)
    assert list(reports) == [student, small, teacher]
    for directory, report in reports.items():
        assert json.loads((directory / "latency.json").read_text()) == report
        assert report.keys() >= KEYS
        assert (report["threads"], report["batch_size"], report["rounds"]) == (1, 1, 4)
        assert 0 < report["p50_ms"] <= report["p95_ms"]
        assert report["p50_interval"][0] <= report["p50_ms"] <= report["p50_interval"][1]
        assert report["load_ms"] > 0
        assert report["cpu"]
    assert reports[student]["reference"] == reports[small]["reference"] == "teachers/teacher/onnx-fp32"
    assert reports[student]["speed_up"].keys() == {"ratio", "interval", "claimed", "why"}
    assert (reports[teacher]["reference"], reports[teacher]["speed_up"]) == (None, None)


@pytest.mark.untyped
def test_35_equal_bytes_are_never_a_speed_up(artefacts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = Path(shutil.copytree(artefacts / "mlp-fp32", tmp_path / "copy"))
    reference = Path(shutil.copytree(artefacts / "mlp-fp32", tmp_path / "reference"))

    def flatter(*_: Any) -> dict[str, Any]:
        return {"ratio": 2.0, "interval": [1.9, 2.1], "claimed": True, "why": "faster"}

    monkeypatch.setattr(latency, "judge_speed_up", flatter)
    speed_up = latency.measure_latency([copy], reference=reference, rounds=2, seconds=0.05)[copy]["speed_up"]
    assert not speed_up["claimed"]
    assert "equal in every byte" in speed_up["why"]


@pytest.mark.untyped
def test_without_a_reference_there_is_no_speed_up(artefacts: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(artefacts / "mlp-fp32", tmp_path / "copy"))
    for reference in (None, copy):
        report = latency.measure_latency([copy], reference=reference, rounds=2, seconds=0.02)[copy]
        assert (report["reference"], report["speed_up"]) == (None, None)


@pytest.mark.untyped
def test_30_a_changed_artefact_is_not_timed(
    artefacts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(latency, "_pin_to_one_core", lambda: None)
    copy = Path(shutil.copytree(artefacts / "mlp-fp32", tmp_path / "copy"))
    content = bytearray((copy / "model.onnx").read_bytes())
    content[-1] ^= 1
    (copy / "model.onnx").write_bytes(content)
    assert main([str(copy)]) == 3
    assert capsys.readouterr().err.startswith(f"IntegrityError: {copy / 'model.onnx'}")
    assert not (copy / "latency.json").exists()


@pytest.mark.parametrize(("rounds", "seconds"), [(1, 1.0), (5, 0.0), (5, float("nan"))])
def test_settings_without_meaning_are_refused(rounds: int, seconds: float, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="needs at least 2 rounds and more than 0 seconds"):
        latency.measure_latency([tmp_path], rounds=rounds, seconds=seconds)


TEXTS = {
    "input_ids": np.array([[0, 5, 6, 7], [0, 8, 0, 0]]),
    "attention_mask": np.array([[0, 1, 1, 1], [0, 1, 0, 0]]),
}


@pytest.mark.parametrize(
    ("tokens", "row", "ids", "mask"),
    [
        (2, 0, [5, 6], [1, 1]),
        (5, 0, [5, 6, 7, 9, 9], [1, 1, 1, 0, 0]),
        (3, 1, [8, 9, 9], [1, 0, 0]),
        (None, 0, [5, 6, 7], [1, 1, 1]),
        (None, 1, [8], [1]),
    ],
)
def test_a_text_gets_its_number_of_tokens(tokens: int | None, row: int, ids: list[int], mask: list[int]) -> None:
    one = latency._single({name: value[row : row + 1] for name, value in TEXTS.items()}, tokens, pad_id=9)
    assert not isinstance(one, np.ndarray)
    assert one["input_ids"].tolist() == [ids]
    assert one["attention_mask"].tolist() == [mask]
    assert all(value.flags.c_contiguous for value in one.values())


class RecordingSession:
    def __init__(self) -> None:
        self.asked: list[tuple[list[str], dict[str, np.ndarray]]] = []

    def run(self, names: list[str], feed: dict[str, np.ndarray]) -> None:
        self.asked.append((names, feed))


def test_texts_are_asked_by_name_and_in_turn() -> None:
    session = RecordingSession()
    singles = [{name: value[row : row + 1] for name, value in TEXTS.items()} for row in range(2)]
    latency._time_block(Contestant(Path("a"), "a", session, singles, 0.0, "embedding", 4), 3)
    assert [names for names, _ in session.asked] == [["embedding"]] * 3
    assert [feed["input_ids"][0, 1] for _, feed in session.asked] == [5, 8, 5]


@pytest.fixture
def exports(text_artefacts: Path, tmp_path: Path) -> Path:
    for name in ("words-fp32", "words-int8", "tags-fp32", "characters-fp32"):
        shutil.copytree(text_artefacts / name, tmp_path / name)
    return tmp_path


def change_json(directory: Path, name: str, change: dict[str, Any]) -> None:
    content = json.loads((directory / name).read_bytes())
    for key, value in change.items():
        content[key] = (content[key] | value) if isinstance(value, dict) and content[key] else value
    (directory / name).write_text(json.dumps(content))
    record = json.loads((directory / "artefact.json").read_bytes())
    write_record(directory, record["files"], precision=record["precision"])


@pytest.mark.untyped
@pytest.mark.parametrize(("tokens", "expected"), [(None, 32), (8, 8), (500, texts.MAX_LENGTH)])
def test_texts_of_one_tokenizer_are_timed_at_one_length(tokens: int | None, expected: int, exports: Path) -> None:
    """The tokenizer's file may say another length to cut at: the pieces of text are the same."""
    change_json(exports / "words-int8", "tokenizer.json", {"truncation": {"max_length": 7, "stride": 0,
                "strategy": "LongestFirst", "direction": "Right"}})  # fmt: skip
    reports = latency.measure_latency(
        [exports / "words-fp32", exports / "words-int8"],
        reference=exports / "tags-fp32",
        rounds=2,
        seconds=0.05,
        **({} if tokens is None else {"tokens": tokens}),
    )
    assert {report["tokens"] for report in reports.values()} == {expected}
    report = reports[exports / "words-int8"]
    assert json.loads((exports / "words-int8" / "latency.json").read_text()) == report
    assert report["reference"] == "tags-fp32"
    assert report["speed_up"]["ratio"] > 0


@pytest.mark.untyped
def test_the_shortest_limit_holds_for_all(exports: Path) -> None:
    change_json(exports / "tags-fp32", "labels_and_preprocessing.json", {"input": {"max_length": 6}})
    assert latency._shared_length([exports / "words-fp32", exports / "tags-fp32"], 32) == 6


@pytest.mark.untyped
def test_texts_of_two_tokenizers_keep_their_own_lengths(exports: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """32 characters are not the text that 32 words are."""
    seen: list[Contestant] = []

    def look(contestants: list[Contestant], **_: Any) -> list[np.ndarray]:
        seen.extend(contestants)
        return [np.ones((2, 3)) for _ in contestants]

    monkeypatch.setattr(latency, "time_together", look)
    reports = latency.measure_latency([exports / "characters-fp32"], reference=exports / "words-fp32")
    assert {report["tokens"] for report in reports.values()} == {None}
    for contestant in seen:
        masks = read_samples(contestant.directory / "samples.safetensors").inputs["attention_mask"]
        lengths = [each["attention_mask"].shape[1] for each in contestant.inputs]
        assert lengths == masks[:32].sum(axis=1).tolist()
        assert len(set(lengths)) > 5


@pytest.mark.untyped
def test_images_have_no_tokens(artefacts: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(artefacts / "mlp-fp32", tmp_path / "copy"))
    assert latency.measure_latency([copy], rounds=2, seconds=0.02)[copy]["tokens"] is None


def test_no_tokens_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="at least 1 token, got 0"):
        latency.measure_latency([tmp_path], tokens=0)
