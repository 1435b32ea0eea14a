"""Finds routes, rules and tables of local steering and their owners, before anything is started."""

from __future__ import annotations

from contextlib import closing

from ...kernel.nf_tables import list_tables
from ..names import GUARD_TABLES, owner_number
from .kernel import RoutingTables
from .rule_guard import is_proxys_table, removal_order, table_number


def is_present(proxy_name: str) -> bool:
    """Return whether a proxy has a route, a rule or a guard here."""
    if GUARD_TABLES.of(proxy_name) in list_tables():
        return True
    owner = owner_number(proxy_name)
    with closing(RoutingTables()) as tables:
        return any(route.metric == owner for route in tables.local_table().ours) or any(
            rule.table == table_number(owner) for rule in tables.rules()
        )


def remove_routes() -> None:
    """Remove the routes and rules of all proxies, whatever their names; idempotent."""
    with closing(RoutingTables()) as tables:
        rules = tables.rules()
        tables.change(removed=removal_order(rules))
        for table in sorted({rule.table for rule in rules if is_proxys_table(rule.table)}):
            tables.change(removed=[route for route, _ in tables.routes(table)])
        tables.change(removed=sorted(tables.local_table().ours))
