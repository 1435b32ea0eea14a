"""A client is answered in time, as its Service's spec requires.

It is served if there are endpoints, refused or dropped only if there are none for it, and held no
longer than specified.

Only undisturbed periods are judged.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..clients import DIALS, ENDED, REFUSED, RESET, SERVED, WAITS, Client, at_of
from .base import Invariant

ANSWERED_S = 3.0
"""The time within which a client is served, or refused."""
# A timer may fire this early, and a client may wait this long in a worker's queue.
_EARLY_S, _TAKEN_S = 0.001, 1.0


class Answers(Invariant):
    """Judges each client's answer, as the module describes."""

    NAME = "answered in time"

    def client_changed(self, client: Client, was: str) -> None:
        world = self._world
        if client.state == REFUSED and self._is_undisturbed(client):
            expected = world.expecting.in_parts(client)
            may = any(each.may_be_refused for each in expected)
            self.check(may, f"{client.name} at {at_of(client)} was {client.state}")
        elif client.state in (RESET, ENDED) and was == WAITS and self._is_undisturbed(client):
            if not world.expecting.has_changed(client):
                self._judge_reset(client)
        elif client.state == SERVED and was == WAITS and self._is_undisturbed(client):
            longest_s = max(e.waits_s for e in world.expecting.of(client))
            waited_s = world.timeline.now - client.opened_at
            what = f"{client.name} at {at_of(client)} was served after {waited_s:.2f} s"
            self.check(waited_s < max(longest_s + _TAKEN_S, ANSWERED_S), what)

    def _judge_reset(self, client: Client) -> None:
        expected = self._world.expecting.of(client)
        waited_s = self._world.timeline.now - client.dialled_at
        holds = [each.waits_s for each in expected if each.waits_s]
        is_right = bool(holds) and waited_s >= min(holds) - _EARLY_S
        self.check(is_right, f"{client.name} at {at_of(client)} was reset after {waited_s:.2f} s")

    def _is_undisturbed(self, client: Client) -> bool:
        return self._world.freshness.calm_at < client.dialled_at

    def look(self) -> None:
        now = self._world.timeline.now
        for client in self._world.waiting:
            since = max(client.dialled_at, self._world.freshness.calm_at)
            # A dropped SYN is retransmitted; the timeout doubles each time.
            most_s = ANSWERED_S + 2 * (since - client.dialled_at)
            if client.stream is None or now - since < most_s:
                continue
            expected = self._world.expecting.in_parts(client)
            longest_s = max(each.waits_s for each in expected)
            if now - since < longest_s + most_s:
                continue
            is_right = any(not each.endpoints and not each.waits_s for each in expected)
            # The client may be at an earlier listener, which drops clients that it doesn't admit.
            what = f"{client.name} at {at_of(client)} {client.state} for {now - since:.1f} s"
            self.check(is_right, what)

    def check_clients(self, clients: Sequence[Client]) -> None:
        """Check that each client is served if an endpoint is allowed for it."""
        for client in clients:
            expected = self._world.cluster.last.expected(client.ip, client.at)
            is_right = client.state in (SERVED, ENDED) or not expected.endpoints
            if client.state == DIALS and client.at[2] == "TCP":
                is_right = expected.may_be_dropped
            what = f"{client.name} at {at_of(client)}: {client.state}, may {expected}"
            self.check(is_right, what)
