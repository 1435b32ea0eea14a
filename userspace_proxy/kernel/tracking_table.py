"""Reads how full the connection tracking table of a network namespace is.

Source: net/netfilter/nf_conntrack_standalone.c, ct_cpu_seq_show().
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

PROC = Path("/proc")


class TrackingTable(NamedTuple):
    """The connection tracking table of a network namespace."""

    entries: int = 0
    limit: int = 0
    """0: nothing is tracked."""
    drops: int = 0
    """Packets dropped since boot because no entry could be created, mostly due to a full table."""


def read_table(proc: Path = PROC) -> TrackingTable:
    """Return the table of this thread's network namespace; zeros if nothing is tracked."""
    try:
        entries, limit = (
            int((proc / "sys/net/netfilter" / name).read_text(encoding="ascii"))
            for name in ("nf_conntrack_count", "nf_conntrack_max")
        )
    except (OSError, ValueError):
        return TrackingTable()
    return TrackingTable(entries, limit, _drops(proc))


def _drops(proc: Path) -> int:
    """Return the sum of all CPUs; 0 if this kernel has no such file."""
    try:
        text = (proc / "thread-self/net/stat/nf_conntrack").read_text(encoding="ascii")
    except OSError:
        return 0
    names, *cpus = (line.split() for line in text.splitlines())
    return sum(int(cpu[names.index("drop")], 16) for cpu in cpus)
