"""The policy routing that delivers marked packets to this node, whatever their destination.

    118  fwmark 0x1000/0x1000 iif lo   goto 120       look-ups of the way back
    119  fwmark 0x1000/0x1000          lookup 11800
    120                                nop
    table 11800: local default dev lo

Rule 1: rules and routes belong to this program when their protocol number is :data:`PROTOCOL`.
Rule 2: every call blocks and belongs in one thread.
Rule 3: they are the same for all proxies of a node: the last proxy removes them.

Why rule 118: reverse-path checks look up the route to a packet's source, and some use the mark.
In table 11800 every address is local, so the packet would be dropped. Such checks are the kernel's
with ``src_valid_mark``, which WireGuard's tools switch on, and for both IP versions rules of
``fib saddr . mark . iif oif missing drop``, such as firewalld's. Their look-ups come from ``lo``.

Source: net/ipv4/fib_frontend.c, net/ipv6/netfilter/nft_fib_ipv6.c; both were measured.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator

from ...errors import SteeringError
from ...kernel.netlink import rtnetlink
from ...kernel.netlink.messages import CREATE, EXCL, Message
from ...kernel.netlink.rtnetlink import DO_NOTHING, FAMILIES, GO_TO, LOOK_UP, Rule
from ...kernel.route_requests import open_route_requests

PROTOCOL = rtnetlink.REPLY_ROUTING
# One bit that others leave alone: kube-proxy and kubelet have 0x4000 and 0x8000, Calico, Tailscale
# and Weave some of 0xffff0000, the portmap plugin 0x2000, Cilium 0x0f00, Istio 0x0fff, AWS 0x80.
MARK = 0x1000
TABLE = 11800
# Before the rules of AWS's plugin (512), behind those of the kernel (0).
SKIP, MARKED, GO_ON = 118, 119, 120
_V4, _V6 = FAMILIES[4], FAMILIES[6]
_DEFAULT = {_V4: "0.0.0.0/0", _V6: "::/0"}

# The last one first: a goto wants its target.
RULES = (
    Rule(_V4, DO_NOTHING, GO_ON, protocol=PROTOCOL),
    Rule(_V4, GO_TO, SKIP, protocol=PROTOCOL, mark=MARK, came_by="lo", target=GO_ON),
    Rule(_V4, LOOK_UP, MARKED, TABLE, PROTOCOL, mark=MARK),
    Rule(_V6, DO_NOTHING, GO_ON, protocol=PROTOCOL),
    Rule(_V6, GO_TO, SKIP, protocol=PROTOCOL, mark=MARK, came_by="lo", target=GO_ON),
    Rule(_V6, LOOK_UP, MARKED, TABLE, PROTOCOL, mark=MARK),
)
# A table without routes isn't there, and a kernel may have no IPv6.
_NONE = (errno.ENOENT, errno.EAFNOSUPPORT, errno.EOPNOTSUPP)
_GONE = (errno.ENOENT, errno.ESRCH)


class ReplyRoutes:
    """Our rules and routes in this thread's network namespace.

    Raises:
        SteeringError: Netlink sockets can't be opened.
    """

    def __init__(self) -> None:
        self._requests = open_route_requests()
        self.without_ipv6 = ""
        """Why IPv6 has none, as of the last :meth:`put_right`; empty where it has."""

    def put_right(self) -> int:
        """Add what is missing; return how much was.

        Raises:
            SteeringError: The kernel refused those of IPv4.
        """
        count = self._add(_V4)
        try:
            count += self._add(_V6)
        except SteeringError as exc:
            self.without_ipv6 = f"the kernel rejects IPv6 routes: {exc.message}"
        else:
            self.without_ipv6 = ""
        return count

    def _add(self, family: int) -> int:
        """Add what is missing of one family."""
        # The route first, which the kernel refuses where IPv6 is off: no rule stays alone.
        kind, flags = rtnetlink.NEW_ROUTE, CREATE | EXCL
        count = family not in self._routed()
        if count:
            self._do("add", [_write_route(kind, flags, family)], errno.EEXIST)
        have = list(self._rules())
        missing = [rule for rule in RULES if rule.family == family and rule not in have]
        kind = rtnetlink.NEW_RULE
        requests = [rtnetlink.write_rule(kind, flags, rule) for rule in missing]
        self._do("add", requests, errno.EEXIST)
        return count + len(missing)

    def remove(self) -> None:
        """Remove everything that bears our number, the rules first; idempotent.

        Raises:
            SteeringError: The kernel refused.
        """
        rules = [rtnetlink.write_rule(rtnetlink.DEL_RULE, 0, rule) for rule in self._rules()]
        kind = rtnetlink.DEL_ROUTE
        routes = [_write_route(kind, 0, family) for family in self._routed()]
        self._do("remove", [*rules, *routes], *_GONE)

    def close(self) -> None:
        """Let go of the socket; what is in force stays in force."""
        self._requests.close()

    def _rules(self) -> Iterator[Rule]:
        """Yield those that bear our number."""
        for family in _DEFAULT:
            for rule in map(rtnetlink.read_rule, self._list(rtnetlink.list_rules(family))):
                if rule.protocol == PROTOCOL:
                    yield rule

    def _routed(self) -> Iterator[int]:
        """Yield the families whose route is there."""
        for family in _DEFAULT:
            # The kernel lists our table alone, however many routes there are.
            listed = self._list(rtnetlink.list_routes(family, table=TABLE))
            for route in map(rtnetlink.read_route, listed):
                if route.protocol == PROTOCOL and route.open().table == TABLE:
                    yield family

    def _list(self, request: bytes) -> list[Message]:
        try:
            return self._requests.list_all(request)
        except OSError as exc:
            if exc.errno in _NONE:
                return []
            raise SteeringError(f"cannot list routing rules: {exc.strerror}") from exc

    def _do(self, verb: str, requests: list[bytes], *done: int) -> None:
        try:
            refusals = self._requests.change(requests)
        except OSError as exc:
            raise SteeringError(f"cannot {verb} routing rules: {exc.strerror}") from exc
        for _, code in refusals:
            if code not in done:
                way_out = "grant NET_ADMIN" if code in (errno.EPERM, errno.EACCES) else ""
                what = f"cannot {verb} routing rules: {os.strerror(code)}"
                raise SteeringError(what, hint=way_out)


def _write_route(kind: int, flags: int, family: int) -> bytes:
    network = _DEFAULT[family]
    return rtnetlink.write_local_route(
        kind, flags, network, table=TABLE, protocol=PROTOCOL, metric=0, source=""
    )
