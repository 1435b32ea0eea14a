"""Links and routes of this node, followed as they come and go.

    kernel ──RTM_NEWLINK, RTM_NEWROUTE, …──▶ event socket ──▶ listings ──▶ links, routes

Rule 1: events only say that something changed; what is there is always read in full, so a lost
event costs nothing. Many changes at once are one listing.
Rule 2: routes of our own are left out: the steering ``local`` may have thousands.
Rule 3: the network namespace is that of the thread that makes the object.

Source: rtnetlink(7), include/uapi/linux/rtnetlink.h, if_link.h.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable, Iterator

from ..errors import SteeringError
from ..policy.places import NodeLink, NodeRoute
from ..steering.netlink import Events, Requests, rtnetlink
from ..steering.netlink.messages import Message
from ..steering.netlink.rtnetlink import FAMILIES, TABLE_LOCAL, TABLE_MAIN
from ..steering.netlink.sockets import NETLINK_ROUTE

_log = logging.getLogger("userspace_proxy.agent")

_GROUPS = (rtnetlink.GROUP_LINK, rtnetlink.GROUP_ROUTE_4, rtnetlink.GROUP_ROUTE_6)
# Of no use to anybody.
_PASSED_OVER = (rtnetlink.BROADCAST, rtnetlink.ANYCAST, rtnetlink.MULTICAST)
# Routes of this program; see steering.local.rtnetlink and steering.answer_routes.
_OURS = (117, 118)

# What comes within so much of the first event is one listing.
_GATHER_S = 0.02
_RETRY_S = 1.0


class NodeRoutes:
    """The links and routes of this node, as they are now.

    Args:
        loop: Watches the kernel's events.
        changed: Called in the loop when they have become others.

    Raises:
        SteeringError: The kernel doesn't list them.
    """

    links: tuple[NodeLink, ...]
    routes: tuple[NodeRoute, ...]
    """Those of the tables ``main`` and ``local``, both families."""

    def __init__(self, loop: asyncio.AbstractEventLoop, changed: Callable[[], None]) -> None:
        self._loop = loop
        self._changed = changed
        self._timer: asyncio.TimerHandle | None = None
        with contextlib.ExitStack() as opened:
            try:
                # Subscribed before the first listing, so nothing falls between the two.
                self._events = Events(NETLINK_ROUTE, _GROUPS)
                opened.callback(self._events.close)
                self._requests = Requests.open(NETLINK_ROUTE)
                opened.callback(self._requests.close)
                self.links, self.routes = read_links(self._requests), read_routes(self._requests)
            except OSError as exc:
                raise SteeringError(f"cannot list this node's routes: {exc.strerror}") from exc
            self._opened = opened.pop_all()
        loop.add_reader(self._events.fileno(), self._look)

    def close(self) -> None:
        """Stop watching; what is known stays as it is. Idempotent."""
        if self._events.fileno() >= 0:
            self._loop.remove_reader(self._events.fileno())
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._opened.close()

    def _look(self) -> None:
        """Take the events away, and see whether one is about others' links or routes."""
        heard = self._events.read()
        matters = heard.has_lost or any(map(_matters, heard.messages))
        if matters and self._timer is None:
            self._timer = self._loop.call_later(_GATHER_S, self._read_again)

    def _read_again(self) -> None:
        self._timer = None
        try:
            now = read_links(self._requests), read_routes(self._requests)
        except OSError as exc:
            _log.warning("cannot list this node's routes", extra={"cause": exc.strerror})
            self._timer = self._loop.call_later(_RETRY_S, self._read_again)
            return
        if now != (self.links, self.routes):
            self.links, self.routes = now
            self._changed()


def read_links(requests: Requests) -> tuple[NodeLink, ...]:
    """List the links of a network namespace, by number.

    Raises:
        OSError: The kernel refuses or is silent.
    """
    links = map(rtnetlink.read_link, requests.list_all(rtnetlink.list_links()))
    return tuple(sorted(NodeLink(link.number, link.name, link.kind, link.master) for link in links))


def read_routes(requests: Requests) -> tuple[NodeRoute, ...]:
    """List the routes of a network namespace, sorted; ours are left out.

    Raises:
        OSError: The kernel refuses or is silent.
    """
    found: set[NodeRoute] = set()
    for family in FAMILIES.values():
        found.update(_read_routes(requests.list_all(rtnetlink.list_routes(family))))
    return tuple(sorted(found))


def _read_routes(messages: Iterable[Message]) -> Iterator[NodeRoute]:
    for route in map(rtnetlink.read_route, messages):
        table = route.short_table
        if route.protocol in _OURS or table not in (TABLE_MAIN, TABLE_LOCAL):
            continue
        is_local = route.kind == rtnetlink.LOCAL
        if route.kind in _PASSED_OVER or (table == TABLE_LOCAL and not is_local):
            continue
        found = route.open()
        is_unicast = route.kind == rtnetlink.UNICAST
        yield NodeRoute(
            found.network,
            found.link if is_unicast else 0,
            is_unicast and found.has_gateway,
            is_local,
        )


def _matters(message: Message) -> bool:
    """Tell whether an event isn't about a route of our own."""
    is_route = message.kind in (rtnetlink.NEW_ROUTE, rtnetlink.DEL_ROUTE)
    return not is_route or rtnetlink.read_route(message).protocol not in _OURS
