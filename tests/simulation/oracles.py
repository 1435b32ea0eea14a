"""What must hold at each moment of a run: at a join, at an end, after each turn.

Choices of endpoints are judged by ``choices``, waits by ``waits``.

Rule 1: bounds of time are the data plane's own, and what the simulation itself adds (``_SLACK_S``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from userspace_proxy.dataplane.ageing import LOOK_S
from userspace_proxy.dataplane.descriptors import DESCRIPTORS
from userspace_proxy.dataplane.late_reset import LIMIT_S
from userspace_proxy.dataplane.tcp import TcpConnection
from userspace_proxy.model import Protocol, SocketAddress

from . import held_bytes
from .final_checks import FinalChecks
from .flow_waits import FlowWaits
from .shortages import Shortages
from .sockets import core_of

if TYPE_CHECKING:
    from .services import Service
    from .sockets import SimulatedSocket
    from .world import World

ORACLES = (
    "affinity",
    "allowed endpoint",
    "client address",
    "deadline",
    "demand",
    "ejection",
    "accepted at once",
    "endpoint removed",
    "fail-over",
    "hold",
    "last choice",
    "least connections",
    "less loaded of two",
    "limit",
    "lost place",
    "news",
    "one probe",
    "order",
    "patience",
    "places",
    "probe",
    "queue",
    "redial",
    "refusal",
    "share",
    "side",
    "source hash",
    "standby",
    "timer",
    "turn",
    "turn among equals",
    "turn of each",
    "turn of those that wait",
    "wait",
)
"""Those that judge in a campaign."""

# A timer is late by an iteration of the loop, whose calls are preempted; a deadline of a wait by a
# look each second.
_SLACK_S = 0.04
_WAIT_SLACK_S = 1.1
_CHECK_EVERY_S = 0.5
# At the limit of descriptors listeners pause until so many are free, or a quarter if that is less.
_RESUME_ROOM, _AT_ONCE_S = 16, 0.1
# Where the kernel has nothing for a client that is to be accepted, they pause for so long.
_PAUSE_S = 0.25


class Oracles(FinalChecks):
    """The oracles of one run."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._checked_at = 0.0
        self._flow_waits = FlowWaits(world)
        self._shortages = Shortages(world)
        self._room_since: float | None = None
        """Since when there is room for clients that aren't accepted."""

    # -- when something happens --------------------------------------------------------------------

    def joined(self, connection: TcpConnection, sock: SimulatedSocket) -> None:
        """Check which two sides are joined."""
        world, dial, group = self.world, connection.dial, connection.group
        client = self.client_of(connection)
        endpoint = world.accepted.get(sock.core.peer)
        assert dial is not None, "it has dialled"
        if client is None or endpoint is None or client.other or endpoint.other:
            world.violate(f"{sock.core.name} was joined to another's connection")
            return
        if endpoint.stream.local != dial.endpoint:
            world.violate(f"{dial.endpoint} was meant, {endpoint.stream.local} answered")
        client.other, endpoint.other = endpoint, client
        endpoint.joined_at = world.timeline.now
        client.header = b""
        service = world.services[client.service]
        if group is not service.group:
            world.violate(f"client {client.number} was joined as one of {group.label}")
        version = service.serving.handling.proxy_protocol
        client.joined = version, service.label, client.served_as, client.dialled
        self.pairs.append((client, endpoint, core_of(connection.client), core_of(sock), group))
        world.choices.joins(client, sock)
        left, right = core_of(connection.client), core_of(sock)
        world.counts.joined(self.ends.joined(client, endpoint, left, right))

    # -- after each turn ---------------------------------------------------------------------------

    def after_turn(self) -> None:
        """Check tables, deadlines and counters."""
        world = self.world
        now = world.timeline.now
        world.choices.after_turn()
        self.evictions.after_turn()
        self._flow_waits.after_turn()
        held_bytes.after_turn(world)
        self._shortages.after_turn()
        if self.ends.look():
            world.counts.look()
        engine, connections = world.dataplane.engine, world.dataplane.connections
        for timeouts in (
            connections.dial_deadlines,
            connections.client_deadlines,
            connections.held_acks,
            *([connections.headers._deadlines] if connections.headers else ()),
        ):
            for item, due in timeouts._due.items():
                self._look_at_timer(item, due, timeouts._timer)
                if _is_closed(item):
                    world.violate(f"a closed connection has a deadline: {_name(item)}")
                break
        descriptors = (
            len(world.dataplane._listeners)
            + DESCRIPTORS * len(connections.open)
            + engine.descriptors._flows
            + len(connections.probes._under_way)
            + 2 * engine.pipes.open_pipes
        )
        if descriptors != engine.descriptors.in_use:
            world.violate(f"{engine.descriptors.in_use} descriptors counted, not {descriptors}")
        self._look_at_queues(now)
        if now >= self._checked_at and not world.is_closed:
            self._checked_at = now + _CHECK_EVERY_S
            self._look_at_rooms()
            self._look_at_connections(now)
            self._look_at_counters()

    def _look_at_timer(self, item: Any, due: float, timer: Any) -> None:
        """A deadline is as late at most as its timer was set late in its iteration.

        Timers are relative, and a deadline counts from the iteration's clock.
        """
        judge = self.world.judgements
        late_s = self.world.loop.turn_began - due
        if late_s <= _SLACK_S:
            judge.right("timer")
        elif timer is not None and late_s <= _SLACK_S + timer.stale_s:
            judge.excuse("timer", "it was set late in a long iteration")
        else:
            self.world.violate(f"a deadline has passed {late_s:.3f} s ago: {_name(item)}")

    def _look_at_queues(self, now: float) -> None:
        """Clients are accepted as soon as there is room for several."""
        world, judge = self.world, self.world.judgements
        since = self._room_since
        if since is not None:
            lacked_in = world.kernel.lacked_in
            refused_at = max(lacked_in.get(call, -1.0) for call in ("accept", "epoll_ctl"))
            # Each refusal begins a pause, after which they are accepted.
            due = max(since, refused_at + _PAUSE_S)
            waited_s = world.loop.turn_began - due - world.stopped_since(due)
            why = f"clients aren't accepted for {waited_s:.3f} s, and there is room"
            judge.check("accepted at once", waited_s <= _AT_ONCE_S, why)
        self._room_since = None
        queues = (s.sock.core.queue for s in world.services if s.sock and not s.is_udp)
        if world.is_closed or not any(queues):
            return
        if world.datagrams.troubles.was_memory_short(world.moment()[0]):
            return
        used = world.dataplane.engine.descriptors
        kept = max(0, used.limit // 16 - used._flows)
        room = used.limit - kept - used.in_use
        if room >= min(_RESUME_ROOM, used.limit // 4 + 1):
            self._room_since = now if since is None else since

    def _stopped_s(self, began: float, due: float) -> float:
        """Return for how long iterations were stopped in which a deadline's timer may be set.

        Timers are relative: one that is set after the stop is as late as the stop was long.
        """
        stops = self.world.loop.stops
        return sum(s for at, ended, s in stops if at <= due and began <= ended)

    def _look_at_rooms(self) -> None:
        for service in self.world.services:
            room = service.group.waiting_room
            hold = service.group.serving.handling.waits
            if room is None or hold is None:
                continue
            since = room._clients.waits_since()
            if since is not None:
                due = max(since + hold.seconds, service.changed_at)
                late_s = self.world.loop.turn_began - due
                if late_s > _WAIT_SLACK_S + self._stopped_s(since, due):
                    self.world.violate(f"a client has waited {late_s:.3f} s too long")
            # Those that waited before may stay for as long: a stop makes their timers late.
            until = service.changed_at + hold.seconds
            until += self._stopped_s(service.changed_at, until)
            is_new = self.world.loop.turn_began < until
            most = service.places
            if len(room) > most and not is_new:
                self.world.violate(f"{len(room)} clients wait, not {most}")

    def _look_at_connections(self, now: float) -> None:
        world, node = self.world, self.world.plan.node
        connections = world.dataplane.connections
        more_s = 2 * LOOK_S + world.stopped_s + _SLACK_S
        for connection in connections.open:
            if connection.is_closed:
                world.violate(f"a closed connection is listed: {_name(connection)}")
            up, down = connection.up, connection.down
            if up is not None and down is not None:
                idle_s = now - max(core_of(up.source).moved_at, core_of(up.sink).moved_at)
                limit_s = max(node.half_closed_s, node.tcp_idle_s)
                if idle_s > limit_s + more_s:
                    world.violate(f"{_name(connection)} is idle since {idle_s:.1f} s")
        for connection, waiting in connections.late_resets._waiting.items():
            if connection.is_closed:
                world.violate(f"a closed connection is to be reset: {_name(connection)}")
            stalled_s = now - waiting.moved_at
            limit_s = connections.late_resets._wait_s + world.stopped_s + 0.2
            if stalled_s > limit_s or now - waiting.began > LIMIT_S + world.stopped_s + 0.2:
                world.violate(f"{_name(connection)} waits for its reset since {stalled_s:.3f} s")

    def _look_at_counters(self) -> None:
        """Compare the numbers of open connections with those that are open."""
        active: Counter[tuple[int, SocketAddress]] = Counter()
        dialling: Counter[tuple[int, SocketAddress]] = Counter()
        for connection in self.world.dataplane.connections.open:
            dial = connection.dial
            if dial is not None and dial.endpoint is not None:
                key = id(connection.group), dial.endpoint
                if connection.up is not None:
                    active[key] += 1
                elif dial._is_counted:
                    dialling[key] += 1
        for service in self.world.services:
            group = service.group
            for flow in self._flows_of(service):
                if flow.endpoint is not None and flow.sock is not None:
                    active[id(group), flow.endpoint] += 1
            for endpoint in service.planned.pool:
                counters = group.find_counters(endpoint)
                counted = 0 if counters is None else counters.active
                # Not by index: a Counter takes long to find that it has none.
                open_ = active.get((id(group), endpoint), 0)
                if counted != open_:
                    self.world.violate(f"{endpoint} has {open_} connections, not {counted}")
                counted = group.loads._dialling.get(endpoint, 0)
                dials = dialling.get((id(group), endpoint), 0)
                if counted != dials:
                    self.world.violate(f"{endpoint} has {dials} dials, not {counted}")

    @staticmethod
    def _flows_of(service: Service) -> Iterable[Any]:
        if service.planned.protocol is Protocol.TCP or service.sock is None:
            return ()
        flows: dict[Any, Any] = service.listener._flows
        return flows.values()


def _is_closed(item: Any) -> bool:
    return bool(getattr(item, "is_closed", False) or getattr(item, "_connection", item).is_closed)


def _name(item: Any) -> str:
    connection = getattr(item, "_connection", item)
    return f"client {connection.address[1] - 20000}"
