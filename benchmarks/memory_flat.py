"""Peak memory and time of the memory-flat loss against the same loss on the logits of all tokens, on a CPU, in one run.

Forward and backward pass of 0.9 soft targets at temperature 2 and 0.1 labels, with a trained head of the student, in
float32. Four ways: ``flat`` and ``flat values`` are distil's two functions, ``dense`` is distil's losses on all logits,
``plain`` the same with PyTorch's own functions. Memory is the peak of resident memory in a fresh process less what was
resident before the pass; the gradients of the head and of the states are part of it. Time is that of the processor, in
one process with one thread in which the four take turns, as the median over the rounds. What would not fit into free
memory is left out and said.

    python benchmarks/memory_flat.py [--quick] [--rounds 3]
"""

import argparse
import gc
import json
import statistics
import subprocess
import sys
import time
import weakref
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

# torch is imported in the children alone: the peak that a process reports begins with the memory of its parent

HIDDEN = 256
CASES = ((1_024, 32_000), (4_096, 32_000), (1_024, 151_936), (4_096, 151_936))
WAYS = ("flat", "flat values", "dense", "plain")
TEMPERATURE, SOFT, TRUE = 2.0, 0.9, 0.1
COPIES = 10  # of all logits, at most, that a dense way has at once: the estimate before one was measured
MEGABYTE = 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the two small cases only")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(child(options.child, options.rounds)))
        return
    print(f"| tokens | ids | way | peak memory, MB | over flat | time, s | over flat |\n|{'--:|--:|:--' + 4 * '|--:'}|")
    peaks: dict[tuple[int, int, str], float] = {}
    for num_tokens, num_ids in CASES[:2] if options.quick else CASES:
        fitting = [way for way in WAYS if fits(way, num_tokens, num_ids, peaks)]
        for way in fitting:
            peaks[num_tokens, num_ids, way] = ask("memory", num_tokens, num_ids, way)
        seconds = ask("time", num_tokens, num_ids, *fitting, rounds=options.rounds)
        for way in WAYS:
            print(row(num_tokens, num_ids, way, peaks, seconds), flush=True)
    print(
        "\nKept between forward and backward pass beside what was given, 512 tokens (256 count), 4,096 ids, in bytes:"
    )
    for way, kept in ask("retained").items():
        print(f"- {way}: {kept:,}")


def row(
    num_tokens: int, num_ids: int, way: str, peaks: dict[tuple[int, int, str], float], seconds: dict[str, float]
) -> str:
    start = f"| {num_tokens:,} | {num_ids:,} | {way} |"
    if way not in seconds:
        return f"{start} does not fit | | | |"
    peak, flat = (peaks[num_tokens, num_ids, each] for each in (way, "flat"))
    slower = seconds[way] / seconds["flat"]
    return f"{start} {peak / MEGABYTE:,.0f} | {peak / flat:.1f} | {seconds[way]:.2f} | {slower:.2f} |"


def fits(way: str, num_tokens: int, num_ids: int, peaks: dict[tuple[int, int, str], float]) -> bool:
    """Whether a quarter more than is expected is free; expected from the same way with fewer tokens, if measured."""
    if way.startswith("flat"):
        return True
    measured = [peak / tokens for (tokens, ids, other), peak in peaks.items() if (ids, other) == (num_ids, way)]
    expected = num_tokens * max(measured, default=COPIES * 4 * num_ids)
    return 1.25 * expected < free_bytes()


def free_bytes() -> int:
    """Of memory that can be had without writing to disk; where the system does not say, none."""
    path = Path("/proc/meminfo")
    lines = path.read_text().splitlines() if path.exists() else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), 0)


