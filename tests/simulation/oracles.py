"""What must hold at each moment of a run: at a dial, at a join, at an end, after each turn.

Rule 1: an oracle states a promise of the data plane, and only for worlds in which it promises it:
where endpoints fail, affinity may move a client.
Rule 2: bounds of time are the data plane's own, and what the simulation itself adds (``_SLACK_S``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from userspace_proxy.balance.ejection import FIRST_S
from userspace_proxy.dataplane.ageing import LOOK_S
from userspace_proxy.dataplane.descriptors import DESCRIPTORS
from userspace_proxy.dataplane.late_reset import LIMIT_S
from userspace_proxy.dataplane.tcp import TcpConnection
from userspace_proxy.model import Balance, Protocol, SocketAddress
from userspace_proxy.model.serving import Serving

from .final_checks import FinalChecks
from .network import Address
from .sockets import core_of

if TYPE_CHECKING:
    from .actors import Party, PodHost
    from .sockets import SimulatedSocket
    from .world import Service, World

# A timer is late by an iteration of the loop, and a deadline of a wait by a look each second.
_SLACK_S = 0.02
_WAIT_SLACK_S = 1.1
_CHECK_EVERY_S = 0.5
# After a refusal was sent; then other clients are sent elsewhere.
_NOTICED_S = 0.5
# A client has an answer, or none, after three dials of a second.
_DIAL_S = 3.5
# A dial that lasts as long as this has failed, and its endpoint is ejected.
_SILENT_S = 1.0
_UNEVEN = {"dead endpoints", "late", "lacking", "limit", "affinity", "hold", "preserve", "memory"}
_UNSURE = {"lacking", "preserve", "shedding", "stop"}
_UNPINNED = {"lacking", "memory", "limit"}


@dataclass
class _Shares:
    """How often endpoints were dialled while a Service was served in one way."""

    since: float
    serving: Serving
    dials: Counter[Address] = field(default_factory=Counter)


class Oracles(FinalChecks):
    """The oracles of one run."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._service_of: dict[Address, Service] = {}
        self._shares: dict[Service, _Shares] = {}
        self._pinned: dict[tuple[int, str], tuple[SocketAddress, float]] = {}
        self._checked_at = 0.0

    # -- when something happens --------------------------------------------------------------------

    def dialled(self, sock: SimulatedSocket, address: Address) -> None:
        """Check a dial, as it begins."""
        service = self._find_service(address)
        if service is None:
            self.world.violate(f"{address} was dialled, which is no endpoint")
            return
        self._check_limit(service, sock, address)
        self._check_ejection(service, address)
        shares = self._shares.get(service)
        if shares is None or shares.since != service.changed_at:
            self._check_shares(shares)
            shares = _Shares(service.changed_at, service.group.serving)
            self._shares[service] = shares
        shares.dials[address] += 1

    def _find_service(self, address: Address) -> Service | None:
        if not self._service_of:
            for service in self.world.services:
                for endpoint in service.planned.pool:
                    self._service_of[endpoint] = service
        return self._service_of.get(address)

    def _check_limit(self, service: Service, sock: SimulatedSocket, address: Address) -> None:
        limit = service.group.loads.limit
        # Where the limit is new, dials that had begun before count once they are answered.
        since = self.world.timeline.now - service.changed_at - self.world.stopped_s
        if limit is None or self.world.plan.node.is_preserving or since < _DIAL_S:
            return
        late = self.world.reactor._late
        others = [
            other
            for other in self.world.kernel.sockets.values()
            if other is not sock and other.core.remote == address and other not in late
        ]
        if len(others) >= limit:
            self.world.violate(f"{address} has {len(others)} connections, and a limit of {limit}")

    def _check_ejection(self, service: Service, address: Address) -> None:
        world, hosts = self.world, self.world.hosts
        endpoint = SocketAddress(*address)
        serving, host = service.group.serving, hosts[endpoint]
        if (
            _UNSURE & world.plan.features
            or service.planned.protocol is Protocol.UDP
            or serving.standbys
            or serving.outside is not None
            or host.was_reported
            or max(service.changed_at, host.answered_at + _NOTICED_S) > host.refused_at
        ):
            return
        since = world.timeline.now - host.refused_at
        others = [hosts[each] for each in serving.endpoints if each != endpoint]
        is_ejected = _NOTICED_S < since < FIRST_S - _SLACK_S
        if is_ejected and not all(other.may_be_ejected for other in others):
            world.violate(f"{address} was dialled {since:.3f} s after it had refused")

    def check_shares(self) -> None:
        """Check how often endpoints were dialled since their Services last changed."""
        for shares in self._shares.values():
            self._check_shares(shares)

    def _check_shares(self, shares: _Shares | None) -> None:
        if shares is None or _UNEVEN & self.world.plan.features:
            return
        if self.world.stopped_s >= _SILENT_S - _SLACK_S:
            return
        picks, serving, handling = shares.dials, shares.serving, shares.serving.handling
        is_plain = handling.balance is Balance.ROUND_ROBIN and not handling.slow_start_s
        if not is_plain or serving.standbys or serving.outside is not None:
            return
        weights = dict(serving.weights)
        total = sum(weights.get(e, 1) for e in serving.endpoints)
        count = sum(picks.values())
        for endpoint in serving.endpoints:
            share = count * weights.get(endpoint, 1) / total
            if abs(picks[endpoint] - share) > (2.0 if weights else 1.0):
                self.world.violate(f"{endpoint} was dialled {picks[endpoint]} of {count} times")

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
        client.joined = (
            group.serving.handling.proxy_protocol,
            group.label,
            SocketAddress(connection.address[0], connection.address[1]),
            connection._frontend(),
        )
        self.pairs.append((client, endpoint, core_of(connection.client), core_of(sock), group))
        self._check_affinity(client, connection)

    def _check_affinity(self, client: Party, connection: TcpConnection) -> None:
        world, dial = self.world, connection.dial
        service = world.services[client.service]
        timeout_s = service.group.serving.affinity_timeout_s
        assert dial is not None, "it has dialled"
        assert dial.endpoint is not None, "it is joined"
        if timeout_s is None or _UNPINNED & world.plan.features:
            return
        key, began = (client.service, connection.client_ip), dial.began_at or 0.0
        pinned, used = self._pinned.get(key, (dial.endpoint, began))
        is_pinned = 0 < began - used < timeout_s and service.changed_at < used
        if dial.endpoint != pinned and is_pinned:
            hosts: list[PodHost] = [world.hosts[each] for each in (pinned, dial.endpoint)]
            if not any(host.may_be_ejected for host in hosts):
                world.violate(f"{key} used {pinned}, then {dial.endpoint}")
        if began >= used:
            self._pinned[key] = dial.endpoint, began

    # -- after each turn ---------------------------------------------------------------------------

    def after_turn(self) -> None:
        """Check tables, deadlines and counters."""
        world = self.world
        now = world.timeline.now
        engine, connections = world.dataplane.engine, world.dataplane.connections
        for timeouts in (
            connections.dial_deadlines,
            connections.client_deadlines,
            connections.held_acks,
            *([connections.headers._deadlines] if connections.headers else ()),
        ):
            for item, due in timeouts._due.items():
                late_s = world.loop.turn_began - due
                if late_s > _SLACK_S + self._stopped_s(due - timeouts._after_s, due):
                    world.violate(f"a deadline has passed {late_s:.3f} s ago: {_name(item)}")
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
        if now >= self._checked_at and not world.is_closed:
            self._checked_at = now + _CHECK_EVERY_S
            self._look_at_rooms(now)
            self._look_at_connections(now)
            self._look_at_counters()

    def _stopped_s(self, began: float, due: float) -> float:
        """Return for how long iterations were stopped in which a deadline's timer may be set.

        Timers are relative: one that is set after the stop is as late as the stop was long.
        """
        stops = self.world.loop.stops
        return sum(s for turn_began, ended, s in stops if turn_began <= due and began <= ended)

    def _look_at_rooms(self, now: float) -> None:
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
            is_new = service.changed_at > now - hold.seconds
            if len(room) > hold.connections and not is_new:
                self.world.violate(f"{len(room)} clients wait, not {hold.connections}")

    def _look_at_connections(self, now: float) -> None:
        world, node = self.world, self.world.plan.node
        connections = world.dataplane.connections
        more_s = 2 * LOOK_S + world.stopped_s + _SLACK_S
        for connection in connections.open:
            if connection.is_closed:
                world.violate(f"a closed connection is listed: {_name(connection)}")
            self._check_removed(connection, now)
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

    def _check_removed(self, connection: TcpConnection, now: float) -> None:
        """A connection to an endpoint that has left ends, where the Service asks for it."""
        dial = connection.dial
        service = next(s for s in self.world.services if s.group is connection.group)
        removal_s = service.group.serving.handling.removal_s
        if removal_s is None or dial is None or dial.endpoint is None or connection.up is None:
            return
        party = self.world.accepted[core_of(connection.up.sink).peer]
        # One that is answered later is ended by the next look.
        due = max(service.changed_at + removal_s, party.joined_at)
        late_s = now - due - self.world.stopped_s
        has_left = dial.endpoint not in service.group.serving.all_endpoints
        if has_left and dial.had_begun_by(service.changed_at) and late_s > _WAIT_SLACK_S:
            self.world.violate(f"{_name(connection)} is connected to {dial.endpoint}, which left")

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
                if counted != active[id(group), endpoint]:
                    self.world.violate(
                        f"{endpoint} has {active[id(group), endpoint]} connections, not {counted}"
                    )
                counted = group.loads._dialling.get(endpoint, 0)
                if counted != dialling[id(group), endpoint]:
                    self.world.violate(
                        f"{endpoint} has {dialling[id(group), endpoint]} dials, not {counted}"
                    )

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
