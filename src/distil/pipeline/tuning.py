"""Tuning as a stage: settings of terms chosen on validation, before any arm is trained, by trials that are kept."""

import shutil
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from distil.core.errors import NumericError
from distil.core.files import read_json, write_json
from distil.core.seeds import derive
from distil.objective.response_config import TrueLabels
from distil.pipeline.context import Context
from distil.pipeline.student import make_pupil
from distil.pipeline.teacher import Faculty, taught_by
from distil.pipeline.training import train_in_stages
from distil.recipe.recipe import Arm
from distil.tune.tune import Pruned, Settings, Trial, Tuned, Watch, tune

TUNING = "tuning.json"


def tune_arms(context: Context, faculty: Faculty) -> Context:
    """The run with the settings that did best on validation; its cost and every trial are in ``tuning.json``."""
    config = context.recipe.tune
    if config is None:
        return context
    return with_tuned(context, {name: tune_arm(context, faculty, name) for name in config.arms})


def with_tuned(context: Context, tuned: Mapping[str, Tuned]) -> Context:
    """The run with the best settings of each arm; writes ``tuning.json``."""
    chosen = {name: context.recipe.arms[name].with_settings(each.best) for name, each in tuned.items()}
    record = {name: _record(each) for name, each in tuned.items()}
    write_json(
        context.directory.path / TUNING,
        {"format": 1, "metric": context.task.metric, "split": "validation", "arms": record},
    )
    return replace(context, recipe=context.recipe.model_copy(update={"arms": {**context.recipe.arms, **chosen}}))


def tuning_notes(context: Context) -> list[str]:
    """For each tuned arm a sentence: what was chosen, by how many trials, in which time."""
    if context.recipe.tune is None:
        return []
    arms = read_json(context.directory.path / TUNING)["arms"]
    untuned = [
        name
        for name, arm in context.recipe.arms.items()
        if name not in arms and context.recipe.distilled in arms and list(arm.terms.values()) != [TrueLabels()]
    ]
    notes = [
        f"{name}: {_listed(each['best'])} chosen on validation ({each['value']:.4f}) by {len(each['trials'])} trials, "
        f"{each['num_pruned']} of them stopped early, {each['seconds']:.0f} s."
        for name, each in arms.items()
    ]
    if untuned:
        notes.append(f"{', '.join(untuned)} had no trials, the distilled arm had; that is not the same budget.")
    return notes


def tune_arm(context: Context, faculty: Faculty, name: str) -> Tuned:
    """The trials of one arm of ``tune``, each a stage of its own.

    Raises:
        NumericError: no trial came through.
    """
    config = context.recipe.tune
    assert config is not None
    arm, space = context.recipe.arms[name], config.arms[name]
    if config.epochs is not None:
        arm = _shortened(arm, config.epochs)
    seed = derive("tune", context.recipe.seeds[0])

    def attempt(number: int, settings: Settings, watch: Watch) -> Trial:
        folder = f"tune/{name}/trial-{number}"
        tried = arm.with_settings(settings)
        inputs = {
            "arm": tried.model_dump(mode="json"),
            "data": context.splits.fingerprint(),
            "teachers": taught_by(context, tried.stages),
            "seed": seed,
        }
        return context.once(
            f"{folder}/trial",
            inputs,
            lambda: _attempt(context, faculty, tried, settings, watch, seed=seed, folder=folder),
            lambda trial, path: _save(trial, path / "trial.json"),
            lambda path: _load(path / "trial.json"),
        )

    return tune(space, attempt, trials=config.trials, seed=seed, prune=config.prune)


def _attempt(
    context: Context, faculty: Faculty, arm: Arm, settings: Settings, watch: Watch, *, seed: int, folder: str
) -> Trial:
    """A trial from its start: an interrupted one is not gone on with, so that what was reported stays whole."""
    shutil.rmtree(context.directory.path / folder, ignore_errors=True)
    values: list[float] = []
    start = time.monotonic()

    def note(value: float) -> None:
        values.append(value)
        watch(value)

    pupil = make_pupil(context, arm, seed=seed, faculty=faculty, folder=folder, watch=note)
    value: float | None = None
    is_pruned = False
    try:
        trained = train_in_stages(context, pupil, faculty.lectern)
        assert trained.validation is not None
        value = context.task.signed(trained.validation[context.task.metric])
    except Pruned:
        value, is_pruned = max(values), True
    except NumericError as error:
        context.notice(f"{folder}: {error}")
    shutil.rmtree(context.directory.path / folder / "checkpoints", ignore_errors=True)
    return Trial(settings, value, tuple(values), is_pruned, time.monotonic() - start)


def _shortened(arm: Arm, epochs: int) -> Arm:
    last = arm.stages[-1]
    training = last.training.model_copy(update={"epochs": epochs})
    return arm.model_copy(update={"stages": (*arm.stages[:-1], last.model_copy(update={"training": training}))})


def _record(tuned: Tuned) -> dict[str, Any]:
    return {
        "best": dict(tuned.best),
        "value": tuned.value,
        "trials": [trial.as_dict() for trial in tuned.trials],
        "num_pruned": sum(trial.is_pruned for trial in tuned.trials),
        "seconds": sum(trial.seconds for trial in tuned.trials),
    }


def _save(trial: Trial, path: Path) -> list[Path]:
    write_json(path, trial.as_dict())
    return [path]


def _load(path: Path) -> Trial:
    found = read_json(path)
    return Trial(**{**found, "values": tuple(found["values"])})


def _listed(settings: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{key} {value:.3g}" if isinstance(value, float) else f"{key} {value}" for key, value in settings.items()
    )