def ask(*words: object, rounds: int = 1) -> Any:
    """The answer of a fresh process."""
    command = [sys.executable, __file__, "--rounds", str(rounds), "--child", *map(str, words)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def child(words: Sequence[str], rounds: int) -> Any:
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
    if words[0] == "retained":
        return {way: retained(way) for way in WAYS}
    losses = Losses(int(words[1]), int(words[2]))
    small = Losses(8, 100)
    for way in words[3:]:
        small.loss(way).backward()  # what is loaded at the first call is not the loss's
    return peak_of(losses, words[3]) if words[0] == "memory" else seconds_of(losses, words[3:], rounds)


class Losses:
    """One loss in four ways, on the same tensors."""

    def __init__(
        self, num_tokens: int, num_ids: int, *, chunk_tokens: int | None = None, counting: int | None = None
    ) -> None:
        import torch

        self.hidden, self.teacher_hidden = (torch.empty(num_tokens, HIDDEN).normal_() for _ in range(2))
        self.weight, self.teacher_weight = (torch.empty(num_ids, HIDDEN).normal_(std=HIDDEN**-0.5) for _ in range(2))
        self.labels = torch.randint(0, num_ids, (num_tokens,))
        self.mask = torch.arange(num_tokens) < (num_tokens if counting is None else counting)
        self.chunk_tokens = chunk_tokens
        self.hidden.requires_grad_()
        self.weight.requires_grad_()

    def loss(self, way: str) -> "Tensor":
        self.hidden.grad = self.weight.grad = None
        return {"flat": self.flat, "flat values": self.flat_values, "dense": self.dense, "plain": self.plain}[way]()

    def flat(self) -> "Tensor":
        from distil.losses.memory_flat import memory_flat_loss

        return memory_flat_loss(self.hidden, **self.given()).total

    def flat_values(self) -> "Tensor":
        from distil.losses.memory_flat import memory_flat_values

        return memory_flat_values(self.hidden, **self.given()).total.sum()

    def given(self) -> dict[str, Any]:
        from distil.losses.logit import label_cross_entropy, soft_target_kl
        from distil.losses.memory_flat import FlatTerm, TeacherStates
        from distil.losses.output_head import OutputHead

        teacher = TeacherStates(self.teacher_hidden, OutputHead(self.teacher_weight))
        terms = {
            "soft": FlatTerm(partial(soft_target_kl, temperature=TEMPERATURE), teacher, SOFT),
            "true": FlatTerm(label_cross_entropy, self.labels, TRUE),
        }
        head = OutputHead(self.weight)
        return {"student_head": head, "terms": terms, "mask": self.mask, "chunk_tokens": self.chunk_tokens}

    def dense(self) -> "Tensor":
        from distil.losses.logit import label_cross_entropy, soft_target_kl

        logits, said = self.hidden @ self.weight.T, self.teacher_hidden @ self.teacher_weight.T
        soft = soft_target_kl(logits, said, temperature=TEMPERATURE)
        return ((SOFT * soft + TRUE * label_cross_entropy(logits, self.labels)) * self.mask).sum()

    def plain(self) -> "Tensor":
        from torch.nn import functional as F

        logits, said = self.hidden @ self.weight.T, self.teacher_hidden @ self.teacher_weight.T
        ours, theirs = (F.log_softmax(each / TEMPERATURE, dim=-1) for each in (logits, said))
        soft = TEMPERATURE**2 * F.kl_div(ours, theirs, log_target=True, reduction="none").sum(dim=-1)
        return ((SOFT * soft + TRUE * F.cross_entropy(logits, self.labels, reduction="none")) * self.mask).sum()


def peak_of(losses: Losses, way: str) -> int:
    before = resident_peak_bytes()
    losses.loss(way).backward()
    return resident_peak_bytes() - before


def resident_peak_bytes() -> int:
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def seconds_of(losses: Losses, ways: Sequence[str], rounds: int) -> dict[str, float]:
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way in ways:
            start = time.process_time()
            losses.loss(way).backward()
            seconds[way].append(time.process_time() - start)
    return {way: statistics.median(each) for way, each in seconds.items()}


class Held:
    """A tensor that is kept for the backward pass, as long as it is."""

    def __init__(self, tensor: "Tensor") -> None:
        self.tensor = tensor


def retained(way: str) -> int:
    """Bytes that are kept when the forward pass is over, less what was there before: by autograd or any object."""
    import torch

    losses = Losses(512, 4_096, chunk_tokens=32, counting=256)
    held: weakref.WeakSet[Held] = weakref.WeakSet()

    def keep(tensor: torch.Tensor) -> Held:
        held.add(one := Held(tensor))
        return one

    before = set(storages(everywhere()))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda one: one.tensor):
        total = losses.loss(way)
    after = storages([*everywhere(), *(one.tensor for one in held)])
    assert total.requires_grad  # alive until here, and the graph with it
    return sum(size for storage, size in after.items() if storage not in before)


def everywhere() -> "list[Tensor]":
    import torch

    gc.collect()
    return [each for each in gc.get_objects() if issubclass(type(each), torch.Tensor)]


def storages(tensors: "Sequence[Tensor]") -> dict[int, int]:
    return {each.untyped_storage().data_ptr(): each.untyped_storage().nbytes() for each in tensors}


if __name__ == "__main__":
    main()
