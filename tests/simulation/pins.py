"""Judges which pins of clients (``sessionAffinity``) are forgotten for others, or to free memory.

    a pin beyond the worker's bound ─┐
    memory is short ─────────────────┴▶ the Service port with the most ──▶ its longest unused one

What is forgotten so is known to the model from then on; any other pin is still a promise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from userspace_proxy.balance import Balancer, SplitBalancer
from userspace_proxy.dataplane.memory_pressure import LOW

from .model import Model, Side

if TYPE_CHECKING:
    from .tcp_ends import Relayed
    from .world import World

LARGEST, LONGEST, BOUND, FREED, FIRST, SPARED = (
    "pins of the largest go",
    "longest unused pin goes",
    "bound of pins",
    "pins are freed",
    "pins before connections",
    "last ones are spared",
)
ORACLES = (LARGEST, LONGEST, BOUND, FREED, FIRST, SPARED)
# Source: docs/internals.md; as much is forgotten in one step.
_PIN_BYTES, _STEP_PINS = 256, 8192
# What a connection holds, and which part of the limit all of them may hold anyway.
_CONNECTION_BYTES, _SPARED_PART = 16 * 1024, 64


def _buffered(relayed: Relayed) -> int:
    """Return how many bytes the sockets of a connection hold."""
    sides = relayed.left, relayed.right
    return sum(len(side.inbox) + len(side.outbox) for side in sides)


class Pins:
    """The oracles of one run."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._judge = world.judgements
        self._is_freeing = False
        self._counted = 0
        """How many there were after the last turn."""

    def forgets(self, table: Any, forget: Callable[[], None]) -> None:
        """Judge which pin is forgotten, and tell the model."""
        sizes = {id(each): len(each) for _, _, each in self._tables()}
        size, most = len(table), max(sizes.values(), default=0)
        self._judge.check(LARGEST, size == most, f"one of {size} pins goes, and another has {most}")
        total, bound = sum(sizes.values()), self._world.plan.node.max_pins
        if not self._is_freeing:
            self._judge.check(BOUND, total > bound, f"a pin goes, and there are {total} of {bound}")
        before = dict(table._pins)
        forget()
        gone = {client: used for client, (_, used) in before.items() if client not in table._pins}
        for model, side, each in self._tables():
            for client, used in gone.items() if each is table else ():
                self._judge_longest(side, client, table)
                model.forgot_pin(side, client, used)

    def _judge_longest(self, side: Side, client: str, table: Any) -> None:
        known = side.pins.get(client)
        if known is None:
            # It has just been pinned, for a dial that is about to begin.
            return
        began = self._world.loop.turn_began
        # One whose pin had timed out may have just been pinned anew.
        present = [c for c, (_, used) in table._pins.items() if used < began]
        longer = [
            other
            for other in present
            if (pin := side.pins.get(other)) is not None and pin.used[1] < known.used[0]
        ]
        why = f"the pin of {client} goes, and those of {longer} were unused for longer"
        self._judge.check(LONGEST, not longer, why)

    def free_memory(self, shed: Any, *args: Any) -> int:
        """Judge what is freed while memory is short: pins first, no more than needed."""
        limit = self._world.memory
        excess = limit.used() - int(limit.limit * LOW)
        before, open_ = self._count(), len(self._world.dataplane.connections.open)
        self._is_freeing = True
        try:
            reset: int = shed(*args)
        finally:
            self._is_freeing = False
        freed = before - self._count()
        wanted = min(max(0, math.ceil(excess / _PIN_BYTES)), _STEP_PINS, before)
        self._judge.check(FREED, freed == wanted, f"{freed} of {before} pins were freed")
        spared = limit.limit // _SPARED_PART // _CONNECTION_BYTES
        if open_ <= spared and not any(
            max(each.held(is_up=True), 0) + max(each.held(is_up=False), 0) + _buffered(each)
            for each in self._world.oracles.ends.open.values()
        ):
            why = f"{reset} of {open_} connections were reset, and {spared} are spared"
            self._judge.check(SPARED, not reset, why)
        if reset:
            why = f"{reset} connections were reset for {excess} B, and there were {before} pins"
            self._judge.check(FIRST, excess > before * _PIN_BYTES, why)
        return reset

    def after_turn(self) -> None:
        """Judge how many there are."""
        world = self._world
        counted = len(world.dataplane.engine.pins)
        if counted != self._counted:
            self._counted = counted
            total, bound = self._count(), world.plan.node.max_pins
            why = f"{counted} pins counted, {total} of {bound}"
            self._judge.check(BOUND, counted == total <= bound, why)

    def _count(self) -> int:
        return sum(len(table) for *_, table in self._tables())

    def _tables(self) -> Iterator[tuple[Model, Side, Any]]:
        """Yield the tables of all Service ports, each with the side whose clients it has."""
        for port in self._world.choices.ports:
            model, current = port.model, port.service.group.balancers.current
            sides: tuple[tuple[Side, Balancer], ...] = (
                ((model.inner, current.inner), (model.outer, current.outer))
                if isinstance(current, SplitBalancer)
                else ((model.inner, current),)
            )
            for side, balancer in sides:
                if balancer._affinity is not None:
                    yield model, side, balancer._affinity
