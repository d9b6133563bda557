import torch

from distil.check.sample import LEAST, MOST, sample_for, spread, whole_groups
from distil.data.example import TextExamples
from distil.models.describe import ModelDescription
from distil.tasks.classification import Classification
from distil.tasks.config import RankingConfig
from distil.tasks.language import Ranking


def examples(count: int, groups: tuple[str, ...] | None = None) -> TextExamples:
    numbers = torch.arange(count)
    texts = {"text": tuple(map(str, range(count)))}
    return TextExamples(ids=numbers, labels=numbers % 2, class_names=("a", "b"), columns=texts, groups=groups)


def test_a_sample_is_from_all_over_the_data_and_in_its_order() -> None:
    assert spread(examples(100), 4).ids.tolist() == [0, 25, 50, 75]
    assert spread(examples(3), 4).ids.tolist() == [0, 1, 2]


def test_a_group_is_taken_whole_or_not_at_all() -> None:
    groups = tuple(f"question {number // 3}" for number in range(30))
    chosen = whole_groups(examples(30, groups), 7)
    assert chosen.ids.tolist() == [0, 1, 2, 15, 16, 17]
    assert whole_groups(examples(30, groups), 1).ids.tolist() == [0, 1, 2]
    assert len(whole_groups(examples(30), 7)) == 7


def test_an_expensive_model_is_asked_less_and_never_about_fewer_than_the_least() -> None:
    many = examples(3_000)

    def size(operations: int) -> int:
        description = ModelDescription(num_classes=2, multiply_accumulates=operations)
        return len(sample_for(description, many, Classification()))

    assert (size(0), size(10**9), size(10**15)) == (MOST, 100, LEAST)
    groups = tuple(f"question {number // 100}" for number in range(3_000))
    costly = ModelDescription(num_classes=2, multiply_accumulates=10**15)
    assert len(sample_for(costly, examples(3_000, groups), Ranking(RankingConfig()))) == 100
