"""Once all connections have ended, nothing is left of them; once all is closed, nothing at all."""

from __future__ import annotations

from userspace_proxy.dataplane.descriptors import DESCRIPTORS
from userspace_proxy.dataplane.timeouts import Timeouts

from .promise import Promise


class Rest(Promise):
    """The promise of one run."""

    name = "rest"

    def turn_over(self) -> None:
        """As many descriptors are counted as there are, and what has ended has no deadline."""
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
        for timeouts in (*deadlines, *([headers._deadlines] if headers else ())):
            for first in list(timeouts._due)[:1]:
                is_closed = getattr(first, "_connection", first).is_closed
                self.check(not is_closed, "a connection that has ended has a deadline")

    def at_rest(self) -> None:
        """Only listeners are left, and pipes for the next connections."""
        world, dataplane = self.world, self.world.dataplane
        engine, connections = dataplane.engine, dataplane.connections
        kept = len(dataplane._listeners) + 2 * engine.pipes.open_pipes
        left = {
            "flows": len(dataplane.flows),
            "deadlines of dials": len(connections.dial_deadlines),
            "deadlines of clients": len(connections.client_deadlines),
            "held ACKs": len(connections.held_acks),
            "late resets": len(connections.late_resets._waiting),
            "headers": len(connections.headers or ()),
            "probes": len(connections.probes._under_way),
            "redials": len(engine.redials._waiting),
            "clients at endpoints": len(engine.client_dialer._open._counts),
            "answered flows": len(engine.client_dialer.answered_flows._counts),
            "client ports": len(engine.client_dialer._ports._endpoints),
            "callbacks for descriptors": len(engine.descriptors._waiting),
            "handlers": len(engine.reactor._handlers) - len(dataplane._listeners),
            "sockets to close": len(engine.reactor._late),
            "pipes in use": engine.pipes.open_pipes - len(engine.pipes._free),
            "descriptors": engine.descriptors.in_use - kept,
            "open files": len(world.kernel.files) - 1 - kept,
            "waiting": sum(len(s.group.waiting_room or ()) for s in world.services),
            "dials": sum(len(s.group.loads._dialling) for s in world.services),
        }
        for name, count in left.items():
            self.check(not count, f"{count} {name}")

    def all_closed(self) -> None:
        """Neither a descriptor nor a timer is left, and draining has ended once."""
        world = self.world
        names = [getattr(file, "name", file) for file in world.kernel.files.values()]
        self.check(not names, f"left open: {names}")
        self.check(not world.loop.timers, f"timers: {world.loop.timers}")
        times = 1 if world.plan.node.ends == "drain" else 0
        self.check(world.times_drained == times, f"drained {world.times_drained} times")
        for number, party in world.clients.items():
            self.check(party.is_done, f"client {number} has seen no end")
