"""Reads and changes routes, and receives events about other programs' changes.

Rule 1: the protocol number :data:`PROTOCOL` marks this program's routes.
Rule 2: every call blocks; make all calls in one thread.
Rule 3: a filter on the socket discards events of this program's own changes, and of irrelevant
routes.

Source: rtnetlink(7), netlink(7).
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field

from ...errors import SteeringConflict, SteeringError, SteeringUnreadable
from ...kernel import classic_bpf as bpf
from ...kernel.interfaces import NO_IPV6_HINT
from ...kernel.netlink import RouteSockets, explained, rtnetlink
from ...kernel.netlink.messages import CREATE, EXCL, Message
from ...kernel.netlink.rtnetlink import FAMILIES, LOCAL, TABLE_LOCAL, LocalRoute
from ...kernel.nf_tables import list_tables
from ..names import GUARD_TABLES, owner_number

PROTOCOL = rtnetlink.LOCAL_STEERING
_GROUPS = (
    rtnetlink.GROUP_LINK,
    rtnetlink.GROUP_ADDRESS_4,
    rtnetlink.GROUP_ADDRESS_6,
    rtnetlink.GROUP_ROUTE_4,
    rtnetlink.GROUP_ROUTE_6,
)
_HINTS = {
    errno.EPERM: "run as root or grant NET_ADMIN, or run with --steering=none",
    errno.ENETDOWN: "ip link set lo up",
}


@dataclass(slots=True)
class LocalTable:
    """The routes in the kernel's ``local`` table."""

    ours: set[LocalRoute] = field(default_factory=set)
    """The routes of all proxies."""
    others: set[str] = field(default_factory=set)
    """The networks that the kernel's and other programs' routes deliver to this node."""


@dataclass(slots=True)
class RouteChanges:
    """Changes by other programs since the last :meth:`RoutingTables.changes`."""

    is_affected: bool = False
    """Whether a route of this program may have changed."""
    addresses: set[str] = field(default_factory=set)
    """Addresses that this node gained or lost."""


class RoutingTables:
    """The routing tables of this thread's namespace; most calls may raise a SteeringError."""

    def __init__(self) -> None:
        with explained("open netlink sockets"):
            self._sockets = RouteSockets(_GROUPS, _filter)
        self._requests = self._sockets.requests

    def local_table(self) -> LocalTable:
        """List the routes that deliver packets to this network namespace itself."""
        table = LocalTable()
        for route, protocol in self.routes(TABLE_LOCAL):
            if protocol == PROTOCOL:
                table.ours.add(route)
            else:
                table.others.add(route.network)
        return table

    def routes(self, table: int) -> list[tuple[LocalRoute, int]]:
        """List the local routes of a table, each with its protocol number."""
        found = (
            _read_route(message)
            for family in FAMILIES.values()
            for message in self._list(rtnetlink.list_routes(family, table=table, kind=LOCAL))
        )
        return [one for one in found if one is not None and one[0].table == table]

    def sources(self) -> list[str]:
        """List the global addresses of interfaces, in the kernel's order."""
        found = (
            rtnetlink.read_address(message)
            for family in FAMILIES.values()
            for message in self._list(rtnetlink.list_addresses(family))
        )
        return [address.ip for address in found if address.scope == rtnetlink.SCOPE_UNIVERSE]

    def change(
        self, *, added: Sequence[LocalRoute] = (), removed: Sequence[LocalRoute] = ()
    ) -> dict[LocalRoute, SteeringError]:
        """Add routes, then remove other routes; removing a missing route isn't an error.

        Returns: The refused additions, with the causes; all other changes are applied.

        Raises:
            SteeringError: Permission is denied, or the kernel refused a removal; other changes may
                be applied.
        """
        routes = [*added, *removed]
        requests = [*(_write(one, is_new=True) for one in added)]
        requests += [_write(one, is_new=False) for one in removed]
        with explained("change routes"):
            refusals = self._requests.change(requests)
        refused = {}
        for index, code in refusals:
            route, is_new = routes[index], index < len(added)
            if is_new and code != errno.EPERM:
                refused[route] = _refused(route, code, is_new=True)
            elif is_new or code not in (errno.ESRCH, errno.ENOENT):
                raise _refused(route, code, is_new=is_new)
        return refused

    def changes(self) -> RouteChanges:
        """Return the changes by other programs since the last call."""
        with explained("read routing events"):
            batch = self._sockets.events.read()
        changes = RouteChanges(is_affected=batch.has_lost)
        for message in batch.messages:
            _note(message, changes)
        return changes

    def close(self) -> None:
        """Close the sockets; routes stay in the kernel."""
        self._sockets.close()

    def _list(self, request: bytes) -> list[Message]:
        with explained("list routes"):
            try:
                return self._requests.list_supported(request)
            except OSError as exc:
                if exc.errno == errno.EBUSY:
                    raise SteeringUnreadable(f"cannot list routes: {exc.strerror}") from exc
                raise


