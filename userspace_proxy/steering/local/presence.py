"""Finds routes and tables of local steering and their owners, before anything is started."""

from __future__ import annotations

from contextlib import closing

from ...kernel.nf_tables import list_tables
from ..names import GUARD_TABLES, owner_number
from .kernel import RoutingTables


def is_present(proxy_name: str) -> bool:
    """Return whether a proxy has a route or a guard here."""
    if GUARD_TABLES.of(proxy_name) in list_tables():
        return True
    owner = owner_number(proxy_name)
    with closing(RoutingTables()) as tables:
        return any(route.metric == owner for route in tables.local_table().ours)


def remove_routes() -> None:
    """Remove the routes of all proxies, whatever their names; idempotent."""
    with closing(RoutingTables()) as tables:
        tables.change(removed=sorted(tables.local_table().ours))
