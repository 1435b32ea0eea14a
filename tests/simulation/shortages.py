"""Judges what flows and pins may take while memory is short: pins go first, and no flow is added.

used ──90 %──▶ pins are forgotten, each new flow takes the place of another one ──85 %──▶ as ever
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .world import World

PINS, FLOWS = "pins while memory is short", "flows while memory is short"
ORACLES = (PINS, FLOWS)

_HIGH = 0.9
# Usage is read four times a second, and pins are forgotten then.
_READ_S = 0.6
_LOOK_S = 0.1


class Shortages:
    """The oracles of one run."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._judge = world.judgements
        self._looked_at = 0.0
        self._since: float | None = None
        """Since when so much is used."""
        self._most: int | None = None
        """How many flows there may be."""

    def after_turn(self) -> None:
        """Judge what is left after a turn."""
        world = self._world
        now = world.timeline.now
        if world.memory.share < _HIGH or world.is_closed:
            self._since = self._most = None
            return
        if self._since is None:
            self._since = now
        if now < self._looked_at + _LOOK_S:
            return
        self._looked_at = now
        read_s = _READ_S + world.stopped_since(self._since)
        if now - self._since <= read_s:
            return
        self._check_pins(world.earliest(now - _READ_S))
        self._check_flows()

    def _check_pins(self, since: float) -> None:
        """Pins are the first to go: there are so few that all go at once."""
        tables: dict[int, dict[Any, None]] = self._world.dataplane.engine.pins._by_size._holders
        used = [at for same in tables.values() for table in same for _, at in table._pins.values()]
        old = [at for at in used if at < since]
        self._judge.check(PINS, not old, f"{len(old)} of {len(used)} pins are left")

    def _check_flows(self) -> None:
        """A flow takes the place of another one, but for the first."""
        ends = self._world.datagrams.ends
        count = ends.count()
        most = self._most
        self._most = max(1, count) if most is None else max(1, min(most, count))
        self._judge.check(FLOWS, most is None or count <= most, f"{count} flows, and {most} before")
