"""Ends connections to removed endpoints if the Service requests it.

    an update leaves an endpoint out ──▶ removal_s later ──▶ RST to both sides
                                     └── it returns earlier ──▶ nothing happens

Rule 1: an endpoint has left if new connections may not use it: it was removed, is no longer ready,
or an endpoint of a better priority serves instead. The last such change counts.
Rule 2: only connections dialled before the endpoint left are reset: later dials were intended.
Rule 3: UDP flows end at once, except flows to a terminating endpoint that still serves: they end
with the connections, or earlier, when the endpoint stops serving. Like connections, flows of
clients that may still use the endpoint continue.
Rule 4: connections are checked in slices, so that thousands of them don't block the loop; they
aren't checked at all if no Service requests this.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator
from itertools import islice
from typing import NamedTuple

from ..model import SocketAddress
from ..model.connection_ends import EndReason
from .endpoint_group import NONE_LEFT, EndpointGroup
from .engine import Engine
from .tcp import TcpConnection

# The maximum number of connections checked per iteration of the loop; a reset takes 20 µs.
_SLICE = 256
# The delay after which a connection whose dial is still in progress is checked again.
_AGAIN_S = 1.0

_Pair = tuple[EndpointGroup, SocketAddress]


class _Left(NamedTuple):
    at: float
    due: float


class Removals:
    """Resets connections and ends UDP flows to endpoints that have left, once they are due."""

    def __init__(self, engine: Engine, connections: Collection[TcpConnection]) -> None:
        self._loop, self._clock = engine.loop, engine.clock
        self._dials_s = engine.tuning.client_timeout_s
        """The maximum duration of all dials for one client, in seconds."""
        self._connections = connections
        self._left: dict[_Pair, _Left] = {}
        self._timer: asyncio.TimerHandle | asyncio.Handle | None = None
        self._rest: Iterator[TcpConnection] | None = None
        """Connections yet to be checked; None between two checks."""
        self._ending: dict[_Pair, _Left] = {}
        """Endpoints whose connections end now."""

    def updated(self, group: EndpointGroup, left: Collection[SocketAddress]) -> None:
        """Record which endpoints have left in an update of a group, and which have returned."""
        seconds = group.serving.handling.removal_s
        if seconds is None and not (left or self._left):
            return
        now = self._clock()
        known = {e: since.at for (each, e), since in self._left.items() if each is group}
        for endpoint in known:
            del self._left[group, endpoint]
        known.update(dict.fromkeys(left, now))
        left_at = {**group.left_at, **known}
        if seconds is None:
            group.note_left(left_at, now - self._dials_s)
        else:
            # Include endpoints removed earlier: this update may be the first that requests resets.
            for endpoint in {*left_at, *group.former_endpoints()}:
                if not group.balancers.serves_everyone(endpoint):
                    at, since = left_at.get(endpoint, now), known.get(endpoint, now)
                    self._left[group, endpoint] = _Left(at, since + seconds)
            group.left_at = NONE_LEFT
        if self._rest is None:
            self._set_timer()

    def close(self) -> None:
        """Stop ending connections. Idempotent."""
        self._left.clear()
        self._rest = None
        self._set_timer()

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._left:
            due = min(left.due for left in self._left.values())
            self._timer = self._loop.call_later(max(0.0, due - self._clock()), self._begin)

    def _begin(self) -> None:
        now = self._clock()
        self._ending = {pair: left for pair, left in self._left.items() if left.due <= now}
        for pair, left in self._ending.items():
            del self._left[pair]
            pair[0].end_flows_to(pair[1], begun_by=left.at)
        self._rest = iter(list(self._connections) if self._ending else ())
        self._continue()

    def _continue(self) -> None:
        assert self._rest is not None, "a look has begun"
        part = list(islice(self._rest, _SLICE))
        for connection in part:
            self._look_at(connection)
        if part:
            self._timer = self._loop.call_soon(self._continue)
            return
        self._rest = None
        self._ending = {}
        self._set_timer()

    def _look_at(self, connection: TcpConnection) -> None:
        group, endpoint = connection.group, connection.endpoint
        if endpoint is None or connection.is_closed:
            return
        left = self._ending.get((group, endpoint))
        if left is None or connection.began_at is None or connection.began_at > left.at:
            return
        if group.balancers.current.serves(connection.client_ip, endpoint):
            return
        if connection.up is None:
            self._left.setdefault((group, endpoint), left._replace(due=self._clock() + _AGAIN_S))
        else:
            group.counters.ended_by_removal += 1
            connection.finish(EndReason.ENDPOINT_REMOVED, as_reset=True)
