"""What the pre-flight says of teachers that are well, and of five that are not."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from distil.check.check import check_recipe
from distil.check.finding import Finding
from distil.data.config import DigitsConfig
from distil.data.split import load_splits
from distil.recipe.recipe import Recipe
from tests.check.conftest import Checker, about


class Linear(nn.Module):
    """A linear classifier of digits, with something done to its logits."""

    def __init__(self) -> None:
        super().__init__()
        self.flatten, self.classifier = nn.Flatten(), nn.Linear(64, 10)

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(self.flatten(images))


@pytest.fixture(scope="module")
def trained() -> dict[str, Tensor]:
    """Weights of ``Linear`` after a few hundred full-batch steps."""
    torch.manual_seed(0)
    examples = load_splits(DigitsConfig()).train
    model, inputs = Linear(), examples.images.float() / 255
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    for _ in range(150):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs), examples.labels).backward()
        optimizer.step()
    return model.state_dict()


def findings_on(make: object, **teacher: object) -> list[Finding]:
    return check_recipe(
        Recipe.model_validate(
            {
                "name": "teacher",
                "data": "digits",
                "teacher": {"model": {"kind": "module", "make": make}, "weights": "included", **teacher},
                "student": {"model": {"kind": "mlp", "widths": [8]}},
                "objective": {"soft": {"kind": "soft-targets", "temperature": 20}},
                "seeds": 5,
            }
        )
    )


def with_weights(kind: type[nn.Module], weights: dict[str, Tensor]) -> object:
    def make() -> nn.Module:
        model = kind()
        model.load_state_dict(weights)
        return model

    return make


def test_01_15_a_sound_teacher_is_found_sound(trained: dict[str, Tensor]) -> None:
    findings = findings_on(with_weights(Linear, trained))
    assert [finding.what for finding in findings if finding.level == "wrong"] == []
    (identity,) = about(findings, "a copy of the teacher in the student's place gives")
    assert identity.level == "fine"
    (quality,) = about(findings, "accuracy on")
    assert float(quality.what.split(": ")[1].split()[0]) > 0.9
    assert about(findings, "its outputs are logits")
    assert about(findings, "in evaluation mode, frozen, buffers unchanged")


def test_21_a_teacher_fed_what_it_was_not_trained_on_is_at_chance(trained: dict[str, Tensor]) -> None:
    class Inverted(Linear):
        def forward(self, images: Tensor) -> Tensor:
            return -super().forward(images * 0)

    (finding,) = about(findings_on(with_weights(Inverted, trained)), "accuracy on")
    assert finding.level == "wrong"
    assert "about chance" in finding.why


def test_a_teacher_with_its_classes_in_another_order_is_found_with_the_order(trained: dict[str, Tensor]) -> None:
    order = [3, 1, 4, 0, 5, 9, 2, 6, 8, 7]
    shuffled = {name: tensor[order] for name, tensor in trained.items()}
    (finding,) = about(findings_on(with_weights(Linear, shuffled)), "with its classes in another order")
    assert finding.level == "wrong"
    assert str([str(label) for label in order]) in finding.remedy


def test_wrongly_declared_classes_are_found_with_the_right_ones(trained: dict[str, Tensor]) -> None:
    order = [3, 1, 4, 0, 5, 9, 2, 6, 8, 7]
    shuffled = {name: tensor[order] for name, tensor in trained.items()}
    right, wrong = ([str(label) for label in labels] for labels in (order, order[1:] + order[:1]))
    (finding,) = about(findings_on(with_weights(Linear, shuffled), classes=wrong), "in another order")
    assert str(right) in finding.remedy
    assert not about(findings_on(with_weights(Linear, shuffled), classes=right), "in another order")


def test_06_probabilities_are_found(trained: dict[str, Tensor]) -> None:
    class Softmax(Linear):
        def forward(self, images: Tensor) -> Tensor:
            return super().forward(images).softmax(dim=-1)

    (finding,) = about(findings_on(with_weights(Softmax, trained)), "are probabilities")
    assert finding.level == "wrong"


def test_15_a_teacher_that_asking_changes_is_found(trained: dict[str, Tensor]) -> None:
    class Counting(Linear):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("calls", torch.zeros(1))

        def forward(self, images: Tensor) -> Tensor:
            self.calls += 1
            return super().forward(images)

    weights = {**trained, "calls": torch.zeros(1)}
    (finding,) = about(findings_on(with_weights(Counting, weights)), "asking changes it")
    assert finding.level == "wrong"
    assert "calls" in finding.what


def test_01_a_teacher_that_answers_by_chance_fails_the_identity(trained: dict[str, Tensor]) -> None:
    class Noisy(Linear):
        def forward(self, images: Tensor) -> Tensor:
            logits = super().forward(images)
            return logits + torch.randn_like(logits)

    findings = findings_on(with_weights(Noisy, trained))
    assert any(finding.level == "wrong" for finding in about(findings, "a copy of the teacher"))


def test_a_teacher_without_weights_is_not_measured_and_that_is_said(sound: list[Finding]) -> None:
    assert about(sound, "no weights yet: not measured")[0].level == "fine"


def test_weights_of_a_file_are_measured(check: Checker, tmp_path: Path) -> None:
    from distil.models.builtin import Mlp

    state = Mlp(num_inputs=64, widths=[4], num_classes=10, dropout=0.0, input_dropout=0.0).state_dict()
    save_file(state, tmp_path / "random.safetensors")
    findings = check(f"teacher={{model: {{kind: mlp, widths: [4]}}, weights: {tmp_path}/random.safetensors}}")
    assert about(findings, "accuracy on")
