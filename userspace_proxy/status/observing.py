"""Delivers connections to watchers, and keeps the table of clients and the Services they call.

    workers ──a few times a second──▶ Observing ──▶ Watcher: a bounded ring ──▶ stream ──▶ client
                                          └──────▶ Edges

Rule 1: without a watcher, workers report no connections.
Rule 2: nothing waits for a slow watcher: its ring drops the oldest records, and counts them.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

from ..causes.say import say
from ..clocks import Clocks
from ..diagnosis.paths import unseen_reason
from ..errors import UserspaceProxyError
from ..facts import PortFacts, StatusFacts
from ..facts.connection import (
    FILTERS_MAX,
    ConnectionEvent,
    ConnectionFacts,
    ConnectionFilter,
    LeftOut,
    PortFields,
    port_fields,
)
from ..facts.edges import Calls, Edges, EdgesFacts, no_pod
from ..model import DataPath, PortKey, contains, intersect

# The number of records per watcher: as many as four workers can send in two seconds.
RING = 4096
LEFT_OUT = "too many at a time"
# A worker doesn't classify connections for which its ring has no room.
_OF_ANY_KIND = f"{LEFT_OUT}; not all of them may have failed, been saved or slow"
# A stream begins with at most this many Service ports whose connections can't be observed.
_UNSEEN_MAX = 10


class TooManyWatched(UserspaceProxyError):
    """Too many different filters are being watched."""


class Watcher:
    """One reader of connections, for use in the event loop only."""

    def __init__(self, wanted: ConnectionFilter) -> None:
        self.wanted = wanted
        self._ring: deque[ConnectionFacts] = deque()
        self._left_out = 0
        self._news = asyncio.Event()

    def put(self, records: Iterable[ConnectionFacts], left_out: int = 0) -> None:
        """Add the records that the filter selects; count ``left_out`` and dropped records."""
        self._left_out += left_out
        for one in records:
            if self.wanted.takes(one):
                if len(self._ring) >= RING:
                    self._ring.popleft()
                    self._left_out += 1
                self._ring.append(one)
        if self._ring or self._left_out:
            self._news.set()

    async def take(self, within_s: float) -> list[ConnectionFacts]:
        """Wait up to ``within_s`` seconds for records; return them, if any, the oldest first.

        If records were dropped, the last record states how many.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._news.wait()
        self._news.clear()
        return self._take()

    def _take(self) -> list[ConnectionFacts]:
        records = list(self._ring)
        self._ring.clear()
        if self._left_out:
            at = records[-1].at if records else Clocks.time()
            event, count, self._left_out = ConnectionEvent.LEFT_OUT, self._left_out, 0
            cause = LEFT_OUT if self.wanted.takes_all_kinds else _OF_ANY_KIND
            records.append(ConnectionFacts(event=event, at=at, kind="", count=count, cause=cause))
        return records


class Collector(Watcher):
    """A watcher that keeps the newest connections in a list."""

    def __init__(self, wanted: ConnectionFilter) -> None:
        super().__init__(wanted)
        self.records: list[ConnectionFacts] = []

    def put(self, records: Iterable[ConnectionFacts], left_out: int = 0) -> None:
        """Append the records that the filter selects, and keep the newest ``RING`` records."""
        super().put(records, left_out)
        self.records += self._take()
        del self.records[:-RING]


_W = TypeVar("_W", bound=Watcher)


