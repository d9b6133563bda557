"""Which artefacts a run makes."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from distil.core.config import Config

Precision = Literal["fp32", "int8"]


def _refuse_repeats(precisions: tuple[Precision, ...]) -> tuple[Precision, ...]:
    repeated = sorted({precision for precision in precisions if precisions.count(precision) > 1})
    if repeated:
        raise ValueError(f"each precision may stand here once; repeated: {', '.join(repeated)}")
    return precisions


class ExportConfig(Config):
    """One runtime, and the precisions of the files made for it (one directory ``exports/TARGET-PRECISION/`` each)."""

    target: Literal["onnx"]
    precision: Annotated[
        tuple[Precision, ...],
        Field(min_length=1, json_schema_extra={"uniqueItems": True}),
        AfterValidator(_refuse_repeats),
    ] = ("fp32",)
