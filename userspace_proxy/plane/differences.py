"""What was counted for one group since the last report, as differences."""

from __future__ import annotations

from operator import attrgetter
from typing import Generic, TypeVar

from ..dataplane import EndpointGroup
from ..facts import (
    STREAKS,
    TIMES_BOUNDS_S,
    ClientMistake,
    Durations,
    EndpointCounters,
    GroupCounters,
    Streak,
    StreakPart,
)
from ..model import SocketAddress
from .messages import DurationReport, EndpointReport, GroupReport, StreakReport, WaitingReport

C = TypeVar("C", EndpointCounters, GroupCounters)


# Cost: there is one of these for each Service port and endpoint that had clients.
_NOTHING_OF_STREAK = StreakPart()
_NOTHING_OF = {kind: kind().figures() for kind in (EndpointCounters, GroupCounters)}
_NO_DURATIONS = Durations(TIMES_BOUNDS_S)
_succeeded_at = attrgetter(*(f"{name}.succeeded_at" for name in STREAKS))
_parts_of = attrgetter(*(f"{name}.part" for name in STREAKS))
_NO_SUCCESS, _NO_FAILURE = _succeeded_at(EndpointCounters()), _parts_of(EndpointCounters())


class _Seen(Generic[C]):
    """Counters, and their values at the last look."""

    __slots__ = ("counters", "figures")

    def __init__(self, counters: C) -> None:
        self.counters: C = counters
        self.figures: tuple[int, ...] = _NOTHING_OF[type(counters)]

    def look(self) -> tuple[int, ...] | None:
        """Return what was counted since the last look, or None if nothing was."""
        now = self.counters.figures()
        if now == self.figures:
            return None
        new = tuple([figure - before for figure, before in zip(now, self.figures, strict=True)])
        self.figures = now
        return new


class _SeenStreak:
    """Failures in a row, and what was known of them at the last look."""

    __slots__ = ("_seen", "_streak")

    def __init__(self, streak: Streak) -> None:
        self._streak = streak
        self._seen = _NOTHING_OF_STREAK

    def look(self) -> StreakPart | None:
        """Return what is new since the last look, or None if nothing is."""
        new = self._streak.since(self._seen)
        if new is not None:
            self._seen = self._streak.whole()
        return new


class _New:
    """What is yet to be reported of one endpoint."""

    def __init__(self) -> None:
        self.counters = EndpointCounters()
        self.streaks: set[str] = set()
        """The names of those of which something is new."""

    def report(self, endpoint: SocketAddress) -> EndpointReport:
        """Return the report."""
        figures = self.counters.figures()
        streaks = {
            name: StreakReport(*getattr(self.counters, name).whole()) for name in self.streaks
        }
        return EndpointReport(endpoint, figures, **streaks)


class _SeenEndpoint(_Seen[EndpointCounters]):
    """The counters of an endpoint and its failures in a row, as of the last look."""

    __slots__ = "_parts", "_succeeded_at"

    def __init__(self, counters: EndpointCounters) -> None:
        super().__init__(counters)
        self._succeeded_at: tuple[float, ...] = _NO_SUCCESS
        self._parts: tuple[StreakPart, ...] = _NO_FAILURE

    def look_for(self, endpoint: SocketAddress, reported: dict[SocketAddress, _New]) -> None:
        """Add what is new since the last look to what is yet to be reported."""
        figures, looks = self.look(), self._look_at_streaks()
        if figures is None and not looks:
            return
        new = reported.setdefault(endpoint, _New())
        if figures is not None:
            new.counters.add(figures)
        for name, part in looks.items():
            new.streaks.add(name)
            getattr(new.counters, name).add(part)

    def _look_at_streaks(self) -> dict[str, StreakPart]:
        """Return what is new of the failures in a row since the last look."""
        succeeded_at, parts = _succeeded_at(self.counters), _parts_of(self.counters)
        if succeeded_at == self._succeeded_at and parts == self._parts:
            return {}
        looks: dict[str, StreakPart] = {}
        each = zip(STREAKS, self._succeeded_at, self._parts, succeeded_at, parts, strict=True)
        for name, at_before, before, at, part in each:
            if part != before:
                whole_before = before._replace(succeeded_at=at_before)
                looks[name] = part._replace(succeeded_at=at).since(whole_before)
            elif at != at_before:
                looks[name] = StreakPart(at)
        self._succeeded_at = succeeded_at
        if parts != self._parts:
            self._parts = parts
        return looks


