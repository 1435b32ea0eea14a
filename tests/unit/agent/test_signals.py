"""The effect of each signal, tested on child processes."""

import contextlib
import signal
import sys

import pytest

from tests.cluster.waiting import wait_for
from tests.processes import started

DEADLINE_S = 120.0
# Argument: the time that passes after the first SIGTERM or SIGINT (enough, none, or real time).
PROGRAM = """
import asyncio, logging, os, signal, sys, time, uvloop
from userspace_proxy.agent import signals

def call_at_once(_seconds, step):
    step()

def call_never(_seconds, step):
    pass

async def main():
    logging.basicConfig(stream=sys.stdout, format="%(message)s", level=logging.INFO)
    leave = lambda: (print("left", flush=True), os._exit(0))
    later = {"enough": call_at_once, "none": call_never}.get(sys.argv[1])
    signals._SAME_REQUEST_S = 0.03
    stop = signals.stop_on_signal(
        asyncio.get_running_loop(), [], leave=leave, end=os._exit, later=later
    )
    print("ready", flush=True)
    await stop.wait()
    print("stopping", flush=True)
    if later is None:
        # The signal comes at once, and the process gets no CPU for a while.
        os.kill(os.getpid(), signal.SIGTERM)
        until = time.monotonic() + 0.1
        while time.monotonic() < until:
            pass
    # A drain that takes a long time.
    await asyncio.Event().wait()

with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
    runner.run(main())
"""


@pytest.fixture
def start():
    """Yield a function that returns a new process, ready to handle signals as the agent does."""
    with contextlib.ExitStack() as stack:

        def start(passes="enough"):
            command = [sys.executable, "-c", PROGRAM, passes]
            process = stack.enter_context(started(command))
            assert process.stdout.readline() == "ready\n"
            return process

        yield start


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR2])
def test_a_signal_without_a_handler_is_logged_and_ignored(start, number):
    process = start()
    process.send_signal(number)
    assert process.stdout.readline() == f"signal ignored: {number.name}\n"
    assert process.poll() is None


def test_sigusr1_hands_the_node_to_the_next_process(start):
    process = start()
    process.send_signal(signal.SIGUSR1)
    assert process.stdout.readline() == "left\n"
    assert process.wait(DEADLINE_S) == 0


@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_stops_gracefully_and_the_second_immediately(start, first, second):
    process = start()
    process.send_signal(first)
    assert process.stdout.readline() == "stopping\n"
    process.send_signal(second)
    assert process.wait(DEADLINE_S) == 128 + second
    assert process.stdout.read() == (
        f"second signal ({second.name}), exiting now: rules stay until the next start or cleanup\n"
    )


def test_a_repeated_signal_of_a_supervisor_counts_once(start):
    process = start("none")
    for said in ("stopping", "repeated signal ignored: SIGTERM"):
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == f"{said}\n"
    assert process.poll() is None


def test_a_repeated_signal_delivered_late_does_not_count_twice(start):
    process = start("little")
    process.send_signal(signal.SIGTERM)
    for said in ("stopping", "repeated signal ignored: SIGTERM"):
        assert process.stdout.readline() == f"{said}\n"

    def has_ended():
        process.send_signal(signal.SIGTERM)
        return process.poll() is not None

    wait_for("the end by a later signal", has_ended, deadline_s=DEADLINE_S)
    assert process.returncode == 128 + signal.SIGTERM
