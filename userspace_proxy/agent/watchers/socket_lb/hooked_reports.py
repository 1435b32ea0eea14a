"""Converts the counters and events of the connect() hooks to reports in the workers' form.

    counters, absolute ──▶ compare, look ──differences──▶ GroupReport
    events, probes ──────▶ failed, returned ────────────▶ GroupReport

Rule 1: a failed dial counts as one failure in its streak, whether an event or the counters show it
first.
Rule 2: counters have no times, so a failure without an event is dated at the check that finds it.
It extends the streak of an ejected endpoint, whose successes at the same check are dated before it.
At another endpoint it belongs to no streak: all endpoints for that client were ejected, or the ring
had no room for the event.
Rule 3: counts of an earlier process aren't reported again, except open connections.
"""

from __future__ import annotations

import errno
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ....causes.endpoints import DIAL_CODES
from ....facts import EndpointCounters, GroupCounters, StreakPart
from ....model import DialFailure, Failure, PortKey, SocketAddress
from ....plane import Group
from ....plane.messages import DurationReport, EndpointReport, GroupReport
from ....steering.socket_lb.desired import At
from ....steering.socket_lb.socket_maps import DialCounts

REFUSED = DialFailure(Failure.REFUSED, errno.ECONNREFUSED)
UNANSWERED = DialFailure(Failure.SILENT, errno.ETIMEDOUT)
_NEVER = -1.0
_NOTHING = DialCounts()
_COUNTER_OF = {
    failed: DIAL_CODES[failed.failure].replace("-", "_") for failed in (REFUSED, UNANSWERED)
}


@dataclass(slots=True)
class _Failing:
    """The failures of one endpoint of one Service port, as reported by events."""

    noted: int = 0
    """The number of failed dials that the counters haven't shown yet."""
    failed: DialFailure = UNANSWERED
    """The last failure."""
    at: float = _NEVER
    """When the last failure happened, in monotonic seconds."""


_NEVER_FAILED = _Failing()


class _Change(NamedTuple):
    """The counters of one endpoint at the last check, and now; None if they were removed."""

    endpoint: SocketAddress
    before: DialCounts
    now: DialCounts | None


class Unreported(NamedTuple):
    """Failed dials without an event, of an endpoint that isn't ejected."""

    endpoint: SocketAddress
    failure: Failure
    failures: int


class News(NamedTuple):
    """The changes of one Service port since the last report."""

    report: GroupReport
    connections: int
    unreported: Sequence[Unreported]
    lost: int
    """The number of closed connections whose events are missing."""


class _Growth(NamedTuple):
    """The change of an endpoint's counters."""

    endpoint: SocketAddress
    counts: DialCounts
    """The differences of the counters."""
    dials: StreakPart | None = None
    unreported: int = 0
    """The number of failed dials that belong to no streak, and have no event."""

    def report(self) -> EndpointReport:
        """Return the report that a worker would send for this change."""
        new, counters = self.counts, EndpointCounters()
        counters.connections = counters.preserved = new.established
        counters.active = new.established - new.ended
        # The hooks count from the client's view: bytes sent by the endpoint are "received".
        counters.received_bytes, counters.sent_bytes = new.sent, new.received
        counters.failures = new.refused + new.unanswered
        setattr(counters, _COUNTER_OF[REFUSED], new.refused)
        setattr(counters, _COUNTER_OF[UNANSWERED], new.unanswered)
        return EndpointReport(self.endpoint, counters.figures(), self.dials)

    def suspected(self) -> Unreported:
        """Return the dials that failed without an event, for which the endpoint is suspected."""
        failed = REFUSED if self.counts.refused else UNANSWERED
        return Unreported(self.endpoint, failed.failure, self.unreported)


