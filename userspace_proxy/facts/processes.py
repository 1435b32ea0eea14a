"""The facts about the processes of one proxy: those that carry traffic, and their memory.

Rule 1: as in ``port``: fields are only added, in the order of the JSON, and have defaults.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import msgspec

from .figures import counter, gauge


class MemoryFacts(msgspec.Struct, frozen=True):
    """What is used of the nearest limit of memory; all 0 without a limit."""

    used_bytes: Annotated[
        int,
        gauge(
            "memory_bytes",
            "bytes",
            "Memory in use, as far as it counts for the nearest limit; 0 without a limit",
        ),
    ] = 0
    """As far as it counts for the limit; file cache doesn't."""
    limit_bytes: Annotated[
        int, gauge("memory_limit_bytes", "bytes", "The nearest limit of memory, or 0")
    ] = 0
    is_short: bool = False
    """So near to the limit that load is shed."""
    was_short: Annotated[
        bool,
        gauge(
            "memory_short", "", "1 while load is shed because memory is short, and for 10 s after"
        ),
    ] = False
    """That is so, or was in the last seconds."""


class WorkerFacts(msgspec.Struct, frozen=True):
    """One process that carries traffic."""

    index: int = 0
    pid: int = 0
    """0 while it isn't running."""
    restarts: int = 0
    connections: Annotated[
        int,
        gauge(
            "worker_connections_active",
            "connections",
            "Open TCP connections of this worker process",
        ),
    ] = 0
    flows: Annotated[
        int, gauge("worker_flows_active", "flows", "Live UDP flows of this worker process")
    ] = 0
    iterations: Sequence[tuple[float | None, int]] = ()
    """Upper bounds in seconds, ascending, None for the last, each with the number of loop
    iterations that took at most that long and longer than the bound before."""
    iterations_s: float = 0.0
    """The sum of all."""
    hung: int = 0
    """How many of the restarts replaced a process that hung."""


class ProcessFacts(msgspec.Struct, frozen=True):
    """What the processes of the proxy take: that which plans, and those that carry traffic."""

    cpu_s: Annotated[
        float,
        counter("process_cpu_seconds", "seconds", "CPU time of the proxy and its workers"),
    ] = 0.0
    """Seconds of CPU time."""
    memory_bytes: Annotated[
        int,
        gauge(
            "process_memory_bytes", "bytes", "Resident memory of the proxy and its workers, summed"
        ),
    ] = 0
    """Resident; what they share counts in each."""
