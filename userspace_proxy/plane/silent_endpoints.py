"""Finds rules of this node that drop packets to UDP endpoints, or their answers.

    clients of the last minute got no answer ──▶ endpoint without one ──▶ which chain drops them?

A datagram that a rule drops looks as if the endpoint were silent, and no probe can show more.

Rule 1: only Service ports whose clients went without an answer in the last minute are looked at.
Rule 2: a look asks at most ``QUESTIONS_MAX`` times, which takes 5 ms; those that were asked about
longest ago are first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ..clocks import Clocks
from ..model import Failure, SocketAddress
from ..model.node_network import DroppedBy
from .ejected import QUESTIONS_MAX
from .group import Group


class SilentEndpoints:
    """The UDP endpoints of one proxy; its owner calls :meth:`look` once a second.

    Args:
        dropped_by: Returns which chain drops packets to an endpoint, or its answers; or empty.
    """

    def __init__(
        self,
        dropped_by: Callable[[Group, SocketAddress], str],
        clock: Callable[[], float] = Clocks.monotonic,
    ) -> None:
        self._dropped_by = dropped_by
        self._clock = clock
        self._asked_at: dict[tuple[Group, SocketAddress], float] = {}
        """Of those that are silent, when they were asked about; the others were never."""

    def look(self, groups: Iterable[Group]) -> None:
        """Note which chain keeps silent endpoints from their clients, and that others answer.

        Args:
            groups: Those of all UDP Service ports.
        """
        now = self._clock()
        silent = [
            (group, endpoint)
            for group in groups
            if group.last_minute.failing(now).unanswered
            for endpoint, counters in group.each_counters()
            if counters.ends.is_on
            and counters.ends.failure is Failure.NO_DATAGRAM
            and not counters.dials.is_on
        ]
        self._forget(self._asked_at.keys() - {*silent})
        silent.sort(key=lambda one: self._asked_at.get(one, 0.0))
        for group, endpoint in silent[:QUESTIONS_MAX]:
            self._asked_at[group, endpoint] = now
            chain = self._dropped_by(group, endpoint)
            group.note_obstacle(endpoint, DroppedBy(chain) if chain else None, "answers")

    def _forget(self, others: Iterable[tuple[Group, SocketAddress]]) -> None:
        for group, endpoint in others:
            del self._asked_at[group, endpoint]
            group.note_obstacle(endpoint, None, "answers")
