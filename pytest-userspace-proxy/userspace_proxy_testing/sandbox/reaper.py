"""Kills all other processes in its own network namespace, then exits.

A namespace's holder (holder.py) execs this program, which waits until the sandbox's owner closes
the namespace or dies. The program is run by path, without the package.

Rule 1: the argument is the owner's namespace, in which no process is killed.
Rule 2: a process is signalled only through a descriptor that was opened before its namespace was
        read, so a reused PID is never hit.
Rule 3: killing is repeated until no process is left, because a dying process may have forked.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time

# The time limit for killed processes to exit; a process that remains longer hangs in the kernel.
DEADLINE_S = 5.0


def members(namespace: str, proc: str = "/proc") -> list[int]:
    """Return the PIDs in a network namespace, without this process.

    Args:
        namespace: The link ``ns/net`` of its processes, such as ``net:[4026531840]``.
        proc: The mount point of procfs.
    """
    pids = (int(entry.name) for entry in os.scandir(proc) if entry.name.isdigit())
    return [p for p in pids if p != os.getpid() and namespace_of(p, proc) == namespace]


def namespace_of(pid: int, proc: str = "/proc") -> str:
    """Return a process's network namespace; empty if it has ended or can't be read."""
    try:
        return os.readlink(f"{proc}/{pid}/ns/net")  # noqa: PTH115 - pathlib costs 5 ms
    except OSError:
        return ""


def kill(pid: int, namespace: str) -> int | None:
    """Kill a process if it is still in this namespace.

    Returns:
        A pidfd, which becomes readable when the process exits; the caller closes it. None if there
        is nothing to wait for.
    """
    try:
        descriptor = os.pidfd_open(pid)
    except OSError:
        return None
    try:
        if namespace_of(pid) == namespace:
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
            return descriptor
    except OSError:
        pass  # The process has exited, or this process may not kill it.
    os.close(descriptor)
    return None


def reap(namespace: str) -> None:
    """Kill all processes of a namespace, and wait up to DEADLINE_S until they have exited."""
    end = time.monotonic() + DEADLINE_S
    while time.monotonic() < end:
        dying = [d for d in (kill(pid, namespace) for pid in members(namespace)) if d is not None]
        if not dying:
            return
        for descriptor in dying:
            gone = select.poll()
            gone.register(descriptor, select.POLLIN)
            gone.poll(max(0.0, end - time.monotonic()) * 1000)
            os.close(descriptor)


def main(argv: list[str]) -> int:
    """Reap this process's namespace, unless it is the owner's, at EOF; return the exit status."""
    own = namespace_of(os.getpid())
    if len(argv) != 1 or not own or own == argv[0]:
        return 1
    while os.read(0, 1):
        pass
    reap(own)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
