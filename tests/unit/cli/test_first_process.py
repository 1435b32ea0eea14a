"""Tests of a container's first process, with scripts in place of the control process."""

import contextlib
import os
import signal
import sys
import time
from subprocess import PIPE

import pytest

from tests.processes import started

PROGRAM = """
import sys
from userspace_proxy.cli import first_process
first_process._LONGEST_PAUSE_S = 1000.0
first_process._FIRST_PAUSE_S, first_process._SOUND_S = map(float, sys.argv[1].split())
sys.exit(first_process.run_as_first([sys.executable, "-c", *sys.argv[2:]]))
"""
# Each start appends a byte to a file, whose size the tests read.
STARTS = "import os, signal, sys; os.write(os.open(sys.argv[1], 1 | 64 | 1024), b'.')\n"
AGAIN = "error: the control process exited (signal 9), restarting it\n"


@pytest.fixture
def start(tmp_path):
    """Yield a function that starts a first process, which runs a script."""
    stack = contextlib.ExitStack()

    def start(script, *, times="0 10", stderr=PIPE):
        words = [sys.executable, "-c", PROGRAM, times, STARTS + script, str(tmp_path / "starts")]
        return stack.enter_context(started(words, stderr=stderr))

    with stack:
        yield start


@pytest.fixture
def starts(tmp_path):
    """Return a function that counts the starts of the script."""
    return lambda: len((tmp_path / "starts").read_bytes())


@pytest.mark.parametrize("status", [0, 1, 2])
def test_a_control_process_that_exits_is_not_restarted(start, starts, status):
    first = start(f"sys.exit({status})")
    assert first.wait(30) == status
    assert starts() == 1


@pytest.mark.parametrize(
    ("times", "least_s"), [("0.2 10", 0.6), ("1000 0", 0.0)], ids=["early", "sound"]
)
def test_a_killed_control_process_is_restarted_after_pauses_that_double_while_it_ends_early(
    start, starts, times, least_s
):
    script = "if os.stat(sys.argv[1]).st_size < 4: os.kill(os.getpid(), 9)\n"
    script += "sys.exit(7 * ('USERSPACE_PROXY_RESTARTED' in os.environ))"
    first, began = start(script, times=times), time.monotonic()
    assert first.wait(30) == 7
    assert time.monotonic() - began >= least_s
    assert starts() == 4
    assert first.stderr.read() == 3 * AGAIN


def test_sigterm_interrupts_the_pause_after_two_early_exits(start, starts):
    first = start("os.kill(os.getpid(), signal.SIGKILL)", times="1000 10")
    assert [first.stderr.readline() for _ in range(2)] == [AGAIN, AGAIN]
    first.terminate()
    assert first.wait(30) == 128 + signal.SIGTERM
    assert starts() == 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1])
def test_signals_are_forwarded_to_the_control_process(start, starts, number):
    first = start(
        f"signal.pthread_sigmask(signal.SIG_BLOCK, [{int(number)}]); print('ready', flush=True)\n"
        f"sys.exit(5 if signal.sigwait([{int(number)}]) == {int(number)} else 6)"
    )
    assert first.stdout.readline() == "ready\n"
    first.send_signal(number)
    assert first.wait(30) == 5
    assert starts() == 1


def test_a_signal_after_sigterm_does_not_cancel_the_stop(start, starts):
    first = start(
        "signal.pthread_sigmask(signal.SIG_BLOCK, [1, 15]); print('ready', flush=True)\n"
        "signal.sigwait([15]); print('stopping', flush=True)\n"
        "signal.sigwait([1]); os.kill(os.getpid(), 9)"
    )
    assert first.stdout.readline() == "ready\n"
    first.terminate()
    assert first.stdout.readline() == "stopping\n"
    first.send_signal(signal.SIGHUP)
    assert first.wait(30) == 128 + signal.SIGKILL
    assert starts() == 1


def test_the_child_has_no_blocked_signals(start):
    first = start("print(signal.pthread_sigmask(signal.SIG_BLOCK, ()), flush=True)")
    assert first.stdout.readline() == "set()\n"


def test_a_stalled_log_reader_does_not_stop_the_first_process(start, starts):
    reader, writer = os.pipe()
    with os.fdopen(reader), os.fdopen(writer, "wb", buffering=0) as pipe:
        os.set_blocking(writer, False)
        while pipe.write(b"x" * 4096):
            pass
        os.set_blocking(writer, True)
        first = start(
            "if os.stat(sys.argv[1]).st_size < 3: os.kill(os.getpid(), 9)\nsys.exit(7)", stderr=pipe
        )
        assert first.wait(30) == 7
    assert starts() == 3
