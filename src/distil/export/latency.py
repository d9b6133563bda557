"""How long one example takes: ``python -m distil.export.latency DIRECTORY... [--reference DIRECTORY]``, without torch.

All artefacts are measured in this one process, on one thread of one core, one example at a time, in rounds A B C,
C B A, A B C ...: whatever else the machine does meets all of them alike. A ``latency.json`` is written into each
directory.

Texts are cut or padded to one number of tokens, where all artefacts read by the same tokenizer. Where they do not, as
of words and of characters, that would be more text for one than for another: then each text keeps its own length.
"""

import argparse
import gc
import json
import os
import platform
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64

from distil.core.errors import DistilError, ExportError
from distil.core.files import write_json
from distil.export.integrity import LATENCY_FILE, MODEL_FILE, PREPROCESSING_FILE, SAMPLES_FILE, check_artefact
from distil.export.runtime import OUTPUT_NAME, compute_logits, open_session, runtime_name
from distil.export.samples import Inputs, at_length, by_name, num_rows, read_samples, take, used_columns

DEFAULT_ROUNDS = 60
DEFAULT_SECONDS = 3.0
DEFAULT_TOKENS = 32
# Two networks of one shape, which are equally fast, differed by up to 1% in 5 of 12 processes, each time with intervals
# far apart: their places in memory differ, and no sampling within one process can see that.
SMALLEST_CLAIM = 1.05
_CONFIDENCE = 0.95
_RESAMPLES = 1000
_SEED = 0
_NUM_INPUTS = 32
_FEWEST_IN_A_BLOCK = 3
_MOST_IN_A_RESAMPLED_BLOCK = 50
_WARM_UP_SECONDS = 1.0
_SETTLED = 0.02


@dataclass(frozen=True)
class Contestant:
    """One artefact, loaded and ready to be timed.

    Attributes:
        directory: what it is known by.
        session: whose ``run(names of outputs, inputs by name)`` is timed.
        inputs: one example each.
        output: the name of what it says.
        tokens: of each text; None for images, and for texts that keep their own length.
    """

    directory: Path
    sha256: str
    session: Any
    inputs: Sequence[Inputs]
    load_ms: float
    output: str = OUTPUT_NAME
    tokens: int | None = None


def median_interval(blocks_ms: Float64[np.ndarray, "rounds samples"]) -> list[float]:
    """95% interval [low, high] of the median, in milliseconds.

    Whole rounds are drawn again (a bootstrap over blocks), because neighbours in time are not independent samples.
    It is the interval for this process: a network loaded again, elsewhere in memory, may differ by a percent more.
    """
    return _percentile_interval(_resampled_medians(blocks_ms))


def judge_speed_up(
    artefact_ms: Float64[np.ndarray, "rounds samples"],
    reference_ms: Float64[np.ndarray, "rounds reference_samples"],
) -> dict[str, Any]:
    """How many times faster an artefact is than the reference, and whether that may be claimed.

    Row i of both comes from the same round, and the bootstrap draws the same rounds for both.

    Returns:
        ``ratio`` of the medians (reference / artefact; above 1 is faster), its 95% ``interval``, ``claimed``, ``why``.
        Claimed is what is faster by :data:`SMALLEST_CLAIM` at least (the interval's lower end), and only where the
        intervals of the two medians do not overlap.
    """
    ratio = float(np.median(reference_ms) / np.median(artefact_ms))
    interval = _percentile_interval(_resampled_medians(reference_ms) / _resampled_medians(artefact_ms))
    artefact, reference = median_interval(artefact_ms), median_interval(reference_ms)
    both = f"{_as_text(artefact)} against {_as_text(reference)} for the reference"
    claimed = False
    if artefact[0] <= reference[1] and reference[0] <= artefact[1]:
        why = f"no difference is shown: the 95% intervals of the medians overlap ({both})"
    elif interval[1] > 1 / SMALLEST_CLAIM and interval[0] < SMALLEST_CLAIM:
        why = (
            f"a difference that may be below {SMALLEST_CLAIM - 1:.0%} is not claimed: the places of two networks in "
            f"memory can make as much ({both})"
        )
    else:
        claimed = ratio > 1
        why = f"{'faster' if claimed else 'slower'}: the 95% intervals of the medians are apart ({both})"
    return {"ratio": ratio, "interval": interval, "claimed": claimed, "why": why}


