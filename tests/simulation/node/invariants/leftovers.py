"""After an orderly exit nothing of the proxy is left: rule, entry, process, port, socket or file.

This holds in the middle of a run, too. Exception: rules that the kernel refuses to remove, which
are logged.
"""

from __future__ import annotations

from ...machine.files import CONTROL, WORKER
from ...machine.machine import Process
from .base import Invariant

# The time for workers to reset their connections and exit.
_EXIT_S = 1.0


class Leftovers(Invariant):
    """Judges resources after an exit, as the module describes."""

    NAME = "nothing left"

    def dying(self, process: Process) -> None:
        world, run = self._world, self._world.agents[-1] if self._world.agents else None
        if process.kind != CONTROL or process.status != 0 or run is None or run.agent is None:
            return
        left = [] if run.agent.left_behind else [one.name for one in world.kernel.own_tables]
        self.check(not left, f"{process.name} has left the tables {left}")
        world.timeline.after(_EXIT_S, self._check_workers, process, world.machine.alive(WORKER))

    def _check_workers(self, agent: Process, left: list[Process]) -> None:
        """Check that the workers of an exited agent exit, too."""
        now = self._world.timeline.now
        for worker in left:
            # A suspended worker exits when it continues.
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
