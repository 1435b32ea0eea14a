"""Declares the facts about the processes of one proxy: the workers, and the memory in use.

Rule 1: as in ``port``, fields are only added, in the JSON's order, and have defaults.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import msgspec

from .figures import counter, gauge


class MemoryFacts(msgspec.Struct, frozen=True):
    """Memory in use, and its nearest limit; all 0 without a limit."""

    used_bytes: Annotated[
        int,
        gauge(
            "memory_bytes",
            "bytes",
            "Memory in use, as far as it counts for the nearest limit; 0 without a limit",
        ),
    ] = 0
    """Memory that counts towards the limit, without the file cache."""
    limit_bytes: Annotated[
        int, gauge("memory_limit_bytes", "bytes", "The nearest limit of memory, or 0")
    ] = 0
    is_short: bool = False
    """Whether memory use is so close to the limit that load is shed."""
    was_short: Annotated[
        bool,
        gauge(
            "memory_short",
            "",
            "1 while load is shed because memory is low, and for 10 s afterwards",
        ),
    ] = False
    """Whether ``is_short`` is true, or was in the last 10 seconds."""


class WorkerFacts(msgspec.Struct, frozen=True):
    """One process that carries traffic."""

    index: int = 0
    pid: int = 0
    """The process ID; 0 while the worker isn't running."""
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
    """Histogram of loop iterations: upper bounds in seconds, ascending, None for the last, each
    with the number of iterations that took at most that long and longer than the previous bound."""
    iterations_s: float = 0.0
    """Total duration of all iterations, in seconds."""
    hung: int = 0
    """Restarts that replaced a hung process."""


class ProcessFacts(msgspec.Struct, frozen=True):
    """CPU time and memory of the control process and the workers."""

    cpu_s: Annotated[
        float,
        counter("process_cpu_seconds", "seconds", "CPU time of the proxy and its workers"),
    ] = 0.0
    """The CPU time in seconds since startup, exited workers included."""
    memory_bytes: Annotated[
        int,
        gauge(
            "process_memory_bytes", "bytes", "Resident memory of the proxy and its workers, summed"
        ),
    ] = 0
    """Resident memory in bytes; shared memory counts in each process."""
