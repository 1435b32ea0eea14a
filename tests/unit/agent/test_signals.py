"""What each signal does, tried on processes of their own."""

import signal
import subprocess
import sys

import pytest

DEADLINE_S = 20
PROGRAM = """
import asyncio, logging, os, sys, uvloop
from userspace_proxy.agent.signals import stop_on_signal

async def main():
    logging.basicConfig(stream=sys.stdout, format="%(message)s %(signal)s", level=logging.INFO)
    stop = stop_on_signal(asyncio.get_running_loop())
    print("ready", flush=True)
    await stop.wait()
    print("stopping", flush=True)
    # A drain that takes long.
    await asyncio.Event().wait()

with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
    runner.run(main())
"""


@pytest.fixture
def process():
    """A process that handles signals as the agent does, and drains for ever."""
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "ready\n"
        yield process
        process.kill()


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2])
def test_a_signal_that_asks_for_nothing_is_ignored_with_a_line(process, number):
    process.send_signal(number)
    assert process.stdout.readline() == f"signal ignored {number.name}\n"
    assert process.poll() is None


@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_the_first_stops_and_the_second_ends_it_at_once(process, first, second):
    process.send_signal(first)
    assert process.stdout.readline() == "stopping\n"
    process.send_signal(second)
    assert process.wait(DEADLINE_S) == 128 + second
    assert process.stdout.read() == (
        "second signal, exiting at once: rules stay until the next start, or until cleanup "
        f"{second.name}\n"
    )
