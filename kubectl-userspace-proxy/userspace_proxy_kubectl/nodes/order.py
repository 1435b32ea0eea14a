"""The order of Service ports of all nodes, by the columns of a proxy's page."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

from userspace_proxy.facts import WORST_FIRST
from userspace_proxy.status.history import Figures
from userspace_proxy.status.selection import address_in_order

from .merged import MergedKey, MergedPort

Rates: TypeAlias = Callable[[MergedKey], Figures]
"""Returns the current rates of a Service port, which only some orders need."""

ORDERS: dict[str, Callable[[MergedPort, Rates], Any]] = {
    "state": lambda one, _: (WORST_FIRST.index(one.level), -one.unhealthy),
    "name": lambda one, _: one.key,
    "address": lambda one, _: address_in_order(one.address),
    "nodes": lambda one, _: one.unhealthy,
    "endpoints": lambda one, _: len(one.endpoints),
    "rate": lambda one, rates: rates(one.key).connections,
    "open": lambda one, _: one.sums.active,
    "in": lambda one, rates: rates(one.key).received_bytes,
    "out": lambda one, rates: rates(one.key).sent_bytes,
    "saved": lambda one, _: one.sums.saved,
    "failed": lambda one, _: one.sums.failed,
}
"""By the keys of ``userspace_proxy.status.selection.SORTS``."""


def in_order(ports: Iterable[MergedPort], sort: str, rates: Rates) -> list[MergedPort]:
    """Return Service ports in an order; equal ones are in that of their names.

    Args:
        sort: A key of ``ORDERS``, with ``-`` before it in descending order.
    """
    order = ORDERS[sort.removeprefix("-")]
    by_name = sorted(ports, key=lambda one: one.key)
    by_name.sort(key=lambda one: order(one, rates), reverse=sort.startswith("-"))
    return by_name
