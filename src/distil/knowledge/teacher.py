"""A frozen teacher: in evaluation mode, without gradient, its classes in the order of the data."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from distil.core.errors import CompatibilityError
from distil.data.batch import Batch
from distil.losses.sparse import largest_classes
from distil.models.tap import Outputs, Tap, Taps
from distil.tasks.score import Ask, Scores, ask_plainly, score


@dataclass(frozen=True, eq=False)
class Kept:
    """What a teacher said about examples: a row of ``outputs`` for each of ``ids``."""

    ids: Int[Tensor, " examples"]
    outputs: Outputs


class FrozenTeacher:
    """A network that is only asked.

    It is not a module, so nothing that walks modules (an optimiser, a checkpoint, ``train()`` of a parent) finds it.

    Args:
        name: of the teacher, and of the view it takes.
        model: from the view's input to logits. Its parameters stop requiring gradient.
        class_order: for each class of the data, its number in the teacher's output; None: the same order.
        device: where the teacher is moved to.
    """

    def __init__(
        self, name: str, model: nn.Module, *, class_order: Sequence[int] | None = None, device: str = "cpu"
    ) -> None:
        self.name = name
        self._model = model.to(device).requires_grad_(False).eval()
        self._order = None if class_order is None else torch.tensor(class_order, device=device)
        self._device = device
        self._taps: Taps | None = None
        self._tapped: tuple[Tap, ...] = ()

    def __call__(self, batch: Batch) -> Float[Tensor, "batch *tokens classes"]:
        """Logits for the batch's own view of this teacher."""
        return self.observe(batch, ()).logits

    def observe(self, batch: Batch, taps: Sequence[Tap]) -> Outputs:
        """Logits for the batch's own view of this teacher, and what the taps capture on the way."""
        self._ensure_eval()
        if self._taps is None or self._tapped != tuple(taps):
            self.close()
            self._taps, self._tapped = Taps(self._model, taps), tuple(taps)
        with torch.no_grad():
            outputs = self._taps.observe(self._model, batch.inputs[self.name])
        return Outputs(self._ordered(outputs.logits), outputs.taps)

    def keep_largest(self, batches: Iterable[Batch], *, k: int, temperature: float) -> "Kept":
        """The k likeliest classes of what the teacher says about many examples, with what all others have together."""
        ids, said = [], []
        for batch in batches:
            logits = self(batch.to(self._device))
            found = largest_classes(logits, k=k, temperature=temperature)
            assert found.log_rest is not None
            ids.append(batch.ids)
            said.append(tuple(value.cpu() for value in (found.indices, found.log_probabilities, found.log_rest)))
        indices, log_probabilities, log_rest = (torch.cat(values) for values in zip(*said, strict=True))
        nothing = log_probabilities[..., :0]
        return Kept(torch.cat(ids), Outputs(nothing, largest=(indices, log_probabilities, log_rest)))

    def keep(self, batches: Iterable[Batch], taps: Sequence[Tap]) -> "Kept":
        """What the teacher says about many examples, in float32 on the CPU."""
        ids, said = [], []
        for batch in batches:
            outputs = self.observe(batch.to(self._device), taps)
            ids.append(batch.ids)
            said.append(Outputs(outputs.logits.float().cpu(), {t: v.float().cpu() for t, v in outputs.taps.items()}))
        taken = {tap: torch.cat([each.taps[tap] for each in said]) for tap in taps}
        return Kept(torch.cat(ids), Outputs(_joined([each.logits for each in said]), taken))

    def close(self) -> None:
        """Removes the hooks of the last observation."""
        if self._taps is not None:
            self._taps.close()
            self._taps = None

    def scores(self, batches: Iterable[Batch], *, ask: Ask = ask_plainly) -> Scores:
        """Its answers to many batches, with their labels; ``ask`` is what is kept of an answer."""
        self._ensure_eval()
        scores = score(self._model, batches, view=self.name, device=self._device, ask=ask)
        return Scores(ids=scores.ids, logits=self._ordered(scores.logits), labels=scores.labels)

    def as_module(self) -> nn.Module:
        """The network with its classes in the order of the data, for export, without hooks."""
        self.close()
        return self._model if self._order is None else nn.Sequential(self._model, _Reorder(self._order.cpu()))

    def _ordered(self, logits: Tensor) -> Tensor:
        return logits if self._order is None else logits[..., self._order.to(logits.device)]

    def _ensure_eval(self) -> None:
        # the module may also live in somebody's parent module, whose train() reaches it
        if any(module.training for module in self._model.modules()):
            self._model.eval()


def _joined(logits: Sequence[Tensor]) -> Tensor:
    """Answers of all batches; where there are fewer windows than elsewhere, nothing is said of the places beyond."""
    width = max(each.shape[-1] for each in logits)
    return torch.cat([F.pad(each, (0, width - each.shape[-1]), value=-torch.inf) for each in logits])


class _Reorder(nn.Module):
    """Puts classes into another order."""

    order: Tensor

    def __init__(self, order: Tensor) -> None:
        super().__init__()
        self.register_buffer("order", order, persistent=False)

    def forward(self, logits: Float[Tensor, "batch classes"]) -> Float[Tensor, "batch classes"]:
        return logits[:, self.order]


def class_order(teacher: str, teacher_classes: Sequence[str] | None, class_names: Sequence[str]) -> list[int] | None:
    """For each class of the data, where the teacher has it; None where no order is declared.

    Raises:
        CompatibilityError: the teacher's classes are not the data's.
    """
    if teacher_classes is None:
        return None
    missing = [name for name in class_names if name not in teacher_classes]
    extra = [name for name in teacher_classes if name not in class_names]
    if missing or extra or len(set(teacher_classes)) != len(teacher_classes):
        raise CompatibilityError(
            f"teachers.{teacher}.classes must list each class of the data once, in the order of the teacher's outputs. "
            f"Missing: {missing or 'none'}; unknown: {extra or 'none'}; the data have {list(class_names)}"
        )
    return [list(teacher_classes).index(name) for name in class_names]
