import os
import signal
import subprocess
import sys
import threading

import pytest

from distil.core.errors import Preempted
from distil.core.interruption import Interruption, interruption

SCRIPT = """
import sys, time
from distil.core.interruption import interruption
with interruption() as state:
    print("ready", flush=True)
    while not state.requested:
        time.sleep(0.01)
    print("asked", flush=True)
    time.sleep(30)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_only_sets_the_flag(number: signal.Signals) -> None:
    before = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)}
    with interruption() as state:
        assert not state.requested
        state.stop_here()
        os.kill(os.getpid(), number)
        assert state.requested
        with pytest.raises(Preempted, match="Run the same command again") as caught:
            state.stop_here()
    assert caught.value.exit_code == 75
    assert {each: signal.getsignal(each) for each in before} == before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_second_signal_ends_the_process_at_once(number: signal.Signals) -> None:
    with subprocess.Popen([sys.executable, "-c", SCRIPT], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        assert process.stdout.readline() == "asked\n"
        process.send_signal(number)
        assert process.wait(timeout=10) == -number


def test_the_handlers_are_restored_after_an_error() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(RuntimeError, match="inside"), interruption():
        raise RuntimeError("inside")
    assert signal.getsignal(signal.SIGTERM) == before


def test_outside_the_main_thread_it_listens_to_nothing() -> None:
    states: list[Interruption] = []

    def work() -> None:
        with interruption() as state:
            states.append(state)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert [state.requested for state in states] == [False]
