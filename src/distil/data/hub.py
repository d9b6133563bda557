"""Data sets as `datasets` reads them: a local folder where it is there, else the hub. No code of a data set is run."""

import os
from pathlib import Path
from typing import Any

from distil.core.errors import DataError, MissingExtraError
from distil.data.config import HuggingFaceConfig, TextConfig

DATA_FOLDER = "DISTIL_DATA"  # the environment variable that names a folder of data sets


def load_dataset(config: HuggingFaceConfig | TextConfig, *, extra: str, subset: str | None = None) -> tuple[Any, str]:
    """The splits of a data set by name, and where they are from.

    Raises:
        DataError: there is no such folder, or it cannot be read.
        MissingExtraError: `datasets` is not installed.
    """
    try:
        import datasets
    except ImportError as error:
        raise MissingExtraError("datasets", extra=extra, purpose="reading data sets") from error
    datasets.disable_progress_bars()
    folder = _local_folder(config)
    try:
        if folder is not None:
            return datasets.load_dataset(str(folder)), str(config.path)
        assert config.hub is not None, "there is a folder or a hub id"
        return datasets.load_dataset(config.hub, subset, revision=config.revision), f"hub {config.hub}"
    except Exception as error:  # the library raises many kinds; none of them names our key
        source = folder if folder is not None else config.hub
        raise DataError(f"data: cannot read {source}: {type(error).__name__}: {error}") from error


def _local_folder(config: HuggingFaceConfig | TextConfig) -> Path | None:
    if config.path is None:
        return None
    shared = os.environ.get(DATA_FOLDER)
    candidates = [Path(shared) / config.path] if shared else []
    candidates.append(Path(config.path))
    for candidate in candidates:
        if candidate.is_dir():
            return candidate
    if config.hub is not None:
        return None
    tried = " and ".join(str(candidate) for candidate in candidates)
    raise DataError(
        f"data.path: no folder {tried}. Give an existing folder, set {DATA_FOLDER} to the folder that holds it, "
        "or add data.hub with the id of a data set on the hub"
    )
