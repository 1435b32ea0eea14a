"""The resources of the proxy and its node, compared before and after a fault."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.processes import descriptors, memory_bytes, threads
from tests.node.processes import child_pids

from .rig import Rig

DESCRIPTORS = 40
"""The permitted growth of descriptors: workers keep pipes, and status pages are probed."""
THREADS = 4
MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Footprint:
    """Descriptors, threads, processes, memory and rules at one moment."""

    pids: frozenset[int]
    descriptors: int
    threads: int
    connections: int
    """Open connections and flows, as counted by the workers."""
    memory_bytes: int
    """The proportional set size of all processes."""
    rules: tuple[str, ...]
    """The lines of the node's rules, routes and listening sockets."""

    def leaks(self, before: Footprint, memory_mib: float, *, same_processes: bool) -> Iterator[str]:
        """Yield the resources that have grown, and processes and rules that differ.

        Args:
            before: The footprint before the fault.
            memory_mib: The permitted growth of memory.
            same_processes: Whether the processes must be the same.
        """
        if same_processes and self.pids != before.pids:
            yield f"processes {sorted(before.pids)} became {sorted(self.pids)}"
        if len(self.pids) != len(before.pids):
            yield f"{len(before.pids)} processes became {len(self.pids)}"
        if self.descriptors > before.descriptors + DESCRIPTORS:
            yield f"descriptors {before.descriptors} → {self.descriptors}"
        if self.threads > before.threads + THREADS:
            yield f"threads {before.threads} → {self.threads}"
        if self.connections > before.connections:
            yield f"open connections {before.connections} → {self.connections}"
        if self.grown_mib(before) > memory_mib:
            yield f"memory +{self.grown_mib(before):.0f} MiB"
        if self.rules != before.rules:
            lines = sorted(set(self.rules) ^ set(before.rules))
            yield f"rules, routes or ports differ: {lines[:3]}"

    def grown_mib(self, before: Footprint) -> float:
        """Return the growth of memory in MiB."""
        return (self.memory_bytes - before.memory_bytes) / MIB


def take_footprint(rig: Rig) -> Footprint:
    """Return the proxy's current resources."""
    workers = rig.agent.status()["workers"]
    connections = sum(w["connections"] + w["flows"] for w in workers)
    lines = rig.testbed.kernel().splitlines(keepends=True)
    kernel = "".join(line for line in lines if not rig.gone & set(line.split()))
    return footprint_of(rig.agent.pid, connections, kernel)


def footprint_of(pid: int, connections: int, kernel: str) -> Footprint:
    """Return the resources of a process and its descendants.

    Args:
        connections: The number of the process's open connections.
        kernel: Lines of its node's rules, routes and listening sockets.
    """
    pids = frozenset(processes(pid))
    return Footprint(
        pids=pids,
        descriptors=descriptors(pids),
        threads=threads(pids),
        connections=connections,
        memory_bytes=memory_bytes(pids),
        rules=tuple(kernel.splitlines()),
    )


def processes(pid: int) -> Iterator[int]:
    yield pid
    for child in child_pids(pid):
        yield from processes(child)
