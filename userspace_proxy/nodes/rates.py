"""Rates of Service ports over all nodes: what was counted between two answers of each.

Rule 1: a node's figures are divided by the time that passed by its own clock; one whose agent has
been started in between counts from then on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from .merged import Merged, MergedKey, MergedPort
from .sums import NOTHING, of_port, since


class Rates(NamedTuple):
    """Of one Service port, per second."""

    connections: float = 0.0
    received_bytes: float = 0.0
    sent_bytes: float = 0.0
    saved: float = 0.0
    failed: float = 0.0


def rates_of(merged: Merged, before: Merged) -> Mapping[MergedKey, Rates]:
    """Return the rates between two moments; those of Service ports that summaries lack are 0."""
    earlier = {port.key: port for port in before.ports}
    return {
        port.key: _rates(port, earlier[port.key], merged, before)
        for port in merged.ports
        if port.key in earlier
    }


def _rates(port: MergedPort, earlier: MergedPort, merged: Merged, before: Merged) -> Rates:
    total = Rates()
    for node, facts in port.members.items():
        old, run, was = earlier.members.get(node), merged.runs[node], before.runs.get(node)
        if old is None or was is None or not run.now > was.now:
            continue
        is_same = run.started == was.started
        counted = since(of_port(facts), of_port(old) if is_same else NOTHING)
        passed = run.now - (was.now if is_same else run.started)
        if not passed > 0:
            continue
        shown = (counted.connections, counted.received_bytes, counted.sent_bytes)
        counts = (*shown, counted.saved, counted.failed)
        total = Rates(*(sum_ + count / passed for sum_, count in zip(total, counts, strict=True)))
    return total
