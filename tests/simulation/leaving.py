"""Judges ends of connections whose endpoint has left (docs/services.md, When an endpoint leaves).

    left out for the client's side ──seconds──▶ reset, unless it is back

Rule 1: the last change that left an endpoint out counts, on either side; only connections that were
dialled before end, also where the Service has asked for it only since.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .attempts import Attempt, Port

if TYPE_CHECKING:
    from .world import World

# What a look each second at dials that are still in progress adds.
_SLACK_S = 1.1
_LOOK_S = 0.2
_EXACT_S = 0.01


class Leaving:
    """The oracle of endpoints that have left, of one run."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._judge = world.judgements
        self._looked_at = 0.0

    def ended(self, port: Port, attempt: Attempt) -> None:
        """Judge a connection that was reset because its endpoint has left."""
        model, endpoint = port.model, attempt.joined
        seconds = model.serving.handling.removal_s
        if endpoint is None or seconds is None or model.serves(attempt.ip, endpoint):
            why = f"client {attempt.number} was reset, and {endpoint} hasn't left"
            self._judge.violate("endpoint removed", why)
            return
        left = model.side_of(attempt.ip).left.get(endpoint, 0.0)
        early_s = left + seconds - self._world.timeline.now
        why = f"client {attempt.number} was reset {early_s:.3f} s too early"
        self._judge.check("endpoint removed", early_s < _EXACT_S, why)

    def after_turn(self, ports: list[Port]) -> None:
        """Judge which connections are still open."""
        now = self._world.timeline.now
        if now < self._looked_at + _LOOK_S or self._world.is_closed:
            return
        self._looked_at = now
        for port in ports:
            if port.model.serving.handling.removal_s is not None:
                for attempt in port.joined.values():
                    self._judge_open(port, attempt, now)

    def _judge_open(self, port: Port, attempt: Attempt, now: float) -> None:
        model, endpoint, dial = port.model, attempt.joined, attempt.dial
        seconds = model.serving.handling.removal_s
        if endpoint is None or dial is None or seconds is None:
            return
        left = port.left_at.get(endpoint)
        if left is None or model.serves(attempt.ip, endpoint) or dial.began[1] > left:
            return
        due = max(max(left, port.ends_since) + seconds, port.ends_changed_at, attempt.joined_at)
        late_s = now - due
        if late_s <= 0:
            return
        stopped_s = self._world.stopped_since(left)
        if late_s <= _SLACK_S:
            self._judge.right("endpoint removed")
        elif late_s <= _SLACK_S + stopped_s:
            self._judge.excuse("endpoint removed", "the process was stopped")
        else:
            why = f"client {attempt.number} is at {endpoint}, which left {now - left:.3f} s ago"
            self._judge.violate("endpoint removed", why)
