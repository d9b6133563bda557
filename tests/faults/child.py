"""Runs the command line in a process of its own that kills itself at a chosen point, as a power cut would."""

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from typing import Any

# where a run may die: module, attribute, and whether the kill comes before or after the call
FAULT_POINTS: dict[str, tuple[str, str, str]] = {
    "before a save": ("distil.train.loop", "save_checkpoint", "before"),
    "inside a save, file torn": ("distil.train.checkpoint", "save_file", "torn"),
    "inside a save, before the rename": ("distil.train.checkpoint", "write_json", "after"),
    "inside a save, after the rename": ("distil.train.checkpoint", "_prune", "before"),
    "after a save": ("distil.train.loop", "save_checkpoint", "after"),
    "inside a validation": ("distil.tasks.classification", "validation_metrics", "before"),
    "between a model and its commit": ("distil.pipeline.training", "save_file", "after"),
    "inside a commit": ("distil.core.files", "sync", "before"),
    "inside an evaluation": ("distil.pipeline.evaluation", "save_predictions", "torn"),
    "between arms": ("distil.pipeline.run", "train_student", "before"),
    "inside export": ("distil.pipeline.shipping", "write_artefact", "after"),
    "inside parity": ("distil.pipeline.shipping", "verify_in_fresh_process", "before"),
    "before the report": ("distil.pipeline.run", "write_report", "before"),
}

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["torch", "lightning_fabric", "scipy.stats", "sklearn.datasets", "distil.pipeline.run"])


def start(arguments: Sequence[str], *, fault: str | None = None, occurrence: int = 1) -> Any:
    """Starts ``distil ARGUMENTS`` in a process that dies at the given occurrence of a fault point."""
    process = _context.Process(target=_main, args=(list(arguments), fault, occurrence))
    process.start()
    return process


def finish(arguments: Sequence[str], *, fault: str | None = None, occurrence: int = 1) -> int:
    """Runs ``distil ARGUMENTS`` to its end and returns the exit code; negative: the signal that ended it."""
    process = start(arguments, fault=fault, occurrence=occurrence)
    process.join(300)
    assert process.exitcode is not None, "the run did not end within 300 seconds"
    return process.exitcode


def _main(arguments: list[str], fault: str | None, occurrence: int) -> None:
    if fault is not None:
        module_name, attribute, moment = FAULT_POINTS[fault]
        module = import_module(module_name)
        counter = iter(range(1, 1_000_000))
        setattr(module, attribute, partial(_dying, getattr(module, attribute), moment, counter, occurrence))
    sys.argv = ["distil", *arguments]
    from distil.cli.main import main

    main()


def _dying(call: Callable[..., Any], moment: str, counter: Any, occurrence: int, *args: Any, **kwargs: Any) -> Any:
    now = next(counter) == occurrence
    if now and moment == "before":
        _die()
    result = call(*args, **kwargs)
    if now and moment == "torn":
        path = args[1]
        with open(path, "r+b") as file:  # noqa: PTH123
            file.truncate(os.path.getsize(path) // 2)  # noqa: PTH202
    if now:
        _die()
    return result


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