def _write(route: LocalRoute, *, is_new: bool) -> bytes:
    """Return the request that adds a route, which must not exist yet, or removes it."""
    flags = CREATE | EXCL if is_new else 0
    kind = rtnetlink.NEW_ROUTE if is_new else rtnetlink.DEL_ROUTE
    return rtnetlink.write_local_route(kind, flags, route, PROTOCOL)


def _read_route(message: Message) -> tuple[LocalRoute, int] | None:
    """Return a local route and its protocol number; None for a route of another type."""
    route = rtnetlink.read_route(message)
    if route.kind != LOCAL or route.family not in FAMILIES.values():
        return None
    found = route.open()
    return LocalRoute(found.network, found.source, found.metric, found.table), route.protocol


def _note(message: Message, changes: RouteChanges) -> None:
    match message.kind:
        case rtnetlink.NEW_ROUTE | rtnetlink.DEL_ROUTE:
            found = _read_route(message)
            if found is None:
                return
            route, protocol = found
            if protocol == PROTOCOL:
                changes.is_affected = True
            else:
                changes.addresses.add(route.network.partition("/")[0])
        case rtnetlink.NEW_ADDRESS | rtnetlink.DEL_ADDRESS:
            changes.addresses.add(rtnetlink.read_address(message).ip)
        case rtnetlink.NEW_LINK | rtnetlink.DEL_LINK:
            # The loopback interface changed: the kernel removes IPv4 routes together with their
            # interface, without an event.
            changes.is_affected = True


# The offsets of fields in a routing event; a filter loads values as big-endian.
_KIND_AT, _SENDER_AT, _LINK_AT, _PROTOCOL_AT, _TYPE_AT = 4, 12, 20, 21, 23
_ALL, _NOTHING = 0xFFFFFFFF, 0


def _filter(sender: int) -> list[bpf.Instruction]:
    """Return a filter that discards the sender's events, and irrelevant events of routes and links.

    Each new pod's link causes several events, which would overflow the queue.
    """
    new_route, del_route, new_link, del_link = (
        socket.htons(kind)
        for kind in (
            rtnetlink.NEW_ROUTE,
            rtnetlink.DEL_ROUTE,
            rtnetlink.NEW_LINK,
            rtnetlink.DEL_LINK,
        )
    )
    return [
        (bpf.LOAD_WORD, 0, 0, _SENDER_AT),
        (bpf.JUMP_IF_EQUAL, 12, 0, socket.htonl(sender)),
        (bpf.LOAD_HALF, 0, 0, _KIND_AT),
        (bpf.JUMP_IF_EQUAL, 5, 0, new_route),
        (bpf.JUMP_IF_EQUAL, 4, 0, del_route),
        (bpf.JUMP_IF_EQUAL, 1, 0, new_link),
        (bpf.JUMP_IF_EQUAL, 0, 6, del_link),
        (bpf.LOAD_WORD, 0, 0, _LINK_AT),
        (bpf.JUMP_IF_EQUAL, 4, 5, socket.htonl(rtnetlink.LOOPBACK_NUMBER)),
        (bpf.LOAD_BYTE, 0, 0, _PROTOCOL_AT),
        (bpf.JUMP_IF_EQUAL, 2, 0, PROTOCOL),
        (bpf.LOAD_BYTE, 0, 0, _TYPE_AT),
        (bpf.JUMP_IF_EQUAL, 0, 1, LOCAL),
        (bpf.RETURN, 0, 0, _ALL),
        (bpf.RETURN, 0, 0, _NOTHING),
    ]


def _refused(route: LocalRoute, code: int, *, is_new: bool) -> SteeringError:
    verb = "add" if is_new else "remove"
    what, look = f"local route {route.network}", f"ip route show table local {route.network}"
    if code == errno.EEXIST:
        return SteeringConflict(
            f"cannot {verb} {what}: already routed by another program",
            hint=f"{look} shows by which program",
        )
    if code == errno.EACCES and ":" in what:
        # Source: fib6_nh_init() in net/ipv6/route.c; a missing privilege is EPERM.
        return SteeringError(
            f"cannot {verb} {what}: IPv6 is switched off on this node",
            hint=NO_IPV6_HINT,
        )
    return SteeringError(f"cannot {verb} {what}: {os.strerror(code)}", hint=_HINTS.get(code, ""))


def is_present(proxy_name: str) -> bool:
    """Return whether a proxy has a route or a guard here; may raise a SteeringError."""
    if GUARD_TABLES.of(proxy_name) in list_tables():
        return True
    owner = owner_number(proxy_name)
    with closing(RoutingTables()) as tables:
        return any(route.metric == owner for route in tables.local_table().ours)


def remove_routes() -> int:
    """Remove all proxies' local routes; return how many. Idempotent; may raise a SteeringError."""
    with closing(RoutingTables()) as tables:
        routes = sorted(tables.local_table().ours)
        tables.change(removed=routes)
    return len(routes)
