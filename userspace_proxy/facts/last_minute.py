"""Counts a Service port's clients in the last minute, and clients that got no timely answer.

    workers ──by endpoint──▶ LastMinute ──▶ MinuteCounts ──why, where──▶ LastMinuteFacts (JSON)
                              └ parts of 5 s ──▶ sums of the last 12

Counters since startup hide current events, such as ten failures among a million connections. The
present state hides recent events: an endpoint that crashes repeatedly answers in between.

Rule 1: the JSON contains these fields, which are summed; within a version, fields are only added.
Rule 2: a part expires as a whole, so sums decrease only every 5 s.
Rule 3: memory is bounded: a Service port without clients keeps only ``flaps``, if any.
Rule 4: clients that leave are counted only if other clients left at another moment: when a client
program stops, all its connections are closed together, whatever the endpoint does.
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
"""How long a failure or a client's mistake counts as recent: longer than the interval of probes to
an endpoint that no client dials (``agent.watchers.ejected``)."""
# The number of parts in the last minute, including the current one.
_PARTS = 12
_PART_S = LAST_MINUTE_S / _PARTS
# Client aborts within this time count as one event, because workers report the aborts of one event
# within milliseconds of each other.
_APART_S = 1.0


class MinuteCounts(msgspec.Struct, frozen=True, gc=False):
    """Counts of the last minute, or of a part of it."""

    connections: int = 0
    """Connections (flows), counted like the port's ``connections``, but without ``queued``."""
    refused: int = 0
    """Clients that no endpoint answered, without the clients in ``queued``."""
    unanswered: int = 0
    """Connections that the endpoint closed or reset before its first byte, and flows that got no
    answer for two seconds."""
    client_aborts: int = 0
    """Connections that clients left after waiting for the first byte; 0 if all left at one
    moment."""
    endpoint_aborts: int = 0
    """Connections that the endpoint reset after it had sent bytes, or that clients left because
    packets were lost."""
    queued: int = 0
    """Clients that got no answer because they had to wait for an endpoint: they left or timed out,
    during the wait or after it."""
    late: int = 0
    """Flows whose first answer came after more than two seconds, which no other count includes, and
    connections that another endpoint saved from a silent endpoint."""
    removed: int = 0
    """Connections reset because their endpoint was removed (``ended_by_removal``)."""
    idle: int = 0
    """Connections that this proxy reset because they were idle (``ended_idle``)."""
    unanswered_requests: int = 0
    """Connections that ended while another answer was due."""
    flaps: int = 0
    """The number of times that the last endpoint left, so that clients were refused (no ``hold``);
    not a number of clients."""

    def counts(self) -> tuple[int, ...]:
        return _counts_of(self)


MINUTE_NAMES = counted_names(MinuteCounts)
"""The names of the counts, in order."""
_counts_of = attrgetter(*MINUTE_NAMES)


class LastMinuteFacts(MinuteCounts, frozen=True, gc=False, kw_only=True):
    """The last minute, if some clients got no answer or a late answer, or endpoints flapped."""

    cause: Cause | None = None
    """Why most clients failed, from the last such failure of an endpoint that has answered since;
    null if unknown."""
    was_many: bool = False
    """Whether the previous state was ``partly answering``: half of the share at which this state
    begins is enough to keep it."""
    is_unusual: bool = False
    """Whether ``unanswered_requests`` is unusual: few earlier connections to these endpoints, or
    few connections to another endpoint, ended like this."""
    have_left: bool = False
    """Whether the endpoints with most of the failures are no longer used: they were removed, or
    aren't ready."""


_NOTHING = MinuteCounts()


class LastMinute:
    """The last minute of one Service port."""

    __slots__ = ("_failed_at", "_left_at", "_parts")

    def __init__(self) -> None:
        self._parts: tuple[tuple[int, MinuteCounts], ...] = ()
        """The parts, each with its number; the latest part is last."""
        self._failed_at = -math.inf
        self._left_at: tuple[float, ...] = ()
        """Monotonic seconds of the last two moments at which clients left."""

    def add(self, new: MinuteCounts, now: float) -> None:
        """Add the counts since the last call; ``now`` is in monotonic seconds."""
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
        """Return the sums of the last minute; all 0, even ``connections``, without a failure.

        Each count except ``connections`` counts as a failure.
        """
        if now - self._failed_at >= LAST_MINUTE_S:
            return _NOTHING
        oldest = int(now // _PART_S) - _PARTS
        sums = _sum(part for number, part in self._parts if number > oldest)
        # A sum is negative if failures of an expired part were taken back since then.
        sums = MinuteCounts(*(max(0, count) for count in sums.counts()))
        if sum(now - at < LAST_MINUTE_S for at in self._left_at) < 2:
            sums = replace(sums, client_aborts=0)
        return sums if any(sums.counts()[1:]) else _NOTHING


def _sum(parts: Iterable[MinuteCounts]) -> MinuteCounts:
    counts = (part.counts() for part in (_NOTHING, *parts))
    return MinuteCounts(*map(sum, zip(*counts, strict=True)))
