"""Reads the CPU time, memory and descriptors of a way's processes, and the machine's CPU time."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


def family(pid: int) -> list[int]:
    """Return a process and all its descendants; empty if it has exited."""
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
    except OSError:
        return []
    children: list[int] = []
    for task in tasks:
        with contextlib.suppress(OSError):
            children += map(int, (task / "children").read_text().split())
    return [pid, *(p for child in children for p in family(child))]


def cpu_seconds(pids: Iterable[int]) -> float:
    """Return the CPU time of processes, user and system; exited processes count as 0."""
    return sum(_cpu_seconds(pid) for pid in pids)


def _cpu_seconds(pid: int) -> float:
    try:
        # The name in parentheses may contain spaces, so count the fields after it.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    user, system = fields[11:13]
    return (int(user) + int(system)) / _TICKS


def machine_cpu_seconds() -> float:
    """Return the CPU time of the whole machine, including interrupts."""
    # Source: proc_stat(5). User time includes guests' time.
    user, nice, system, _idle, _iowait, irq, softirq = map(
        int, Path("/proc/stat").read_text().split(maxsplit=8)[1:8]
    )
    return (user + nice + system + irq + softirq) / _TICKS


def memory_bytes(pids: Iterable[int]) -> int:
    """Return the user memory of processes; shared memory is counted once (PSS).

    Exited processes count as 0, because helpers are short-lived.
    """
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
    return total


def descriptors(pids: Iterable[int]) -> int:
    """Return the number of open descriptors of processes; exited processes count as 0."""
    return _count(pids, "fd")


def threads(pids: Iterable[int]) -> int:
    """Return the number of threads of processes; exited processes count as 0."""
    return _count(pids, "task")


def _count(pids: Iterable[int], kind: str) -> int:
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            total += len(list(Path(f"/proc/{pid}/{kind}").iterdir()))
    return total
