"""Decides which guard works here."""

from __future__ import annotations

from ...errors import SteeringError
from ...kernel.privileges import has_net_admin
from ..base import SteeringFacts
from ..names import GUARD_TABLES, owner_number
from ..nftables import missing as missing_in_nftables
from .desired import DesiredState
from .guard import LocalGuard, NoGuard
from .kernel import RoutingTables
from .nft_guard import NftGuard, OpenGuard

_NEEDS_NFTABLES = "it needs nftables to keep clients from other daemons' ports on this node"


def missing(*, own_namespace: bool) -> str:
    """Return what local steering lacks to work here; empty where it lacks nothing.

    Loopback addresses need nothing.

    Args:
        own_namespace: Whether the network namespace was created for this proxy: it contains no
            other daemons, so nftables isn't needed.
    """
    if not has_net_admin():
        return "NET_ADMIN is missing"
    lacks = "" if own_namespace else missing_in_nftables()
    return f"{_NEEDS_NFTABLES}: {lacks}" if lacks else ""


def make_guard(
    tables: RoutingTables,
    facts: SteeringFacts,
    desired: DesiredState,
    *,
    own_namespace: bool,
    uses_nftables: bool,
) -> LocalGuard:
    """Return the guard to use.

    Args:
        own_namespace: As in :func:`missing`.

    Raises:
        SteeringError: There is no nftables, and the network namespace may have other daemons.
    """
    if not has_net_admin():
        return NoGuard(desired)
    owner = owner_number(facts.proxy_name)
    if own_namespace and (not uses_nftables or missing_in_nftables()):
        return OpenGuard(tables, owner, desired)
    try:
        return NftGuard(tables, owner, desired, GUARD_TABLES.of(facts.proxy_name))
    except SteeringError as exc:
        raise SteeringError(
            f"cannot steer by local: {_NEEDS_NFTABLES}: {exc.message}",
            hint="modprobe nf_tables, or run with --steering=iptables or --steering=none",
        ) from exc
