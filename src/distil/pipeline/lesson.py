"""What a network is taught in a stage: by which teachers, asked live or looked up among what they said once."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from distil.core.errors import CompatibilityError
from distil.data.example import Examples, TextExamples
from distil.data.feed import AnyView
from distil.data.text_view import TextView
from distil.knowledge.response import KeptKnowledge, Knowledge, LiveKnowledge, NoKnowledge, PermutedKnowledge
from distil.knowledge.teacher import FrozenTeacher, Kept
from distil.models.describe import ModelDescription
from distil.models.tap import Outputs, Tap, tap_shape
from distil.objective.objective import Requires
from distil.tasks.classification import ImageClassification
from distil.tasks.language import texts_of
from distil.tasks.network import Network
from distil.tasks.task import Task

KEPT_BYTES = 1_000_000_000  # captured layers that are kept in memory, of all teachers together


@dataclass(frozen=True, eq=False)
class Lesson:
    """What teachers say in a stage, and the views that a batch needs for it."""

    knowledge: Knowledge
    views: Mapping[str, AnyView]


class Lectern:
    """Teachers that can be asked, and what they have said: each answer is computed once for all arms and seeds.

    Args:
        teachers: with their networks.
        examples: that they are asked about.
        device: where their answers are wanted.
        task: that they answer for; None: image classification.
    """

    def __init__(
        self,
        teachers: Mapping[str, tuple[Network, FrozenTeacher]],
        *,
        examples: Examples,
        device: str,
        task: Task | None = None,
    ) -> None:
        self._teachers, self._examples, self._device = dict(teachers), examples, device
        self._task = task or ImageClassification()
        self._logits: dict[str, Kept] = {}
        self._values: dict[tuple[str, Tap], Tensor] = {}
        self._largest: dict[tuple[str, int, float], Kept] = {}

    @property
    def descriptions(self) -> dict[str, ModelDescription]:
        return {name: network.description for name, (network, _) in self._teachers.items()}

    def lesson(self, requires: Requires, *, views_change: bool, permute: int | None = None) -> Lesson:
        """What a stage is taught.

        Args:
            requires: of the stage's objective.
            views_change: under augmentation every answer is a new one.
            permute: the seed of a shuffle of the wrong classes; None: as the teacher says it.
        """
        asked = sorted(requires.teacher_outputs)
        if not asked:
            return Lesson(NoKnowledge(), {})
        of_tokens = self._task.answers_for_tokens and self._task.fixed_length
        if of_tokens and not views_change and set(asked) == set(requires.largest):
            sparse = {name: self._kept_largest(name, *requires.largest[name]) for name in asked}
            return Lesson(KeptKnowledge(sparse, device=self._device), {})
        ragged = isinstance(self._examples, TextExamples) and (
            any(requires.teacher_taps.values()) or (self._task.answers_for_tokens and not self._task.fixed_length)
        )
        if views_change or ragged or self._size(requires) > KEPT_BYTES:
            taps = requires.teacher_taps
            knowledge: Knowledge = LiveKnowledge([self._teachers[name][1] for name in asked], taps)
            views = {name: self._teachers[name][0].view for name in asked}
        else:
            kept = {name: self._kept(name, requires.teacher_taps.get(name, ())) for name in asked}
            knowledge, views = KeptKnowledge(kept, device=self._device), {}
        if permute is None:
            return Lesson(knowledge, views)
        if any(requires.teacher_taps.values()):
            raise CompatibilityError(
                "the control permuted-knowledge shuffles classes, and the objective also compares layers, which would "
                "stay as they are. Leave it out of controls"
            )
        if min(self.descriptions[name].num_classes for name in asked) < 3:
            raise CompatibilityError(
                "the control permuted-knowledge needs three or more classes: of two, only one is wrong and there is "
                "nothing to shuffle. Leave it out of controls"
            )
        return Lesson(PermutedKnowledge(knowledge, seed=permute), views)

    def _kept_largest(self, name: str, k: int, temperature: float) -> Kept:
        wanted = (name, k, temperature)
        if wanted not in self._largest:
            network, frozen = self._teachers[name]
            batches = self._task.batches(self._examples, {name: network.view})
            self._largest[wanted] = frozen.keep_largest(batches, k=k, temperature=temperature)
        return self._largest[wanted]

    def _size(self, requires: Requires) -> int:
        values = (
            math.prod(tap_shape(tap, self.descriptions[name]))
            for name, taps in requires.teacher_taps.items()
            for tap in taps
        )
        of_places = self._task.answers_for_tokens or self._task.overlap is not None
        logits = sum(self._answers(name) for name in requires.teacher_outputs) if of_places else 0
        return 4 * len(self._examples) * (sum(values) + logits)

    def _answers(self, name: str) -> int:
        view, description = self._teachers[name][0].view, self.descriptions[name]
        assert isinstance(view, TextView)
        if self._task.overlap is not None:  # starts and ends in as many windows as the longest text has
            return 2 * view.max_length * max(map(len, view.windows(texts_of(self._examples).columns)))
        return view.max_length * description.num_classes

    def _kept(self, name: str, taps: Sequence[Tap]) -> Kept:
        missing = [tap for tap in taps if (name, tap) not in self._values]
        if name not in self._logits or missing:
            network, frozen = self._teachers[name]
            said = frozen.keep(self._task.batches(self._examples, {name: network.view}), missing)
            self._logits[name] = Kept(said.ids, Outputs(said.outputs.logits))
            held = sum(value.numel() for value in [*self._values.values(), *said.outputs.taps.values()])
            if 4 * held > KEPT_BYTES:
                self._values = {(who, tap): value for (who, tap), value in self._values.items() if tap in taps}
            self._values |= {(name, tap): value for tap, value in said.outputs.taps.items()}
        logits = self._logits[name]
        return Kept(logits.ids, Outputs(logits.outputs.logits, {tap: self._values[name, tap] for tap in taps}))
