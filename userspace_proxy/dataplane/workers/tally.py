"""What was counted for one group since the last report, as differences."""

from __future__ import annotations

from ...model import SocketAddress
from ..counters import EndpointCounters, GroupCounters, figures_of
from ..group import EndpointGroup
from .messages import GroupReport

_Figures = tuple[int, int, int, int, int, int]
_NOTHING = (0, 0, 0, 0, 0, 0)
_NO_FIGURES: tuple[int, ...] = figures_of(GroupCounters())


class Tally:
    """The differences of one group.

    Differences, so that what a worker has reported stays counted when it dies.

    Args:
        group: Its counters are read.
    """

    def __init__(self, group: EndpointGroup) -> None:
        self._group = group
        self._group_seen = _NO_FIGURES
        self._group_new = list(_NO_FIGURES)
        self._seen: dict[SocketAddress, tuple[EndpointCounters, _Figures]] = {}
        self._new: dict[SocketAddress, list[int]] = {}
        self._had_ejected = False

    def take(self) -> None:
        """Note what has been counted until now; call before counters may go."""
        now: tuple[int, ...] = figures_of(self._group.counters)
        if now != self._group_seen:
            for place, (new, old) in enumerate(zip(now, self._group_seen, strict=True)):
                self._group_new[place] += new - old
            self._group_seen = now
        for endpoint, each in self._group.each_counters():
            self._look_at(endpoint, each)

    def note_gone(self) -> None:
        """Note the last that was counted for endpoints whose counters have left the group.

        Call after an update, with a :meth:`take` before it. UDP flows of an endpoint end in
        the update, and are counted before its counters leave. If it comes back, those begin
        at 0.
        """
        there = {id(each) for _, each in self._group.each_counters()}
        for endpoint, (each, _figures) in list(self._seen.items()):
            if id(each) not in there:
                self._look_at(endpoint, each)
                del self._seen[endpoint]

    def give(self, key: int, now: float) -> GroupReport | None:
        """Return what was noted since this was last asked; None when there is nothing to report.

        Args:
            key: The group's number.
            now: Monotonic seconds.
        """
        ejected = list(self._group.ejected(now).items())
        if not (self._new or any(self._group_new) or ejected or self._had_ejected):
            return None
        self._had_ejected = bool(ejected)
        endpoints = [(endpoint, *figures) for endpoint, figures in self._new.items()]
        report = GroupReport(key, self._group_new, endpoints, ejected)
        self._group_new = list(_NO_FIGURES)
        self._new = {}
        return report

    def _look_at(self, endpoint: SocketAddress, each: EndpointCounters) -> None:
        figures = (
            each.active,
            each.connections,
            each.failures,
            each.received_bytes,
            each.sent_bytes,
            each.preserved,
        )
        seen = self._seen.get(endpoint)
        old = seen[1] if seen is not None and seen[0] is each else _NOTHING
        if figures != old:
            sums = self._new.setdefault(endpoint, [0] * len(_NOTHING))
            for place, (new, before) in enumerate(zip(figures, old, strict=True)):
                sums[place] += new - before
            self._seen[endpoint] = each, figures