class Observing:
    """The watchers of one proxy, and the clients of its Services.

    Args:
        clock: Returns the Unix time.
    """

    def __init__(self, clock: Callable[[], float] = Clocks.time) -> None:
        self.is_on = asyncio.Event()
        """An event that is set while there is a watcher."""
        self._clock = clock
        self._watchers: dict[Watcher, None] = {}
        self._edges = Edges()

    @contextlib.contextmanager
    def watch(self, watcher: _W) -> Iterator[_W]:
        """Deliver connections to a watcher in a ``with`` block.

        Raises:
            TooManyWatched: Workers support no more different filters.
        """
        filters = self.filters()
        if len(filters) >= FILTERS_MAX and watcher.wanted not in filters:
            raise TooManyWatched(
                f"{FILTERS_MAX} different filters are watched already, which is the limit",
                hint="end one of them, or use the filter of another watcher",
            )
        self._watchers[watcher] = None
        self.is_on.set()
        try:
            yield watcher
        finally:
            del self._watchers[watcher]
            if not self._watchers:
                self.is_on.clear()

    def filters(self) -> Sequence[ConnectionFilter]:
        return list(dict.fromkeys(watcher.wanted for watcher in self._watchers))

    def deliver(self, records: Sequence[ConnectionFacts], left_out: Iterable[LeftOut] = ()) -> None:
        counts = dict(left_out)
        for watcher in self._watchers:
            watcher.put(records, counts.get(watcher.wanted, 0))

    def add_calls(
        self, calls: Iterable[Calls], left_out: int, pod_of: Callable[[str], str] = no_pod
    ) -> None:
        """Add the calls that a worker has counted.

        Args:
            pod_of: Returns the pod that has an address now, as ``namespace/name``; or empty.
        """
        self._edges.add(calls, left_out, self._clock(), pod_of)

    def edges(self, wanted: ConnectionFilter) -> EdgesFacts:
        """Return the edges of the Services that a filter selects: which clients call them."""
        return self._edges.facts(wanted.takes_service)


def unseen(view: StatusFacts, wanted: ConnectionFilter, now: float) -> Iterator[ConnectionFacts]:
    """Yield a record with the reason for each Service port whose connections can't be observed.

    Such connections take the kernel path, or the kernel rejects them for lack of an endpoint.
    A port is named if the filter might select such connections; if the filter can't match any
    connection of any port, all are named, each with the reason. Ports beyond ``_UNSEEN_MAX`` are
    only counted.
    """
    ports = [port for port in view.ports if wanted.takes_service(port.plan.key.name.prefixes)]
    whys = ((port, _never_reason(port, wanted, view.announcing)) for port in ports)
    never = {port.plan.key: why for port, why in whys if why}
    reasons = never
    if len(never) < len(ports):
        passing = [port for port in ports if _may_want(port, wanted)]
        reasons = {port.plan.key: why for port in passing if (why := _past_reason(port))}
    for key, why in list(reasons.items())[:_UNSEEN_MAX]:
        yield _unseen(now, key, cause=why)
    if (more := len(reasons) - _UNSEEN_MAX) > 0:
        yield _unseen(now, cause="for reasons such as these", count=more)


def _unseen(
    at: float, key: PortKey | None = None, *, cause: str, count: int = 0
) -> ConnectionFacts:
    event, port = ConnectionEvent.UNSEEN, PortFields() if key is None else port_fields(key)
    return ConnectionFacts(event=event, at=at, kind="", cause=cause, count=count, **port)


def _past_reason(port: PortFacts) -> str:
    """Return why connections to a Service port bypass the proxy; empty if none do."""
    if unseen := unseen_reason(port):
        return unseen
    if port.cause is None or port.is_holding:
        return ""
    return port.state.sentence or say(port.cause)


def _may_want(port: PortFacts, wanted: ConnectionFilter) -> bool:
    """Return whether the filter might select a port's connections that bypass the proxy."""
    # A connection on the kernel path may be slow, but only the proxy can save connections.
    is_slow = port.path is DataPath.KERNEL and wanted.slow_s is not None
    return wanted.failed or wanted.takes_all_kinds or is_slow


def _never_reason(port: PortFacts, wanted: ConnectionFilter, announcing: Sequence[str]) -> str:
    """Return why no connection to a Service port can match the filter; empty if one can."""
    if why := _past_reason(port):
        return why
    if wanted.client and not _may_be_announced(port, announcing):
        family = "IPv6" if ":" in wanted.client else "IPv4"
        if port.family != family:
            return f"it has no {family} address that {wanted.client} could dial"
        if port.admits is not None and not contains(port.admits, wanted.client):
            return f"packets from {wanted.client} are dropped, as it isn't admitted"
    is_saved_alone = wanted.saved and not wanted.failed and wanted.slow_s is None
    if is_saved_alone and port.usable < 2 and not port.is_holding:
        return "it has one usable endpoint: there is no other to save a connection"
    return ""


def _may_be_announced(port: PortFacts, announcing: Sequence[str]) -> bool:
    """Return whether a load balancer that sends PROXY headers can dial a Service port.

    Clients of such a load balancer may have any address, because packets come from its address.
    """
    if port.protocol == "UDP":
        return False
    networks = [text for text in announcing if (":" in text) is (port.family == "IPv6")]
    return bool(networks if port.admits is None else intersect(port.admits, networks))
