"""Where a published model is, and what is read of it: settings and weights, never code and never a pickle."""

import importlib.util
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from distil.core.errors import IntegrityError, MissingExtraError, ModelError
from distil.models.text_config import HuggingFaceModelConfig

SETTINGS, GENERATION = "config.json", "generation_config.json"
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
NUM_SHOWN = 8  # names in a message

# Of a model's config.json: what names code to run or kernels to fetch, and not what the network is.
_NAMES_OF_CODE = {"auto_map", *(f"{mark}{what}_implementation" for mark in ("", "_") for what in ("attn", "experts"))}


def find_folder(config: HuggingFaceModelConfig) -> Path:
    """The folder of a published model: that of the package, else the local one, else what the hub has of it.

    Raises:
        ModelError: there is none; the message says what is there instead.
        MissingExtraError: a package is not installed.
    """
    missing: list[str] = []
    if config.package is not None:
        folder = package_folder(config.package)
        if folder is not None:
            return folder
        missing.append(f"the package {config.package.split('/')[0]!r} is not installed")
    if config.path is not None:
        folder = Path(config.path).expanduser()
        if folder.is_dir():
            return folder
        missing.append(f"there is no folder {config.path}; {contents(_nearest(folder))}")
    if config.hub is not None:
        return _from_hub(config.hub, config.revision, config.gguf)
    raise ModelError(f"model of kind huggingface: {', and '.join(missing)}. Mend that, or add hub with the model's id")


def package_folder(package: str) -> Path | None:
    """A folder inside an installed package, which is not imported; None: it is not installed.

    Args:
        package: ``name`` or ``name/folder``; the name is of the top level, without dots.

    Raises:
        ModelError: the package has no such folder.
    """
    name, _, inside = package.partition("/")
    spec = importlib.util.find_spec(name)
    if spec is None:
        return None
    roots = [Path(root) for root in spec.submodule_search_locations or ()]
    found = next((root / inside for root in roots if (root / inside).is_dir()), None)
    if found is None:
        there = "; ".join(map(contents, roots)) or "it is a single module"
        raise ModelError(f"package {package}: {name} has no folder {inside!r}; {there}")
    return found


def contents(folder: Path) -> str:
    """What is in a folder, for a message."""
    names = sorted(each.name + "/" * each.is_dir() for each in folder.iterdir() if not each.name.startswith(("_", ".")))
    more = f" and {len(names) - NUM_SHOWN} more" if len(names) > NUM_SHOWN else ""
    return f"{folder} has {', '.join(names[:NUM_SHOWN]) + more or 'nothing in it'}"


def read_settings(folder: Path) -> dict[str, Any]:
    """A model's ``config.json``, as it stands.

    Raises:
        ModelError: there is no such file, it does not say which network it is of, or its weights are quantised.
        IntegrityError: it is not JSON.
    """
    settings = _read_json(folder / SETTINGS)
    if not isinstance(settings.get("model_type"), str):
        raise ModelError(f"{folder / SETTINGS}: it has no model_type, so nothing says which network this is")
    if settings.get("quantization_config"):
        raise ModelError(
            f"{folder / SETTINGS}: its weights are quantised. Take the model with its weights as floating-point "
            "numbers, or a GGUF file of it"
        )
    return settings


def without_code(settings: Any) -> Any:
    """The same settings, at any depth, without what names code."""
    if isinstance(settings, dict):
        return {name: without_code(value) for name, value in settings.items() if name not in _NAMES_OF_CODE}
    return settings


def read_state(folder: Path) -> dict[str, Tensor]:
    """The tensors of a model's safetensors, in one file or several.

    Raises:
        ModelError: there are none; where there is a pickle, the message says how to convert it.
        IntegrityError: a file cannot be read.
    """
    from distil.models.load import read_weights  # which builds networks of this kind too

    if (folder / WEIGHTS).is_file():
        return read_weights(folder / WEIGHTS)
    if not (folder / INDEX).is_file():
        raise ModelError(_no_weights(folder))
    names = sorted(set(_read_json(folder / INDEX).get("weight_map", {}).values()))
    strays = [name for name in names if Path(name).name != name]
    if strays or not names:
        raise IntegrityError(f"{folder / INDEX}: it must name files beside it, and it names {strays or 'none'}")
    return {name: value for file in names for name, value in read_weights(folder / file).items()}


def read_gguf(path: Path, network: nn.Module | None = None) -> dict[str, Any]:
    """Of a GGUF file the settings, or, for a network of these settings, its tensors as floating-point numbers.

    Raises:
        ModelError: there is no such file, or it cannot be read.
        MissingExtraError: a package is not installed.
    """
    if not path.is_file():
        raise ModelError(f"there is no file {path}; {contents(_nearest(path.parent))}")
    try:
        import gguf  # noqa: F401  what transformers reads it with
        from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint
    except ImportError as error:
        raise MissingExtraError("gguf", extra="text", purpose=f"reading {path.name}") from error
    asked = {} if network is None else {"return_tensors": True, "model_to_load": network, "torch_dtype": torch.float32}
    try:
        return load_gguf_checkpoint(str(path), **asked)["config" if network is None else "tensors"]
    except Exception as error:  # of many kinds; none of them names the file
        raise ModelError(f"{path}: cannot be read as a GGUF file: {type(error).__name__}: {error}") from error


@contextmanager
def quiet() -> Iterator[None]:
    """Transformers shows no progress and logs nothing but errors inside; afterwards it does as before."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _from_hub(hub: str, revision: str | None, gguf: str | None) -> Path:
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise MissingExtraError("huggingface_hub", extra="text", purpose=f"the model {hub} of the hub") from error
    wanted = [gguf] if gguf is not None else [SETTINGS, GENERATION, WEIGHTS, INDEX, "model-*.safetensors"]
    try:
        return Path(snapshot_download(hub, revision=revision, allow_patterns=wanted))
    except Exception as error:  # of many kinds, from a name that is wrong to a network that is down
        at = f" at {revision}" if revision is not None else ""
        raise ModelError(f"hub {hub}{at}: cannot be fetched: {type(error).__name__}: {error}") from error


def _nearest(folder: Path) -> Path:
    return next(each for each in (folder, *folder.absolute().parents) if each.is_dir())


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ModelError(f"there is no {path.name}, which every folder of transformers has; {contents(path.parent)}")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise IntegrityError(f"{path}: it is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise IntegrityError(f"{path}: it is {type(found).__name__}, not a mapping")
    return found


def _no_weights(folder: Path) -> str:
    pickles = sorted(folder.glob("pytorch_model*.bin"))
    if not pickles:
        return f"there is no {WEIGHTS}, in one file or several; {contents(folder)}"
    said = read_settings(folder).get("architectures") or ["AutoModel"]
    network = said[0] if isinstance(said[0], str) and said[0].isidentifier() else "AutoModel"
    return (
        f"{folder}: a .bin file can run code when it is opened, so distil does not ({pickles[0].name}). If you trust "
        f"where it is from, convert it once:\n"
        f"  import transformers\n"
        f"  transformers.{network}.from_pretrained({str(folder)!r}).save_pretrained({str(folder)!r})"
    )
