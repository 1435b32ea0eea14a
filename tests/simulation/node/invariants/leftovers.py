"""After an orderly end nothing of the proxy is left: no rule, entry, process, port, socket or file.

Also in the midst of a run, but for rules that the kernel refuses to remove: it logs that they stay.
"""

from __future__ import annotations

from ...machine.files import CONTROL, WORKER
from ...machine.machine import Process
from .base import Invariant

# For workers to reset their connections and exit.
_EXIT_S = 1.0


class Leftovers(Invariant):
    """See the module."""

    NAME = "nothing left"

    def dying(self, process: Process) -> None:
        world, run = self._world, self._world.agents[-1] if self._world.agents else None
        if process.kind != CONTROL or process.status != 0 or run is None or run.agent is None:
            return
        left = [] if run.agent.left_behind else [one.name for one in world.kernel.own_tables]
        self.check(not left, f"{process.name} has left the tables {left}")
        world.timeline.after(_EXIT_S, self._check_workers, process, world.machine.alive(WORKER))

    def _check_workers(self, agent: Process, left: list[Process]) -> None:
        """Check that no worker runs on that ran when an agent ended."""
        now = self._world.timeline.now
        for worker in left:
            # A stopped one ends when it goes on.
            is_right = worker.is_dead or worker.loop.held_until > now - _EXIT_S
            self.check(is_right, f"{worker.name} runs after the end of {agent.name}")

    def check_end(self) -> None:
        world = self._world
        for process in world.machine.processes:
            self.check(process.is_dead, f"{process.name} runs at the end")
        ports = sorted(port.port for port in world.machine.ports)
        self.check(not ports, f"ports {ports} are open at the end")
        tables = [one.name for one in world.kernel.own_tables]
        self.check(not tables, f"the tables {tables} are there at the end")
        files = world.disk.open_descriptors
        self.check(not files, f"files are open at the end: {files}")
        sockets = world.kernel.open_sockets()
        self.check(not sockets, f"{sockets} netlink sockets are open at the end")
