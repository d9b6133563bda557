import os

import pytest
import torch

from distil.core.config import PlacementConfig
from distil.core.errors import ResourceError
from distil.core.placement import place


def test_threads_are_the_recipe_s() -> None:
    with place(PlacementConfig(threads=1)) as placement:
        assert placement.threads == 1
        assert torch.get_num_threads() == 1


def test_threads_are_the_recipe_s_where_the_system_has_no_affinity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    with place(PlacementConfig(threads=1)) as placement:
        assert placement.threads == 1
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    with place(PlacementConfig()) as placement:
        assert placement.threads == 3


def test_without_threads_it_takes_the_cores_it_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 5, 7})
    with place(PlacementConfig()) as placement:
        assert placement.threads == 3


def test_20_torch_is_as_before_outside() -> None:
    def state() -> tuple[int, bool, bool]:
        return (
            torch.get_num_threads(),
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
        )

    before = state()
    with place(PlacementConfig(threads=before[0] + 1)):
        assert state() == (before[0] + 1, True, False)
    assert state() == before
    with pytest.raises(RuntimeError, match="inside"), place(PlacementConfig(threads=before[0] + 1)):
        raise RuntimeError("inside")
    assert state() == before


def test_it_describes_itself() -> None:
    with place(PlacementConfig(device="cpu", precision="bf16", threads=2)) as placement:
        assert placement.describe() == {"device": "cpu", "precision": "bf16", "threads": 2}


def test_bf16_multiplies_in_bfloat16_and_keeps_weights_in_float32() -> None:
    model, inputs = torch.nn.Linear(4, 4), torch.randn(2, 4)
    with place(PlacementConfig(device="cpu", precision="bf16", threads=1)) as placement:
        wrapped = placement.fabric.setup_module(model)
        output = wrapped(inputs)
    assert model.weight.dtype == torch.float32
    exact = torch.nn.functional.linear(inputs, model.weight, model.bias)
    assert not torch.equal(output, exact)
    torch.testing.assert_close(output.float(), exact, atol=0.05, rtol=0.05)


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_a_device_that_is_not_there_is_refused(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ResourceError, match=f"placement.device is {device}"), place(PlacementConfig(device=device)):
        pass


def test_several_ranks_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ResourceError, match="without a launcher"), place(PlacementConfig()):
        pass
