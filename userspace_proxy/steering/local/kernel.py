"""Reads and changes routes and rules in the kernel, and receives changes by other programs.

Rule 1: every call blocks and belongs in one thread; none is made in an event loop.
Rule 2: what we do ourselves makes no events: a filter on the socket leaves it out, and what
other programs do to their own routes, too.

Source: rtnetlink(7), netlink(7); linux/bpf_common.h for the filter.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field

from ...errors import SteeringConflict, SteeringError
from ...kernel.netlink import Events, rtnetlink
from ...kernel.netlink.messages import Message
from ...kernel.netlink.sockets import NETLINK_ROUTE, Instruction
from ...kernel.route_requests import open_route_requests
from ...model import IPFamily
from . import rtnetlink as ours
from .rtnetlink import Route, Rule

_GROUPS = (
    rtnetlink.GROUP_LINK,
    rtnetlink.GROUP_ADDRESS_4,
    rtnetlink.GROUP_ADDRESS_6,
    rtnetlink.GROUP_ROUTE_4,
    rtnetlink.GROUP_RULE_4,
    rtnetlink.GROUP_ROUTE_6,
    rtnetlink.GROUP_RULE_6,
)
_FAMILIES = {IPFamily.IPV4: socket.AF_INET, IPFamily.IPV6: socket.AF_INET6}
# No IPv6, or no rules, in this kernel; or no route in that table.
_NONE = (errno.EOPNOTSUPP, errno.EAFNOSUPPORT, errno.ENOENT)
_HINTS = {
    errno.EPERM: "run as root or grant NET_ADMIN, or run with --steering=none",
    errno.ENETDOWN: "ip link set lo up",
}


@dataclass(slots=True)
class LocalTable:
    """What the kernel's table ``local`` says."""

    ours: set[Route] = field(default_factory=set)
    """Those of all proxies of ours."""
    others: set[str] = field(default_factory=set)
    """Ranges that somebody else delivers to this node, for the most part the kernel itself."""


@dataclass(slots=True)
class Heard:
    """What happened since the last time."""

    is_touched: bool = False
    """Somebody changed a route or rule of ours, or nobody knows."""
    addresses: set[str] = field(default_factory=set)
    """Those that came to this node or went."""


class Kernel:
    """The routing tables of this thread's network namespace.

    Raises:
        SteeringError: Netlink sockets can't be opened.
    """

    def __init__(self) -> None:
        self._requests = open_route_requests()
        try:
            self._events = Events(NETLINK_ROUTE, _GROUPS, _filter(self._requests.port))
        except OSError as exc:
            self._requests.close()
            raise SteeringError(f"cannot open a netlink socket: {exc.strerror}") from exc

    def local_table(self) -> LocalTable:
        """List what this network namespace delivers to itself."""
        table = LocalTable()
        for route, protocol in self.routes(rtnetlink.TABLE_LOCAL):
            if protocol == ours.PROTOCOL:
                table.ours.add(route)
            else:
                table.others.add(route.network)
        return table

    def routes(self, table: int) -> list[tuple[Route, int]]:
        """List a table's local routes, each with its protocol number."""
        found = (
            ours.read_route(message)
            for family in _FAMILIES.values()
            for message in self._list(
                rtnetlink.list_routes(family, table=table, kind=rtnetlink.LOCAL)
            )
        )
        return [one for one in found if one is not None and one[0].table == table]

    def rules(self) -> set[Rule]:
        """List the rules of all proxies of ours."""
        found = (
            ours.read_rule(message)
            for family in _FAMILIES.values()
            for message in self._list(rtnetlink.list_rules(family))
        )
        return {rule for rule in found if rule is not None}

    def sources(self) -> list[str]:
        """List the addresses of interfaces that others may reach, in the kernel's order."""
        found = (
            rtnetlink.read_address(message)
            for family in _FAMILIES.values()
            for message in self._list(rtnetlink.list_addresses(family))
        )
        return [address.ip for address in found if address.scope == rtnetlink.SCOPE_UNIVERSE]

    def change(
        self, *, come: Sequence[Route | Rule] = (), go: Sequence[Route | Rule] = ()
    ) -> dict[Route | Rule, SteeringError]:
        """Add some, then remove others; those that are gone already are passed over.

        Returns:
            The additions that the kernel refused, each with its cause; all others are in force.

        Raises:
            SteeringError: A right is missing, or the kernel refused a removal; others of them
                may have come or gone.
        """
        items = [*come, *go]
        requests = [*map(ours.add, come), *map(ours.remove, go)]
        try:
            refusals = self._requests.change(requests)
        except OSError as exc:
            raise SteeringError(f"cannot change routes: {exc.strerror}") from exc
        refused = {}
        for place, code in refusals:
            item, is_addition = items[place], place < len(come)
            if is_addition and code != errno.EPERM:
                refused[item] = _refused(item, code, is_addition=True)
            elif is_addition or code not in (errno.ESRCH, errno.ENOENT):
                raise _refused(item, code, is_addition=is_addition)
        return refused

    def heard(self) -> Heard:
        """Return what others did since the last call."""
        try:
            news = self._events.read()
        except OSError as exc:
            raise SteeringError(f"cannot read routing events: {exc.strerror}") from exc
        heard = Heard(is_touched=news.has_lost)
        for message in news.messages:
            _note(message, heard)
        return heard

    def close(self) -> None:
        """Close the sockets; what is in force stays in force."""
        self._requests.close()
        self._events.close()

    def _list(self, request: bytes) -> list[Message]:
        try:
            return self._requests.list_all(request)
        except OSError as exc:
            if exc.errno in _NONE:
                return []
            hint = "find the program: ip monitor route rule" if exc.errno == errno.EBUSY else ""
            raise SteeringError(f"cannot list routes: {exc.strerror}", hint=hint) from exc


