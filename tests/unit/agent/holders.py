"""Processes that hold the lock, and hand over the node on request."""

import asyncio
import contextlib
import os
import sys

from tests.processes import started
from userspace_proxy.agent.hand_over import ask_to_hand_over

CONTAINER = ("unshare", "--pid", "--fork", "--kill-child")
"""Runs a command as the first process of a PID namespace."""
# Holds the lock, and has a child that runs until its stdin is closed. When this process takes the
# node back, it prints its argument and a variable, and waits until the child exits.
HOLDER = """
import asyncio, logging, os, signal, subprocess, sys
import uvloop
from userspace_proxy.agent.hand_over import answer_requests
from userspace_proxy.agent.lock import NodeLock
from userspace_proxy.agent.signals import stop_on_signal
from userspace_proxy.agent.after_hand_over import reap_children, takes_back, wait_for_workers

async def main():
    if takes_back():
        seed, has_home = os.environ["PYTHONHASHSEED"], "PYTHONHOME" in os.environ
        print("back", sys.argv[1], seed, has_home, flush=True)
        reap_children(asyncio.get_running_loop())
    else:
        subprocess.Popen(["cat"], stdin=0, stdout=subprocess.DEVNULL)
    arrived = []
    stop = stop_on_signal(asyncio.get_running_loop(), arrived, leave=os.abort, end=os._exit)
    lock = NodeLock()
    lock.take()
    def hand_over(connection):
        wait_for_workers(connection, lock, arrived)
    answer_requests(asyncio.get_running_loop(), lock, hand_over)
    print("held", flush=True)
    await stop.wait()
    if {drains}:
        print("draining", flush=True)
        await asyncio.Event().wait()
    sys.exit(3)

{spoil}
uvloop.run(main())
"""


def take_over():
    """Ask the unnamed proxy to hand over the node; return its answer."""
    return asyncio.run(ask_to_hand_over(None))


@contextlib.contextmanager
def running(executable, spoil="", *, drains=False, prefix=()):
    """Run a process that holds the lock and hands the node over on request; yield it.

    Args:
        spoil: Code that runs before it takes the lock.
        drains: Whether SIGTERM doesn't end it, as if connections were open.
        prefix: The command that starts it.
    """
    command = [*prefix, executable, "-c", HOLDER.format(spoil=spoil, drains=drains), "argument"]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONHASHSEED": "7"}
    with started(command, env=env) as process:
        assert process.stdout.readline() == "held\n"
        yield process
