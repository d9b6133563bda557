"""SIGTERM and Ctrl-C ask a run to stop; it finishes its step, saves, and leaves with exit code 75."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from distil.core.errors import Preempted


class Interruption:
    """Whether somebody asked the run to stop."""

    def __init__(self) -> None:
        self.requested = False

    def stop_here(self) -> None:
        """Raises ``Preempted`` where a stop was asked for. Called where everything is saved."""
        if self.requested:
            raise Preempted("stopped on request; everything is saved. Run the same command again to go on")


@contextmanager
def interruption() -> Iterator[Interruption]:
    """Listens for SIGTERM and SIGINT inside. The first only sets the flag; the second ends the process at once."""
    state = Interruption()
    if threading.current_thread() is not threading.main_thread():
        yield state
        return

    def request(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        state.requested = True
        for each in before:
            signal.signal(each, signal.SIG_DFL)

    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    for number in before:
        signal.signal(number, request)
    try:
        yield state
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
