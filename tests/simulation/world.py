"""One run of a plan: the data plane with its Services, among clients and endpoints."""

from __future__ import annotations

import _socket
import contextlib
import logging
import math
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

from userspace_proxy.dataplane import DataPlane, EndpointGroup, Tuning, tcp
from userspace_proxy.dataplane.connection_log import LOGGER
from userspace_proxy.kernel.pktinfo import IP_PKTINFO
from userspace_proxy.model import Protocol, SocketAddress
from userspace_proxy.model.proxy_protocol import write_header
from userspace_proxy.model.serving import Serving

from . import plan as plans
from .actors import Asker, Party, PodHost
from .kernel import Kernel, Runaway
from .network import Address, Network
from .oracles import Oracles
from .plan import Event, Plan
from .seam import installed, logging_to
from .sockets import SimulatedSocket
from .streams import Stream
from .timeline import Timeline, VirtualLoop

_FINISHING_S = 100.0
# Longer than any deadline, and than a flow's idle time.
_REST_S = 500.0
_MAX_TURNS = 60_000
_MEMORY_LIMIT = 1 << 20

TRUSTED = "10.3.200.0/24"
"""Clients there send PROXY headers, if the data plane reads them."""
_FRONTEND = SocketAddress("203.0.113.1", 443)


class _Lines(logging.Handler):
    """Passes on the fields of the connection log's lines."""

    def __init__(self, take: Callable[[dict[str, Any]], None]) -> None:
        super().__init__()
        self._take = take

    def emit(self, record: logging.LogRecord) -> None:
        self._take(record.__dict__)


class _Limit:
    """Part of MemoryLimit."""

    limit = _MEMORY_LIMIT
    counts_sockets = True

    def __init__(self) -> None:
        self.share = 0.0

    def used(self) -> int:
        return int(self.limit * self.share)

    estimate = used


class Service:
    """One Service port in a run."""

    def __init__(self, world: World, planned: plans.ServicePlan) -> None:
        self.world = world
        self.planned = planned
        self.group = EndpointGroup(
            f"shop/web-{planned.address[1]}:http",
            planned.serving,
            pins=world.dataplane.engine.pins,
        )
        self.changed_at = world.timeline.now
        self.sock: SimulatedSocket | None = None
        self.listener: Any = None
        self.open()

    def open(self) -> None:
        """Open its socket and its listener, if they aren't open."""
        if self.sock is not None:
            return
        is_tcp = self.planned.protocol is Protocol.TCP
        sock: Any
        with self.world.kernel.granted():
            sock = self.world.kernel.socket(2, 1 if is_tcp else 2)
            sock.core.name = f"listener of {self.planned.address[0]}"
            # As ``sockets.open_listening`` does.
            if is_tcp:
                sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_OOBINLINE, 1)
            elif self.planned.address[0] == "0.0.0.0":
                sock.setsockopt(_socket.IPPROTO_IP, IP_PKTINFO, 1)
            sock.bind(self.planned.address)
            if is_tcp:
                sock.listen(16)
            self.listener = self.world.dataplane.open_listener(
                self.group, self.planned.protocol, sock, SocketAddress(*self.planned.address)
            )
        self.sock = sock

    def close(self) -> None:
        """Close its listener, then its socket."""
        if self.sock is not None:
            self.world.dataplane.close_listener(self.listener)
            self.sock.close()
            self.sock = None

    def update(self, serving: Serving) -> None:
        """Serve its clients in another way."""
        self.changed_at = self.world.timeline.now
        left = self.group.update(serving, self.world.dataplane.engine.clock())
        self.world.dataplane.connections.removals.updated(self.group, left)


