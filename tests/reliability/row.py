"""A row of the matrix: its fault, the limits for clients, and the evidence for operators.

    @group.row("one of two endpoints refuses connections", Limits(), [...])
    def endpoint_refuses(rig):
        rig.servers["one"].stop()     ◀── break
        yield                         ◀── the framework measures for ``Limits.fault_s``
        rig.start_server("one")       ◀── repair

Rule 1: limits are the proxy's guarantees, which the page describes. If a guarantee is impossible,
the row has weaker limits, and ``not_promised`` describes the possible effects.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from .evidence import Evidence
from .rig import Rig


@dataclass(frozen=True, slots=True)
class Limits:
    """The maximum effects of a fault."""

    failed: float = 0.0
    """The share of the faulty Service's new connections that may fail."""
    slowest_s: float = 0.5
    """The maximum duration of a successful connection to the faulty Service."""
    other_failed: int = 0
    """The maximum number of failed connections to the other Service."""
    other_p99_ms: float = 50.0
    """The maximum p99 of the other Service, but at least twice its value without the fault."""
    back_s: float = 5.0
    """Seconds from the repair until no connection fails or waits, and ``Rig.is_well`` is true."""
    log_lines: int = 10
    """The maximum number of log lines from the fault to the recovery."""
    settle_s: float = 15.0
    """Seconds until descriptors, connections and memory are released."""
    memory_mib: float = 12.0
    """The maximum memory growth of all processes after the fault."""
    fault_s: float = 2.5
    """The minimum duration of the fault in seconds."""
    same_processes: bool = True
    """False if the row kills processes, which are then replaced."""

    def promises(self) -> Iterator[str]:
        """Yield the maximum permitted effects on clients, and the maximum duration, as text."""
        if self.failed < 1:
            yield f"{self.failed:.0%} fail" if self.failed else "none fails"
            yield f"slowest {self.slowest_s:g} s"
        if self.other_failed:
            yield f"{self.other_failed} of another Service fail"
        if self.other_p99_ms != Limits().other_p99_ms:
            yield f"another Service's p99 {self.other_p99_ms:g} ms"
        yield f"back after {self.back_s:g} s"


@dataclass(frozen=True)
class Row:
    """One row of the matrix."""

    name: str
    group: str
    breaks: str
    """The fault, as text; the first cell of the table."""
    limits: Limits
    evidence: Sequence[Evidence]
    """Where an operator sees the fault while it lasts; empty if it needn't show anywhere."""
    fault: Callable[..., AbstractContextManager[None]]
    rig: type[Rig]
    not_promised: str = ""
    """Effects on clients that can't be prevented; empty if there are none."""


@dataclass(frozen=True)
class Group:
    """The rows about one subject, in the order of the table."""

    name: str
    rows: list[Row] = field(default_factory=list)
    is_serial: bool = False
    """Whether the rows share resources, so that only one of them runs at a time."""

    def row(
        self,
        breaks: str,
        limits: Limits,
        evidence: Sequence[Evidence],
        *,
        name: str = "",
        rig: type[Rig] = Rig,
        not_promised: str = "",
    ) -> Callable[[Callable[..., Iterator[None]]], Callable[..., Iterator[None]]]:
        """Add the decorated generator as a row; see :class:`Row` for the arguments.

        By default, the row's name is the generator's name, with hyphens.
        """

        def add(fault: Callable[..., Iterator[None]]) -> Callable[..., Iterator[None]]:
            manager = contextlib.contextmanager(fault)
            named = name or fault.__name__.replace("_", "-")
            row = Row(named, self.name, breaks, limits, evidence, manager, rig, not_promised)
            self.rows.append(row)
            return fault

        return add
