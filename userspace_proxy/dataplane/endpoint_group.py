"""Owns one Service port's state on the data path: endpoints, their counters, and waiting clients.

    EndpointGroup ─┬─ balancers: which endpoint the next connection uses, and their loads
                   ├─ outcomes: results of dials; ejections and their log
                   ├─ waiting_room: clients that no endpoint can take
                   └─ counters (``CounterTable``)

An update changes all of these, and ends the flows to removed endpoints.
"""

from __future__ import annotations

import _socket
import math
from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType

from ..balance import AffinityTables
from ..causes.cause import CauseCode
from ..facts import AbortCounters, AfterWait, EndpointCounters
from ..facts.counters import CounterTable
from ..kernel.socket_options import packets_lost
from ..model import PortKey, SocketAddress
from ..model.port_ranges import DialledRange
from ..model.serving import Serving
from .balancers import Balancers
from .outcomes import Outcomes
from .reactor import Reactor
from .waiting_room import Waiting, WaitingRoom

# A client counts as having waited if its dial began this long after its arrival, which is earlier
# than any client gives up.
_WAITED_S = 0.3
# How long clients may still dial a changed range: steering rules change a moment after the workers,
# or seconds later if the kernel rejects them. After that, a dialled port of the old range may be
# the Service port's own.
_RULES_FOLLOW_S = 10.0
# Cost: nearly all Service ports share this mapping.
_NO_DETOURS: Mapping[SocketAddress, SocketAddress] = MappingProxyType({})
NONE_LEFT: Mapping[SocketAddress, float] = MappingProxyType({})


