"""Which task."""

from typing import Annotated, Literal

from pydantic import Field

from distil.core.config import Config, StringIsKind


class ImageClassificationConfig(Config):
    """One class for each image."""

    kind: Literal["image-classification"] = "image-classification"


TaskConfig = Annotated[ImageClassificationConfig, Field(), StringIsKind]
