"""Makes reports, as if of a worker, of what the hooks at connect() have counted and found.

    counters, absolute ──▶ compare, look ──differences──▶ GroupReport
    events, probes ──────▶ failed, returned ────────────▶ GroupReport

Rule 1: a failed dial is one failure of its streak, whether an event or the counters show it first.
Rule 2: counters have no times: what they show beside events was after the last reading, and an
endpoint that is ejected has failed last. Of one that isn't, these failures are in no streak: they
are of a client whose endpoints are all ejected for it, or of an event for which there was no room.
Rule 3: what an earlier process has counted stays with it, but for connections that are open.
"""

from __future__ import annotations

import errno
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ...causes.endpoints import DIAL_CODES
from ...facts import EndpointCounters, GroupCounters, StreakPart
from ...kernel.bpf.socket_maps import DialCounts, EventKind
from ...model import DialFailure, Failure, PortKey, SocketAddress
from ...plane import Group
from ...plane.messages import DurationReport, EndpointReport, GroupReport

At = tuple[PortKey, SocketAddress]
"""A Service port, and an endpoint of it."""

REFUSED = DialFailure(Failure.REFUSED, errno.ECONNREFUSED)
UNANSWERED = DialFailure(Failure.SILENT, errno.ETIMEDOUT)
_NEVER = -1.0
_NOTHING = DialCounts()
_COUNTER_OF = {
    failed: DIAL_CODES[failed.failure].replace("-", "_") for failed in (REFUSED, UNANSWERED)
}


@dataclass(slots=True)
class _Failing:
    """What events have reported of one endpoint of one Service port."""

    noted: int = 0
    """Failed dials that counters haven't shown yet."""
    failed: DialFailure = UNANSWERED
    """The last one."""
    at: float = _NEVER
    """When that was, in monotonic seconds."""


_NEVER_FAILED = _Failing()


class _Change(NamedTuple):
    """The counters of one endpoint at the last look, and now; None: there are none."""

    endpoint: SocketAddress
    before: DialCounts
    now: DialCounts | None


class Unreported(NamedTuple):
    """Failed dials of an endpoint that isn't ejected, which no event has reported."""

    endpoint: SocketAddress
    kind: EventKind
    failures: int


class News(NamedTuple):
    """What is new of one Service port."""

    report: GroupReport
    connections: int
    unreported: Sequence[Unreported]
    lost: int
    """Ends of connections that should have been events."""


class _Growth(NamedTuple):
    """What is new of an endpoint."""

    endpoint: SocketAddress
    counts: DialCounts
    """Differences."""
    dials: StreakPart | None = None
    unreported: int = 0
    """Failed dials that are in no streak, and that no event has reported."""

    def report(self) -> EndpointReport:
        """Return it as a worker would."""
        new, counters = self.counts, EndpointCounters()
        counters.connections = counters.preserved = new.established
        counters.active = new.established - new.ended
        # Those of a client: what the endpoint has sent is received.
        counters.received_bytes, counters.sent_bytes = new.sent, new.received
        counters.failures = new.refused + new.unanswered
        setattr(counters, _COUNTER_OF[REFUSED], new.refused)
        setattr(counters, _COUNTER_OF[UNANSWERED], new.unanswered)
        return EndpointReport(self.endpoint, counters.figures(), self.dials)

    def suspected(self) -> Unreported:
        """Return what is to be found out about."""
        kind = EventKind.REFUSED if self.counts.refused else EventKind.UNANSWERED
        return Unreported(self.endpoint, kind, self.unreported)


class Reports:
    """What is yet to be reported of the hooks of one proxy.

    Args:
        now: Monotonic seconds.
    """

    def __init__(self, now: float) -> None:
        self._counts: dict[At, DialCounts] = {}
        """As they were reported."""
        self._failing: dict[At, _Failing] = {}
        self._looked_at = now
        self._ejected: dict[PortKey, dict[SocketAddress, float]] = {}
        """By Service port, with the monotonic seconds at which a dial is a probe."""
        self.news = 0
        """How often an ejection began or ended, as far as that was noted at once."""

    def is_ejected(self, name: PortKey, endpoint: SocketAddress) -> bool:
        return endpoint in self._ejected.get(name, ())

    def noted(self, name: PortKey, endpoint: SocketAddress) -> None:
        """Leave a failed dial to :meth:`failed`; without a call of that, it is in no streak."""
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
        """Return the report of failed dials that have ejected an endpoint for all.

        Args:
            count: How many there were; each was :meth:`noted`, or is :class:`Unreported`.
            at: Monotonic seconds.
            until: When the next dial is a probe.
        """
        failing = self._failing.setdefault((group.key, endpoint), _Failing())
        self.news += 1
        failing.failed, failing.at = failed, at
        self._ejected.setdefault(group.key, {})[endpoint] = until
        return self._report(group, [_Growth(endpoint, _NOTHING, _failures(count, at, failed))], at)

    def returned(self, group: Group, endpoint: SocketAddress, at: float) -> GroupReport:
        """Return the report of an answer that has ended an ejection."""
        growth = _Growth(endpoint, _NOTHING, StreakPart(at))
        return self._report_end(group, endpoint, [growth], at)

    def readmitted(self, group: Group, endpoint: SocketAddress, now: float) -> GroupReport:
        """Return the report that an ejection has ended, which was noted elsewhere."""
        return self._report_end(group, endpoint, [], now)

    def compare(
        self, counts: Mapping[At, DialCounts], earlier: Mapping[At, DialCounts]
    ) -> Mapping[PortKey, Sequence[_Change]]:
        """Return what has changed since the last look, by Service port; also in a thread.

        Args:
            counts: All counters.
            earlier: Those of an earlier process.
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
        """Yield what is new of each Service port.

        What isn't taken, or is of no group yet, is reported by the next look.

        Args:
            ejected: All endpoints that are ejected, with the seconds until a dial is a probe; None:
                those that events have reported.
            groups: By the names of their Service ports.
            now: Monotonic seconds, at which both were read.
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
        """Forget endpoints that have no counters any more, of a Service port that is gone."""
        for endpoint in (change.endpoint for change in changes if change.now is None):
            del self._counts[name, endpoint]
            self._failing.pop((name, endpoint), None)

    def _follow(self, name: PortKey, change: _Change, since: float, now: float) -> _Growth:
        """Note the counters of an endpoint, and return what is new since the last look."""
        endpoint, before, counts = change
        at = name, endpoint
        if counts is None:
            del self._counts[at]
            self._failing.pop(at, None)
            # Nothing reports the ends of those that are open.
            return _Growth(endpoint, _NOTHING._replace(ended=_open(before)))
        self._counts[at] = counts
        if counts.established < before.established:
            # It was removed, and added again.
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
        # None of these clients has another endpoint tried for it.
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
