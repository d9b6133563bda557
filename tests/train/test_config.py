import pytest
from pydantic import TypeAdapter, ValidationError

from distil.train.config import ConstantConfig, OneCycleConfig, ScheduleConfig, SgdConfig, TrainingConfig


def test_a_word_stands_for_its_kind() -> None:
    assert TypeAdapter(ScheduleConfig).validate_python("one-cycle") == OneCycleConfig()
    assert TrainingConfig.model_validate({"optimizer": "sgd"}).optimizer == SgdConfig()


def test_plateau_refuses_a_schedule_that_needs_to_know_the_end() -> None:
    with pytest.raises(ValidationError, match="use schedule: constant"):
        TrainingConfig.model_validate({"until": "plateau"})
    config = TrainingConfig.model_validate({"until": "plateau", "schedule": "constant"})
    assert config.schedule == ConstantConfig()


def test_patience_belongs_to_plateau_alone() -> None:
    with pytest.raises(ValidationError, match="patience"):
        TrainingConfig.model_validate({"until": {"kind": "epochs", "patience": 3}})


def test_nesterov_without_momentum_is_refused() -> None:
    with pytest.raises(ValidationError, match="only with a momentum above 0"):
        SgdConfig(momentum=0, nesterov=True)


def test_a_micro_batch_is_not_larger_than_the_batch() -> None:
    with pytest.raises(ValidationError, match="micro_batch_size 64 is larger than batch_size 32"):
        TrainingConfig(batch_size=32, micro_batch_size=64)


@pytest.mark.parametrize("key", ["epochs", "batch_size"])
@pytest.mark.parametrize("value", [0, -1, 1.5, "five", True])
def test_counts_are_whole_and_positive(key: str, value: object) -> None:
    with pytest.raises(ValidationError, match=key):
        TrainingConfig.model_validate({key: value})
