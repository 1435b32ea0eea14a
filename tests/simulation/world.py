"""Runs a plan: the data plane with its Services, among clients and endpoints."""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import math
from collections.abc import Callable
from random import Random
from typing import Any

from tests.port_keys import port_key
from userspace_proxy.dataplane import DataPlane, EndpointGroup, Engine, Tuning
from userspace_proxy.dataplane.connection_log import LOGGER
from userspace_proxy.kernel.listening_sockets import is_wildcard
from userspace_proxy.model import SocketAddress
from userspace_proxy.model.proxy_protocol import write_header
from userspace_proxy.model.serving import Serving

from . import plan as plans
from .actors import Asker, Party, PodHost
from .addresses import alike, ipv6_of
from .clients import ANNOUNCED_FROM, CLIENTS_FROM, Clients
from .flows import Flows
from .health import Health
from .holdings import holdings
from .judgements import Judgements
from .kernel import Kernel, Runaway
from .network import Address, Network
from .plan import Event, Plan
from .promises import PROMISES, Promise
from .routes import LINKS
from .seam import installed, logging_to
from .services import Service
from .streams import Stream
from .timeline import Timeline, VirtualLoop

ORACLES = tuple(promise.name for promise in PROMISES)
"""The oracles of a campaign."""

_FINISHING_S = 100.0
# The time for which connections may stay open after their endpoint was removed.
_REMOVED_S = 10.0
# Longer than any deadline and any flow's idle timeout.
_REST_S = 500.0
_MAX_TURNS = 60_000
_DRAIN_S = 3.0
_MEMORY_BYTES = 1 << 20

TRUSTED = "10.3.200.0/24"
"""The network whose clients send PROXY headers, if the data plane reads them."""
_FRONTEND = SocketAddress("203.0.113.1", 443)


def is_trusted(ip: str) -> bool:
    """Return whether a client may send a PROXY header."""
    return ipaddress.ip_address(ip) in ipaddress.ip_network(alike(TRUSTED, ip))


class _Lines(logging.Handler):
    """Passes on the fields of the lines of the connection log."""

    def __init__(self, take: Callable[[dict[str, Any]], None]) -> None:
        super().__init__()
        self._take = take

    def emit(self, record: logging.LogRecord) -> None:
        self._take(record.__dict__)


class _Limit:
    """Simulates MemoryLimit."""

    counts_sockets = True

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.share = 0.0

    def used(self) -> int:
        return int(self.limit * self.share)

    estimate = used


