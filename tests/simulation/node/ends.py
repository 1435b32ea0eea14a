"""What an agent leaves that ends in order, also in the midst of a run: no rule and no worker.

Rule 1: a worker of an earlier agent that this one adopted ends with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..control.files import CONTROL, WORKER
from ..control.machine import Process

if TYPE_CHECKING:
    from .world import World

ENDS = "nothing left at an orderly end"

# For workers to reset their connections and exit.
_EXIT_S = 1.0


class Ends:
    """The orderly ends of one run's agents."""

    def __init__(self, world: World) -> None:
        self._world = world

    def dying(self, process: Process) -> None:
        """Follow a death, while what the process had is there."""
        world, run = self._world, self._world.agents[-1] if self._world.agents else None
        is_orderly = process.kind == CONTROL and process.status == 0 and run is not None
        if not is_orderly or run is None or run.process is not process or run.agent is None:
            return
        steered = sorted(map(str, world.table.targets))
        # It logs that rules which the kernel refuses to remove stay.
        if steered and run.agent.left_behind:
            world.judgements.excuse(ENDS, "the kernel refused to remove the rules")
        else:
            world.judgements.check(ENDS, not steered, f"{process.name} has left {steered}")
        left = world.machine.alive(WORKER)
        world.timeline.after(_EXIT_S, self._check_workers, process, left)
        world.last_states.ended(run)

    def _check_workers(self, agent: Process, left: list[Process]) -> None:
        """Check that none of the workers that ran when an agent ended runs on."""
        world = self._world
        for worker in left:
            if worker.loop.held_until > world.timeline.now - _EXIT_S:
                world.judgements.excuse(ENDS, "a stopped worker ends when it goes on")
                continue
            what = f"{worker.name} runs after the end of {agent.name}"
            world.judgements.check(ENDS, worker.is_dead, what)
