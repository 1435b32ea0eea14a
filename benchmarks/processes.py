"""What the kernel says of a way's processes: CPU time, memory, descriptors."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


def family(pid: int) -> list[int]:
    """Return a process and all that descend from it; empty when it is gone."""
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
    """Return the CPU time of processes, user's and kernel's; those that are gone have none."""
    return sum(_cpu_seconds(pid) for pid in pids)


def _cpu_seconds(pid: int) -> float:
    try:
        # The name in brackets may have spaces: fields are counted after it.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    user, system = fields[11:13]
    return (int(user) + int(system)) / _TICKS


def memory_bytes(pids: Iterable[int]) -> int:
    """Return the user memory of processes; what they share is counted once (PSS)."""
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1]) * 1024
    return total


def descriptors(pids: Iterable[int]) -> int:
    """Return how many descriptors processes have open."""
    return sum(len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in pids)
