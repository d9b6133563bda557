"""Correctness, lines 11, 12 and 21: a teacher says the same of a text alone and padded in a batch."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from distil.check.finding import Finding
from distil.check.sample import spread
from distil.check.teacher import Candidate
from distil.core.errors import ModelError
from distil.data.example import Examples, TextExamples
from distil.data.text_view import TextView
from distil.models.huggingface_network import HuggingFaceNetwork
from distil.tasks.task import Task

TEXTS = 4
MOST_TOKENS = 48  # of a text; the longest of them padded once more is enough
PADDING = 2  # places beside the longest text
BOUND = 1e-3  # of an output, relative to the largest one where that is below 1
TINY = 1e-12

Tokens = Mapping[str, Tensor]


def check_padding(candidate: Candidate, examples: Examples, task: Task) -> Iterator[Finding]:
    """The teacher text by text against the teacher on all of them, padded on the right; of decoders on the left too."""
    if not isinstance(examples, TextExamples):
        return
    view = candidate.network.view
    assert isinstance(view, TextView)
    texts = _texts(spread(examples, TEXTS), view, task)
    asked = _Asked(candidate.network.model, view.pad_id)
    who = f"teacher {candidate.name}"
    found = asked.largest_difference(texts, side="right")
    if found > BOUND:
        yield Finding(
            "wrong",
            f"{who}: padding changes its answer by up to {found:.2g}",
            why="what it says of a text then depends on the other texts of the batch, and the student learns that",
            remedy="its attention or pooling looks at padding: it must use attention_mask",
        )
        return
    said = f"{who}: it says the same of a text alone and padded on the right (largest difference {found:.1e})"
    if not asked.is_decoder:
        yield Finding("fine", said)
        return
    try:
        left = asked.largest_difference(texts, side="left")
    except ModelError as error:
        yield Finding("fine", f"{said}; padding on the left is refused: {error}")
        return
    if left <= BOUND:
        yield Finding("fine", f"{said}, and padded on the left ({left:.1e})")
        return
    yield Finding(
        "suspicious",
        f"{who}: padding on the left changes its answer by up to {left:.2g}",
        why="the run pads on the right, where it is well; what writes texts in a batch pads on the left",
        remedy="do not write texts in batches with it, or look at its positions: they must start at the first token",
    )


@dataclass(frozen=True, eq=False)
class _Asked:
    """The network that reads rows of tokens: inside of one that reads several rows for an example."""

    model: nn.Module
    pad_id: int

    @property
    def core(self) -> nn.Module:
        return next((each for each in self.model.modules() if isinstance(each, HuggingFaceNetwork)), self.model)

    @property
    def is_decoder(self) -> bool:
        core = self.core
        if not isinstance(core, HuggingFaceNetwork):
            return False
        return core.head == "causal-lm" or isinstance(getattr(core.pretrained, "score", None), nn.Linear)

    @torch.no_grad()
    def largest_difference(self, texts: list[Tokens], *, side: str) -> float:
        """Of all outputs for tokens that are real, relative to the largest output where that is below 1."""
        self.model.eval()
        length = max(text["input_ids"].shape[-1] for text in texts) + PADDING
        rows = [self._padded(text, length, side) for text in texts]
        together = self.core({name: torch.cat([row[name] for row in rows]) for name in rows[0]})
        alone = [self.core(text)[0] for text in texts]
        largest = max(each.abs().max().item() for each in alone)
        differences = [
            (self._real(row, each, length, side) - each).abs().max().item()
            for row, each in zip(together, alone, strict=True)
        ]
        return max(differences) / max(min(largest, 1.0), TINY)

    def _padded(self, text: Tokens, length: int, side: str) -> Tokens:
        missing = length - text["input_ids"].shape[-1]
        edges = (0, missing) if side == "right" else (missing, 0)
        return {
            name: value
            if name == "decoder_input_ids"
            else nn.functional.pad(value, edges, value=self.pad_id if name == "input_ids" else 0)
            for name, value in text.items()
        }

    def _real(self, padded: Tensor, alone: Tensor, length: int, side: str) -> Tensor:
        if padded.ndim == 1 or len(padded) != length:
            return padded
        return padded[: len(alone)] if side == "right" else padded[length - len(alone) :]


def _texts(examples: Examples, view: TextView, task: Task) -> list[Tokens]:
    """The tokens of each text alone, the longer ones cut so that all lengths differ and there is room for padding."""
    batch = next(task.batches(examples, {"model": view}))
    inputs = batch.inputs["model"]
    assert not isinstance(inputs, Tensor)
    flat = {
        name: value.flatten(0, -2) if value.ndim == 3 else value
        for name, value in inputs.items()
        if name != "context_mask"
    }
    lengths = flat["attention_mask"].sum(dim=1).tolist()
    rows = [row for row, length in enumerate(lengths) if length > 0][:TEXTS]
    most = min(MOST_TOKENS, view.max_length - PADDING)
    ends = [max(1, min(lengths[row], most) - place) for place, row in enumerate(rows)]
    return [
        {
            name: value[row : row + 1] if name == "decoder_input_ids" else value[row : row + 1, :end]
            for name, value in flat.items()
        }
        for row, end in zip(rows, ends, strict=True)
    ]
