"""Computes the traffic of Service ports between two moments, summed over all nodes.

Rule 1: a node's figures are compared with its own earlier figures, so a node that returns after a
gap doesn't appear to have carried all traffic at once.
Rule 2: if an agent was restarted in between, only its figures since the restart count.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeAlias

from userspace_proxy.status.history import Figures, added
from userspace_proxy.status.rows import FIGURES, FigureColumn
from userspace_proxy.status.selection import address_in_order

from .merged import Merged, MergedKey, MergedPort
from .sums import NOTHING, of_port, since


def rates_of(merged: Merged, before: Merged) -> Mapping[MergedKey, Figures]:
    """Return the rates per second between two moments, for Service ports that both contain.

    A node's figures are divided by the time elapsed on its own clock.
    """
    return {
        key: added(Figures(*(count / passed for count in counts)) for counts, passed in nodes)
        for key, nodes in _each(merged, before)
    }


def growth_of(merged: Merged, before: Merged) -> Mapping[MergedKey, Figures]:
    """Return the figures counted between two moments, for Service ports that both contain."""
    return {key: added(counts for counts, _ in nodes) for key, nodes in _each(merged, before)}


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


Rates: TypeAlias = Callable[[MergedKey], Figures]
"""Returns the current rates of a Service port, which only some orders need."""


def _by_figure(column: FigureColumn) -> Callable[[MergedPort, Rates], Any]:
    if column.is_rate:
        return lambda one, rates: getattr(rates(one.key), column.name)
    return lambda one, _: getattr(one.sums, column.name)


ORDERS: dict[str, Callable[[MergedPort, Rates], Any]] = {
    "state": lambda one, _: one.rank,
    "name": lambda one, _: one.key,
    "address": lambda one, _: address_in_order(one.address),
    "nodes": lambda one, _: one.unhealthy,
    "endpoints": lambda one, _: len(one.endpoints),
    **{key: _by_figure(column) for key, column in FIGURES.items()},
}
"""Sort orders, keyed as in ``userspace_proxy.status.selection.SORTS``."""


def in_order(ports: Iterable[MergedPort], sort: str, rates: Rates) -> list[MergedPort]:
    """Return Service ports in a sort order; equal Service ports are sorted by name.

    Args:
        sort: A key of ``ORDERS``; a leading ``-`` means descending order.
    """
    order = ORDERS[sort.removeprefix("-")]
    by_name = sorted(ports, key=lambda one: one.key)
    by_name.sort(key=lambda one: order(one, rates), reverse=sort.startswith("-"))
    return by_name
