"""A served connection is open until its client ends it. Otherwise, only its worker's death ends it,
or the end of a drain, after an orderly exit or a takeover of the agent.
"""

from __future__ import annotations

from ...machine.machine import Process
from ..clients import ENDED, RESET, SERVED, Client, at_of
from ..plan import DRAIN_S
from .base import Invariant

_EARLY_S = 0.001


class Established(Invariant):
    """Judges the open connections, as the module describes."""

    NAME = "established connections stay"

    def client_changed(self, client: Client, was: str) -> None:
        if was != SERVED or client.state not in (RESET, ENDED):
            return
        is_right = client.has_finished or self._may_end(self._worker_of(client))
        self.check(is_right, f"{client.name} at {at_of(client)} was served, and was {client.state}")

    def _worker_of(self, client: Client) -> Process | None:
        """Return the worker of a client's connection; None if it is on the kernel path."""
        processes = self._world.machine.processes
        return next((each for each in processes if client.stream in each.kernel.taken), None)

    def _may_end(self, worker: Process | None) -> bool:
        if worker is None or worker.parent is None:
            return False
        if worker.is_dead or (worker.parent.is_dead and not self._world.plan.keeps_workers):
            return True
        now, of = self._world.timeline.now, worker.parent.pid
        for run in self._world.agents:
            if run.process.pid >= of and run.is_ending:
                return True
            if run.process.pid > of and now >= run.served_at + DRAIN_S - _EARLY_S:
                return True
        return False
