"""Tracks the links and routes of this node.

    kernel ──RTM_NEWLINK, RTM_NEWROUTE, …──▶ event socket ──▶ listings ──▶ links, routes,
                                                              │            settings of br_netfilter
                                                              └─derive──▶ what follows from them

Rule 1: events only show that something changed; links and routes are always read in full, so a
lost event does no harm. Many changes at once cause one listing.
Rule 2: listing, and deriving what follows, run in a thread: ten thousand routes take long. While
routes keep changing they are read so rarely that the thread is idle most of the time.
Rule 3: this program's routes are left out: the steering ``local`` may have thousands.
Rule 4: the network namespace is that of the thread that creates the object.
Rule 5: the kernel sends no events for sysctls: :meth:`NodeRoutes.look_at_settings` checks them.

Source: rtnetlink(7), include/uapi/linux/rtnetlink.h, if_link.h.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

from ..clocks import Clocks
from ..model.node_network import BridgeFilter, NodeLink, NodeRoute
from .netlink import Requests, RouteSockets, explained, rtnetlink
from .netlink.messages import Message
from .netlink.rtnetlink import FAMILIES, TABLE_LOCAL, TABLE_MAIN
from .netlink.sockets import NETLINK_ROUTE

_log = logging.getLogger("userspace_proxy.agent")

_GROUPS = (rtnetlink.GROUP_LINK, rtnetlink.GROUP_ROUTE_4, rtnetlink.GROUP_ROUTE_6)
_IGNORED = (rtnetlink.BROADCAST, rtnetlink.ANYCAST, rtnetlink.MULTICAST)
# The protocol numbers of this program's own routes.
_OURS = (rtnetlink.LOCAL_STEERING, rtnetlink.REPLY_ROUTING)

# Events within this time of the first one cause one listing.
_GATHER_S = 0.02
# The pause from the end of a listing to the next: minimum, maximum, and as a multiple of its time.
_REST_S, _LONG_REST_S, _REST = 0.2, 1.0, 10
_RETRY_S = 1.0


Derived = TypeVar("Derived")


class NodeRoutes(Generic[Derived]):
    """The current links and routes of this node.

    Args:
        changed: Called in the loop after they have changed.
        derive: Returns what follows from links and routes; called after each listing, mostly in
            another thread.

    Raises:
        SteeringError: The kernel doesn't list them.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        changed: Callable[[], None],
        derive: Callable[[tuple[NodeLink, ...], tuple[NodeRoute, ...]], Derived],
    ) -> None:
        self._loop = loop
        self._changed = changed
        self._derive = derive
        self._timer: asyncio.TimerHandle | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="routes")
        self._listing: asyncio.Future[_Node[Derived]] | None = None
        self._is_outdated = False
        self._is_closed = False
        self._rested_at = 0.0
        with explained("list this node's routes"), contextlib.ExitStack() as opened:
            self._sockets = opened.enter_context(RouteSockets(_GROUPS))
            self._now = self._list()
            opened.pop_all()
        loop.add_reader(self._sockets.events.fileno(), self._on_events)

    @property
    def links(self) -> tuple[NodeLink, ...]:
        """All links."""
        return self._now.links

    @property
    def routes(self) -> tuple[NodeRoute, ...]:
        """Routes of the tables ``main`` and ``local``, both families."""
        return self._now.routes

    @property
    def bridge_filter(self) -> BridgeFilter:
        """The settings of br_netfilter."""
        return self._now.bridge_filter

    @property
    def derived(self) -> Derived:
        """What follows from these links and routes."""
        return self._now.derived

    def look_at_settings(self) -> None:
        """List again if sysctls have changed; cheap, as it reads two small files."""
        if not self._is_closed and read_bridge_filter() != self._now.bridge_filter:
            self._plan(_GATHER_S)

    def close(self) -> None:
        """Stop watching; the properties keep their values. Idempotent."""
        if self._is_closed:
            return
        self._is_closed = True
        self._loop.remove_reader(self._sockets.events.fileno())
        self._sockets.events.close()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        # A listing may be in progress.
        self._thread.submit(self._sockets.close)
        self._thread.shutdown(wait=False)

    def _on_events(self) -> None:
        events = self._sockets.events.read()
        if events.has_lost or any(map(_matters, events.messages)):
            self._is_outdated = True
            self._plan(_GATHER_S)

    def _plan(self, wait_s: float) -> None:
        """List later, after the pause, unless that is planned or in progress."""
        if self._timer is None and self._listing is None:
            rest_s = self._rested_at - self._loop.time()
            self._timer = self._loop.call_later(max(wait_s, rest_s), self._read_again)

    def _read_again(self) -> None:
        self._timer = None
        self._is_outdated = False
        self._listing = self._loop.run_in_executor(self._thread, self._list)
        self._listing.add_done_callback(self._take)

    def _take(self, listing: asyncio.Future[_Node[Derived]]) -> None:
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
        if self._is_outdated:
            self._plan(_GATHER_S)

    def _list(self) -> _Node[Derived]:
        began, requests = Clocks.monotonic(), self._sockets.requests
        links, routes = read_links(requests), read_routes(requests)
        derived = self._derive(links, routes)
        return _Node(links, routes, read_bridge_filter(), derived, Clocks.monotonic() - began)


class _Node(NamedTuple, Generic[Derived]):
    """One listing, and what follows from it."""

    links: tuple[NodeLink, ...]
    routes: tuple[NodeRoute, ...]
    bridge_filter: BridgeFilter
    derived: Derived
    took_s: float


def route_refusal(ip: str) -> str:
    """Return the kernel's reason for not sending packets to an address; empty if it would.

    Raises:
        SteeringError: No netlink socket is available.
    """
    with explained("open a netlink socket"), Requests.open(NETLINK_ROUTE) as requests:
        try:
            requests.ask(rtnetlink.find_route(ip))
        except OSError as exc:
            return str(exc.strerror)
    return ""


def read_links(requests: Requests) -> tuple[NodeLink, ...]:
    """List the links of a network namespace, by number."""
    listed = requests.list_all(rtnetlink.list_links())
    return tuple(sorted(rtnetlink.read_link(message).link for message in listed))


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
    """List the routes of a network namespace, sorted; this program's are left out."""
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
        if route.kind in _IGNORED or (table == TABLE_LOCAL and not is_local):
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
    """Return whether an event isn't about a route of this program."""
    is_route = message.kind in (rtnetlink.NEW_ROUTE, rtnetlink.DEL_ROUTE)
    return not is_route or rtnetlink.read_route(message).protocol not in _OURS
