"""Decides which guard works here."""

from __future__ import annotations

import contextlib

from ...errors import SteeringError
from ...kernel.privileges import has_net_admin
from ..base import SteeringFacts
from ..names import GUARD_TABLES, owner_number
from .guard import LocalGuard, NoGuard
from .kernel import RoutingTables
from .nft_guard import NftGuard, OpenGuard
from .rule_guard import RuleGuard


def missing() -> str:
    """Return what local steering lacks to work here; empty where it lacks nothing.

    Loopback addresses need nothing.
    """
    return "" if has_net_admin() else "NET_ADMIN is missing"


def make_guards(
    tables: RoutingTables, facts: SteeringFacts, *, own_namespace: bool, uses_nftables: bool
) -> list[LocalGuard]:
    """Return the guard to use, then those that an earlier run may have left.

    Args:
        own_namespace: Whether the network namespace was created for this proxy. Without nftables
            no guard is used there, as it contains no other daemons.
    """
    if missing():
        return [NoGuard()]
    owner = owner_number(facts.proxy_name)
    rules = RuleGuard(tables, owner)
    if uses_nftables:
        with contextlib.suppress(SteeringError):
            return [NftGuard(tables, owner, GUARD_TABLES.of(facts.proxy_name)), rules]
    return [OpenGuard(tables, owner), rules] if own_namespace else [rules]
