"""Decides which guard works here."""

from __future__ import annotations

import contextlib

from ...errors import SteeringError
from ...kernel.privileges import has_net_admin
from ..base import SteeringFacts
from ..names import guard_name, owner_number
from .guard import Guard
from .kernel import Kernel
from .nft_guard import NftGuard, OpenGuard
from .no_guard import NoGuard
from .rule_guard import RuleGuard


def missing() -> str:
    """Return what local steering lacks to work here, in words; empty where it lacks nothing.

    Loopback addresses need nothing.
    """
    return "" if has_net_admin() else "NET_ADMIN is missing"


def make_guards(
    kernel: Kernel, facts: SteeringFacts, *, own_namespace: bool, uses_nftables: bool
) -> list[Guard]:
    """Return the guard to use, and those that an earlier run may have left.

    Args:
        kernel: The routing tables.
        facts: Of these the proxy's name is used.
        own_namespace: Whether the network namespace was made by us, for this: where there is no
            nftables, it goes without a guard, as no daemon of others is there.
        uses_nftables: Whether to ask for it at all.
    """
    if missing():
        return [NoGuard()]
    owner = owner_number(facts.proxy_name)
    rules = RuleGuard(kernel, owner)
    if uses_nftables:
        with contextlib.suppress(SteeringError):
            return [NftGuard(kernel, owner, guard_name(facts.proxy_name)), rules]
    return [OpenGuard(kernel, owner), rules] if own_namespace else [rules]