class EndpointGroup(CounterTable):
    """The endpoints of one Service port, for its listeners and their connections.

    A connection keeps its group until it ends, so the counters of a removed endpoint change until
    its last connection has ended, and remain in the sums.

    ``label`` is the key as text, for logs. ``start`` is the initial round-robin position, and the
    index of this process among ``processes``. ``entries`` are the engine's affinity tables.
    """

    __slots__ = (
        "_processes",
        "_ranges_left_at",
        "balancers",
        "detours",
        "key",
        "label",
        "left_at",
        "left_ranges",
        "on_removed",
        "outcomes",
        "prefixes",
        "reference",
        "sends_at_once",
        "serving",
        "waiting_room",
    )

    def __init__(
        self,
        key: PortKey,
        serving: Serving | None = None,
        *,
        start: int = 0,
        processes: int = 1,
        entries: AffinityTables | None = None,
    ) -> None:
        super().__init__()
        self.key = key
        # Cost: these texts are built once, here, because every connection uses them.
        self.label = str(key)
        self.reference = str(key.name)
        """The Service port's name without family and side."""
        self.prefixes = key.name.prefixes
        self.serving = serving or Serving()
        """How clients are served, as of the last :meth:`update`."""
        self.left_ranges: tuple[DialledRange, ...] = ()
        """The ranges before their last change; empty once :meth:`lately_left` finds it too old."""
        self._ranges_left_at = 0.0
        self.detours: Mapping[SocketAddress, SocketAddress] = _NO_DETOURS
        """Addresses at which endpoints are dialled instead of their own; nearly always empty."""
        self.left_at = NONE_LEFT
        """When endpoints last left. Recorded even if the Service doesn't end their connections,
        because this setting may change later (:meth:`note_left`)."""
        self.balancers = Balancers(
            self.serving,
            self,
            start=start,
            processes=processes,
            entries=entries,
            service=str(key.name.service),
        )
        self.outcomes = Outcomes(self.label, self, self.balancers, self._retry)
        self._detour()
        self.sends_at_once = False
        """Whether the last connection had bytes to send at its endpoint's answer (``HeldAcks``)."""
        self.waiting_room: WaitingRoom | None = None
        """The queue of waiting clients; None before the first client has waited."""
        self._processes = processes
        self.on_removed: list[Callable[[frozenset[SocketAddress], float], None]] = []
        """Called with the endpoints that an update has removed, or made standbys, for some or all
        clients."""

    def update(self, serving: Serving, now: float = 0.0) -> frozenset[SocketAddress]:
        """Change how clients are served; TCP connections to removed endpoints continue, flows end.

        Keeps the round-robin position, and the affinity entries and ejections of remaining
        endpoints. The slow start of new endpoints begins at ``now``. Returns the endpoints that
        some or all clients may no longer use.
        """
        old, self.serving = self.serving, serving
        if old.ranges and old.ranges != serving.ranges:
            self.left_ranges, self._ranges_left_at = old.ranges, now
        self._detour()
        self.balancers.change(serving, now)
        current = frozenset(serving.all_endpoints)
        removed = frozenset(old.all_endpoints) - current
        left = removed | old.gone_in(serving)
        gone = left.union(e for e in old.leaving if not self.balancers.serves_everyone(e))
        self._end_flows(gone.difference(serving.leaving))
        if removed:
            self.fold(current)
        self.outcomes.change(old, serving)
        if self.waiting_room is not None:
            self.waiting_room.update(serving.handling.waits, is_uniform=serving.is_uniform)
        return left

    def end_flows_to(self, endpoint: SocketAddress, *, begun_by: float) -> None:
        """End flows to an endpoint up to ``begun_by``, unless all clients may use it again."""
        if not self.balancers.serves_everyone(endpoint):
            self._end_flows(frozenset({endpoint}), begun_by)

    def _end_flows(self, endpoints: frozenset[SocketAddress], begun_by: float = math.inf) -> None:
        if endpoints:
            for callback in self.on_removed:
                callback(endpoints, begun_by)

    def lately_left(self, now: float) -> tuple[DialledRange, ...]:
        """Return the ranges before their last change; forget them once no rules can use them."""
        if now - self._ranges_left_at >= _RULES_FOLLOW_S:
            self.left_ranges = ()
        return self.left_ranges

    def waiting(self, now: float) -> Waiting:
        return Waiting() if self.waiting_room is None else self.waiting_room.waiting(now)

    def open_waiting_room(self, reactor: Reactor, *, is_at_limit: bool) -> WaitingRoom | None:
        """Return the waiting room for a client that no endpoint can take; None to refuse it.

        ``is_at_limit`` means that it waits for an endpoint at its limit; other waits are reported.
        """
        handling = self.serving.handling
        if handling.hold is None and not is_at_limit:
            return None
        if self.waiting_room is None:
            self.waiting_room = WaitingRoom(
                reactor,
                self._processes,
                self,
                handling.waits,
                is_uniform=self.serving.is_uniform,
            )
        news = self.outcomes.news
        if not (is_at_limit or self.waiting_room.lacks_endpoints or news is None):
            news.waiting()
        return self.waiting_room

    def abort_counters_of(
        self, counters: EndpointCounters, accepted_at: float, dialled_at: float | None
    ) -> AbortCounters:
        """Return the counters to update if a client leaves before an answer.

        Returns the endpoint's ``counters``, unless this client waited for its dial while the
        endpoint answered others: then the endpoint isn't to blame.
        """
        has_waited = dialled_at is not None and dialled_at - accepted_at >= _WAITED_S
        is_answering = counters.ends.succeeded_at >= accepted_at
        return AfterWait(self) if has_waited and is_answering else counters

    def note_saved(self, counters: EndpointCounters, failed: Collection[CauseCode]) -> None:
        """Count a connection that was answered after failed dials, as late if one was slow."""
        self.counters.saved += 1
        counters.late += any(code.traits.is_slow for code in failed)

    def former_endpoints(self) -> set[SocketAddress]:
        """Return the removed endpoints that still have connections."""
        current = self.serving.all_endpoints
        return {e for e, counters in self.each_counters() if counters.active and e not in current}

    def note_left(self, left_at: Mapping[SocketAddress, float], dialled_since: float) -> None:
        """Record when endpoints left, for endpoints that may still have connections.

        A dial to an endpoint that left after ``dialled_since`` may be in progress, without
        counters.
        """
        current = frozenset(self.serving.all_endpoints)
        self.left_at = {
            endpoint: at
            for endpoint, at in left_at.items()
            if endpoint in current
            or self.find_counters(endpoint) is not None
            or at >= dialled_since
        } or NONE_LEFT

    def count_lost(self, sock: _socket.socket, before: int) -> int:
        """Count packets that the kernel dropped at a listening socket; return the kernel's counter.

        If only some clients are admitted, the packets count as denied, because nearly all dropped
        packets come from other clients. ``before`` is the kernel's counter as of the last call.
        """
        lost = packets_lost(sock)
        new = (lost - before) & 0xFFFFFFFF
        # Cost: even adding 0 would mark the counters as changed, and cause a report.
        if new and self.serving.admits is None:
            self.counters.dropped_datagrams += new
        elif new:
            self.counters.denied += new
        return lost

    def _detour(self) -> None:
        self.detours = self.outcomes.detours = dict(self.serving.detours) or _NO_DETOURS

    def _retry(self) -> None:
        """Dial for the waiting clients because an endpoint answers again."""
        if self.waiting_room is not None:
            self.waiting_room.retry()
