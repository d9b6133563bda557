"""What every configuration class shares: frozen, no unknown keys, and a string that stands for ``{kind: string}``."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


class Config(BaseModel):
    """Base of the frozen pydantic classes that stand beside the code they configure. An unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)


def expand_kind(value: Any) -> Any:
    """``"cosine"`` becomes ``{"kind": "cosine"}``; everything else is left as it is."""
    return {"kind": value} if isinstance(value, str) else value


StringIsKind = BeforeValidator(expand_kind)

Count = Annotated[int, Field(strict=True, ge=1)]
Whole = Annotated[int, Field(strict=True, ge=0)]
Positive = Annotated[float, Field(strict=True, gt=0)]
NonNegative = Annotated[float, Field(strict=True, ge=0)]
Fraction = Annotated[float, Field(strict=True, gt=0, lt=1)]
Probability = Annotated[float, Field(strict=True, ge=0, lt=1)]


class PlacementConfig(Config):
    """Where a run computes. Equal placements on equal machines give equal bits."""

    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    precision: Literal["fp32", "bf16"] = "fp32"  # bf16: matrix products in bfloat16, weights and losses in float32
    threads: Count | None = None  # None: as many as there are cores