def measure_latency(
    directories: Sequence[Path],
    *,
    reference: Path | None = None,
    rounds: int = DEFAULT_ROUNDS,
    seconds: float = DEFAULT_SECONDS,
    tokens: int = DEFAULT_TOKENS,
) -> dict[Path, dict[str, Any]]:
    """Times artefacts against each other, and writes ``latency.json`` into each directory and the reference's.

    Args:
        directories: artefacts with ``samples.safetensors``, whose first examples are the inputs.
        reference: the artefact that speed-ups are relative to.
        rounds: how often each artefact has its turn; at least 2.
        seconds: of measuring, for all artefacts together, warm-up not counted. A slow model may need more, because
            each has at least three runs in a round.
        tokens: of texts, how many each is cut or padded to; fewer where an artefact takes fewer. Not used for images.

    Raises:
        IntegrityError, ExportError, MissingExtraError: as :func:`distil.export.verify.verify`.
    """
    if rounds < 2 or not seconds > 0 or tokens < 1:
        raise ExportError(
            f"latency: needs at least 2 rounds and more than 0 seconds, got {rounds} and {seconds:g}; "
            f"and at least 1 token, got {tokens}."
        )
    places = list(dict.fromkeys(place.resolve() for place in [*directories, *([reference] if reference else [])]))
    hashes: dict[Path, str] = {place: check_artefact(place)["sha256"] for place in places}
    length = _shared_length(places, tokens)
    contestants = [_load(place, hashes[place], length) for place in places]
    blocks = dict(zip(places, time_together(contestants, rounds=rounds, seconds=seconds), strict=True))
    base = reference.resolve() if reference else None
    reports = {
        contestant.directory: _describe(contestant, blocks[contestant.directory])
        | _compare(contestant, next((other for other in contestants if other.directory == base), None), blocks)
        for contestant in contestants
    }
    for place, report in reports.items():
        write_json(place / LATENCY_FILE, report)
    return reports


