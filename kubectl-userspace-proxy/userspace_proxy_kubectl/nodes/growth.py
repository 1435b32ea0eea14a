"""Computes what Service ports carried between two moments, over all nodes.

Rule 1: a node's figures are compared with its own, so a node that returns after a gap doesn't
appear to have carried everything at once.
Rule 2: for an agent restarted in between, figures since its start count.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from userspace_proxy.status.history import Figures

from .merged import Merged, MergedKey, MergedPort
from .sums import NOTHING, of_port, since


def rates_of(merged: Merged, before: Merged) -> Mapping[MergedKey, Figures]:
    """Return rates between two moments; 0 for Service ports that summaries omit.

    A node's figures are divided by the time elapsed on its own clock.
    """
    return {
        key: _sum(Figures(*(count / passed for count in counts)) for counts, passed in nodes)
        for key, nodes in _each(merged, before)
    }


def growth_of(merged: Merged, before: Merged) -> Mapping[MergedKey, Figures]:
    """Return the figures counted between two moments."""
    return {key: _sum(counts for counts, _ in nodes) for key, nodes in _each(merged, before)}


def _each(
    merged: Merged, before: Merged
) -> Iterator[tuple[MergedKey, Iterator[tuple[Figures, float]]]]:
    earlier = {port.key: port for port in before.ports}
    for port in merged.ports:
        if (old := earlier.get(port.key)) is not None:
            yield port.key, _of_nodes(port, old, merged, before)


def _of_nodes(
    port: MergedPort, earlier: MergedPort, merged: Merged, before: Merged
) -> Iterator[tuple[Figures, float]]:
    """Yield each node's figures, and the seconds in which they were counted."""
    for node, facts in port.members.items():
        old, run, was = earlier.members.get(node), merged.runs[node], before.runs.get(node)
        if old is None or was is None:
            continue
        is_same, passed = run.since(was)
        counted = since(of_port(facts), of_port(old) if is_same else NOTHING)
        if passed > 0:
            octets = counted.received_bytes, counted.sent_bytes
            yield Figures(counted.connections, *octets, counted.saved, counted.failed), passed


def _sum(parts: Iterator[Figures]) -> Figures:
    return Figures(*map(sum, zip(Figures(), *parts, strict=True)))
