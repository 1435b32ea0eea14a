"""Finds routes, rules and tables of local steering and their owners, before anything is started."""

from __future__ import annotations

from ...kernel.nf_tables import list_tables
from ...kernel.nf_tables.ruleset import labels_by
from ..names import guard_name, label_of_guard, owner_number
from .kernel import Kernel
from .rule_guard import gates_first, is_proxys_table, table_number


def labels() -> list[str]:
    """Return the labels (:func:`~..names.proxy_label`) of all proxies that have a guard here.

    Sorted; empty text for the one of a proxy without a name.

    Raises:
        SteeringError: There is no right to ask.
    """
    return labels_by(label_of_guard)


def is_present(proxy_name: str) -> bool:
    """Return whether a proxy has a route, a rule or a guard here.

    Args:
        proxy_name: As for :func:`~..names.proxy_label`.

    Raises:
        SteeringError: There is no right to ask.
    """
    if guard_name(proxy_name) in list_tables():
        return True
    owner, kernel = owner_number(proxy_name), Kernel()
    try:
        return any(route.metric == owner for route in kernel.local_table().ours) or any(
            rule.table == table_number(owner) for rule in kernel.rules()
        )
    finally:
        kernel.close()


def remove_routes() -> None:
    """Remove the routes and rules of all proxies, whatever their names; idempotent.

    Raises:
        SteeringError: The kernel refused.
    """
    kernel = Kernel()
    try:
        rules = kernel.rules()
        kernel.change(go=gates_first(rules))
        tables = {rule.table for rule in rules if is_proxys_table(rule.table)}
        for table in sorted(tables):
            kernel.change(go=[route for route, _ in kernel.routes(table)])
        kernel.change(go=sorted(kernel.local_table().ours))
    finally:
        kernel.close()
