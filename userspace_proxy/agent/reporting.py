"""The Events that the sync loop reports: repairs, drift, and Services that aren't served."""

from __future__ import annotations

from ..plan import IgnoredService
from ..sources import Happening


def repaired(count: int, steering: str) -> Happening:
    """Return that rules which others changed are put right."""
    what = "1 rule or frontend" if count == 1 else f"{count} rules and frontends"
    return Happening(
        "SteeringRepaired",
        "Repair",
        f"{what} of {steering} steering had been changed by another program; repaired",
    )


def drifted(cause: str, steering: str) -> Happening:
    """Return that rules differ from the plan and can't be put right."""
    return Happening(
        "SteeringDrifted",
        "Repair",
        f"rules of {steering} steering differ from the plan and can't be repaired: {cause}",
    )


def tracking_table_full(entries: int, limit: int) -> Happening:
    """Return that the kernel drops new connections because the conntrack table is full."""
    return Happening(
        "ConntrackTableFull",
        "Track",
        f"connection tracking is full ({entries:,} of {limit:,} entries): new connections fail on "
        "this node; raise net.netfilter.nf_conntrack_max",
    )


def not_served(item: IgnoredService) -> Happening:
    """Return that a Service has a conflict with another one."""
    port = f"port {item.port}: " if item.port else ""
    return Happening("ServiceNotServed", "Serve", f"{port}{item.reason}", service=item.service)
