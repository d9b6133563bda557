import numpy as np
import pytest
import torch
from torch import nn

from distil.core.errors import ModelError
from distil.data.config import InputsConfig
from distil.data.example import Examples
from distil.data.source import make_examples
from distil.data.view import View
from distil.models.config import ConvNetConfig, MlpConfig, ModuleConfig, TorchvisionModelConfig
from distil.tasks.network import build_network, first_input


def examples() -> Examples:
    images = np.random.default_rng(0).integers(0, 256, (4, 1, 6, 5), dtype=np.uint8)
    return make_examples(images, np.array([0, 1, 2, 0]), class_names=["cat", "dog", "hen"])


def test_a_network_is_built_for_the_data() -> None:
    network = build_network(MlpConfig(widths=(7,)), InputsConfig(), examples=examples(), seed=0)
    assert network.view == View(1, 6, 5, (0.0,), (1.0,))
    assert network.description.num_classes == 3
    assert network.description.multiply_accumulates == 30 * 7 + 7 * 3
    assert network.model(first_input(examples(), network.view)).shape == (1, 3)


def test_its_size_follows_its_inputs() -> None:
    network = build_network(MlpConfig(widths=(7,)), InputsConfig(size=(3, 4), channels=3), examples=examples(), seed=0)
    assert network.description.multiply_accumulates == 36 * 7 + 7 * 3


def test_a_torchvision_model_takes_three_channels_of_grey_images() -> None:
    config = TorchvisionModelConfig(name="squeezenet1_1")
    network = build_network(config, InputsConfig(size=32), examples=examples(), seed=0)
    assert (network.view.channels, network.view.height) == (3, 32)


def test_equal_seeds_give_equal_networks_and_building_changes_nothing_else() -> None:
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    built = [build_network(ConvNetConfig(widths=(4,)), InputsConfig(), examples=examples(), seed=s) for s in (1, 1, 2)]
    assert torch.equal(torch.random.get_rng_state(), before)
    states = [network.model.state_dict() for network in built]
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())
    assert not all(torch.equal(tensor, states[2][name]) for name, tensor in states[0].items())
    assert states[0]["body.1.num_batches_tracked"] == 0  # the trial run is in evaluation mode
    assert built[0].model.training


def test_another_number_of_classes_is_refused_with_both() -> None:
    config = ModuleConfig(make=lambda: nn.Sequential(nn.Flatten(), nn.Linear(30, 4)))
    message = r"teachers\.big: its output has 4 classes, and the data have 3 \(cat, dog, hen\)"
    with pytest.raises(ModelError, match=message):
        build_network(config, InputsConfig(), examples=examples(), seed=0, who="teachers.big")


def test_a_teacher_may_be_asked_for_another_number_of_classes() -> None:
    network = build_network(MlpConfig(widths=(7,)), InputsConfig(), examples=examples(), seed=0, num_classes=5)
    assert network.description.num_classes == 5
