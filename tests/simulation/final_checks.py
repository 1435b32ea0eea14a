"""What must hold when all connections have ended, when all is at rest, and when all is closed."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from userspace_proxy.dataplane import EndpointGroup
from userspace_proxy.dataplane.tcp import TcpConnection
from userspace_proxy.facts import GAUGES
from userspace_proxy.model.addresses import port_of

from . import told
from .evictions import Evictions
from .sockets import core_of
from .streams import Stream
from .tcp_ends import TcpEnds

if TYPE_CHECKING:
    from .actors import Party
    from .services import Service
    from .world import World

Pair = tuple["Party", "Party", Stream, Stream, EndpointGroup]
"""A client, an endpoint, the data plane's ends of both connections, and the Service port."""

# Ends that the data plane decides on.
_BY_PROXY = {"evicted", "endpoint removed", "shutdown", "idle"}
# Ports of clients; those that PROXY headers announce are lower.
_CLIENTS_FROM = 20000
_REFUSED = ("unanswered", "waited too long", "too many waiting")
_COUNTED = {
    "evicted": "evicted",
    "ended_by_removal": "endpoint removed",
    "bad_headers": "no PROXY header",
}
_WAITS = {"client_aborts": "left", "timeouts": "waited too long", "overflows": "too many waiting"}


