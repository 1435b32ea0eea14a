"""What is observed in one worker: a bounded ring, emptied whenever the control process asks.

    TcpConnection, UdpListener ──▶ ConnectionLog ──▶ RecordRing ◀──Observe── control process
                                                         └────────Observed──▶

Rule 1: nothing is sent unasked, so a worker never waits for a reader, and nothing queues for one
that doesn't ask: what doesn't fit is counted, before its fields are collected, for each filter
that may have taken it.
Rule 2: filters share the room equally, so one that takes everything displaces nothing of others.
Rule 3: a ring lasts as long as it is asked for; without one a connection costs one attribute test.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from ..dataplane.connection_log import ConnectionLog, Watch
from ..dataplane.engine import Engine
from ..facts.connection import ConnectionEvent, ConnectionFacts, ConnectionFilter, LeftOut
from ..facts.counters import GroupCounters
from ..model import SocketAddress
from .messages import OBSERVED_MAX, GroupReport, Observed

_DROPS = {
    GroupCounters.names.index("denied"): "packets of clients that aren't admitted",
    GroupCounters.names.index("dropped_datagrams"): "datagrams (mostly because a buffer was full)",
}
"""Figures without addresses of clients, by their places in a report."""


class RecordRing(Watch):
    """What one worker has observed since it was last asked.

    Args:
        engine: Its data plane's, whose connection log passes records on from now on.
        clock: Returns the Unix time.
    """

    def __init__(self, engine: Engine, clock: Callable[[], float] = time.time) -> None:
        self._engine = engine
        self._clock = clock
        self._filters: Sequence[ConnectionFilter] = ()
        self._records: list[ConnectionFacts] = []
        self._kept: list[int] = []
        """For each filter, how many of the records it takes."""
        self._left_out: list[int] = []
        """For each filter, how many it may have taken, if there had been room."""
        self._share = OBSERVED_MAX
        """The room that a filter has, whatever others take."""

    def observe(self, filters: Sequence[ConnectionFilter]) -> Observed:
        """Observe what one of these filters takes, from now on; none: nothing.

        Returns what was observed since the last call.
        """
        counted = zip(self._filters, self._left_out, strict=True)
        observed = Observed(self._records, [LeftOut(one, count) for one, count in counted if count])
        self._filters = filters
        self._share = OBSERVED_MAX // max(len(filters), 1)
        self._records, self._kept, self._left_out = [], [0] * len(filters), [0] * len(filters)
        engine, share = self._engine, self._engine.tuning.connection_log
        if not filters:
            engine.connection_log = ConnectionLog(share) if share else None
        elif engine.connection_log is None or not engine.connection_log.is_watching:
            engine.connection_log = ConnectionLog(share, watch=self)
        return observed

    def has_room(self, service: str, client_ip: str, *, is_plain: bool = False) -> bool:
        """Part of Watch."""
        full: list[int] = []
        for place, one in enumerate(self._filters):
            if one.may_take(service, client_ip, is_plain=is_plain):
                if self._kept[place] < self._share:
                    return True
                full.append(place)
        for place in full:
            self._left_out[place] += 1
        return False

    def put(self, one: ConnectionFacts, frontend: Callable[[], SocketAddress | None]) -> None:
        """Part of Watch."""
        takers = [place for place, each in enumerate(self._filters) if each.takes(one)]
        has_room = any(self._kept[place] < self._share for place in takers)
        counts = self._kept if has_room else self._left_out
        for place in takers:
            counts[place] += 1
        if has_room:
            one.at = self._clock()
            dialled = frontend()
            one.frontend = "" if dialled is None else str(dialled)
            self._records.append(one)

    def note_drops(self, service: str, report: GroupReport) -> None:
        """Note what was dropped at a Service port since its last report."""
        for place, what in _DROPS.items():
            if (count := report.figures[place]) > 0 and self.has_room(service, ""):
                one = ConnectionFacts(
                    event=ConnectionEvent.DROPPED, kind="", service=service, cause=what, count=count
                )
                self.put(one, _unknown)


def _unknown() -> None:
    return None
