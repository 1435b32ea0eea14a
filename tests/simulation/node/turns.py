"""Whose changes a round takes: a model of the turns of namespaces, asked at each round.

Rule 1: a round takes less than a turn of each namespace, and the Service with which that is over.
Rule 2: nothing waits while its namespace has some of its turn left, but after a turn that took
long: then only what is small is taken for as long again, and for twice as long each time.
Rule 3: what has waited longest goes first.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from userspace_proxy.agent.rounds.change_turns import ChangeTurns
from userspace_proxy.cluster import ServiceState, Snapshot
from userspace_proxy.model import ServiceKey

if TYPE_CHECKING:
    from .world import World

TURNS = "turns of namespaces"

_TURN_S, _SMALL_S, _MOST_TIMES = 0.1, 1e-3, 8
_PORT_S, _ENDPOINT_S, _SLICE_S, _ELEMENT_S = 1e-4, 1e-5, 2e-6, 1e-5
# Of sums of such numbers.
_NEAR = 1e-9

_TAKE = ChangeTurns.take


class _Turns:
    """The turns of one agent."""

    def __init__(self) -> None:
        self.since: dict[ServiceKey, float] = {}
        """Since when a Service waits."""
        self.waits: dict[str, tuple[float, float]] = {}
        """By namespace: until when it waits, and for how long."""


class TurnChecks:
    """The oracle of one run."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._of: dict[ChangeTurns, _Turns] = {}

    def watching(self) -> Callable[..., Snapshot]:
        """Return a method of ChangeTurns that has what it takes judged."""

        def take(turns: ChangeTurns, have: Snapshot | None, want: Snapshot) -> Snapshot:
            # As they are before the plan follows.
            elements = {key: turns.elements(state) for key, state in want.services.items()}
            found = _TAKE(turns, have, want)
            self._world.reports.began()
            if have is not None:
                of = self._of.setdefault(turns, _Turns())
                self._judge(of, have, want, found, elements)
            return found

        return take

    def _judge(
        self,
        turns: _Turns,
        have: Snapshot,
        want: Snapshot,
        found: Snapshot,
        elements: Mapping[ServiceKey, int],
    ) -> None:
        taken: dict[str, dict[ServiceKey, float]] = defaultdict(dict)
        waits: dict[str, dict[ServiceKey, float]] = defaultdict(dict)
        for key, state in want.services.items():
            if have.services.get(key) is not state:
                of = taken if found.services.get(key) is state else waits
                of[key.namespace][key] = self._cost_s(state, elements[key])
        for namespace in {**taken, **waits}:
            self._judge_one(turns, namespace, taken[namespace], waits[namespace])
        now = self._world.timeline.now
        turns.since = {
            key: turns.since.get(key, now) for waiting in waits.values() for key in waiting
        }

    def _judge_one(
        self,
        turns: _Turns,
        namespace: str,
        taken: dict[ServiceKey, float],
        waits: dict[ServiceKey, float],
    ) -> None:
        now, check = self._world.timeline.now, self._world.judgements.check
        due, wait_s = turns.waits.get(namespace, (0.0, 0.0))
        is_early, spent_s = now < due, sum(taken.values())
        long_s = sum(cost_s for cost_s in taken.values() if cost_s >= _SMALL_S)
        is_small = spent_s - max(taken.values(), default=0.0) < _TURN_S + _NEAR
        check(TURNS, is_small, f"a round took {spent_s:.3f} s of {namespace}")
        check(TURNS, not (is_early and long_s), f"{namespace} had a turn {due - now:.3f} s early")
        for key, cost_s in waits.items():
            if is_early and cost_s >= _SMALL_S:
                continue
            check(TURNS, spent_s > _TURN_S - _NEAR, f"{key} waits, and {namespace} has its turn")
            since = turns.since.get(key, now)
            later = [str(each) for each in taken if turns.since.get(each, now) > since]
            check(TURNS, not later, f"{key} waits, and {later} had turns before")
        if long_s:
            if now < due + wait_s:
                wait_s = max(long_s, min(2 * wait_s, _MOST_TIMES * long_s))
            else:
                wait_s = long_s
            turns.waits[namespace] = now + long_s + wait_s, wait_s

    def _cost_s(self, state: ServiceState, elements: int) -> float:
        drawn = self._world.plan.endpoint_s
        port_s, endpoint_s = (drawn, drawn) if drawn else (_PORT_S, _ENDPOINT_S)
        ports: Any = state.service.ports
        endpoints = sum(len(item.endpoints) for item in state.slices)
        others_s = _SLICE_S * len(state.slices) + _ELEMENT_S * elements
        return len(ports) * (port_s + endpoint_s * endpoints) + others_s
