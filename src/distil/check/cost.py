"""What will it cost in time, memory and disk, against what is free?"""

import copy
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch

from distil.check.finding import Finding
from distil.check.student import VIEW
from distil.check.teacher import Candidate
from distil.core.seeds import derive
from distil.data.example import Examples, ImageExamples, Splits, TextExamples
from distil.data.feed import Feed
from distil.models.tap import Taps
from distil.objective.objective import Objective, Requires
from distil.recipe.recipe import ResolvedRecipe, TrainStage
from distil.tasks.network import Network
from distil.tasks.task import Task
from distil.train.optimizer import make_optimizer

MOST_SECONDS_OF_TIMING = 2.0
ENOUGH_SECONDS_OF_TIMING = 0.5  # once three steps are done
OPTIMIZER_STATES = 3  # gradient and two moments, each as large as the weights
CHECKPOINTS = 2
BYTES_OF_TOKEN = 120  # that a tokenizer says about it


def check_cost(
    recipe: ResolvedRecipe,
    students: Mapping[str, Network],
    teachers: Mapping[str, Candidate],
    splits: Splits,
    task: Task,
) -> Iterator[Finding]:
    """Time by timing a few steps of each training; memory and disk by counting."""
    seconds = {
        f"teacher {name}": sum(
            _training_seconds(stage, _trainable(candidate), teachers, splits.train, task)
            for stage in candidate.config.stages
        )
        for name, candidate in teachers.items()
        if candidate.config.stages is not None
    }
    for name, arm in recipe.arms.items():
        each = sum(_training_seconds(stage, students[name], teachers, splits.students, task) for stage in arm.stages)
        seconds[f"arm {name} ({len(recipe.seeds)} seeds)"] = each * len(recipe.seeds)
    parts = ", ".join(f"{name} {_duration(value)}" for name, value in seconds.items())
    yield Finding("fine", f"time: about {_duration(sum(seconds.values()))} of training ({parts})")
    needed = _memory(students, teachers, splits, task)
    yield _compare("memory", needed, _free_memory(), "use smaller models or batches")
    yield _compare("disk", _disk(recipe, students, teachers), shutil.disk_usage(Path.cwd()).free, "make room")


def _trainable(candidate: Candidate) -> Network:
    """A copy of a teacher whose weights are not frozen."""
    candidate.frozen.close()
    network = candidate.network
    return Network(copy.deepcopy(network.model).requires_grad_(True), network.view, network.description)


def _training_seconds(
    stage: TrainStage, network: Network, teachers: Mapping[str, Candidate], examples: Examples, task: Task
) -> float:
    training = stage.training
    described = {name: candidate.network.description for name, candidate in teachers.items()}
    objective = Objective(stage.objective, view=VIEW).bind(
        network.description, described, num_ids=int(examples.ids.max()) + 1
    )
    asked = objective.requires.teacher_taps
    views = {VIEW: network.view} | {name: teachers[name].network.view for name in asked}
    feed = Feed(
        examples,
        views=views,
        batch_size=training.batch_size,
        augmentation=training.augmentation,
        order=training.order,
        targets=task.targets,
        seed=derive("check"),
    )
    optimizer = make_optimizer([network.model.train(), objective.module], training.optimizer)
    keeps = not training.augmentation and _can_be_kept(objective.requires, examples, task)
    # kept answers cost no time, whatever they say: those for two examples stand for all
    few = next(feed.batch(0).split(2))
    kept = {name: teachers[name].frozen.observe(few, taps) for name, taps in asked.items()} if keeps else {}

    def step(number: int) -> None:
        batch = feed.batch(number)
        rows = torch.zeros(len(batch), dtype=torch.int64)
        knowledge = {
            name: kept[name].rows(rows) if keeps else teachers[name].frozen.observe(batch, taps)
            for name, taps in asked.items()
        }
        said = ours.observe(network.model, batch.inputs[VIEW])
        objective(said, knowledge, batch, objective.counts(batch)).total.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    weights = {name: tensor.clone() for name, tensor in network.model.state_dict().items()}
    with Taps(network.model, objective.requires.student_taps) as ours:
        each = _seconds_each(step)
    network.model.load_state_dict(weights)
    return each * feed.steps_per_epoch * training.epochs


def _can_be_kept(requires: Requires, examples: Examples, task: Task) -> bool:
    """Layers of texts are of all lengths, and full answers for every token are too many."""
    if isinstance(examples, TextExamples) and any(requires.teacher_taps.values()):
        return False
    few = task.fixed_length and set(requires.teacher_outputs) == set(requires.largest)
    return few or not task.answers_for_tokens


def _seconds_each(step: Callable[[int], None]) -> float:
    """Of a few steps after the first, which is slower; of the first alone, where that took long."""
    start = time.perf_counter()
    step(0)
    first = time.perf_counter() - start
    if first > MOST_SECONDS_OF_TIMING:
        return first
    start, done = time.perf_counter(), 0
    while done < 3 or (done < 30 and time.perf_counter() - start < ENOUGH_SECONDS_OF_TIMING):
        done += 1
        step(done)
        if time.perf_counter() - start > MOST_SECONDS_OF_TIMING:
            break
    return (time.perf_counter() - start) / done


def _memory(students: Mapping[str, Network], teachers: Mapping[str, Candidate], splits: Splits, task: Task) -> int:
    numbers = 0 if task.answers_for_tokens else sum(each.network.description.num_classes for each in teachers.values())
    data, kept = _size_of_data(splits.train), len(splits.train) * numbers * 4
    student = max(network.description.size_bytes for network in students.values())
    teacher = sum(candidate.network.description.size_bytes for candidate in teachers.values())
    return data + kept + (student + teacher) * (1 + OPTIMIZER_STATES)


def _size_of_data(examples: Examples) -> int:
    """Images with their input tensors; texts with their tokens, each of about four characters."""
    if isinstance(examples, ImageExamples):
        return examples.images.numel() * 2
    assert isinstance(examples, TextExamples)
    return sum(len(each) for each in examples.contents()) * (1 + BYTES_OF_TOKEN // 4)


def _disk(recipe: ResolvedRecipe, students: Mapping[str, Network], teachers: Mapping[str, Candidate]) -> int:
    kept = sum(network.description.size_bytes for network in students.values()) * len(recipe.seeds)
    largest = max(
        [network.description.size_bytes for network in students.values()]
        + [candidate.network.description.size_bytes for candidate in teachers.values()]
    )
    exports = sum(candidate.network.description.size_bytes for candidate in teachers.values()) + 2 * largest
    return kept + exports + CHECKPOINTS * largest * (1 + OPTIMIZER_STATES)


def _compare(what: str, needed: int, free: int | None, remedy: str) -> Finding:
    if free is None:
        return Finding("fine", f"{what}: about {_size(needed)} needed; what is free is not known here")
    said = f"{what}: about {_size(needed)} needed, {_size(free)} free"
    if needed <= free:
        return Finding("fine", said)
    return Finding("wrong", said, why="the run would stop in the middle", remedy=f"{remedy}, then run the check again")


def _free_memory() -> int | None:
    facts = Path("/proc/meminfo")
    if not facts.is_file():
        return None
    for line in facts.read_text(encoding="ascii").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


def _size(count: int) -> str:
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} bytes"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
