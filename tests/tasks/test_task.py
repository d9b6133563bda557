import numpy as np
import pytest
import torch

from distil.data.feed import AnyView, Read, Targets
from distil.tasks.choice import make_task
from distil.tasks.config import (
    CausalLanguageModelConfig,
    ImageClassificationConfig,
    MaskedLanguageModelConfig,
    MultiLabelConfig,
    QuestionAnsweringConfig,
    RankingConfig,
    SentenceEmbeddingConfig,
    SequenceToSequenceConfig,
    TaskConfig,
    TextClassificationConfig,
    TokenClassificationConfig,
)
from distil.tasks.score import Scores
from distil.tasks.task import Measured, Task
from tests.data.texts import make_texts, view


class Lengths(Task):
    """Counts the characters of a text; nearer is better."""

    metric = "distance"
    higher_is_better = False
    evaluation_batch = 2

    def num_outputs(self, examples: object) -> int:
        return 1

    def targets(self, read: Read) -> Targets:
        lengths = torch.tensor([len(text) for text in read.examples.columns["text"]])  # type: ignore[attr-defined]
        return Targets(values=lengths, present=read.examples.labels >= 0)

    def measure(self, scores: Scores, examples: object, view: AnyView) -> Measured:
        distance = (scores.logits[:, 0] - scores.labels).abs().double().numpy()
        return Measured(distance, {"distance": float(distance.mean()), "largest": float(distance.max())})


EXAMPLES = make_texts({"text": ["red", "blue", "old", "green", "new"]}, first_id=10)
SCORES = Scores(
    ids=EXAMPLES.ids, logits=torch.tensor([[3.0], [5.0], [3.0], [4.0], [0.0]]), labels=torch.tensor([3, 4, 3, 5, 3])
)


def test_examples_are_asked_about_once_in_their_own_order_a_few_at_a_time() -> None:
    batches = list(Lengths().batches(EXAMPLES, {"model": view()}))
    assert [batch.ids.tolist() for batch in batches] == [[10, 11], [12, 13], [14]]
    assert torch.cat([batch.targets["main"] for batch in batches]).tolist() == [3, 4, 3, 5, 3]
    assert batches[0].positions == {}


def test_validation_is_what_is_measured() -> None:
    assert Lengths().validation(SCORES, EXAMPLES, view()) == {"distance": 1.0, "largest": 3.0}
    values = Lengths().measure(SCORES, EXAMPLES, view()).values
    np.testing.assert_array_equal(values, [0, 1, 0, 1, 3])


def test_a_metric_that_should_be_low_is_turned_round() -> None:
    assert Lengths().signed(0.25) == -0.25
    assert make_task(TextClassificationConfig()).signed(0.25) == 0.25
    assert make_task(CausalLanguageModelConfig()).signed(2.0) == -2.0


def test_a_network_is_asked_and_measured_as_it_is_where_a_task_says_nothing_else() -> None:
    reader = view()
    assert Lengths().test_view(reader, EXAMPLES) is reader
    batch = next(iter(Lengths().batches(EXAMPLES, {"model": reader})))
    answers = torch.ones(2, 1)
    assert Lengths().ask(torch.nn.Identity(), answers, batch) is answers


FACTS: list[tuple[TaskConfig, str, set[str]]] = [
    (ImageClassificationConfig(), "classes", {"one_class"}),
    (TextClassificationConfig(), "classes", {"one_class"}),
    (MultiLabelConfig(), "classes", set()),
    (RankingConfig(), "classes", {"values_of_groups"}),
    (RankingConfig(scorer="bi-encoder"), "embedding", {"values_of_groups"}),
    (TokenClassificationConfig(), "token-classes", {"answers_for_tokens"}),
    (QuestionAnsweringConfig(), "spans", {"fixed_length"}),
    (SequenceToSequenceConfig(), "seq2seq", {"answers_for_tokens"}),
    (CausalLanguageModelConfig(), "causal-lm", {"answers_for_tokens", "fixed_length"}),
    (MaskedLanguageModelConfig(), "masked-lm", {"answers_for_tokens"}),
    (SentenceEmbeddingConfig(), "embedding", set()),
]


@pytest.mark.parametrize(("config", "head", "facts"), FACTS, ids=lambda value: getattr(value, "kind", None))
def test_what_others_ask_of_each_task(config: TaskConfig, head: str, facts: set[str]) -> None:
    task = make_task(config)
    names = ("one_class", "values_of_groups", "answers_for_tokens", "fixed_length")
    assert task.head == head
    assert {name for name in names if getattr(task, name)} == facts
    assert task.higher_is_better == (config.kind != "causal-lm")


def test_a_task_is_not_made_without_its_three_parts() -> None:
    class Half(Task):
        metric = "none"

    with pytest.raises(TypeError, match="abstract"):
        Half()  # type: ignore[abstract]
