"""A rig whose plane has real workers, and whose timers a test controls."""

import asyncio
from pathlib import Path

from userspace_proxy.model import Protocol
from userspace_proxy.plane import Plane

from ..dataplane.rig import Rig
from ..dataplane.timers import TimerLoop
from ..dataplane.waiting import until
from .planes import place_of

TCP, UDP = Protocol.TCP, Protocol.UDP


def is_gone(pid):
    """Return whether a process has ended, even if its parent hasn't waited for it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


class Pool(Rig):
    """A rig whose plane has real workers; the test advances its timers.

    With ``is_watching``, the timers run in real time and the watchdogs are active.
    """

    def __init__(self, count, tuning=None, *, is_watching=False):
        loop = asyncio.get_running_loop()
        self.timers = TimerLoop(loop)
        if is_watching:
            plane = Plane(loop, count, tuning)
        else:
            plane = Plane(self.timers, count, tuning, clock=self.timers.clock)
        super().__init__(plane=plane)

    async def open(self):
        """Start the workers and wait until they are running."""
        self.plane.start()
        await self.all_run()

    async def all_run(self):
        await until(lambda: all(worker.is_running for worker in self.workers))

    def group_of(self, group):
        return group

    @property
    def workers(self):
        return self.plane._workers

    @property
    def pids(self):
        return [worker.pid for worker in self.plane.state().workers]

    @property
    def restarts(self):
        return [worker.restarts for worker in self.plane.state().workers]

    async def wait_for_restarts(self, worker, times):
        """Wait until a worker has been restarted this many times and is running."""
        await until(lambda: self.restarts[worker] == times and self.pids[worker])
        await self.all_run()

    async def place_of(self, service, pods, client=None):
        """Return the index of the endpoint that serves a new client."""
        return await place_of(self, service, pods, client or "127.0.0.1")

    def pods(self, count, protocol=TCP):
        return [self.endpoint() if protocol is TCP else self.udp_peer() for _ in range(count)]

    def serve(self, pods, *, protocol=TCP, affinity_timeout_s=None, at="0.0.0.0"):
        return self.service(
            *(pod.address for pod in pods),
            protocol=protocol,
            at=at,
            affinity_timeout_s=affinity_timeout_s,
        )

    async def connect_by(self, worker, service, pod):
        """Return both ends of a new connection that this worker carries."""
        while True:
            before = await self.open_connections()
            client, server = await self.pair(service, pod)
            if (await self.open_connections())[worker] > before[worker]:
                return client, server

    async def open_connections(self):
        await self.plane.refresh()
        return [worker.connections for worker in self.plane.state().workers]
