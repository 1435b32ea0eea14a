"""The policy routing that delivers marked packets, with any destination, to this node.

    118  fwmark 0x1000/0x1000 iif lo   goto 120       reverse-path look-ups
    119  fwmark 0x1000/0x1000          lookup 11800
    120                                nop
    table 11800: local default dev lo

Rule 1: the protocol number :data:`PROTOCOL` marks rules and routes of this program.
Rule 2: every call blocks; make all calls in one thread.
Rule 3: all proxies of a node share the rules and routes: the last proxy removes them.

Why rule 118: reverse-path checks look up the route to a packet's source, and some of these look-ups
use the mark. In table 11800 every address is local, so the packet would be dropped. Such checks are
the kernel's own check with ``src_valid_mark``, which WireGuard's tools enable, and, for both IP
versions, rules with ``fib saddr . mark . iif oif missing drop``, such as firewalld's rule. These
look-ups have ``lo`` as the incoming interface.

Source: net/ipv4/fib_frontend.c, net/ipv6/netfilter/nft_fib_ipv6.c; both verified by experiment.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator

from ...errors import SteeringError
from ...kernel.netlink import Requests, explained, rtnetlink
from ...kernel.netlink.messages import CREATE, EXCL, Message
from ...kernel.netlink.rtnetlink import (
    DO_NOTHING,
    FAMILIES,
    GO_TO,
    LOOK_UP,
    LocalRoute,
    RoutingRule,
)
from ...kernel.netlink.sockets import NETLINK_ROUTE

PROTOCOL = rtnetlink.REPLY_ROUTING
# A bit of the mark that other programs don't use: kube-proxy and kubelet use 0x4000 and 0x8000,
# Calico, Tailscale and Weave use bits of 0xffff0000, the portmap plugin 0x2000, Cilium 0x0f00,
# Istio 0x0fff, and AWS 0x80.
MARK = 0x1000
TABLE = 11800
# These priorities are after the kernel's first rule (0), and before the rules of AWS's CNI (512).
SKIP, MARKED, GO_ON = 118, 119, 120
_V4, _V6 = FAMILIES[4], FAMILIES[6]
_ROUTES = {
    _V4: LocalRoute("0.0.0.0/0", table=TABLE),
    _V6: LocalRoute("::/0", table=TABLE),
}

# The rules are added in this order, because a goto needs an existing target.
RULES = (
    RoutingRule(_V4, DO_NOTHING, GO_ON, protocol=PROTOCOL),
    RoutingRule(_V4, GO_TO, SKIP, protocol=PROTOCOL, mark=MARK, in_interface="lo", target=GO_ON),
    RoutingRule(_V4, LOOK_UP, MARKED, TABLE, PROTOCOL, mark=MARK),
    RoutingRule(_V6, DO_NOTHING, GO_ON, protocol=PROTOCOL),
    RoutingRule(_V6, GO_TO, SKIP, protocol=PROTOCOL, mark=MARK, in_interface="lo", target=GO_ON),
    RoutingRule(_V6, LOOK_UP, MARKED, TABLE, PROTOCOL, mark=MARK),
)
_GONE = (errno.ENOENT, errno.ESRCH)


class ReplyRoutes:
    """The routing rules and routes in this thread's namespace; calls may raise SteeringError."""

    def __init__(self) -> None:
        with explained("open a netlink socket"):
            self._requests = Requests.open(NETLINK_ROUTE)
        self.without_ipv6 = ""
        """Why IPv6 routes are missing, as of the last :meth:`put_right`; empty if they exist."""

    def put_right(self) -> int:
        """Add missing parts; return their number. A refusal of IPv6 only sets ``without_ipv6``."""
        count = self._add(_V4)
        try:
            count += self._add(_V6)
        except SteeringError as exc:
            self.without_ipv6 = f"the kernel rejects IPv6 routes: {exc.message}"
        else:
            self.without_ipv6 = ""
        return count

    def remove(self) -> bool:
        """Remove rules and routes with :data:`PROTOCOL`; return whether any existed. Idempotent."""
        rules = [rtnetlink.write_rule(rtnetlink.DEL_RULE, 0, rule) for rule in self._rules()]
        kind = rtnetlink.DEL_ROUTE
        routes = [_write_route(kind, 0, family) for family in self._routed()]
        self._do("remove", [*rules, *routes], *_GONE)
        return bool(rules or routes)

    def close(self) -> None:
        """Close the socket; the routes stay in the kernel."""
        self._requests.close()

    def _add(self, family: int) -> int:
        # Add the route first: a kernel without IPv6 refuses it, so that no rule is left behind.
        flags = CREATE | EXCL
        count = family not in self._routed()
        if count:
            self._do("add", [_write_route(rtnetlink.NEW_ROUTE, flags, family)], errno.EEXIST)
        have = list(self._rules())
        missing = [rule for rule in RULES if rule.family == family and rule not in have]
        requests = [rtnetlink.write_rule(rtnetlink.NEW_RULE, flags, rule) for rule in missing]
        self._do("add", requests, errno.EEXIST)
        return count + len(missing)

    def _rules(self) -> Iterator[RoutingRule]:
        for family in _ROUTES:
            for rule in map(rtnetlink.read_rule, self._list(rtnetlink.list_rules(family))):
                if rule.protocol == PROTOCOL:
                    yield rule

    def _routed(self) -> Iterator[int]:
        """Yield the IP families for which the route exists."""
        for family in _ROUTES:
            # Cost: the kernel lists only this table, however many routes other tables have.
            listed = self._list(rtnetlink.list_routes(family, table=TABLE))
            for route in map(rtnetlink.read_route, listed):
                if route.protocol == PROTOCOL and route.open().table == TABLE:
                    yield family

    def _list(self, request: bytes) -> list[Message]:
        with explained("list routing rules"):
            return self._requests.list_supported(request)

    def _do(self, verb: str, requests: list[bytes], *done: int) -> None:
        with explained(f"{verb} routing rules"):
            refusals = self._requests.change(requests)
        for _, code in refusals:
            if code not in done:
                hint = "grant NET_ADMIN" if code in (errno.EPERM, errno.EACCES) else ""
                raise SteeringError(f"cannot {verb} routing rules: {os.strerror(code)}", hint=hint)


def _write_route(kind: int, flags: int, family: int) -> bytes:
    return rtnetlink.write_local_route(kind, flags, _ROUTES[family], PROTOCOL)
