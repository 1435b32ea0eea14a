"""The last minute of each Service port: what it carried in each second, and rates.

    views, one a second ──▶ History ──▶ rates per second, 60 values for a sparkline

Rule 1: only differences of counters count. A counter that falls begins again from zero.
Rule 2: memory is bounded: a Service port that carries nothing takes one small object, any other
one 60 values for each of five figures.
Rule 3: a sample covers all the time since the last one. If that was a minute ago, the history
begins again.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from operator import attrgetter
from typing import NamedTuple

from ..facts import PortFacts
from ..plan import PortKey

SECONDS = 60
# Rates are averages over this many seconds: those of one second are too restless to read.
_AVERAGED = 3


class Figures(NamedTuple):
    """Counters of a Service port, what they grew by, or rates per second."""

    connections: float = 0
    received_bytes: float = 0
    sent_bytes: float = 0
    saved: float = 0
    """Connections whose first dial failed and that another endpoint answered."""
    failed: float = 0
    """Clients that got no answer."""


class Minute(NamedTuple):
    """60 rates of each figure, the oldest first."""

    connections: Sequence[float]
    received_bytes: Sequence[float]
    sent_bytes: Sequence[float]
    saved: Sequence[float]
    failed: Sequence[float]


_NOTHING = Figures()
_COUNTERS = attrgetter(*Figures._fields)


class _Track:
    """The last minute of one Service port, or of all; ``tick`` is the number of a second."""

    __slots__ = ("_rings", "_written", "counters")

    def __init__(self, counters: Figures = _NOTHING) -> None:
        self.counters = counters
        self._rings: tuple[array[float], ...] | None = None
        """One for each figure; None while nothing was carried."""
        self._written = 0
        """The tick of the last value; after it, nothing was carried."""

    def write(self, ticks: range, rates: Figures) -> None:
        first, last = ticks[0], ticks[-1]
        if self._rings is None:
            self._rings = tuple(array("f", bytes(4 * SECONDS)) for _ in Figures._fields)
        for ring, rate in zip(self._rings, rates, strict=True):
            for skipped in range(max(self._written + 1, last - SECONDS + 1), first):
                ring[skipped % SECONDS] = 0
            for tick in ticks:
                ring[tick % SECONDS] = rate
        self._written = last

    def last(self, tick: int, count: int) -> list[Sequence[float]]:
        """Return that many last values of each figure, the oldest first."""
        ticks = range(tick - count + 1, tick + 1)
        if self._rings is None or ticks[0] > self._written:
            return [(0.0,) * count for _ in Figures._fields]
        return [
            [ring[one % SECONDS] if one <= self._written else 0.0 for one in ticks]
            for ring in self._rings
        ]

    def is_busy(self, tick: int) -> bool:
        return self._rings is not None and tick - self._written < _AVERAGED


class History:
    """The last minute of one proxy."""

    def __init__(self) -> None:
        self._tracks: dict[PortKey, _Track] = {}
        self._all = _Track()
        self._tick = 0
        """The number of the last second; from 1."""
        self._began = 0.0
        self._at = float("-inf")
        """The time of the last sample."""

    @property
    def has_rates(self) -> bool:
        """Whether there are two samples, and so rates."""
        return self._tick > 1

    def note(self, ports: Iterable[PortFacts], at: float) -> None:
        """Add a sample at monotonic seconds; without effect if there is one in this second."""
        elapsed_s = at - self._at
        if elapsed_s >= SECONDS:
            self._tracks, self._all = {}, _Track()
            self._began, self._tick = at, 0
        ticks = range(self._tick + 1, 2 + int(at - self._began))
        if not ticks:
            return
        self._at, self._tick = at, ticks[-1]
        known, tracks = self._tracks, {}
        sums = [0.0] * len(Figures._fields)
        for port in ports:
            key, counters = port.plan.key, Figures(*_COUNTERS(port))
            track = tracks[key] = known.get(key) or _Track(counters)
            before, track.counters = track.counters, counters
            if counters != before:
                rates = _rates(before, counters, elapsed_s)
                track.write(ticks, rates)
                sums = [a + b for a, b in zip(sums, rates, strict=True)]
        self._tracks = tracks
        if any(sums):
            self._all.write(ticks, Figures(*sums))

    def rates(self, key: PortKey | None = None) -> Figures:
        """Return the current rates of a Service port, or of all together."""
        track = self._track(key)
        if track is None or not track.is_busy(self._tick):
            return _NOTHING
        count = max(1, min(_AVERAGED, self._tick - 1))
        return Figures(*(sum(values) / count for values in track.last(self._tick, count)))

    def minute(self, key: PortKey | None = None) -> Minute | None:
        """Return the last minute of a Service port, or of all together; None if all is 0."""
        track = self._track(key)
        if track is None:
            return None
        minute = Minute(*track.last(self._tick, SECONDS))
        return minute if any(map(any, minute)) else None

    def is_busy(self, key: PortKey) -> bool:
        """Return whether a Service port carried anything in the last seconds."""
        track = self._tracks.get(key)
        return track is not None and track.is_busy(self._tick)

    def _track(self, key: PortKey | None) -> _Track | None:
        return self._all if key is None else self._tracks.get(key)


def _rates(before: Figures, after: Figures, elapsed_s: float) -> Figures:
    return Figures(
        *(
            (now - then if now >= then else now) / elapsed_s
            for then, now in zip(before, after, strict=True)
        )
    )


IDLE = History()
"""A history without samples, for answers that show no rates."""