def _note(message: Message, heard: Heard) -> None:
    match message.kind:
        case rtnetlink.NEW_ROUTE | rtnetlink.DEL_ROUTE:
            found = ours.read_route(message)
            if found is None:
                return
            route, protocol = found
            if protocol == ours.PROTOCOL:
                heard.is_touched = True
            else:
                heard.addresses.add(route.network.partition("/")[0])
        case rtnetlink.NEW_ADDRESS | rtnetlink.DEL_ADDRESS:
            heard.addresses.add(rtnetlink.read_address(message).ip)
        case rtnetlink.NEW_LINK | rtnetlink.DEL_LINK:
            # The kernel takes IPv4 routes away with their interface, and says nothing of it.
            heard.is_touched |= rtnetlink.read_link(message).number == rtnetlink.LOOPBACK_NUMBER
        case _:
            heard.is_touched = True


# Classic BPF: load half a word, a word, a byte; jump if equal; return. Loads are big-endian.
_HALF, _WORD, _BYTE, _EQUAL, _RETURN = 0x28, 0x20, 0x30, 0x15, 0x06
_KIND_AT, _SENDER_AT, _PROTOCOL_AT, _TYPE_AT = 4, 12, 21, 23
_ALL, _NOTHING = 0xFFFFFFFF, 0


def _filter(sender: int) -> list[Instruction]:
    """Return a program that passes all events but our own, and routes of no concern."""
    swapped_kinds = [socket.htons(kind) for kind in (rtnetlink.NEW_ROUTE, rtnetlink.DEL_ROUTE)]
    return [
        (_WORD, 0, 0, _SENDER_AT),
        (_EQUAL, 8, 0, socket.htonl(sender)),
        (_HALF, 0, 0, _KIND_AT),
        (_EQUAL, 1, 0, swapped_kinds[0]),
        (_EQUAL, 0, 4, swapped_kinds[1]),
        (_BYTE, 0, 0, _PROTOCOL_AT),
        (_EQUAL, 2, 0, ours.PROTOCOL),
        (_BYTE, 0, 0, _TYPE_AT),
        (_EQUAL, 0, 1, rtnetlink.LOCAL),
        (_RETURN, 0, 0, _ALL),
        (_RETURN, 0, 0, _NOTHING),
    ]


def _refused(item: Route | Rule, code: int, *, is_addition: bool) -> SteeringError:
    verb = "add" if is_addition else "remove"
    if isinstance(item, Rule):
        what, look = f"rule to {item.ip}", "ip rule"
    else:
        what, look = f"local route {item.network}", f"ip route show table local {item.network}"
    if code == errno.EEXIST:
        return SteeringConflict(
            f"cannot {verb} {what}: already routed by another program",
            hint=f"{look} shows by which program",
        )
    if code == errno.EACCES and ":" in what:
        # Source: fib6_nh_init() in net/ipv6/route.c; a missing right is EPERM.
        return SteeringError(
            f"cannot {verb} {what}: IPv6 is switched off on this node",
            hint="sysctl -w net.ipv6.conf.all.disable_ipv6=0 net.ipv6.conf.lo.disable_ipv6=0",
        )
    return SteeringError(f"cannot {verb} {what}: {os.strerror(code)}", hint=_HINTS.get(code, ""))
