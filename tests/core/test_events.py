import resource
from pathlib import Path

import pytest

from distil.core.errors import ResourceError
from distil.core.events import EventLog, read_events


def steps(path: Path) -> list[int]:
    return [event["step"] for event in read_events(path)]


def test_events_are_read_back_in_order(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "arm" / "events.jsonl")
    log.append("start", step=0, total_steps=4)
    log.append("epoch", step=2, loss=0.5, text="größer\u2028than")
    assert list(read_events(tmp_path / "arm" / "events.jsonl")) == [
        {"event": "start", "step": 0, "total_steps": 4},
        {"event": "epoch", "step": 2, "loss": 0.5, "text": "größer\u2028than"},
    ]


def test_a_file_that_is_not_there_has_no_events(tmp_path: Path) -> None:
    assert list(read_events(tmp_path / "absent.jsonl")) == []
    EventLog(tmp_path / "absent.jsonl").cut_back(3)
    EventLog(tmp_path / "absent.jsonl").clear()
    assert not (tmp_path / "absent.jsonl").exists()


def test_a_line_cut_short_is_left_out_and_removed_on_resume(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    log = EventLog(path)
    for step in (1, 2, 3):
        log.append("epoch", step=step)
    with path.open("a") as file:
        file.write('{"event": "epoch", "st')
    assert steps(path) == [1, 2, 3]
    log.cut_back(2)
    log.append("epoch", step=3)
    assert steps(path) == [1, 2, 3]
    assert path.read_text().count("\n") == 3


def test_cutting_back_keeps_the_step_itself(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events.jsonl")
    for step in (0, 5, 5, 6):
        log.append("epoch", step=step)
    log.cut_back(5)
    assert steps(tmp_path / "events.jsonl") == [0, 5, 5]


def test_clearing_removes_all(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events.jsonl")
    log.append("epoch", step=1)
    log.clear()
    assert steps(tmp_path / "events.jsonl") == []


def test_a_value_that_json_cannot_hold_writes_nothing(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events.jsonl")
    log.append("epoch", step=1, loss=1.0)
    with pytest.raises(ValueError, match="JSON"):
        log.append("epoch", step=2, loss=float("nan"))
    assert steps(tmp_path / "events.jsonl") == [1]


def test_an_event_that_cannot_be_written_is_a_failed_save(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events.jsonl")
    log.append("epoch", step=1)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50, hard))
    try:
        with pytest.raises(ResourceError, match="could not be saved"):
            log.append("epoch", step=2, text="x" * 200)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert steps(tmp_path / "events.jsonl") == [1]


def test_a_folder_that_cannot_be_made_is_a_failed_save(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ResourceError, match="could not be saved"):
        EventLog(tmp_path / "file" / "events.jsonl").append("start", step=0)
