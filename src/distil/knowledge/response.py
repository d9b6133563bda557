"""Responses: every teacher's logits for a batch, asked live, looked up among kept ones, or their order destroyed."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from distil.core.errors import IntegrityError
from distil.core.seeds import derive
from distil.data.batch import Batch
from distil.knowledge.teacher import FrozenTeacher
from distil.tasks.score import Scores

Responses = Mapping[str, Float[Tensor, "batch classes"]]  # teacher -> logits, classes in the order of the data
Knowledge = Callable[[Batch], Responses]  # what teachers say about a batch


class NoKnowledge:
    """For an arm without a teacher."""

    def __call__(self, batch: Batch) -> Responses:  # noqa: ARG002
        return {}


class LiveKnowledge:
    """Asks every teacher at every step: needed where the views change, as under augmentation."""

    def __init__(self, teachers: Sequence[FrozenTeacher]) -> None:
        self._teachers = tuple(teachers)

    def __call__(self, batch: Batch) -> Responses:
        return {teacher.name: teacher(batch) for teacher in self._teachers}


class KeptKnowledge:
    """Looks up what each teacher said about an example, by the example's id; right only where views never change.

    Args:
        scores: for each teacher, its answers; ids may come in any order.
        device: where the looked-up logits are wanted.
    """

    def __init__(self, scores: Mapping[str, Scores], *, device: str = "cpu") -> None:
        self._logits = {teacher: said.logits.to(device) for teacher, said in scores.items()}
        self._row_of_id = {teacher: _rows(said.ids) for teacher, said in scores.items()}

    def __call__(self, batch: Batch) -> Responses:
        return {teacher: logits[self._find(teacher, batch.ids)] for teacher, logits in self._logits.items()}

    def _find(self, teacher: str, ids: Tensor) -> Tensor:
        rows_of_ids = self._row_of_id[teacher]
        known = (ids >= 0) & (ids < len(rows_of_ids))
        rows = rows_of_ids[ids.clamp(0, len(rows_of_ids) - 1)]
        if not bool((known & (rows >= 0)).all()):
            absent = ids[~known | (rows < 0)][:5].tolist()
            raise IntegrityError(
                f"teacher {teacher!r}: nothing is kept for the examples {absent}; they are not its examples"
            )
        return rows


class PermutedKnowledge:
    """A control: each example keeps the teacher's first class and its probabilities, spread over other wrong classes.

    The shuffle is a function of (seed, example), the same in every epoch. Whatever a student still gains from it is
    owed to the teacher's first class and to softening, not to the order of the wrong classes.
    """

    def __init__(self, knowledge: Knowledge, *, seed: int) -> None:
        self._knowledge, self._seed = knowledge, seed

    def __call__(self, batch: Batch) -> Responses:
        return {teacher: self._permuted(logits, batch.ids) for teacher, logits in self._knowledge(batch).items()}

    def _permuted(self, logits: Tensor, ids: Tensor) -> Tensor:
        first = logits.argmax(dim=-1).tolist()
        columns = [self._columns(logits.shape[-1], int(example), top) for example, top in zip(ids, first, strict=True)]
        return logits.gather(1, torch.from_numpy(np.stack(columns)).to(logits.device))

    def _columns(self, num_classes: int, example: int, top: int) -> np.ndarray:
        generator = np.random.Generator(np.random.Philox(key=derive("permuted-knowledge", self._seed, example)))
        columns = np.arange(num_classes)
        wrong = np.delete(columns, top)
        columns[wrong] = generator.permutation(wrong)
        return columns


def looks_like_probabilities(logits: Float[Tensor, "*batch classes"]) -> bool:
    """Whether these are probabilities and no logits: every row lies in 0..1 and sums to 1 within 1e-3.

    A softmax of probabilities is almost flat, so a teacher that ends in a softmax teaches next to nothing.
    """
    values = logits.detach().double()
    in_range = bool(((values >= 0) & (values <= 1)).all())
    return values.numel() > 0 and in_range and bool(((values.sum(dim=-1) - 1).abs() <= 1e-3).all())


def _rows(ids: Tensor) -> Tensor:
    rows = torch.full((int(ids.max()) + 1,), -1, dtype=torch.int64)
    rows[ids] = torch.arange(len(ids))
    return rows
