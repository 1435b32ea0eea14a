"""What was counted for one group since the last report, as differences."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

from ..dataplane import EndpointCounters, EndpointGroup, GroupCounters
from ..model import SocketAddress
from .messages import EndpointReport, GroupReport

C = TypeVar("C", EndpointCounters, GroupCounters)


class _Seen(Generic[C]):
    """Counters, and their values at the last look."""

    def __init__(self, counters: C) -> None:
        self.counters: C = counters
        self.figures: tuple[int, ...] = type(counters)().figures()

    def look(self) -> tuple[int, ...] | None:
        """Return what was counted since the last look, or None if nothing was."""
        now = self.counters.figures()
        if now == self.figures:
            return None
        new = tuple([figure - before for figure, before in zip(now, self.figures, strict=True)])
        self.figures = now
        return new


class Differences:
    """What is yet to be reported of one group.

    Differences, so that what a worker has reported stays counted when it dies.
    """

    def __init__(self, group: EndpointGroup) -> None:
        self._group = group
        self._seen_group = _Seen(group.counters)
        self._new_group = GroupCounters()
        self._seen: dict[SocketAddress, _Seen[EndpointCounters]] = {}
        self._new: dict[SocketAddress, EndpointCounters] = {}
        self._had_ejected = False

    def take(self) -> None:
        """Note what has been counted until now; call before counters may leave the group."""
        new = self._seen_group.look()
        if new is not None:
            self._new_group.add(new)
        for endpoint, counters in self._group.each_counters():
            seen = self._seen.get(endpoint)
            if seen is None or seen.counters is not counters:
                seen = self._seen[endpoint] = _Seen(counters)
            self._look_at(endpoint, seen)

    def note_gone(self) -> None:
        """Note what was last counted for endpoints whose counters have left the group.

        Call after an update, with :meth:`take` before it: UDP flows end in the update, and are
        counted before the endpoint's counters leave. If it returns, its counters begin at 0.
        """
        there = {id(counters) for _, counters in self._group.each_counters()}
        for endpoint, seen in list(self._seen.items()):
            if id(seen.counters) not in there:
                self._look_at(endpoint, seen)
                del self._seen[endpoint]

    def give(self, number: int, now: float) -> GroupReport | None:
        """Return a report of what was noted since the last call, or None if nothing was."""
        ejected = list(self._group.ejected(now).items())
        # Any: the reader of the message checks the fixed lengths.
        figures: Any = self._new_group.figures()
        if not (self._new or any(figures) or ejected or self._had_ejected):
            return None
        self._had_ejected = bool(ejected)
        new: Any = [(endpoint, counters.figures()) for endpoint, counters in self._new.items()]
        report = GroupReport(number, figures, [EndpointReport(*each) for each in new], ejected)
        self._new_group = GroupCounters()
        self._new = {}
        return report

    def _look_at(self, endpoint: SocketAddress, seen: _Seen[EndpointCounters]) -> None:
        new = seen.look()
        if new is not None:
            self._new.setdefault(endpoint, EndpointCounters()).add(new)
