import pytest
import torch
from torch import Tensor

from distil.models.text import TextCnn
from distil.models.text_config import TextCnnConfig

PAD = 0


def small(*, kernels: tuple[int, ...] = (2, 3, 4, 5), seed: int = 0) -> TextCnn:
    torch.manual_seed(seed)
    config = TextCnnConfig(embedding=6, widths=5, kernels=kernels)
    return TextCnn(config, vocabulary_size=20, num_classes=3).eval()


def batch(*texts: list[int], before: int = 0, after: int = 0) -> dict[str, Tensor]:
    """Padded to the longest, and by so many tokens more."""
    longest = max(map(len, texts))
    rows = [[PAD] * before + text + [PAD] * (longest - len(text) + after) for text in texts]
    real = [[0] * before + [1] * len(text) + [0] * (longest - len(text) + after) for text in texts]
    return {"input_ids": torch.tensor(rows), "attention_mask": torch.tensor(real)}


TEXTS = ([3, 4, 5, 6, 7, 8, 9], [PAD, 11], [12])


@pytest.mark.parametrize(("before", "after"), [(0, 0), (0, 3), (4, 0), (2, 5)])
def test_11_12_padding_on_any_side_changes_nothing(before: int, after: int) -> None:
    network = small()
    alone = torch.cat([network(batch(text)) for text in TEXTS])
    torch.testing.assert_close(network(batch(*TEXTS, before=before, after=after)), alone, rtol=1e-6, atol=1e-6)


def test_11_padding_gets_no_gradient_and_changes_none() -> None:
    gradients = []
    for after in (0, 3):
        network = small()
        network(batch(TEXTS[0], TEXTS[2], after=after)).sum().backward()
        gradients.append(network.embedding.weight.grad)
    torch.testing.assert_close(*gradients)
    assert gradients[1][PAD].abs().sum() == 0  # type: ignore[index]
    assert gradients[1][3:10].abs().sum(dim=1).min() > 0  # type: ignore[index]


@pytest.mark.parametrize("length", [1, 2, 7])
@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_the_answers_are_those_of_the_formula(size: int, length: int) -> None:
    network = small(kernels=(size,))
    text = TEXTS[0][:length]
    weight, bias = network.convolutions[0].weight, network.convolutions[0].bias
    answers = []
    for place in range(length):
        answer = bias.clone()  # type: ignore[operator, union-attr]
        for step in range(size):
            seen = place + step - (size - 1) // 2
            if 0 <= seen < length:
                answer = answer + weight[:, :, step] @ network.embedding.weight[text[seen]]  # type: ignore[index]
        answers.append(answer.clamp(min=0))
    expected = network.classifier(torch.stack(answers).amax(dim=0))
    torch.testing.assert_close(network(batch(text))[0], expected)


def test_a_text_without_tokens_gets_a_finite_answer() -> None:
    network = small()
    empty = {"input_ids": torch.zeros(1, 4, dtype=torch.long), "attention_mask": torch.zeros(1, 4, dtype=torch.long)}
    torch.testing.assert_close(network(empty)[0], network.classifier.bias)


def test_20_equal_seeds_give_equal_networks() -> None:
    one, same, other = (small(seed=seed)(batch(*TEXTS)) for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_dropout_is_on_in_training_alone() -> None:
    network = small()
    inputs = batch(*TEXTS)
    assert torch.equal(network(inputs), network(inputs))
    network.train()
    assert not torch.equal(network(inputs), network(inputs))
