"""Records the traffic of Service ports: a minute in steps of 1 s, ten minutes in steps of 10 s.

    page, streams ──views, every second────────┐
    agent ──────────counters, every 5 seconds──┴▶ History ─▶ rates, sparklines, charts

Rule 1: only increases of counters are recorded. A decrease is ignored: the counter was reset, or a
client that was counted as failed got a late answer.
Rule 2: a sample covers the time since the previous one if that is at most ``COVERED_S``. Time that
isn't covered is a gap, as is the time before a Service port was first seen.
Rule 3: memory is bounded. A Service port with traffic takes about 4 kB until ten minutes after its
last traffic, any other port only a small object. With more than ``KEPT_MAX`` ports, which would
take over 16 MB, ten minutes aren't kept, and the agent records no counters.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Hashable, Iterable, Sequence
from operator import attrgetter
from typing import NamedTuple

from ..facts import PortFacts

STEPS = 60
"""Values per series: seconds of the last minute, or steps of the last ten minutes."""
LONG_STEP_S = 10.0
"""The length of a step of the ten-minute series."""
KEPT_MAX = 4_000
"""With more Service ports than this, at most a minute is kept, and nothing while no page is
open."""
COVERED_S = 15.0
"""The maximum time that a sample covers: workers report every 5 s, and sampling a large node takes
seconds."""
# The number of seconds over which rates are averaged, because one-second rates fluctuate too much
# to read.
_AVERAGED = 3


class Figures(NamedTuple):
    """Counters of a Service port, their increases, or rates per second."""

    connections: float = 0
    received_bytes: float = 0
    sent_bytes: float = 0
    saved: float = 0
    """Connections whose first dial failed and that another endpoint served."""
    failed: float = 0
    """Clients that got no answer."""


def added(parts: Iterable[Figures]) -> Figures:
    """Return the sum of each figure."""
    return Figures(*map(sum, zip(Figures(), *parts, strict=True)))


class Curves(NamedTuple):
    """60 rates per figure, the oldest first; nan for steps that weren't measured."""

    connections: Sequence[float]
    received_bytes: Sequence[float]
    sent_bytes: Sequence[float]
    saved: Sequence[float]
    failed: Sequence[float]


Counted = Sequence[tuple[Hashable, Figures]]
"""The counters of all Service ports at one moment, with their keys."""

_NOTHING = Figures()
_GAP = math.nan
_figures_of = attrgetter(*Figures._fields)


class _Track:
    """The series of one Service port, or of all ports; ``tick`` is the number of a step."""

    __slots__ = ("_first", "_rings", "_written", "counters")

    def __init__(self, first: int, counters: Figures = _NOTHING) -> None:
        self.counters = counters
        self._first = first
        """The first tick with a value."""
        self._rings: tuple[array[float], ...] | None = None
        """A ring of values per figure; None without traffic in the last ``STEPS`` ticks."""
        self._written = 0
        """The tick of the last value; there was no traffic after it."""

    def write(self, ticks: range, rates: Figures) -> None:
        first, last = ticks[0], ticks[-1]
        if self._rings is None:
            self._rings = tuple(array("f", bytes(4 * STEPS)) for _ in Figures._fields)
        for ring, rate in zip(self._rings, rates, strict=True):
            for skipped in range(max(self._written + 1, last - STEPS + 1), first):
                ring[skipped % STEPS] = 0
            for tick in ticks:
                ring[tick % STEPS] = rate
        self._written = last

    def last(self, ticks: Sequence[int]) -> list[list[float]]:
        """Return the values of each figure at recent ticks; nan before the first tick."""
        values: list[list[float]] = []
        for ring in self._rings or (None,) * len(Figures._fields):
            kept = (
                _GAP
                if tick < self._first
                else ring[tick % STEPS]
                if ring and tick <= self._written
                else 0.0
                for tick in ticks
            )
            values.append(list(kept))
        return values

    def is_busy(self, tick: int) -> bool:
        return self._rings is not None and tick - self._written < _AVERAGED

    def shrink(self, tick: int) -> None:
        """Drop the values if all of them are too old."""
        if tick - self._written >= STEPS:
            self._rings = None


