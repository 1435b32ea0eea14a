"""The order of Service ports of all nodes, by the columns of a proxy's page."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from userspace_proxy.facts import WORST_FIRST
from userspace_proxy.status.history import Figures
from userspace_proxy.status.selection import address_in_order

from .merged import MergedKey, MergedPort

ORDERS: dict[str, Callable[[MergedPort, Figures], Any]] = {
    "state": lambda one, _: (WORST_FIRST.index(one.level), -one.ill),
    "name": lambda one, _: one.key,
    "address": lambda one, _: address_in_order(one.address),
    "nodes": lambda one, _: one.ill,
    "endpoints": lambda one, _: len(one.endpoints),
    "rate": lambda _, rates: rates.connections,
    "open": lambda one, _: one.sums.active,
    "in": lambda _, rates: rates.received_bytes,
    "out": lambda _, rates: rates.sent_bytes,
    "saved": lambda one, _: one.sums.saved,
    "failed": lambda one, _: one.sums.failed,
}
"""By the keys of ``userspace_proxy.status.selection.SORTS``."""


def in_order(
    ports: Iterable[MergedPort], sort: str, rates: Callable[[MergedKey], Figures]
) -> list[MergedPort]:
    """Return Service ports in an order; equal ones are in that of their names.

    Args:
        sort: A key of ``ORDERS``, with ``-`` before it in descending order.
    """
    order = ORDERS[sort.removeprefix("-")]
    by_name = sorted(ports, key=lambda one: one.key)
    by_name.sort(key=lambda one: order(one, rates(one.key)), reverse=sort.startswith("-"))
    return by_name
