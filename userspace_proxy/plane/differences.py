"""What was counted for one group since the last report.

What is reported is taken out of the counters, so nothing has to be kept to compare them with.
"""

from __future__ import annotations

from ..dataplane import EndpointGroup
from ..facts import Durations, EndpointCounters, GroupCounters
from ..model import SocketAddress
from .messages import DurationReport, EndpointReport, GroupReport, WaitingReport

_NOTHING_OF_GROUP = GroupCounters().figures()


class _New:
    """What is yet to be reported of one endpoint."""

    def __init__(self) -> None:
        self.counters = EndpointCounters()
        self.streaks: set[str] = set()
        """The names of those of which something is new."""

    def report(self, endpoint: SocketAddress) -> EndpointReport:
        figures = self.counters.figures()
        streaks = {name: getattr(self.counters, name).whole() for name in self.streaks}
        return EndpointReport(endpoint, figures, **streaks)


class Differences:
    """What is yet to be reported of one group.

    Differences, so that what a worker has reported stays counted when it dies. Once nothing is left
    (:attr:`is_at_rest`), another one may be made when the group has news.
    """

    __slots__ = ("_before_update", "_group", "_had_passing", "_is_open", "_new")

    def __init__(self, group: EndpointGroup) -> None:
        self._group = group
        self._new: dict[SocketAddress, _New] = {}
        self._is_open = False
        """Whether a connection was open at the last look: it counts without the group's knowing."""
        self._before_update: dict[SocketAddress, EndpointCounters] = {}
        self._had_passing = False
        """The last report contained what isn't a difference: ejections, or clients that wait."""

    @property
    def is_at_rest(self) -> bool:
        """Whether nothing is open or left to report."""
        return not (self._is_open or self._new or self._had_passing or self._group.has_news)

    def take(self) -> None:
        """Take what has been counted for endpoints until now."""
        self._group.has_news = self._is_open = False
        for endpoint, counters in self._group.each_counters():
            self._take(endpoint, counters)

    def begin_update(self) -> None:
        """Take what has been counted; call before counters may leave the group."""
        self.take()
        self._before_update = dict(self._group.each_counters())

    def end_update(self) -> None:
        """Take what was last counted for endpoints whose counters have left the group.

        Call after an update, with :meth:`begin_update` before it: UDP flows end in the update, and
        are counted before the endpoint's counters leave. If it returns, its counters begin at 0.
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
        """Return a report of what was taken since the last call, or None if nothing was."""
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
