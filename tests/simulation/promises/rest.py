"""Closed connections and removed Services leave nothing behind.

All tables and counts of the data plane are checked: see ``holdings``.
"""

from __future__ import annotations

from userspace_proxy.dataplane.descriptors import DESCRIPTORS
from userspace_proxy.dataplane.reactor import Timeouts

from ..holdings import differences, holdings
from .promise import Promise

# Numbers that are never decremented, and tables that are cleaned up when next used.
_EXEMPTED = """
    AcceptedHeaders._known Balancer._turn ClientPorts._port Descriptors.in_use Ejections._ends
    EndpointGroup._per_endpoint EndpointGroup.client_mistakes EndpointGroup.left_at Locality
    LogLimit Memory NodeAddressDialer._counts Pairs Pipe PipePool Reactor.turn RoundRobin._next
    WaitingRoom._allowance WaitingRoom._processes Weights.version
"""


class Rest(Promise):
    """Judges the leftovers of one run."""

    name = "rest"

    def turn_over(self) -> None:
        """Check that counted descriptors are open, and that no closed connection has a deadline."""
        dataplane = self.world.dataplane
        engine, connections = dataplane.engine, dataplane.connections
        counted = engine.descriptors.in_use
        descriptors = (
            len(dataplane._listeners)
            + DESCRIPTORS * len(connections.open)
            + engine.descriptors._flows
            + len(connections.probes._under_way)
            + 2 * engine.pipes.open_pipes
        )
        self.check(descriptors == counted, f"{counted} descriptors counted, not {descriptors}")
        headers = connections.headers
        deadlines: list[Timeouts] = [connections.dial_deadlines, connections.client_deadlines]
        for timeouts in (*deadlines, *([headers.deadlines] if headers else ())):
            for first in list(timeouts.due)[:1]:
                self.check(not first.is_closed, "a connection that has ended has a deadline")

    def at_rest(self) -> None:
        """Check that no flow, waiting client or dial remains."""
        left = {
            "flows": len(self.world.dataplane.flows.table),
            "waiting": sum(len(s.group.waiting_room or ()) for s in self.world.services),
            "dials": sum(len(s.group.balancers._dialling) for s in self.world.services),
        }
        for name, count in left.items():
            self.check(not count, f"{count} {name}")

    def all_removed(self) -> None:
        """Check that data plane and groups hold as little as new ones, except for spare pipes."""
        world = self.world
        held = holdings(world.dataplane, *(service.group for service in world.services))
        left = list(differences(held, world.held_by_new, _EXEMPTED))
        self.check(not left, f"all was removed, but {left}")

    def all_closed(self) -> None:
        """Check that no descriptor or timer remains, and that draining has ended once."""
        world = self.world
        names = [getattr(file, "name", file) for file in world.kernel.files.values()]
        self.check(not names, f"left open: {names}")
        self.check(not world.loop.timers, f"timers: {world.loop.timers}")
        times = 1 if world.plan.node.ends == "drain" else 0
        self.check(world.times_drained == times, f"drained {world.times_drained} times")
        for number, party in world.clients.items():
            self.check(party.is_done, f"client {number} has seen no end")
