from pathlib import Path

import torch

from distil.core.files import read_json
from distil.pipeline.run import RunResult
from distil.pipeline.training import TrainedModel, load_trained, save_trained


def test_a_trained_model_is_read_back_as_it_was(tmp_path: Path) -> None:
    trained = TrainedModel(
        weights={"w": torch.tensor([1 / 3])},
        epochs=5,
        kept_epoch=3,
        still_improving=True,
        validation={"accuracy": 0.1 + 0.2, "negative_log_likelihood": 1 / 3},
    )
    files = save_trained(trained, tmp_path)
    assert [path.name for path in files] == ["model.safetensors", "training.json"]
    again = load_trained(tmp_path)
    assert torch.equal(again.weights["w"], trained.weights["w"])
    assert (again.epochs, again.kept_epoch, again.still_improving) == (5, 3, True)
    assert again.validation == trained.validation


def test_the_kept_epoch_is_the_best_of_the_events(finished: RunResult) -> None:
    from distil.core.events import read_events

    folder = finished.directory / "arms/distilled/seed-0"
    epochs = [event for event in read_events(folder / "events.jsonl") if event["event"] == "epoch"]
    best = max(epochs, key=lambda e: (e["validation"]["accuracy"], -e["validation"]["negative_log_likelihood"]))
    facts = read_json(folder / "training.json")
    assert facts["kept_epoch"] == best["epoch"]
    assert facts["validation"]["accuracy"] == best["validation"]["accuracy"]