class Reports:
    """Converts the counters and events of one proxy's hooks to reports of what has changed.

    Args:
        now: Monotonic seconds.
    """

    def __init__(self, now: float) -> None:
        self._counts: dict[At, DialCounts] = {}
        """The counters as last reported."""
        self._failing: dict[At, _Failing] = {}
        self._looked_at = now
        self._ejected: dict[PortKey, dict[SocketAddress, float]] = {}
        """The ejected endpoints by Service port, with the monotonic seconds from which a dial is a
        probe."""
        self.news = 0
        """The number of begun or ended ejections; if it grows, an earlier reading is outdated."""

    def is_ejected(self, name: PortKey, endpoint: SocketAddress) -> bool:
        return endpoint in self._ejected.get(name, ())

    def noted(self, name: PortKey, endpoint: SocketAddress) -> None:
        """Record an event of a failed dial; only :meth:`failed` makes it part of a streak."""
        self._failing.setdefault((name, endpoint), _Failing()).noted += 1

    def failed(
        self,
        group: Group,
        endpoint: SocketAddress,
        failed: DialFailure,
        count: int,
        at: float,
        until: float,
    ) -> GroupReport:
        """Record failed dials that have ejected an endpoint for all clients; return the report.

        Args:
            count: The number of failed dials; each was :meth:`noted`, or is :class:`Unreported`.
            at: Monotonic seconds when the dials failed.
            until: Monotonic seconds from which the next dial is a probe.
        """
        failing = self._failing.setdefault((group.key, endpoint), _Failing())
        self.news += 1
        failing.failed, failing.at = failed, at
        self._ejected.setdefault(group.key, {})[endpoint] = until
        return self._report(group, [_Growth(endpoint, _NOTHING, _failures(count, at, failed))], at)

    def returned(self, group: Group, endpoint: SocketAddress, at: float) -> GroupReport:
        """Record an answer that has ended an ejection; return the report."""
        growth = _Growth(endpoint, _NOTHING, StreakPart(at))
        return self._report_end(group, endpoint, [growth], at)

    def readmitted(self, group: Group, endpoint: SocketAddress, now: float) -> GroupReport:
        """Record that an ejection has ended elsewhere; return the report."""
        return self._report_end(group, endpoint, [], now)

    def compare(
        self, counts: Mapping[At, DialCounts], earlier: Mapping[At, DialCounts]
    ) -> Mapping[PortKey, Sequence[_Change]]:
        """Return the changes since the last check, keyed by Service port; thread-safe.

        Args:
            counts: All counters.
            earlier: The counters of an earlier process, whose counts aren't reported again.
        """
        reported, found = self._counts, defaultdict[PortKey, list[_Change]](list)
        for at, now in counts.items():
            before = reported.get(at)
            if before is None:
                before = earlier.get(at, _NOTHING)
                before = before._replace(ended=before.established)
            if now != before:
                found[at[0]].append(_Change(at[1], before, now))
        for at in reported.keys() - counts.keys():
            found[at[0]].append(_Change(at[1], reported[at], None))
        return found

    def look(
        self,
        changes: Mapping[PortKey, Sequence[_Change]],
        ejected: Mapping[At, float] | None,
        groups: Mapping[PortKey, Group],
        now: float,
    ) -> Iterator[News]:
        """Yield the changes of each Service port's counters and ejections.

        A change that the caller doesn't consume, or whose group doesn't exist yet, is reported by
        the next check.

        Args:
            ejected: All ejected endpoints, with the seconds until a dial is a probe; None: the
                ejections that events have reported.
            groups: The groups by the names of their Service ports.
            now: Monotonic seconds when the changes and ejections were read.
        """
        before, since, self._looked_at = self._ejected, self._looked_at, now
        if ejected is not None:
            self._ejected = {}
            for (name, endpoint), left in ejected.items():
                self._ejected.setdefault(name, {})[endpoint] = now + left
        for name in changes.keys() | before.keys() | self._ejected.keys():
            had, has = (by_name.get(name, {}) for by_name in (before, self._ejected))
            if (group := groups.get(name)) is None:
                self._forget(name, changes.get(name, ()))
                continue
            new = [self._follow(name, change, since, now) for change in changes.get(name, ())]
            if new or had.keys() != has.keys():
                connections = sum(one.counts.established for one in new)
                unreported = [one.suspected() for one in new if one.unreported]
                lost = sum(one.counts.lost for one in new)
                yield News(self._report(group, new, now), connections, unreported, lost)

    def _forget(self, name: PortKey, changes: Iterable[_Change]) -> None:
        """Forget endpoints of a removed Service port that no longer have counters."""
        for endpoint in (change.endpoint for change in changes if change.now is None):
            del self._counts[name, endpoint]
            self._failing.pop((name, endpoint), None)

    def _follow(self, name: PortKey, change: _Change, since: float, now: float) -> _Growth:
        """Record the counters of an endpoint, and return the changes since the last check."""
        endpoint, before, counts = change
        at = name, endpoint
        if counts is None:
            del self._counts[at]
            self._failing.pop(at, None)
            # The hooks won't report the end of open connections, so count them as ended now.
            return _Growth(endpoint, _NOTHING._replace(ended=_open(before)))
        self._counts[at] = counts
        if counts.established < before.established:
            # The endpoint was removed and added again, so its counters began at 0, and its earlier
            # connections count as ended.
            before = _NOTHING._replace(ended=-_open(before))
        new = _difference(counts, before)
        failing, is_ejected = self._failing.get(at, _NEVER_FAILED), self.is_ejected(*at)
        failures = new.refused + new.unanswered
        beside = max(0, failures - failing.noted)
        if failing.noted:
            failing.noted = max(0, failing.noted - failures)
        succeeded_at = _NEVER
        if new.established:
            succeeded_at = min(since, failing.at) if is_ejected else now
        dials = StreakPart(succeeded_at) if new.established else None
        if beside and is_ejected:
            dials = _failures(beside, now, failing.failed, succeeded_at)
        return _Growth(endpoint, new, dials, 0 if is_ejected else beside)

    def _report_end(
        self, group: Group, endpoint: SocketAddress, new: Sequence[_Growth], now: float
    ) -> GroupReport:
        self.news += 1
        self._ejected.get(group.key, {}).pop(endpoint, None)
        return self._report(group, new, now)

    def _report(self, group: Group, new: Sequence[_Growth], now: float) -> GroupReport:
        figures = GroupCounters()
        # These clients were refused, because the hooks try no other endpoint.
        figures.refused = sum(one.counts.refused + one.counts.unanswered for one in new)
        buckets = [sum(counts) for counts in zip(*(one.counts.buckets for one in new), strict=True)]
        seconds = sum(one.counts.latency_ns for one in new) / 1e9
        left = self._ejected.get(group.key, {})
        return GroupReport(
            group.number,
            figures.figures(),
            [one.report() for one in new],
            [(endpoint, max(0.0, until - now)) for endpoint, until in left.items()],
            DurationReport(buckets, seconds) if any(buckets) else None,
        )


def _failures(
    count: int, at: float, failed: DialFailure, succeeded_at: float = _NEVER
) -> StreakPart:
    return StreakPart(succeeded_at, count, at, at, *failed)


def _open(counts: DialCounts) -> int:
    return counts.established - counts.ended


def _difference(counts: DialCounts, before: DialCounts) -> DialCounts:
    new = [now - then for now, then in zip(counts[:-1], before[:-1], strict=True)]
    buckets = zip(counts.buckets, before.buckets, strict=True)
    return DialCounts._make([*new, tuple(now - then for now, then in buckets)])
