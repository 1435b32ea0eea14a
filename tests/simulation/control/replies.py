"""Judges that replies of UDP reach clients, also late ones while workers drain.

    client ──▶ worker ──▶ endpoint, which takes a while ──▶ worker ──▶ client
                 └─ told to drain meanwhile: it passes replies on for 2 s more

Rule 1: the worker that has sent a datagram to an endpoint passes the reply on, as long as it runs.
Rule 2: a worker that drains runs for the time of its drain, at most 2 s, if a reply may be due.
Rule 3: no reply is due once the endpoint has left, or the address has been closed or has moved.
Rule 4: one that has come by a worker that stood in for another one is lost once that one is back.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from userspace_proxy.dataplane import AnyListener, UdpListener
from userspace_proxy.model import SocketAddress

from ..network import Address
from .files import WORKER
from .plan import EARLY_S

if TYPE_CHECKING:
    from .clients import Asker
    from .machine import Process
    from .world import World

ORACLE = "late replies reach clients"

# A datagram takes at most ten times a host's delay, twice; and the worker reads it.
_WAY_S, _ITERATIONS = 0.02, 4


class Replies:
    """The oracle of one run."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._soon_s = _WAY_S + _ITERATIONS * world.machine.speed.latency_s

    def receive(self, endpoint: SocketAddress, asker: Asker, source: Address) -> None:
        """Take a datagram that has reached an endpoint, which replies a while later.

        Args:
            source: The worker's socket.
        """
        machine = self._world.machine
        core = machine._connected.get((source, (endpoint.ip, endpoint.port)))
        holders = (p for p in machine.alive(WORKER) if core in p.kernel.files.values())
        if (worker := next(holders, None)) is not None:
            asker.stand_in = _stand_in_of(worker, asker)
        self._world.timeline.after(asker.waits_s, self._reply, endpoint, asker, source, worker)

    def _reply(
        self, endpoint: SocketAddress, asker: Asker, source: Address, worker: Process | None
    ) -> None:
        world, now = self._world, self._world.timeline.now
        to = (endpoint.ip, endpoint.port)
        world.machine.send_datagram(endpoint.ip.encode(), to, source)
        if worker is not None and self._is_due(endpoint, asker, worker):
            world.timeline.after(self._soon_s, self._judge, endpoint, asker, worker, now)

    def _is_due(self, endpoint: SocketAddress, asker: Asker, worker: Process) -> bool:
        """Return whether a worker is to pass on a reply that arrives soon."""
        world = self._world
        if worker.is_dead and worker.status:
            return False
        if not self._has_time(worker, world.timeline.now):
            return False
        return self._is_served(endpoint, asker, worker)

    def _has_time(self, worker: Process, replied_at: float) -> bool:
        """Return whether a worker doesn't drain, or has time to pass on a reply of that moment."""
        until = self._world.draining.replies_until(worker)
        return until is None or replied_at + self._soon_s <= until - EARLY_S

    def _is_served(self, endpoint: SocketAddress, asker: Asker, worker: Process) -> bool:
        """Return whether a client's address has had an endpoint since it has asked, and before."""
        world = self._world
        if worker.parent is None or world.draining.ends(worker.parent) or world.is_finishing:
            return False
        in_force, since = self._world.in_force, asker.asked_at - self._world.ejections.delay_s
        now = in_force.at(asker.to)
        if now is None or in_force.has_changed(asker.to, since):
            return False
        earlier = (was for until, was in in_force.earlier.get(asker.to, ()) if until >= since)
        is_had = all(endpoint in serving.endpoints for serving in (now, *earlier))
        return is_had and not in_force.has_moved(asker.to, since)

    def _judge(
        self, endpoint: SocketAddress, asker: Asker, worker: Process, replied_at: float
    ) -> None:
        world, judgements = self._world, self._world.judgements
        if asker.endpoint:
            judgements.right(ORACLE)
        elif worker.is_dead and worker.status:
            judgements.excuse(ORACLE, "its worker died meanwhile")
        elif worker.loop.held_until >= asker.asked_at:
            judgements.excuse(ORACLE, "its worker was stopped")
        elif asker.stand_in and asker.stand_in not in worker.main._worker._listeners.values():
            # Another one may have its number: the worker stands in again.
            judgements.excuse(ORACLE, "its worker stands in for another one no more")
        elif not self._has_time(worker, replied_at):
            # Both are read in one iteration of its loop, the order to drain first.
            judgements.excuse(ORACLE, "its worker was told meanwhile to drain without time")
        elif self._is_served(endpoint, asker, worker):
            what = f"{endpoint.ip} replied at {replied_at:.3f} to client {asker.number}"
            judgements.violate(ORACLE, f"{what}, which {worker.name} has not passed on")
        elif not world.is_over:
            judgements.excuse(ORACLE, "its Service changed meanwhile")


def _stand_in_of(worker: Process, asker: Asker) -> UdpListener | None:
    """Return the listener that has a client's flow if it stands in for that of another worker."""
    listeners: Mapping[int, AnyListener] = worker.main._worker._listeners
    number, listener = next(
        (number, listener)
        for number, listener in listeners.items()
        if isinstance(listener, UdpListener)
        and any(flow.address == asker.address for flow in listener._flows.values())
    )
    return listener if number < 0 else None
