"""A batch: what the models get, what they should say, and for which examples that is known."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from jaxtyping import Bool, Int
from torch import Tensor

from distil.core.inputs import Inputs, move, take_rows
from distil.data.order import batch_bounds


@dataclass(frozen=True, eq=False)
class Batch:
    """Some examples, ready for the models.

    Attributes:
        ids: the examples' numbers.
        inputs: for each view, the input of the models that use it.
        targets: for each task, what should be said, such as class numbers; meaningless where not present.
        present: for each task, where the target is known: of examples, or of tokens for tasks with ``positions``.
        positions: of tasks that answer for tokens, the tokens whose answers count; padding and prompts do not.
    """

    ids: Int[Tensor, " batch"]
    inputs: Mapping[str, Inputs]
    targets: Mapping[str, Tensor]
    present: Mapping[str, Bool[Tensor, "batch *tokens"]]
    positions: Mapping[str, Bool[Tensor, "batch tokens"]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    def split(self, size: int | None) -> Iterator["Batch"]:
        """The batch in consecutive pieces of ``size`` examples; None: in one piece. The last may be smaller.

        As for batches, a single example left over joins the piece before it.
        """
        if size is None or size >= len(self):
            yield self
            return
        for start, end in batch_bounds(len(self), size):
            piece = slice(start, end)
            yield Batch(
                ids=self.ids[piece],
                inputs={view: take_rows(value, piece) for view, value in self.inputs.items()},
                targets={task: value[piece] for task, value in self.targets.items()},
                present={task: value[piece] for task, value in self.present.items()},
                positions={task: value[piece] for task, value in self.positions.items()},
            )

    def to(self, device: str) -> "Batch":
        """The batch on a device; ids stay where they are."""
        if device == "cpu":
            return self
        by_task = [
            {task: value.to(device, non_blocking=True) for task, value in each.items()}
            for each in (self.targets, self.present, self.positions)
        ]
        inputs = {view: move(value, device) for view, value in self.inputs.items()}
        return Batch(self.ids, inputs, *by_task)
