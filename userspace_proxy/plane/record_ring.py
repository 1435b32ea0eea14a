"""Records one worker's observations in a bounded ring, which the control process empties.

    TcpConnection, UdpFlow ──▶ ConnectionLog ──▶ RecordRing ◀──Observe── control process
                                                     └────────Observed──▶

Rule 1: records are sent only on request, so a worker never waits for a reader, and no queue grows
for an idle reader. A record that doesn't fit is only counted, for each filter that may match it,
before its fields are collected.
Rule 2: a single filter may fill the ring. Once the ring is full, a record of a filter with at least
two fewer records replaces the newest record of the filter with the most; a record that several
filters match counts for the filter with the fewest. Filters without records therefore reserve no
room, and a filter that matches everything doesn't displace the records of other filters.
Rule 3: connections are recorded only while observation is requested; otherwise a connection costs
one attribute test.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import NamedTuple, Protocol

from ..clocks import Clocks
from ..dataplane import Tuning
from ..dataplane.connection_log import ConnectionLog, Watch
from ..facts.connection import (
    ConnectionEvent,
    ConnectionFacts,
    ConnectionFilter,
    LeftOut,
    port_fields,
)
from ..facts.counters import GroupCounters
from ..model import PortKey, SocketAddress
from .messages import OBSERVED_MAX, GroupReport, Observed

_DROPS = {
    GroupCounters.names.index(
        "denied"
    ): "packets that source ranges or traffic policy Local don't admit",
    GroupCounters.names.index("dropped_datagrams"): "datagrams (mostly because a buffer was full)",
}
"""What was dropped from unknown clients, by the position of its figure in a report."""


class Logging(Protocol):
    """The owner of a connection log to which the ring subscribes, such as a data plane's engine."""

    @property
    def tuning(self) -> Tuning:
        """Contains the share of connections that are logged."""

    connection_log: ConnectionLog | None


class _Kept(NamedTuple):
    """A record, with the indexes of the filters that match it."""

    record: ConnectionFacts
    takers: Sequence[int]


class RecordRing(Watch):
    """The observations of one worker since the last request.

    Args:
        engine: The engine whose connection log passes records to this ring while there are filters.
        clock: Returns the Unix time.
    """

    def __init__(self, engine: Logging, clock: Callable[[], float] = Clocks.time) -> None:
        self._engine = engine
        self._clock = clock
        self._filters: Sequence[ConnectionFilter] = ()
        self._records: dict[int, _Kept] = {}
        """Records by number, the oldest first."""
        self._numbers = itertools.count()
        self._counted: list[list[int]] = []
        """For each filter, the numbers of the records that count for it, the oldest first."""
        self._left_out: list[int] = []
        """For each filter, how many records that may match it didn't fit."""
        self._limit = 0
        """A filter has room if fewer records than this count for it."""

    def observe(self, filters: Sequence[ConnectionFilter]) -> Observed:
        """Return the observations since the last call; observe matching connections from now on.

        An empty list of filters stops observation.
        """
        counted = zip(self._filters, self._left_out, strict=True)
        records = [kept.record for kept in self._records.values()]
        observed = Observed(records, [LeftOut(one, number) for one, number in counted if number])
        self._filters, self._left_out = filters, [0] * len(filters)
        self._records, self._counted = {}, [[] for _ in filters]
        self._limit = OBSERVED_MAX
        engine, share = self._engine, self._engine.tuning.connection_log
        if not filters:
            engine.connection_log = ConnectionLog(share) if share else None
        elif engine.connection_log is None or engine.connection_log.watch is None:
            engine.connection_log = ConnectionLog(share, watch=self)
        return observed

    def has_room(
        self, prefixes: Collection[str], client_ip: str, *, is_plain: bool = False
    ) -> bool:
        full: list[int] = []
        for place, one in enumerate(self._filters):
            if one.may_take(prefixes, client_ip, is_plain=is_plain):
                if len(self._counted[place]) < self._limit:
                    return True
                full.append(place)
        self._leave_out(full)
        return False

    def put(self, one: ConnectionFacts, frontend: Callable[[], SocketAddress | None]) -> None:
        takers = [place for place, each in enumerate(self._filters) if each.takes(one)]
        if not takers:
            return
        counted = min((self._counted[place] for place in takers), key=len)
        if len(counted) >= self._limit:
            self._leave_out(takers)
            return
        if len(self._records) >= OBSERVED_MAX:
            self._leave_out(self._records.pop(max(self._counted, key=len).pop()).takers)
        one.at = self._clock()
        dialled = frontend()
        one.frontend = "" if dialled is None else str(dialled)
        number = next(self._numbers)
        self._records[number] = _Kept(one, takers)
        counted.append(number)
        if len(self._records) >= OBSERVED_MAX:
            self._limit = max(map(len, self._counted)) - 1

    def leave_out(self, prefixes: Collection[str], count: int) -> None:
        """Count omitted connections of a Service port for each filter that matches the port."""
        for place, one in enumerate(self._filters):
            if one.takes_service(prefixes):
                self._left_out[place] += count

    def _leave_out(self, places: Iterable[int]) -> None:
        for place in places:
            self._left_out[place] += 1

    def note_drops(self, key: PortKey, report: GroupReport) -> None:
        """Record the drops on a Service port since its last report."""
        for place, what in _DROPS.items():
            if (count := report.figures[place]) > 0 and self.has_room(key.name.prefixes, ""):
                one = ConnectionFacts(
                    event=ConnectionEvent.DROPPED,
                    kind="",
                    cause=what,
                    count=count,
                    **port_fields(key),
                )
                self.put(one, lambda: None)
