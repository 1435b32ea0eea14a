"""The clients of one Service port in the last minute, and those that got no answer in time.

    workers ──by endpoint──▶ LastMinute ──▶ MinuteCounts ──why, where──▶ LastMinuteFacts (JSON)
                              └ parts of 5 s ──▶ sums of the last 12

Counters since the start hide what happens now: of a million connections, ten failed. And what is so
now hides what was so a moment ago: an endpoint that ends again and again answers in between.

Rule 1: a field is one of the JSON, and of what is added up: within a version they are only added.
Rule 2: a part ends as a whole, so sums change slowly.
Rule 3: memory has a bound: nothing is kept for a Service port without clients, except that its last
endpoint left.
Rule 4: clients that leave count only if others left at another moment: those of a program that is
stopped leave at once, whatever the endpoint does.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from operator import attrgetter

import msgspec
from msgspec.structs import replace

from ..causes.cause import Cause
from .figures import counted_names

LAST_MINUTE_S = 60.0
"""For how long a failure, or a client's mistake, is news: longer than a probe of an endpoint that
no client dials takes to come (``plane.ejected``)."""
# Of that time, the present one included.
_PARTS = 12
_PART_S = LAST_MINUTE_S / _PARTS
# Between two moments at which clients leave: workers report one within milliseconds.
_APART_S = 1.0


class MinuteCounts(msgspec.Struct, frozen=True, gc=False):
    """What was counted in the last minute, or a part of it."""

    connections: int = 0
    """Connections (flows), as counted since the start, without those of ``queued``."""
    refused: int = 0
    """Clients that no endpoint answered, without those of ``queued``."""
    unanswered: int = 0
    """Of the connections, those that the endpoint ended or reset before its first byte; of the
    flows, those without an answer for two seconds."""
    client_aborts: int = 0
    """Of the connections, those that clients left after they had waited for the first byte; 0 if
    all left at one moment."""
    endpoint_aborts: int = 0
    """Of the connections, those that the endpoint reset after it had sent bytes, or that clients
    left as packets were lost."""
    queued: int = 0
    """Clients that got no answer as they had to wait for an endpoint: they left, or their time was
    up, in their wait or after it."""
    late: int = 0
    """Of the flows, those whose first datagram came, but after two seconds; no others count it. Of
    the connections, those that were saved from an endpoint that was silent."""
    removed: int = 0
    """Connections that were reset because their endpoint had left (``ended_by_removal``)."""
    idle: int = 0
    """Connections that this proxy reset as they were idle (``ended_idle``)."""
    unanswered_requests: int = 0
    """Of the connections, those that ended while a further answer was due."""
    flaps: int = 0
    """No clients: how often the last endpoint left, so that clients are refused (no ``hold``)."""

    def counts(self) -> tuple[int, ...]:
        return _counts_of(self)


MINUTE_NAMES = counted_names(MinuteCounts)
"""The names of the counts, in their order."""
_counts_of = attrgetter(*MINUTE_NAMES)


class LastMinuteFacts(MinuteCounts, frozen=True, gc=False, kw_only=True):
    """The clients of the last minute if some got no or a late answer, or there were flaps."""

    cause: Cause | None = None
    """Why most of them failed, by the last such failure of an endpoint that has answered since;
    null if it isn't known."""
    was_many: bool = False
    """The state before was ``partly answering``: half of the share that begins it keeps it up."""
    is_unusual: bool = False
    """Of ``unanswered_requests``: before, few connections to its endpoints ended so."""
    have_left: bool = False
    """The endpoints at which most of them failed aren't used any more: they have left the Service,
    or aren't ready."""


_NOTHING = MinuteCounts()


class LastMinute:
    """The last minute of one Service port."""

    __slots__ = ("_failed_at", "_left_at", "_parts")

    def __init__(self) -> None:
        self._parts: tuple[tuple[int, MinuteCounts], ...] = ()
        """With their numbers, the latest last."""
        self._failed_at = -math.inf
        self._left_at: tuple[float, ...] = ()
        """The last two moments at which clients left."""

    def add(self, new: MinuteCounts, now: float) -> None:
        """Add what was counted until now, monotonic seconds, since the last call."""
        counts = new.counts()
        if not any(counts):
            return
        if any(counts[1:]):
            self._failed_at = now
        if new.client_aborts > 0 and (not self._left_at or now - self._left_at[-1] >= _APART_S):
            self._left_at = (*self._left_at[-1:], now)
        number = int(now // _PART_S)
        before = (part for n, part in self._parts if n == number)
        others = (each for each in self._parts if number - _PARTS < each[0] != number)
        self._parts = (*others, (number, _sum((*before, new))))

    def failing(self, now: float) -> MinuteCounts:
        """Return the sums of the last minute, or nothing if all clients were answered in time.

        What counts as that is all but the connections.
        """
        if now - self._failed_at >= LAST_MINUTE_S:
            return _NOTHING
        oldest = int(now // _PART_S) - _PARTS
        sums = _sum(part for number, part in self._parts if number > oldest)
        # What was counted before may have been taken back since.
        sums = MinuteCounts(*(max(0, count) for count in sums.counts()))
        if sum(now - at < LAST_MINUTE_S for at in self._left_at) < 2:
            sums = replace(sums, client_aborts=0)
        return sums if any(sums.counts()[1:]) else _NOTHING


def _sum(parts: Iterable[MinuteCounts]) -> MinuteCounts:
    counts = (part.counts() for part in (_NOTHING, *parts))
    return MinuteCounts(*map(sum, zip(*counts, strict=True)))
