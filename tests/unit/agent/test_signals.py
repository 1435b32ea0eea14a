"""What each signal does, tried on processes of their own."""

import contextlib
import signal
import subprocess
import sys

import pytest

DEADLINE_S = 20
# Its arguments are the seconds at which SIGTERM or SIGINT arrives.
PROGRAM = """
import asyncio, logging, os, sys, uvloop
from userspace_proxy.agent.signals import stop_on_signal

async def main():
    logging.basicConfig(stream=sys.stdout, format="%(message)s %(signal)s", level=logging.INFO)
    clock = map(float, sys.argv[1:]).__next__
    leave = lambda: (print("left", flush=True), os._exit(0))
    stop = stop_on_signal(asyncio.get_running_loop(), leave=leave, end=os._exit, clock=clock)
    print("ready", flush=True)
    await stop.wait()
    print("stopping", flush=True)
    # A drain that takes long.
    await asyncio.Event().wait()

with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
    runner.run(main())
"""


@pytest.fixture
def start():
    """Start a process that handles signals as the agent does, and drains for ever."""
    with contextlib.ExitStack() as stack:

        def start(*seconds):
            command = [sys.executable, "-c", PROGRAM, *map(str, seconds)]
            process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            stack.enter_context(process)
            stack.callback(process.kill)
            assert process.stdout.readline() == "ready\n"
            return process

        yield start


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR2])
def test_a_signal_without_a_meaning_is_logged_and_ignored(start, number):
    process = start()
    process.send_signal(number)
    assert process.stdout.readline() == f"signal ignored {number.name}\n"
    assert process.poll() is None


def test_sigusr1_leaves_the_node_to_the_next_process(start):
    process = start()
    process.send_signal(signal.SIGUSR1)
    assert process.stdout.readline() == "left\n"
    assert process.wait(DEADLINE_S) == 0


@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_stops_and_the_second_ends_the_process_at_once(start, first, second):
    process = start(5.0, 6.0)
    process.send_signal(first)
    assert process.stdout.readline() == "stopping\n"
    process.send_signal(second)
    assert process.wait(DEADLINE_S) == 128 + second
    assert process.stdout.read() == (
        "second signal, exiting at once: rules stay until the next start, or until cleanup "
        f"{second.name}\n"
    )


def test_a_signal_that_a_supervisor_sends_twice_is_one_request(start):
    process = start(5.0, 5.001, 5.5)
    process.send_signal(signal.SIGTERM)
    assert process.stdout.readline() == "stopping\n"
    process.send_signal(signal.SIGTERM)
    assert process.stdout.readline() == "signal repeated at once, ignored SIGTERM\n"
    process.send_signal(signal.SIGTERM)
    assert process.wait(DEADLINE_S) == 128 + signal.SIGTERM
