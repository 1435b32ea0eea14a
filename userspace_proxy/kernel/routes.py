"""Tracks links and routes of this node as they change.

    kernel ──RTM_NEWLINK, RTM_NEWROUTE, …──▶ event socket ──▶ listings ──▶ links, routes, networks
                                                                           settings of br_netfilter

Rule 1: events only say that something changed; what is there is always read in full, so a lost
event costs nothing. Many changes at once are one listing.
Rule 2: listings, and what is made of them, are the work of a thread: ten thousand routes take
long. While routes keep changing they are read so seldom that the thread rests most of the time.
Rule 3: routes of our own are left out: the steering ``local`` may have thousands.
Rule 4: the network namespace is that of the thread that makes the object.
Rule 5: the kernel doesn't announce changes of sysctls: :meth:`NodeRoutes.look_at_settings` does.

Source: rtnetlink(7), include/uapi/linux/rtnetlink.h, if_link.h.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from ..errors import SteeringError
from ..policy.bridges import BridgeFilter
from ..policy.locality import Networks, NodeLink, NodeRoute, find_networks
from .netlink import Events, Requests, rtnetlink
from .netlink.messages import Message
from .netlink.rtnetlink import FAMILIES, TABLE_LOCAL, TABLE_MAIN
from .netlink.sockets import NETLINK_ROUTE

_log = logging.getLogger("userspace_proxy.agent")

_GROUPS = (rtnetlink.GROUP_LINK, rtnetlink.GROUP_ROUTE_4, rtnetlink.GROUP_ROUTE_6)
# Of no use to anybody.
_PASSED_OVER = (rtnetlink.BROADCAST, rtnetlink.ANYCAST, rtnetlink.MULTICAST)
# The protocol numbers of this program's own routes.
_OURS = (rtnetlink.LOCAL_STEERING, rtnetlink.REPLY_ROUTING)

# What comes within so much of the first event is one listing.
_GATHER_S = 0.02
# From the end of a listing to the next: the least, the most, and as a multiple of what it took.
_REST_S, _LONG_REST_S, _REST = 0.2, 1.0, 10
_RETRY_S = 1.0


class NodeRoutes:
    """The links and routes of this node, as they are now.

    Args:
        loop: Watches the kernel's events.
        changed: Called in the loop when they have become others.
        cluster: ``--cluster-cidr``.

    Raises:
        SteeringError: The kernel doesn't list them.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        changed: Callable[[], None],
        cluster: Iterable[str] = (),
    ) -> None:
        self._loop = loop
        self._changed = changed
        self._cluster = tuple(cluster)
        self._timer: asyncio.TimerHandle | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="routes")
        self._listing: asyncio.Future[_Node] | None = None
        self._has_heard = False
        self._is_closed = False
        self._rested_at = 0.0
        with contextlib.ExitStack() as opened:
            try:
                # Subscribed before the first listing, so nothing falls between the two.
                self._events = Events(NETLINK_ROUTE, _GROUPS)
                opened.callback(self._events.close)
                self._requests = Requests.open(NETLINK_ROUTE)
                opened.callback(self._requests.close)
                self._now = self._list()
            except OSError as exc:
                raise SteeringError(f"cannot list this node's routes: {exc.strerror}") from exc
            opened.pop_all()
        loop.add_reader(self._events.fileno(), self._look)

    @property
    def links(self) -> tuple[NodeLink, ...]:
        """All of them."""
        return self._now.links

    @property
    def routes(self) -> tuple[NodeRoute, ...]:
        """Those of the tables ``main`` and ``local``, both families."""
        return self._now.routes

    @property
    def bridge_filter(self) -> BridgeFilter:
        """The settings of br_netfilter."""
        return self._now.bridge_filter

    @property
    def networks(self) -> Networks:
        """Where networks are, by links and routes."""
        return self._now.networks

    def look_at_settings(self) -> None:
        """List again if sysctls have changed; to be called often, for it reads two small files."""
        if not self._is_closed and read_bridge_filter() != self._now.bridge_filter:
            self._plan(_GATHER_S)

    def close(self) -> None:
        """Stop watching; what is known stays as it is. Idempotent."""
        if self._is_closed:
            return
        self._is_closed = True
        self._loop.remove_reader(self._events.fileno())
        self._events.close()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        # A listing may be under way.
        self._thread.submit(self._requests.close)
        self._thread.shutdown(wait=False)

    def _look(self) -> None:
        """Take the events away, and see whether one is about others' links or routes."""
        heard = self._events.read()
        if heard.has_lost or any(map(_matters, heard.messages)):
            self._has_heard = True
            self._plan(_GATHER_S)

    def _plan(self, wait_s: float) -> None:
        """List in a while, and after a rest, unless that is planned or under way."""
        if self._timer is None and self._listing is None:
            rest_s = self._rested_at - self._loop.time()
            self._timer = self._loop.call_later(max(wait_s, rest_s), self._read_again)

    def _read_again(self) -> None:
        self._timer = None
        self._has_heard = False
        self._listing = self._loop.run_in_executor(self._thread, self._list)
        self._listing.add_done_callback(self._take)

    def _take(self, listing: asyncio.Future[_Node]) -> None:
        """Tell what was listed, if it is news."""
        self._listing = None
        if self._is_closed or listing.cancelled():
            return
        try:
            now = listing.result()
        except OSError as exc:
            _log.warning("cannot list this node's routes", extra={"cause": exc.strerror})
            self._plan(_RETRY_S)
            return
        rest_s = min(max(_REST_S, _REST * now.took_s), _LONG_REST_S)
        self._rested_at = self._loop.time() + rest_s
        before, self._now = self._now, now
        if now[:3] != before[:3]:
            self._changed()
        if self._has_heard:
            self._plan(_GATHER_S)

    def _list(self) -> _Node:
        began = time.monotonic()
        links, routes = read_links(self._requests), read_routes(self._requests)
        networks = find_networks(links, routes, self._cluster)
        return _Node(links, routes, read_bridge_filter(), networks, time.monotonic() - began)


class _Node(NamedTuple):
    """One listing, and what is made of it."""

    links: tuple[NodeLink, ...]
    routes: tuple[NodeRoute, ...]
    bridge_filter: BridgeFilter
    networks: Networks
    took_s: float


def read_links(requests: Requests) -> tuple[NodeLink, ...]:
    """List the links of a network namespace, by number.

    Raises:
        OSError: The kernel refuses or is silent.
    """
    links = map(rtnetlink.read_link, requests.list_all(rtnetlink.list_links()))
    return tuple(sorted(map(node_link, links)))


def node_link(link: rtnetlink.Link) -> NodeLink:
    """Return what is to be known of a link."""
    return NodeLink(
        link.number,
        link.name,
        link.kind,
        link.master,
        link.calls_iptables,
        link.calls_ip6tables,
        link.filters_vlans,
        link.is_isolated,
    )


def read_bridge_filter(settings: Path = Path("/proc/sys/net/bridge")) -> BridgeFilter:
    """Read the settings of br_netfilter in this thread's network namespace."""

    def is_on(name: str) -> bool:
        return settings.joinpath(name).read_text(encoding="ascii").strip() not in ("", "0")

    try:
        return BridgeFilter(
            True, is_on("bridge-nf-call-iptables"), is_on("bridge-nf-call-ip6tables")
        )
    except OSError:
        return BridgeFilter()


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
