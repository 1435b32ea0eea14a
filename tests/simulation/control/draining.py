"""Judges that a worker that drains has ended by the time that it was given."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from userspace_proxy.plane.messages import Drain
from userspace_proxy.plane.worker import Worker

if TYPE_CHECKING:
    from .machine import Process
    from .world import World

ORACLE = "drains end in time"

# For a timer and what follows it, each in an iteration of the loop.
_SLACK_S, _ITERATIONS = 0.1, 10


class Draining:
    """The oracle of one run."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._slack_s = _SLACK_S + _ITERATIONS * world.machine.speed.latency_s

    def patches(self) -> list[tuple[Any, str, Any]]:
        """Return what is to replace a method of the product, to see when drains begin."""
        drain = Worker._drain

        def drains(worker: Worker, message: Drain) -> None:
            process = self._world.machine.current
            assert process is not None, "a worker runs"
            check = partial(self._check, process, message.seconds)
            self._world.timeline.after(message.seconds + self._slack_s, check)
            drain(worker, message)

        return [(Worker, "_drain", drains)]

    def _check(self, process: Process, seconds: float) -> None:
        if process.is_dead:
            self._world.judgements.right(ORACLE)
            return
        if self._world.is_over:
            return
        # A timer is set anew after a stop: what is left of the time follows it.
        ready_at = process.loop.held_until + seconds + self._slack_s
        if ready_at > self._world.timeline.now:
            self._world.timeline.at(ready_at + 0.001, partial(self._check, process, seconds))
            return
        what = f"{process.name} drains, and has had {seconds:g} s for that"
        self._world.judgements.violate(ORACLE, what)