class _SeenDurations:
    """Durations, and what was reported of them."""

    __slots__ = ("_durations", "_seen")

    def __init__(self, durations: Durations) -> None:
        self._durations = durations
        self._seen = _NO_DURATIONS

    def report(self) -> DurationReport | None:
        """Return what is new since the last report, or None if nothing is."""
        if self._durations.count == self._seen.count:
            return None
        new = self._durations.since(self._seen)
        self._seen = self._durations.copy()
        return DurationReport(*new)


class Differences:
    """What is yet to be reported of one group.

    Differences, so that what a worker has reported stays counted when it dies.
    """

    __slots__ = (
        "_connect_times",
        "_first_byte_times",
        "_group",
        "_had_passing",
        "_mistakes",
        "_new",
        "_new_group",
        "_seen",
        "_seen_group",
    )

    def __init__(self, group: EndpointGroup) -> None:
        self._group = group
        self._seen_group = _Seen(group.counters)
        self._new_group: GroupCounters | None = None
        self._seen: dict[SocketAddress, _SeenEndpoint] = {}
        self._new: dict[SocketAddress, _New] = {}
        self._had_passing = False
        """The last report contained what isn't a difference: ejections, or clients that wait."""
        self._mistakes: dict[ClientMistake, _SeenStreak] = {}
        self._connect_times = _SeenDurations(group.connect_times)
        self._first_byte_times = _SeenDurations(group.first_byte_times)

    def take(self) -> None:
        """Note what has been counted until now; call before counters may leave the group."""
        new = self._seen_group.look()
        if new is not None:
            if self._new_group is None:
                self._new_group = GroupCounters()
            self._new_group.add(new)
        for endpoint, counters in self._group.each_counters():
            seen = self._seen.get(endpoint)
            if seen is None or seen.counters is not counters:
                seen = self._seen[endpoint] = _SeenEndpoint(counters)
            seen.look_for(endpoint, self._new)

    def note_gone(self) -> None:
        """Note what was last counted for endpoints whose counters have left the group.

        Call after an update, with :meth:`take` before it: UDP flows end in the update, and are
        counted before the endpoint's counters leave. If it returns, its counters begin at 0.
        """
        there = {id(counters) for _, counters in self._group.each_counters()}
        for endpoint, seen in list(self._seen.items()):
            if id(seen.counters) not in there:
                seen.look_for(endpoint, self._new)
                del self._seen[endpoint]

    def give(self, number: int, now: float) -> GroupReport | None:
        """Return a report of what was noted since the last call, or None if nothing was."""
        ejected = list(self._group.balancers.current.ejected(now).items())
        waiting = self._group.waiting(now)
        new_group = self._new_group
        figures = _NOTHING_OF[GroupCounters] if new_group is None else new_group.figures()
        times = self._connect_times.report(), self._first_byte_times.report()
        mistakes = self._look_for_mistakes()
        is_new = self._new or any(figures) or any(times) or mistakes
        if not (is_new or ejected or waiting.clients or self._had_passing):
            return None
        self._had_passing = bool(ejected or waiting.clients)
        endpoints = [new.report(endpoint) for endpoint, new in self._new.items()]
        waits = WaitingReport(*waiting) if waiting.clients else None
        report = GroupReport(number, figures, endpoints, ejected, *times, waits, mistakes)
        self._new_group = None
        self._new = {}
        return report

    def _look_for_mistakes(self) -> dict[ClientMistake, StreakReport]:
        looks = {
            mistake: self._mistakes.setdefault(mistake, _SeenStreak(streak)).look()
            for mistake, streak in self._group.client_mistakes.items()
        }
        return {mistake: StreakReport(*part) for mistake, part in looks.items() if part}