def time_together(
    contestants: Sequence[Contestant], *, rounds: int, seconds: float
) -> list[Float64[np.ndarray, "rounds samples"]]:
    """Milliseconds of single runs of each contestant, in turns, warm-up not counted."""
    slice_seconds = seconds / (rounds * len(contestants))
    counts = [max(_FEWEST_IN_A_BLOCK, int(slice_seconds / _warm_up(contestant))) for contestant in contestants]
    return _measure_rounds(contestants, counts, rounds)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code. Pins this process to one core."""
    parser = argparse.ArgumentParser(prog="python -m distil.export.latency", description=__doc__)
    parser.add_argument("directories", type=Path, nargs="+", help="artefacts, such as runs/NAME/exports/onnx-fp32")
    parser.add_argument("--reference", type=Path, help="the artefact that speed-ups are relative to")
    parser.add_argument("--rounds", type=int, default=DEFAULT_ROUNDS)
    parser.add_argument("--seconds", type=float, default=DEFAULT_SECONDS, help="of measuring, for all together")
    parser.add_argument("--tokens", type=int, default=DEFAULT_TOKENS, help="of each text (default: %(default)s)")
    options = parser.parse_args(arguments)
    try:
        _pin_to_one_core()
        reports = measure_latency(
            options.directories,
            reference=options.reference,
            rounds=options.rounds,
            seconds=options.seconds,
            tokens=options.tokens,
        )
    except DistilError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return error.exit_code
    for place, report in reports.items():
        print(f"{place}: p50 {report['p50_ms']:.4g} ms, 95% interval {_as_text(report['p50_interval'])}")
    return 0


def _shared_length(places: Sequence[Path], tokens: int) -> int | None:
    """How many tokens each text has; None for images, and where a token is not the same piece of text for all."""
    cards = {place: json.loads((place / PREPROCESSING_FILE).read_bytes()) for place in places}
    if any(card["input"].get("kind") != "text" for card in cards.values()):
        return None
    pieces = {_tokenizer(place / card["preprocessing"]["tokenizer"]) for place, card in cards.items()}
    return min(tokens, *(card["input"]["max_length"] for card in cards.values())) if len(pieces) == 1 else None


def _tokenizer(path: Path) -> str:
    """Without what says only where texts are cut and how they are padded."""
    content = json.loads(path.read_bytes())
    return json.dumps({key: value for key, value in content.items() if key not in ("truncation", "padding")})


def _load(directory: Path, sha256: str, tokens: int | None) -> Contestant:
    card = json.loads((directory / PREPROCESSING_FILE).read_bytes())
    inputs = read_samples(directory / SAMPLES_FILE).inputs
    singles = [
        _single(take(inputs, slice(row, row + 1)), tokens, card["input"].get("pad_id", 0))
        for row in range(min(num_rows(inputs), _NUM_INPUTS))
    ]
    start = time.perf_counter_ns()
    session = open_session(directory / MODEL_FILE)
    load_ms = (time.perf_counter_ns() - start) / 1e6
    output = card["output"]["name"]
    compute_logits(session, singles[0], output=output)  # an artefact that cannot run fails here, with its message
    return Contestant(directory, sha256, session, singles, load_ms, output, tokens)


def _single(inputs: Inputs, tokens: int | None, pad_id: int) -> Inputs:
    """One example in memory of its own: an image, or a text of ``tokens`` tokens, or of as many as it has."""
    if isinstance(inputs, np.ndarray):
        return np.ascontiguousarray(inputs)
    columns = used_columns(inputs)
    length = columns.stop - columns.start if tokens is None else tokens
    return {name: np.ascontiguousarray(value) for name, value in at_length(inputs, length, pad_id=pad_id).items()}


def _warm_up(contestant: Contestant) -> float:
    """Seconds of one run, once the median of a block is within 2% of the block before (or after one second)."""
    deadline = time.perf_counter() + _WARM_UP_SECONDS
    previous, current = np.inf, float(np.median(_time_block(contestant, 20)))
    while abs(current - previous) > _SETTLED * current and time.perf_counter() < deadline:
        previous, current = current, float(np.median(_time_block(contestant, 20)))
    return current / 1e3


def _measure_rounds(
    contestants: Sequence[Contestant], counts: Sequence[int], rounds: int
) -> list[Float64[np.ndarray, "rounds samples"]]:
    """Every other round goes backwards, so that nobody always comes after the same neighbour."""
    blocks: list[list[np.ndarray]] = [[] for _ in contestants]
    collecting = gc.isenabled()
    gc.disable()
    try:
        for turn in range(rounds):
            order = range(len(contestants))
            for place in order if turn % 2 == 0 else reversed(order):
                _time_block(contestants[place], _FEWEST_IN_A_BLOCK)  # its code and weights back into the caches
                blocks[place].append(_time_block(contestants[place], counts[place]))
    finally:
        if collecting:
            gc.enable()
    return [np.stack(rows) for rows in blocks]


def _time_block(contestant: Contestant, count: int) -> Float64[np.ndarray, " samples"]:
    """Milliseconds of ``count`` single runs, each on the next example."""
    run, clock, outputs = contestant.session.run, time.perf_counter_ns, [contestant.output]
    feeds = [by_name(inputs) for inputs in contestant.inputs]
    nanoseconds = np.empty(count, dtype=np.int64)
    for index in range(count):
        feed = feeds[index % len(feeds)]
        start = clock()
        run(outputs, feed)
        nanoseconds[index] = clock() - start
    return nanoseconds / 1e6


def _describe(contestant: Contestant, blocks_ms: np.ndarray) -> dict[str, Any]:
    return {
        "format": 1,
        "runtime": runtime_name(),
        "threads": 1,
        "batch_size": 1,
        "tokens": contestant.tokens,
        "rounds": len(blocks_ms),
        "num_samples": blocks_ms.size,
        "p50_ms": float(np.median(blocks_ms)),
        "p95_ms": float(np.percentile(blocks_ms, 95)),
        "p50_interval": median_interval(blocks_ms),
        "load_ms": contestant.load_ms,
        "sha256": contestant.sha256,
        "cpu": _cpu_name(),
        "machine": _machine(),
        "pid": os.getpid(),
    }


def _compare(contestant: Contestant, reference: Contestant | None, blocks: dict[Path, np.ndarray]) -> dict[str, Any]:
    if reference is None or reference is contestant:
        return {"reference": None, "speed_up": None}
    speed_up = judge_speed_up(blocks[contestant.directory], blocks[reference.directory])
    if contestant.sha256 == reference.sha256:
        speed_up |= {"claimed": False, "why": "no difference: this file and the reference are equal in every byte"}
    common = Path(os.path.commonpath([directory.parent for directory in blocks]))
    return {"reference": reference.directory.relative_to(common).as_posix(), "speed_up": speed_up}


def _resampled_medians(blocks_ms: np.ndarray) -> Float64[np.ndarray, " resamples"]:
    """Medians of rounds drawn with replacement: the same rounds in every call with the same number of rounds."""
    rounds, count = blocks_ms.shape
    if count > _MOST_IN_A_RESAMPLED_BLOCK:  # evenly spaced order statistics keep a block's shape, and cost less
        levels = (np.arange(_MOST_IN_A_RESAMPLED_BLOCK) + 0.5) / _MOST_IN_A_RESAMPLED_BLOCK
        blocks_ms = np.quantile(blocks_ms, levels, axis=1).T
    draws = np.random.default_rng(_SEED).integers(rounds, size=(_RESAMPLES, rounds))
    return np.array([np.median(blocks_ms[draw]) for draw in draws])


def _percentile_interval(values: np.ndarray) -> list[float]:
    tail = (1 - _CONFIDENCE) / 2
    return [float(bound) for bound in np.quantile(values, [tail, 1 - tail])]


def _as_text(interval_ms: Sequence[float]) -> str:
    return f"{interval_ms[0]:.4g} to {interval_ms[1]:.4g} ms"


def _pin_to_one_core() -> None:
    """The highest core this process may use; where the system has no such call, it stays unpinned."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def _machine() -> dict[str, Any]:
    """What else decides how fast a run is. ``load_average`` above ``cores`` means that others were using them."""
    governor = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    return {
        "cores": os.cpu_count(),
        "pinned": sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "governor": governor.read_text().strip() if governor.is_file() else None,
        "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    }


def _cpu_name() -> str:
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text().splitlines() if facts.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


if __name__ == "__main__":
    sys.exit(main())