class FinalChecks:
    """The part of the oracles for what has ended."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.pairs: list[Pair] = []
        self.ends = TcpEnds(world)
        self.evictions = Evictions(world)
        self._times_drained = 0
        self.causes: dict[int, str] = {}
        """Why each client's connection ended, by the client's number."""

    def client_of(self, connection: TcpConnection) -> Party | None:
        return self.world.clients.get(core_of(connection.client).remote[1] - 20000)

    def drained(self, _reset: int) -> None:
        """Note that draining has ended."""
        self._times_drained += 1
        self.ends.drained()
        if self.world.dataplane.connections.open:
            self.world.violate("drained, and connections are open")

    def ended(self, line: dict[str, Any]) -> None:
        """Check a line of the connection log, as it is written."""
        if line["kind"] == "flow":
            self.world.network.note(f"flow of {line['client']}: {line['cause']}")
            if line["cause"] == "evicted" and line["endpoint"]:
                self.evictions.flow_ended()
            return
        port = int(port_of(line["client"]))
        # A client that a PROXY header has announced has a low one.
        number = port - (_CLIENTS_FROM if port >= _CLIENTS_FROM else 5000)
        if number in self.causes:
            self.world.violate(f"client {number}'s connection ended twice")
        cause = self.causes[number] = line["cause"]
        self.world.network.note(f"client {number}: {cause}, by {line['ended_by']}")
        relayed = self.ends.ended(number, line)
        told.judge(self.world, number, relayed, line)
        if cause == "evicted":
            self.evictions.connection_ended(number, relayed)
        if relayed is not None:
            self.world.counts.ended(relayed, line)
        self.world.choices.ended(number, cause)
        if self.world.is_closed or cause not in ("idle", "evicted", "endpoint removed", "reset"):
            return
        node, troubles = self.world.plan.node, self.world.datagrams.troubles
        may_be_full = "shedding" in self.world.plan.features or troubles.frees_memory()
        if cause == "evicted" and not may_be_full:
            self.world.violate(f"client {number} was evicted without a shortage")
        if cause == "idle":
            self._check_idle(number, min(node.tcp_idle_s, node.half_closed_s))

    def _check_idle(self, number: int, least_s: float) -> None:
        now = self.world.timeline.now
        for client, _, left, right, _ in self.pairs:
            if client.number == number:
                idle_s = now - max(left.moved_at, right.moved_at)
                if idle_s < least_s - 0.01:
                    self.world.violate(f"client {number} was idle for {idle_s:.3f} s only")
                if now - least_s > self.world.finishing_at + 5.0:
                    self.world.violate(f"client {number}'s connection was stuck")

    # -- when all has been read --------------------------------------------------------------------

    def after_calm(self) -> None:
        """Check that what was sent has arrived, though nothing followed that could help it on."""
        for client, endpoint, *_ in self.pairs:
            is_over = client.number in self.causes or not (
                client.is_orderly and endpoint.is_orderly
            )
            is_new = endpoint.joined_at > self.world.finishing_at - self.world.plan.calm_s
            if is_over or is_new:
                continue
            for sender, reader in ((client, endpoint), (endpoint, client)):
                if reader.heard != sender.sent:
                    self.world.violate(
                        f"{reader.stream.name} has read {reader.heard} of {sender.sent} B so far"
                    )
                if sender.has_finished and not reader.heard_fin:
                    self.world.violate(f"{reader.stream.name} has read no FIN so far")

    # -- when all connections have ended -----------------------------------------------------------

    def after_the_end(self) -> None:
        """Check that all has ended, and how."""
        world = self.world
        for connection in world.dataplane.connections.open:
            world.violate(
                f"client {core_of(connection.client).remote[1] - 20000} is still connected"
            )
        for number, client in world.clients.items():
            if not client.is_done:
                world.violate(f"client {number} has seen no end")
            if client.other is None and client.heard_fin:
                world.violate(f"client {number} has read a FIN, and wasn't joined")
            if client.stream in world.kernel.taken and number not in self.causes:
                world.violate(f"client {number}'s end wasn't logged")
        for party in world.accepted.values():
            if not party.is_done:
                world.violate(f"{party.stream.name} has seen no end")
        for client, endpoint, left, right, _ in self.pairs:
            cause = self.causes.get(client.number, "none")
            self._check_way(client, endpoint, cause)
            self._check_way(endpoint, client, cause)
            if client.is_orderly and endpoint.is_orderly and cause not in _BY_PROXY:
                self._check_clean(client, endpoint, cause)
            self._check_reset(client, endpoint, left.received_bytes - client.announced, cause)
            self._check_reset(endpoint, client, right.received_bytes, cause)

    def _check_way(self, sender: Party, reader: Party, cause: str) -> None:
        """A clean end comes after all bytes; after a RST there is none."""
        if reader.heard_fin:
            if not sender.has_finished:
                self.world.violate(f"{reader.stream.name} read a FIN that wasn't sent ({cause})")
            elif reader.heard != sender.sent:
                self.world.violate(
                    f"{reader.stream.name} read a clean end after {reader.heard} of "
                    f"{sender.sent} B ({cause})"
                )
        elif sender.has_reset and reader.is_orderly and not reader.error:
            self.world.violate(f"{reader.stream.name} has seen no RST ({cause})")

    def _check_clean(self, client: Party, endpoint: Party, cause: str) -> None:
        """Two orderly parties read everything, and a FIN."""
        for sender, reader in ((client, endpoint), (endpoint, client)):
            if reader.error or not reader.heard_fin or reader.heard != sender.sent:
                self.world.violate(
                    f"{reader.stream.name} read {reader.heard} of {sender.sent} B, "
                    f"error {reader.error} ({cause})"
                )
        if cause != "complete":
            self.world.violate(f"client {client.number}'s connection ended: {cause}")

    def _check_reset(self, sender: Party, reader: Party, arrived: int, cause: str) -> None:
        """What has arrived before a RST reaches a side that reads."""
        is_prompt = self.world.calm_at < (sender.reset_at or 0.0) - 1.0
        is_heard = reader.is_orderly and not reader.heard_fin
        if cause == "reset" and is_prompt and is_heard and reader.heard < arrived:
            self.world.violate(
                f"{reader.stream.name} read {reader.heard} of {arrived} B that had arrived "
                "before the RST"
            )

    # -- when all is at rest -----------------------------------------------------------------------

    def at_rest(self) -> None:
        """Check that nothing is left but the listeners."""
        world, dataplane = self.world, self.world.dataplane
        engine, connections = dataplane.engine, dataplane.connections
        for service in world.services:
            self._check_counters(service)
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
            "descriptors": engine.descriptors.in_use
            - len(dataplane._listeners)
            - 2 * engine.pipes.open_pipes,
            "open files": len(world.kernel.files)
            - 1
            - len(dataplane._listeners)
            - 2 * engine.pipes.open_pipes,
            "waiting": sum(len(s.group.waiting_room or ()) for s in world.services),
            "dials": sum(len(s.group.loads._dialling) for s in world.services),
        }
        for name, count in left.items():
            if count:
                world.violate(f"left at rest: {count} {name}")

    def _check_counters(self, service: Service) -> None:
        world, group = self.world, service.group
        totals, counters = group.totals(), group.counters
        for name in GAUGES:
            if left := getattr(totals, name):
                world.violate(f"{group.label} counts {left} {name} at rest")
        if service.is_udp:
            return
        world.counts.at_rest(service)
        pairs = [pair for pair in self.pairs if pair[4] is group]
        number = world.services.index(service)
        causes = Counter(
            cause for each, cause in self.causes.items() if world.clients[each].service == number
        )
        expected = {
            "connections": (totals.connections, len(pairs)),
            "received_bytes": (
                totals.received_bytes,
                sum(
                    max(0, right.accepted_bytes - len(client.expected_header()))
                    for client, _, _, right, _ in pairs
                ),
            ),
            "sent_bytes": (totals.sent_bytes, sum(left.accepted_bytes for _, _, left, *_ in pairs)),
            "refused": (counters.refused, sum(causes[cause] for cause in _REFUSED)),
            **{n: (getattr(counters, n), causes[cause]) for n, cause in _COUNTED.items()},
            **{n: (getattr(counters.waits, n), causes[cause]) for n, cause in _WAITS.items()},
        }
        for name, (counted, right) in expected.items():
            if counted != right:
                world.violate(f"{group.label} counted {name}: {counted}, not {right}")

    # -- when all is closed ------------------------------------------------------------------------

    def at_end(self) -> None:
        """Check that nothing is left at all."""
        world = self.world
        if world.kernel.files:
            names = [getattr(file, "name", file) for file in world.kernel.files.values()]
            world.violate(f"left open: {names}")
        if world.loop.timers:
            world.violate(f"timers left: {world.loop.timers}")
        if world.plan.node.ends == "drain" and self._times_drained != 1:
            world.violate(f"drained {self._times_drained} times")
        for number, client in world.clients.items():
            if not client.is_done:
                world.violate(f"client {number} has seen no end")
