import torch
from safetensors.torch import load_file

from distil.core.seeds import derive
from distil.data.config import DigitsConfig, InputsConfig
from distil.data.split import load_splits
from distil.models.config import MlpConfig
from distil.pipeline.run import RunResult
from distil.tasks.network import build_network


def test_students_of_a_seed_differ_by_arm_only_after_training(finished: RunResult) -> None:
    arms = {
        arm: load_file(finished.directory / f"arms/{arm}/seed-0/model.safetensors")["classifier.weight"]
        for arm in ("scratch", "label-smoothing", "distilled")
    }
    assert not torch.equal(arms["scratch"], arms["distilled"])
    assert not torch.equal(arms["scratch"], arms["label-smoothing"])


def test_initial_weights_are_a_function_of_the_seed() -> None:
    examples = load_splits(DigitsConfig()).train
    weights = [
        build_network(
            MlpConfig(widths=(4,)), InputsConfig(), examples=examples, seed=derive("initial-weights", "student", seed)
        ).model.classifier.weight
        for seed in (0, 0, 1)
    ]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
