"""Collects the counts of one group since the last report.

Reported counts are subtracted from the counters, so no copy is needed for comparison.
"""

from __future__ import annotations

from ..dataplane import EndpointGroup
from ..facts import Durations, EndpointCounters, GroupCounters
from ..model import SocketAddress
from .messages import DurationReport, EndpointReport, GroupReport, WaitingReport

_NOTHING_OF_GROUP = GroupCounters().figures()


class _New:
    """The unreported counts of one endpoint."""

    def __init__(self) -> None:
        self.counters = EndpointCounters()
        self.streaks: set[str] = set()
        """The names of the changed streaks."""

    def report(self, endpoint: SocketAddress) -> EndpointReport:
        figures = self.counters.figures()
        streaks = {name: getattr(self.counters, name).whole() for name in self.streaks}
        return EndpointReport(endpoint, figures, **streaks)


class Differences:
    """The unreported counts of one group.

    Reports contain differences, so reported counts survive the worker's death. An object with
    nothing left to report (:attr:`is_at_rest`) may be discarded; a new object replaces it later.
    """

    __slots__ = ("_before_update", "_group", "_had_passing", "_is_open", "_new")

    def __init__(self, group: EndpointGroup) -> None:
        self._group = group
        self._new: dict[SocketAddress, _New] = {}
        self._is_open = False
        """Whether a connection was open at the last check: open connections count bytes without
        notifying the group."""
        self._before_update: dict[SocketAddress, EndpointCounters] = {}
        self._had_passing = False
        """Whether the last report contained ejections or waiting clients, which are reported as the
        current state instead of differences."""

    @property
    def is_at_rest(self) -> bool:
        """Whether no connection is open, and nothing is left to report."""
        return not (self._is_open or self._new or self._had_passing or self._group.has_news)

    def take(self) -> None:
        """Collect the counts of all endpoints up to now."""
        self._group.has_news = self._is_open = False
        for endpoint, counters in self._group.each_counters():
            self._take(endpoint, counters)

    def begin_update(self) -> None:
        """Collect the counts before an update, which may remove counters from the group."""
        self.take()
        self._before_update = dict(self._group.each_counters())

    def end_update(self) -> None:
        """Collect the final counts of endpoints that have left the group.

        Call :meth:`begin_update` before an update and this method after it: the update ends UDP
        flows, and counts them before it removes an endpoint's counters. Counts of an endpoint that
        returns begin at 0.
        """
        before, self._before_update = self._before_update, {}
        for endpoint, counters in before.items():
            if self._group.find_counters(endpoint) is not counters:
                self._take(endpoint, counters)

    def _take(self, endpoint: SocketAddress, counters: EndpointCounters) -> None:
        self._is_open = self._is_open or counters.active != 0
        figures, streaks = counters.take(), counters.take_streaks()
        if not streaks and not any(figures):
            return
        new = self._new.setdefault(endpoint, _New())
        new.counters.add(figures)
        for name, part in streaks.items():
            new.streaks.add(name)
            getattr(new.counters, name).add(part)

    def give(self, number: int, now: float) -> GroupReport | None:
        """Return a report of the counts collected since the last call, and ejections and waits now.

        Returns None if there is nothing to report.
        """
        group = self._group
        ejected = list(group.balancers.current.ejected(now).items())
        waiting = group.waiting(now)
        taken = group.take()
        figures = _NOTHING_OF_GROUP if taken.counters is None else taken.counters.figures()
        times = _times_of(taken.connect_times), _times_of(taken.first_byte_times)
        mistakes = {mistake: one.whole() for mistake, one in taken.client_mistakes.items()}
        is_new = self._new or any(figures) or any(times) or mistakes
        if not (is_new or ejected or waiting.clients or self._had_passing):
            return None
        self._had_passing = bool(ejected or waiting.clients)
        endpoints = [new.report(endpoint) for endpoint, new in self._new.items()]
        waits = WaitingReport(*waiting) if waiting.clients else None
        self._new = {}
        return GroupReport(number, figures, endpoints, ejected, *times, waits, mistakes)


def _times_of(durations: Durations | None) -> DurationReport | None:
    if durations is None or not durations.count:
        return None
    return DurationReport(durations.counts(), durations.seconds)