class World:
    """Everything of one run; :meth:`run` returns what was wrong.

    Args:
        is_traced: Whether to note each step.
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
        self.stopped_s = 0.0
        """How long the process was stopped in all."""
        self.clients: dict[int, Party] = {}
        self.accepted: dict[Stream, Party] = {}
        self.askers: dict[tuple[Address, Address], Asker] = {}
        self.answered: set[bytes] = set()
        self.memory = _Limit()
        self.memory_limits = [self.memory]

    @property
    def trace(self) -> list[tuple[float, str]]:
        """What happened, if it is traced."""
        return self.network.trace or []

    def run(self) -> list[str]:
        """Carry the plan out; return what was wrong, the first first."""
        node = self.plan.node
        constants = {
            "BUFFER_BYTES": node.buffer_bytes,
            "BULK_BYTES": node.bulk_bytes,
            "PIPE_BYTES": node.pipe_bytes,
            "ROUNDS": node.rounds,
            "SPLICE_ROUNDS": node.rounds,
            # As on a node, they read all that a socket keeps.
            "LAST_TURNS": 128 // node.rounds,
        }
        with (
            logging_to(logging.NullHandler(), "userspace_proxy", logging.CRITICAL),
            logging_to(_Lines(self._ended), LOGGER, logging.INFO),
            installed(self.kernel, self.rng, constants),
            self._noting_joins(),
        ):
            try:
                self._begin()
                self._pass()
            except (Exception, Runaway) as exc:  # noqa: BLE001 - whatever it is, it is a finding
                self.violate(f"the run ended with {exc!r}")
        return self.violations

    def _ended(self, line: dict[str, Any]) -> None:
        self.oracles.ended(line)

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
            proxy_protocol_from=(TRUSTED,) if node.reads_headers else (),
        )
        self.dataplane = DataPlane(self.loop, tuning, clock=self.timeline.clock)  # type: ignore[arg-type]
        self.reactor = self.dataplane.engine.reactor
        self.network.closing = lambda: self.reactor._late
        self.oracles = Oracles(self)
        self.kernel.on_connect = self.oracles.dialled
        if node.is_preserving:
            self.dataplane.preserve((), {"10.2.0.0/16": 5, "10.3.0.0/17": 7}, is_on=True)
        if "memory" in self.plan.features:
            self.dataplane.watch_memory(lambda: list(self.memory_limits))
        self.hosts = {
            endpoint: PodHost(self, endpoint, scripts)
            for endpoint, scripts in self.plan.scripts.items()
        }
        self.network.hosts.update({(at[0], at[1]): host for at, host in self.hosts.items()})
        self.services: list[Service] = []
        self.loop.run(self._open_services)
        for event in self.plan.events:
            self.timeline.at(self.began + event.at, self._happen, event)

    def _open_services(self) -> None:
        self.services += [Service(self, planned) for planned in self.plan.services]

    def _pass(self) -> None:
        self._run_until(self.calm_at)
        ends = self.plan.node.ends
        if ends == "abrupt":
            self.loop.run(self._close)
        elif ends == "drain":
            for service in self.services:
                self.loop.call_soon(service.close)
            self.loop.call_soon(self.dataplane.drain, 3.0, self.oracles.drained)
        self.is_calm = True
        for party in (*self.clients.values(), *self.accepted.values()):
            party.calm_down()
        self.kernel.lacking.clear()
        self.memory.share = 0.0
        self.finishing_at = max(self.timeline.now, self.loop.held_until) + self.plan.calm_s
        self._run_until(self.finishing_at)
        if self.violations:
            return
        self.oracles.after_calm()
        self.is_finishing = True
        self._run_until(self.finishing_at + _FINISHING_S)
        if self.violations:
            return
        self.oracles.after_the_end()
        # Usage would be read four times a second.
        self.memory_limits.clear()
        self._run_until(self.finishing_at + _FINISHING_S + _REST_S)
        if self.violations:
            return
        if not self.is_closed:
            self.loop.run(self._settle)
            self.oracles.at_rest()
            self.loop.run(self._close)
            self._run_until(self.timeline.now + 10.0)
        self.oracles.at_end()

    def _run_until(self, end: float) -> None:
        while not self.violations and self.timeline.now < end and self.turns < _MAX_TURNS:
            begins = max(self.timeline.now, self.timeline.next_at)
            self.timeline.run_until(min(end, begins + 1.0))
        if self.turns >= _MAX_TURNS:
            self.violate("the loop doesn't come to rest")

    def _settle(self) -> None:
        for _ in self.dataplane.settle():
            pass

    def _close(self) -> None:
        self.is_closed = True
        for service in self.services:
            service.close()
        self.dataplane.close()

    def _after_turn(self) -> None:
        self.turns += 1
        self.oracles.after_turn()

    # -- events ------------------------------------------------------------------------------------

    def _happen(self, event: Event) -> None:
        what, args = event.what, event.args
        if what == plans.CLIENT:
            self._add_client(*args)
        elif what == plans.ASK:
            self._ask(*args)
        elif what == plans.BEHAVE:
            self.hosts[args[0]].mix = args[1]
            self.network.note(f"endpoint {args[0].ip}: {', '.join(args[1])} from now on")
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
            self.memory.share = args[0]
            self.network.note(f"memory: {args[0]:.0%} used")
        else:
            # The loop gets it as a message.
            self.loop.call_soon(self._change, what, *args)

    def _stop(self, what: str, seconds: float) -> None:
        if self.is_calm:
            return
        self.network.note(f"{'the process' if what == plans.STOP else 'all'} stopped {seconds:g} s")
        self.stopped_s += seconds
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
        elif what == plans.ELSEWHERE:
            endpoint, how = args
            now = self.timeline.now
            self.network.note(f"another worker: {endpoint} {how}")
            if how == "answered":
                self.hosts[endpoint].answered_at = now
                service.group.outcomes.answered_elsewhere(endpoint, now)
            else:
                self.hosts[endpoint].was_reported = True
                current = service.group.balancers.current
                current.failed(endpoint, now, is_silent=how == "silent")

    def _add_client(self, number: int, service: int, ip: str, steps: Any, how: str) -> None:
        address = (ip, 20000 + number)
        to = self.plan.services[service].address
        stream = self.network.dial(f"client {number}", address, to)
        self.network.note(f"client {number} at {ip}: dials service {service}")
        party = self.clients[number] = Party(self, stream, number, steps)
        party.service = service
        if self.plan.node.reads_headers and ip.startswith("10.3.200."):
            announced = SocketAddress(f"198.51.100.{number + 1}", 5000 + number)
            party.announce(announced, _FRONTEND, how)
        if self.is_calm:
            party.calm_down()

    def _ask(self, service: int, client: Address, hops: int) -> None:
        to = self.plan.services[service].address
        if to[0] == "0.0.0.0":
            to = ("10.1.0.1", to[1])
        asker = self.askers.get((client, to))
        if asker is None:
            asker = self.askers[client, to] = Asker(self, client, to)
        asker.ask(hops)

    # -- for actors and oracles --------------------------------------------------------------------

    def note_accepted(self, party: Party) -> None:
        self.accepted[party.stream] = party
        if self.is_calm:
            party.calm_down()

    def header_of(self, client: Party) -> bytes:
        """Return what the data plane sends to an endpoint before a client's bytes."""
        connection = client.joined
        assert connection is not None, "it is joined"
        version, label, source, frontend = connection
        return b"" if version is None else write_header(version, source, frontend, label)

    @contextlib.contextmanager
    def _noting_joins(self) -> Iterator[None]:
        """Have the data plane report which two sides it joins."""
        join = tcp.TcpConnection.join

        def noting(connection: Any, sock: SimulatedSocket, events: int) -> None:
            self.oracles.joined(connection, sock)
            join(connection, sock, events)  # type: ignore[arg-type]

        tcp.TcpConnection.join = noting  # type: ignore[method-assign,assignment]
        try:
            yield
        finally:
            tcp.TcpConnection.join = join  # type: ignore[method-assign]