class _Scale:
    """One proxy's history at one resolution: the last 60 steps of ``step_s`` seconds."""

    def __init__(self, step_s: float) -> None:
        self._step_s = step_s
        self._tracks: dict[Hashable, _Track] = {}
        self._all = _Track(2)
        self._covered = bytearray(STEPS)
        """Whether a sample covers each of the last ticks, by tick modulo ``STEPS``."""
        self.tick = 0
        """The number of the last step; the first step, 1, has no value."""
        self._began = 0.0
        self.at = float("-inf")
        """Monotonic seconds of the last value."""

    @property
    def has_rates(self) -> bool:
        return bool(self._covered[self.tick % STEPS])

    def note(self, samples: Counted, at: float, *, is_covered: bool) -> None:
        """Add a sample for the steps since the last sample; ignore a second sample for a step."""
        if not self.tick:
            self._began = at
        elapsed_s = at - self.at
        last = 1 + int((at - self._began) / self._step_s)
        ticks = range(max(self.tick + 1, last - STEPS + 1), last + 1)
        if not ticks:
            return
        for tick in ticks:
            self._covered[tick % STEPS] = is_covered
        self.at, self.tick = at, ticks[-1]
        known, tracks = self._tracks, {}
        sums = [0.0] * len(Figures._fields)
        for key, counters in samples:
            track = tracks[key] = known.get(key) or _Track(self.tick + 1, counters)
            before, track.counters = track.counters, counters
            if counters is before or counters == before:
                track.shrink(self.tick)
            elif is_covered:
                rates = _rates(before, counters, elapsed_s)
                track.write(ticks, rates)
                sums = [a + b for a, b in zip(sums, rates, strict=True)]
        self._tracks = tracks
        if any(sums):
            self._all.write(ticks, Figures(*sums))
        else:
            self._all.shrink(self.tick)

    def rates(self, key: Hashable | None) -> Figures:
        track = self._track(key)
        if track is None or not track.is_busy(self.tick):
            return _NOTHING
        ticks = [t for t in range(self.tick - _AVERAGED + 1, self.tick + 1) if self._has(t)]
        values = ([one for one in series if one >= 0] for series in track.last(ticks))
        return Figures(*(sum(known) / max(1, len(known)) for known in values))

    def series(self, key: Hashable | None) -> Curves | None:
        track = self._track(key)
        if track is None:
            return None
        ticks = range(self.tick - STEPS + 1, self.tick + 1)
        gaps = [not self._has(tick) for tick in ticks]
        series = Curves(
            *(
                [_GAP if is_gap else one for is_gap, one in zip(gaps, values, strict=True)]
                for values in track.last(ticks)
            )
        )
        return series if any(one > 0 for values in series for one in values) else None

    def is_busy(self, key: Hashable) -> bool:
        track = self._tracks.get(key)
        return track is not None and track.is_busy(self.tick)

    def _has(self, tick: int) -> bool:
        return tick > 0 and bool(self._covered[tick % STEPS])

    def _track(self, key: Hashable | None) -> _Track | None:
        return self._all if key is None else self._tracks.get(key)


class History:
    """The history of one proxy's traffic."""

    def __init__(self) -> None:
        self._minute = _Scale(1.0)
        self._long = _Scale(LONG_STEP_S)
        self._at = float("-inf")
        """Monotonic seconds of the last sample."""

    @property
    def has_rates(self) -> bool:
        return self._minute.has_rates

    @property
    def long_age_s(self) -> float:
        """Seconds between the end of the last ten-second step and the last sample."""
        return self._at - self._long.at

    def note(self, ports: Iterable[PortFacts], at: float) -> None:
        """Add a sample that was taken at the monotonic time ``at``."""
        self.record([(port.plan.key, Figures(*_figures_of(port))) for port in ports], at)

    def record(self, samples: Counted, at: float) -> None:
        """Add a sample of all Service ports' counters at the monotonic time ``at``."""
        is_covered = at - self._at <= COVERED_S
        self._at = at
        self._minute.note(samples, at, is_covered=is_covered)
        if len(samples) <= KEPT_MAX:
            self._long.note(samples, at, is_covered=is_covered)
        else:
            self._long = _Scale(LONG_STEP_S)

    def rates(self, key: Hashable | None = None) -> Figures:
        """Return the average rates of the last three seconds, of a Service port or of all ports."""
        return self._minute.rates(key)

    def minute(self, key: Hashable | None = None) -> Curves | None:
        """Return the last minute of a Service port, or of all ports; None without traffic."""
        return self._minute.series(key)

    def ten_minutes(self, key: Hashable | None = None) -> Curves | None:
        """Return the last ten minutes, like :meth:`minute`; values are ten-second averages."""
        return self._long.series(key)

    def is_busy(self, key: Hashable) -> bool:
        """Return whether a Service port had traffic in the last three seconds."""
        return self._minute.is_busy(key)


def _rates(before: Figures, after: Figures, elapsed_s: float) -> Figures:
    return Figures(
        *(max(0, now - then) / elapsed_s for then, now in zip(before, after, strict=True))
    )


IDLE = History()
"""A history without samples, for answers that show no rates."""
