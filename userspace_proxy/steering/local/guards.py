"""Decides which guard works here; without privileges, one that routes nothing."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from ...errors import SteeringError
from ...kernel.privileges import has_net_admin
from ...model import Frontend
from ..base import SteeringFacts
from ..names import GUARD_TABLES, owner_number
from .desired import DesiredState, StateChange
from .guard import LocalGuard
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
        tables: The routing tables.
        facts: The proxy's name is used.
        own_namespace: Whether the network namespace was created for this proxy. Without nftables
            no guard is used there, as it contains no other daemons.
        uses_nftables: Whether to use nftables where the kernel has it.
    """
    if missing():
        return [NoGuard()]
    owner = owner_number(facts.proxy_name)
    rules = RuleGuard(tables, owner)
    if uses_nftables:
        with contextlib.suppress(SteeringError):
            return [NftGuard(tables, owner, GUARD_TABLES.of(facts.proxy_name)), rules]
    return [OpenGuard(tables, owner), rules] if own_namespace else [rules]


class NoGuard(LocalGuard):
    """Refuses everything that needs a route: only the node's own addresses are served."""

    def change(self, change: StateChange, desired: DesiredState) -> None:
        """Part of LocalGuard."""
        self.put_right(desired)

    def put_right(self, desired: DesiredState) -> int:
        """Part of LocalGuard."""
        desired.refused = {
            network: SteeringError(
                f"cannot route {network} to this node: NET_ADMIN is missing",
                hint="run as root or grant NET_ADMIN; loopback addresses need nothing",
            )
            for network in {*desired.networks, *desired.ranges}
        }
        return 0

    def look(self, desired: DesiredState) -> Callable[[Frontend], bool]:
        """Part of LocalGuard."""
        return lambda frontend: not desired.is_routed(frontend.ip)

    def clean_up(self) -> None:
        """Part of LocalGuard; without privileges nothing was left."""