class World:
    """The state of one run; :meth:`run` returns the violations.

    Args:
        is_traced: Whether to record each step.
    """

    def __init__(self, plan: Plan, *, is_traced: bool = False) -> None:
        self.plan = plan
        node = plan.node
        rng = Random(plan.seed)
        self.rng = rng
        self.timeline = Timeline()
        self.began = self.timeline.now
        self.network = Network(
            self.timeline,
            rng,
            delay_s=node.delay_s,
            segment_bytes=node.segment_bytes,
            inbox_bytes=node.inbox_bytes,
            outbox_bytes=node.outbox_bytes,
            loss=node.loss,
        )
        if is_traced:
            self.network.trace = []
        self.kernel = Kernel(
            self.network,
            rng,
            preemption=node.preemption,
            spurious=node.spurious,
            pipe_bytes=node.pipe_bytes,
        )
        self.violate = self.kernel.violate
        self.violations = self.kernel.violations
        self.judgements = Judgements(self.network.note, self.violations)
        self.loop = VirtualLoop(
            self.timeline,
            rng,
            timers_first=node.timers_first,
            is_ready=self.kernel.is_ready,
            report=self.violate,
            after_turn=self._after_turn,
        )
        self.loop.after_callback = self.kernel.end_batch
        self.kernel.woken = self.loop.wake
        self.is_calm = self.is_finishing = self.is_closed = False
        self.calm_at = self.began + plan.calm_at
        self.finishing_at = math.inf
        self.turns = 0
        self.stops: list[tuple[float, float]] = []
        """The start and duration of each stop, in seconds."""
        self.clients: dict[int, Party] = {}
        self.accepted: dict[Stream, Party] = {}
        self.askers: dict[Address, Asker] = {}
        self.clients_seen = self.kernel.watcher = Clients(self)
        self.flows = self.network.watcher = Flows(self)
        self.health = Health(self)
        self.promises: list[Promise] = [promise(self) for promise in PROMISES]
        self.drain_s = _DRAIN_S
        self.drains_since = math.inf
        self.times_drained = 0
        self.memory = _Limit(_MEMORY_BYTES)
        self.memory_limits = [self.memory]

    @property
    def trace(self) -> list[tuple[float, str]]:
        """The traced events; empty unless the world records them."""
        return self.network.trace or []

    @property
    def drained_for_s(self) -> float:
        """The seconds for which the data plane has been draining."""
        return self.timeline.now - self.drains_since

    def stopped_since(self, since: float) -> float:
        """Return the total duration of the stops that ended, or will end, after a time."""
        return sum(seconds for began, seconds in self.stops if began + seconds >= since)

    def run(self) -> list[str]:
        """Run the plan; return the violations in order."""
        node = self.plan.node
        constants = {
            "BUFFER_BYTES": node.buffer_bytes,
            "BULK_BYTES": node.bulk_bytes,
            "PIPE_BYTES": node.pipe_bytes,
            "ROUNDS": node.rounds,
            "SPLICE_ROUNDS": node.rounds,
            # As on a node, one read can take a whole socket buffer.
            "LAST_TURNS": 128 // node.rounds,
        }
        with (
            logging_to(logging.NullHandler(), "userspace_proxy", logging.CRITICAL),
            logging_to(_Lines(self.clients_seen.ended), LOGGER, logging.INFO),
            installed(self.kernel, self.rng, constants, self.network.absent_hop),
            self.clients_seen.watched(),
        ):
            try:
                self._begin()
                self._pass()
            except (Exception, Runaway) as exc:  # noqa: BLE001 - whatever it is, it is a finding
                self.violate(f"the run ended with {exc!r}")
        return self.violations

    def _begin(self) -> None:
        node = self.plan.node
        tuning = Tuning(
            tcp_idle_s=node.tcp_idle_s,
            tcp_half_closed_s=node.half_closed_s,
            udp_idle_s=node.udp_idle_s,
            max_flows=node.max_flows,
            max_pipes=node.max_pipes,
            descriptor_limit=node.descriptor_limit,
            connection_log=1.0,
            proxy_protocol_from=(TRUSTED, ipv6_of(TRUSTED)) if node.reads_headers else (),
            processes=node.processes,
        )
        engine = Engine(self.loop, tuning, clock=self.timeline.clock)  # type: ignore[arg-type]
        self.dataplane = DataPlane(engine)
        self.reactor = self.dataplane.engine.reactor
        self.network.closing = lambda: self.reactor._late
        if node.is_preserving:
            engine.client_dialer.is_on = True
            engine.client_dialer.locality.change((), LINKS)
        if "memory" in self.plan.features:
            self.dataplane.engine.memory.watch(lambda: list(self.memory_limits))
        self.hosts = {
            endpoint: PodHost(self, endpoint, scripts)
            for endpoint, scripts in self.plan.scripts.items()
        }
        for endpoint, goes_on in self.plan.streams.items():
            self.hosts[endpoint].goes_on = goes_on
        self.network.hosts.update({(at[0], at[1]): host for at, host in self.hosts.items()})
        self.services: list[Service] = []
        groups = [
            EndpointGroup(
                port_key("shop/web:http"),
                start=node.index,
                processes=node.processes,
                entries=self.dataplane.engine.entries,
            )
            for _ in self.plan.services
        ]
        self.held_by_new = holdings(self.dataplane, *groups)
        self.loop.run(self._open_services)
        for event in self.plan.events:
            self.timeline.at(self.began + event.at, self._happen, event)

    def _open_services(self) -> None:
        for number, planned in enumerate(self.plan.services):
            self.services.append(Service(self, number, planned))

    def _pass(self) -> None:
        self._run_until(self.calm_at)
        ends = self.plan.node.ends
        if ends == "abrupt":
            self.loop.run(self._close)
        elif ends == "drain":
            for service in self.services:
                self.loop.call_soon(service.close)
            self.loop.call_soon(self._drain)
        self.network.asked_for.clear()
        self.is_calm = True
        for party in (*self.clients.values(), *self.accepted.values()):
            party.calm_down()
        self.kernel.lacking.clear()
        for _, at in self.network.policies:
            # Clients that the endpoint denied may have caused its ejection.
            self.hosts[SocketAddress(*at)].failures.append(self.timeline.now)
        self.network.policies.clear()
        self._use_memory(0.0)
        self.finishing_at = max(self.timeline.now, self.loop.held_until) + self.plan.calm_s
        self._run_until(self.finishing_at)
        if self.violations:
            return
        self._judge(Promise.all_read)
        self.is_finishing = True
        for party in (*self.clients.values(), *self.accepted.values()):
            party.look()
        self._run_until(self.finishing_at + _FINISHING_S)
        if self.violations:
            return
        self._judge(Promise.all_ended)
        # By default, memory usage would be read four times a second.
        self.memory_limits.clear()
        self._run_until(self.finishing_at + _FINISHING_S + _REST_S)
        if self.violations:
            return
        if not self.is_closed:
            self.loop.run(self._settle)
            self._judge(Promise.at_rest)
            self.loop.run(self._remove_all)
            self._run_until(self.timeline.now + _REMOVED_S)
            self._judge(Promise.all_removed)
            self.loop.run(self._close)
            self._run_until(self.timeline.now + 10.0)
        self._judge(Promise.all_closed)

    def _judge(self, moment: Callable[[Promise], None]) -> None:
        for promise in self.promises:
            getattr(promise, moment.__name__)()

    def _run_until(self, end: float) -> None:
        while not self.violations and self.timeline.now < end and self.turns < _MAX_TURNS:
            begins = max(self.timeline.now, self.timeline.next_at)
            self.timeline.run_until(min(end, begins + 1.0))
        if self.turns >= _MAX_TURNS:
            self.violate("the loop doesn't come to rest")

    def _settle(self) -> None:
        for _ in self.dataplane.settle():
            pass

    def _drain(self) -> None:
        self.drains_since = self.timeline.now
        self.dataplane.drain(_DRAIN_S, self._drained)

    def _drained(self, _reset: int) -> None:
        self.times_drained += 1
        late_s = self.drained_for_s - _DRAIN_S - self.stopped_since(self.drains_since)
        if late_s > 0.05 or self.dataplane.connections.open:
            self.violate(f"drained {late_s:.3f} s late, or connections are open")

    def _remove_all(self) -> None:
        self.dataplane.engine.calls.take()
        for service in self.services:
            service.update(Serving())
            service.close()

    def _close(self) -> None:
        self.is_closed = True
        for service in self.services:
            service.close()
        self.dataplane.close()

    def _after_turn(self) -> None:
        self.turns += 1
        for promise in self.promises:
            promise.turn_over()

    def _happen(self, event: Event) -> None:
        what, args = event.what, event.args
        if what == plans.CLIENT:
            self._add_client(*args)
        elif what == plans.ASK:
            self._ask(*args)
        elif what == plans.BEHAVE:
            self.hosts[args[0]].mix = args[1]
            self.network.asked_for.pop(args[0].ip, None)
            self.network.note(f"endpoint {args[0].ip}: {', '.join(args[1])} from now on")
        elif what == plans.DENY:
            endpoint, ips, how = args
            self.network.policies.update(((ip, endpoint), how) for ip in ips)
            self.network.note(f"endpoint {endpoint.ip}: {how} to {', '.join(ips)} from now on")
        elif what == plans.LACK:
            name, seconds = args
            self.kernel.lacking.add(name)
            self.network.note(f"kernel: out of {name} for {seconds:g} s")
            self.timeline.after(seconds, self.kernel.lacking.discard, name)
        elif what in (plans.STOP, plans.SKIP):
            self._stop(what, args[0])
        elif what == plans.REPORT:
            self.loop.call_soon(self._settle)
        elif what == plans.MEMORY:
            self._use_memory(args[0])
        else:
            # The loop receives the change as a message, so it takes effect in an iteration.
            self.loop.call_soon(self._change, what, *args)

    def _use_memory(self, share: float) -> None:
        self.network.note(f"memory: {share:.0%} used")
        self.health.used_memory(share)
        self.memory.share = share

    def _stop(self, what: str, seconds: float) -> None:
        if self.is_calm:
            return
        self.network.note(f"{'the process' if what == plans.STOP else 'all'} stopped {seconds:g} s")
        self.stops.append((self.timeline.now, seconds))
        if what == plans.STOP:
            self.loop.hold(seconds)
        else:
            self.loop.skip(seconds)

    def _change(self, what: str, number: int, *args: Any) -> None:
        if self.is_closed:
            return
        service = self.services[number]
        if what == plans.UPDATE:
            self.network.note(f"service {number}: {args[0]}")
            service.update(args[0])
        elif what == plans.CLOSE_LISTENER:
            self.network.note(f"service {number}: listener closed")
            service.close()
        elif what == plans.OPEN_LISTENER:
            with contextlib.suppress(OSError):
                service.open()
        elif what == plans.MOVE_LISTENER:
            self.network.note(f"service {number}: listener accepts for service {args[0]}")
            service.move_listener(self.services[args[0]])
        elif what == plans.ELSEWHERE:
            endpoint, how = args
            now = self.timeline.now
            self.network.note(f"another worker: {endpoint} {how}")
            if how == "answered":
                service.group.answered_elsewhere(endpoint, now)
                service.answered[endpoint] = now
            else:
                current = service.group.balancers.current
                current.failed(endpoint, now, is_silent=how == "silent")
                self.health.reported(endpoint)

    def _add_client(self, number: int, service: int, ip: str, steps: Any, how: str) -> None:
        assert number not in self.clients, f"another client has the number {number}"
        address = (ip, CLIENTS_FROM + number)
        to = self.plan.services[service].address
        stream = self.network.dial(f"client {number}", address, to)
        self.network.note(f"client {number} at {ip}: dials service {service}")
        party = self.clients[number] = Party(self, stream, number, steps)
        party.service = service
        party.own = party.served_as = SocketAddress(*address)
        party.dialled = SocketAddress(*to)
        if self.plan.node.reads_headers and is_trusted(ip):
            announced = SocketAddress(
                alike(f"198.51.100.{number % 6 + 1}", ip), ANNOUNCED_FROM + number
            )
            frontend = SocketAddress(alike(_FRONTEND.ip, ip), _FRONTEND.port)
            party.announce(announced, frontend, how)
            party.served_as, party.dialled = announced, frontend
        if self.is_calm:
            party.calm_down()

    def _ask(self, number: int, client: Address, hops: int, place: int) -> None:
        service = self.services[number]
        to = service.planned.address
        if is_wildcard(to[0]):
            to = (alike(f"10.1.0.{place}", to[0]), to[1])
        asker = self.askers.get(client) or Asker(self, client)
        self.askers[client] = asker
        asker.ask(service, to, hops)

    def note_accepted(self, party: Party) -> None:
        self.accepted[party.stream] = party
        if self.is_calm:
            party.calm_down()

    def header_of(self, client: Party) -> bytes:
        """Return the header that the data plane sends to an endpoint before a client's bytes."""
        connection = client.joined
        assert connection is not None, "the client isn't joined"
        version, label, source, frontend = connection
        return b"" if version is None else write_header(version, source, frontend, label)
