"""Real examples that an artefact is proved on: images, or token ids with their mask. No torch here."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from jaxtyping import Float32, Int64
from safetensors.numpy import load_file, save

from distil.core.errors import ExportError

IMAGES = "images"
MASK = "attention_mask"
_NAMED = "inputs."

# with underscores, because a function may give other numbers of samples and tokens than it takes
Images: TypeAlias = Float32[np.ndarray, "_samples _channels _height _width"]
Tokens: TypeAlias = Mapping[str, Int64[np.ndarray, "_samples _tokens"]]
Inputs: TypeAlias = Images | Tokens


@dataclass(frozen=True, eq=False)
class Samples:
    """Real examples that an artefact is proved on.

    Attributes:
        inputs: what the model gets: preprocessed images, or for texts ``input_ids``, ``attention_mask`` (1 a token, 0
            padding) and what else it takes by name, padded to one length.
        reference: the fp32 outputs that the torch model gives for them: logits, an embedding, or the logits of every
            token.
        targets: the true classes; of tokens -1 where none is asked for. None: there are no classes, as for embeddings.

    Raises:
        ExportError: the three do not belong together, or hold values that are not finite.
    """

    inputs: Inputs
    reference: Float32[np.ndarray, "samples *tokens outputs"]
    targets: Int64[np.ndarray, "samples *tokens"] | None = None

    def __post_init__(self) -> None:
        shape = self.inputs.shape if isinstance(self.inputs, np.ndarray) else _shapes(self.inputs)
        targets = None if self.targets is None else self.targets.shape
        found = f"inputs {shape}, reference {self.reference.shape}, targets {targets}"
        if isinstance(self.inputs, np.ndarray):
            self._check_images(self.inputs, found)
        else:
            self._check_tokens(self.inputs, found)
        if self.targets is not None:
            self._check_targets(self.targets, found)
        if not 0 < num_rows(self.inputs) == len(self.reference):
            raise ExportError(f"samples: expected the same number of each, and at least one; found {found}.")
        if not (np.isfinite(self.reference).all() and _is_finite(self.inputs)):
            raise ExportError(
                "samples: inputs or reference outputs hold NaN or infinity; such a model is not exported."
            )

    @property
    def of_tokens(self) -> bool:
        """Whether the model answers for every token."""
        return self.reference.ndim == 3

    def counted(self, outputs: np.ndarray) -> Float32[np.ndarray, "rows outputs"]:
        """The rows of outputs that are compared: those of padding are not."""
        if not self.of_tokens:
            return outputs
        assert not isinstance(self.inputs, np.ndarray)
        return outputs[self.inputs[MASK] == 1]

    def _check_images(self, inputs: np.ndarray, found: str) -> None:
        if inputs.ndim != 4 or self.reference.ndim != 2 or self.targets is None or self.targets.ndim != 1:
            raise ExportError(
                f"samples: expected inputs [N, C, H, W], reference [N, classes] and targets [N]; found {found}."
            )

    def _check_tokens(self, inputs: Tokens, found: str) -> None:
        shape = inputs[MASK].shape if MASK in inputs else None
        if shape is None or "input_ids" not in inputs:
            raise ExportError(f"samples: texts need input_ids and {MASK}; found {found}.")
        if len(shape) != 2 or any(value.shape != shape or value.dtype != np.int64 for value in inputs.values()):
            raise ExportError(f"samples: texts are int64 of one shape [N, tokens]; found {found}.")
        if not (np.isin(inputs[MASK], (0, 1)).all() and inputs[MASK].any(axis=1).all()):
            raise ExportError(f"samples: {MASK} is 1 for a token and 0 for padding, and every text has a token.")
        if not (self.reference.ndim == 2 or (self.of_tokens and self.reference.shape[:2] == shape)):
            raise ExportError(f"samples: expected reference [N, outputs] or [N, tokens, classes]; found {found}.")

    def _check_targets(self, targets: np.ndarray, found: str) -> None:
        if targets.shape != self.reference.shape[:-1]:
            raise ExportError(f"samples: expected the same number of each, and at least one; found {found}.")
        lowest = -1 if self.of_tokens else 0
        if targets.size and (targets.min() < lowest or targets.max() >= self.reference.shape[-1]):
            raise ExportError(
                f"samples: targets lie in {targets.min()}..{targets.max()}, "
                f"but the model has {self.reference.shape[-1]} classes."
            )


def num_rows(inputs: Inputs) -> int:
    """How many examples there are."""
    return len(inputs) if isinstance(inputs, np.ndarray) else len(inputs[MASK])


def take(inputs: Inputs, rows: slice | np.ndarray) -> Inputs:
    """The inputs of some examples."""
    return inputs[rows] if isinstance(inputs, np.ndarray) else {name: value[rows] for name, value in inputs.items()}


def by_name(inputs: Inputs) -> dict[str, np.ndarray]:
    """What the runtime is fed with."""
    return {IMAGES: inputs} if isinstance(inputs, np.ndarray) else dict(inputs)


def used_columns(inputs: Tokens) -> slice:
    """From the first to the last column in which any text has a token; padding on either side lies outside."""
    used = np.flatnonzero(inputs[MASK].any(axis=0))
    return slice(int(used[0]), int(used[-1]) + 1)


def at_length(inputs: Tokens, length: int, *, pad_id: int) -> dict[str, np.ndarray]:
    """The texts without the padding they have, cut at the end or padded on the right to ``length`` tokens."""
    columns = used_columns(inputs)
    fixed = {}
    for name, value in inputs.items():
        kept = value[:, columns][:, :length]
        filling = pad_id if name == "input_ids" else 0
        fixed[name] = np.pad(kept, ((0, 0), (0, length - kept.shape[1])), constant_values=filling)
    return fixed


def serialise(samples: Samples) -> bytes:
    """The content of ``samples.safetensors``: ``inputs``, or for texts ``inputs.NAME``; ``reference``, ``targets``."""
    inputs = (
        {"inputs": samples.inputs}
        if isinstance(samples.inputs, np.ndarray)
        else {_NAMED + name: value for name, value in samples.inputs.items()}
    )
    tensors = inputs | {"reference": samples.reference}
    if samples.targets is not None:
        tensors["targets"] = samples.targets
    return save({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()})


def read_samples(path: Path) -> Samples:
    """What :func:`serialise` wrote."""
    tensors = load_file(path)
    named = {name.removeprefix(_NAMED): value for name, value in tensors.items() if name.startswith(_NAMED)}
    return Samples(named or tensors["inputs"], tensors["reference"], tensors.get("targets"))


def _shapes(inputs: Tokens) -> str:
    return ", ".join(f"{name} {value.dtype} {value.shape}" for name, value in inputs.items())


def _is_finite(inputs: Inputs) -> bool:
    return not isinstance(inputs, np.ndarray) or bool(np.isfinite(inputs).all())
