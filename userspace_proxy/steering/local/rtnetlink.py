"""Routes and routing rules of this proxy, and their rtnetlink form.

Rule 1: only bytes in, bytes out; sockets are in ``kernel``.
Rule 2: a route or rule belongs to this proxy when its protocol number is :data:`PROTOCOL`.
"""

from __future__ import annotations

from typing import NamedTuple

from ...kernel.netlink import rtnetlink
from ...kernel.netlink.messages import CREATE, EXCL, Message
from ...kernel.netlink.rtnetlink import FAMILIES, LOCAL, LOOK_UP, PROHIBIT, TABLE_LOCAL
from ...model import IPFamily

PROTOCOL = rtnetlink.LOCAL_STEERING
# Cilium, AWS and Calico put rules from 9 on; these must be asked before any that send pods'
# packets elsewhere.
FRONTEND_PRIORITY, ADDRESS_PRIORITY = 5, 6


class Route(NamedTuple):
    """A route that delivers a range to this node."""

    network: str
    """In canonical form with a prefix length: ``10.96.7.1/32``."""
    source: str = ""
    """The address that clients on the node itself get; empty: the kernel's choice."""
    metric: int = 0
    """The number of the proxy whose it is."""
    table: int = TABLE_LOCAL

    @property
    def family(self) -> IPFamily:
        """IPv4 or IPv6."""
        return IPFamily.of(self.network)


class Rule(NamedTuple):
    """A rule that leads packets to a frontend into a table, or prohibits all others."""

    ip: str
    table: int
    protocol: int = 0
    """IPPROTO_TCP or IPPROTO_UDP; 0 where it prohibits."""
    port: int = 0

    @property
    def family(self) -> IPFamily:
        """IPv4 or IPv6."""
        return IPFamily.of(self.ip)


def network_of(ip: str) -> str:
    """Return the range that is one address."""
    return f"{ip}/128" if ":" in ip else f"{ip}/32"


def add(item: Route | Rule) -> bytes:
    """Return the request that adds a route or rule, which mustn't be there."""
    if isinstance(item, Rule):
        return rtnetlink.write_rule(rtnetlink.NEW_RULE, CREATE | EXCL, _rule(item))
    return _write_route(rtnetlink.NEW_ROUTE, CREATE | EXCL, item)


def remove(item: Route | Rule) -> bytes:
    """Return the request that removes a route or rule."""
    if isinstance(item, Rule):
        return rtnetlink.write_rule(rtnetlink.DEL_RULE, 0, _rule(item))
    return _write_route(rtnetlink.DEL_ROUTE, 0, item)


def read_route(message: Message) -> tuple[Route, int] | None:
    """Return a local route and its protocol number; None for one that isn't local."""
    route = rtnetlink.read_route(message)
    if route.kind != LOCAL or route.family not in FAMILIES.values():
        return None
    found = route.open()
    return Route(found.network, found.source, found.metric, found.table), route.protocol


def read_rule(message: Message) -> Rule | None:
    """Return a rule of ours, or None."""
    rule = rtnetlink.read_rule(message)
    if rule.protocol != PROTOCOL or not rule.to or not rule.table:
        return None
    if rule.action != LOOK_UP:
        return Rule(rule.to, rule.table)
    return Rule(rule.to, rule.table, rule.ip_protocol, rule.port)


def _rule(item: Rule) -> rtnetlink.Rule:
    return rtnetlink.Rule(
        rtnetlink.family_of(item.ip),
        LOOK_UP if item.protocol else PROHIBIT,
        FRONTEND_PRIORITY if item.protocol else ADDRESS_PRIORITY,
        item.table,
        PROTOCOL,
        item.ip,
        item.protocol,
        item.port,
    )


def _write_route(kind: int, flags: int, item: Route) -> bytes:
    return rtnetlink.write_local_route(
        kind,
        flags,
        item.network,
        table=item.table,
        protocol=PROTOCOL,
        metric=item.metric,
        source=item.source,
    )
