"""A batch: what the models get, what they should say, and for which examples that is known."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from jaxtyping import Bool, Int
from torch import Tensor

from distil.data.order import batch_bounds


@dataclass(frozen=True, eq=False)
class Batch:
    """Some examples, ready for the models.

    Attributes:
        ids: the examples' numbers.
        inputs: for each view, the input of the models that use it.
        targets: for each task, the class numbers; meaningless where not present.
        present: for each task, where the target is known.
    """

    ids: Int[Tensor, " batch"]
    inputs: Mapping[str, Tensor]
    targets: Mapping[str, Tensor]
    present: Mapping[str, Bool[Tensor, " batch"]]

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
                inputs={view: value[piece] for view, value in self.inputs.items()},
                targets={task: value[piece] for task, value in self.targets.items()},
                present={task: value[piece] for task, value in self.present.items()},
            )

    def to(self, device: str) -> "Batch":
        """The batch on a device; ids stay where they are."""
        if device == "cpu":
            return self
        move = {"device": device, "non_blocking": True}
        return Batch(
            ids=self.ids,
            inputs={view: value.to(**move) for view, value in self.inputs.items()},
            targets={task: value.to(**move) for task, value in self.targets.items()},
            present={task: value.to(**move) for task, value in self.present.items()},
        )
