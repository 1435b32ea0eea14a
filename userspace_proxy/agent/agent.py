"""The node's agent: serves the Services of one source until it is stopped.

start   lock ▶ plane ▶ steering ▶ node ▶ sync loop, last state ▶ status servers ▶ source
stop    connections drain, and new ones are served ▶ nothing is steered ▶ listeners close
        ▶ kernel state is removed
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Self

from ..errors import UserspaceProxyError
from ..kernel.addresses import NodeAddresses
from ..kernel.nf_tables.owned import OwnerSockets
from ..kernel.port_holders import who_holds
from ..log_fields import FieldLogger
from ..model import IPFamily, Protocol, SocketAddress
from ..plan import Plan, Planner
from ..plane import Plane, PlaneState, PortPool
from ..policy import NodeFacts
from ..sources import Source
from ..status.health import is_working
from ..status.view import HealthCheckView, ServicePortView, StatusView
from ..steering import Steering
from ..version import __version__
from .addresses import AddressPrinter
from .client_address import ClientAddresses
from .demand import Demand
from .facts import ADDRESSES_WITHOUT_STEERING, make_facts, options_with, why_no_node_ports
from .firewalls import FirewallWatch
from .hand_over import adopt, relieve, worker_label
from .kernel_counts import KernelCounts
from .last_state import LastState
from .names import ProxyNames, serve_dns
from .node import (
    keep_owners,
    open_steering,
    prepare_node,
    remove_client_addresses,
    remove_steering,
    start_client_addresses,
    steer_nothing,
)
from .options import Options
from .served_ports import ServedPorts
from .status_servers import StatusServers
from .sync import SyncLoop
from .tasks import Supervisor, first_of
from .tracking import TrackingWatch, exempt_ports
from .view import view_health_checks, view_ports, view_probes, view_proxy
from .wall_clock import WallClock

if TYPE_CHECKING:
    from ..cluster import Snapshot
    from ..plane.adoption import Predecessors
    from ..status.health_checks import HealthCheckPorts

_log = FieldLogger("userspace_proxy.agent")


class Agent:
    """Serves the Services of one source on this node.

    It lives in the loop that starts it, asyncio's own or uvloop's.

    Args:
        steering: ``none`` (no privileges: frontends are loopback addresses), ``local``,
            ``nftables``, ``iptables`` or ``auto``; or a steering of the caller's own, for which
            nothing else is changed on the node.
        source: Where Services come from.
        options: Everything else.
    """

    def __init__(self, steering: str | Steering, source: Source, options: Options) -> None:
        self.left_behind = False
        """A stop could not remove everything from the kernel."""
        self.dns_address: SocketAddress | None = None
        """Where names of Services are answered by DNS; None: nowhere."""
        self._wanted_steering = steering
        self._source = source
        self._options = options
        self._supervisor = Supervisor()
        self._stack = contextlib.AsyncExitStack()
        self._stopping = asyncio.Event()
        self._planner = Planner(NodeFacts())
        """Its facts are those of the plan in force."""
        self._steering: Steering | None = None
        self._plane: Plane | None = None
        self._predecessors: Predecessors | None = None
        self._served_ports: ServedPorts | None = None
        self._sync: SyncLoop | None = None
        self._demand: Demand | None = None
        self._last_state: LastState | None = None
        self._client_addresses: ClientAddresses | None = None
        self._tracking: TrackingWatch | None = None
        self._firewalls: FirewallWatch | None = None
        self._health_checks: HealthCheckPorts | None = None
        self._status_servers = StatusServers(self.status, lambda: self._view(()))
        self._kernel_counts: KernelCounts | None = None
        self._addresses: Callable[[], Sequence[str]] = lambda: ADDRESSES_WITHOUT_STEERING
        """Returns this node's addresses for node ports."""
        self._no_node_ports = ""
        """Why no address answers at node ports, as far as it was logged."""
        self._started = 0.0
        self._clock = WallClock()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Start to read Services and to serve them; :meth:`stop` undoes it.

        Returns before the first Services are read: see :meth:`settled`. A status address that
        isn't available is a problem of :meth:`status`.

        Raises:
            SourceError: There is nothing to read Services from.
            LockHeld: Another proxy steers this node.
            SteeringError: The steering can't work here; the message says what would.
            ListenError: No port of this node is free, or the address for DNS isn't.
        """
        try:
            await self._start()
        except BaseException:
            await self._supervisor.stop()
            # The process that takes the node back needs what is in the kernel, as after a crash.
            if not self._options.is_awaited():
                await self._stop_client_addresses()
                await self._stack.aclose()
            raise

    async def _start(self) -> None:
        options, stack = self._options, self._stack
        self._started = time.time()
        self._source.check()
        pool = PortPool(*options.proxy_ports)
        steering = self._steering = open_steering(self._wanted_steering, options, pool, stack)
        stack.push_async_callback(steering.close)
        label = worker_label(options) if steering.name != "none" else None
        if label is not None:
            self._predecessors = await adopt(label, stack)
        # First, because processes start while this one reads rules.
        plane = self._plane = self._open_plane(steering, label)
        recovered = await steering.start()
        owners = OwnerSockets(self._predecessors.kept if self._predecessors else None)
        if steering.name != "none":
            if isinstance(self._wanted_steering, str):
                await prepare_node(steering, options, stack, owners)
            self._client_addresses = await start_client_addresses(options, stack, owners, plane)
        keep_owners(owners, plane)
        second = options.second_port
        served_ports = self._served_ports = ServedPorts(
            plane, steering.bind, pool, transparent=steering.needs_transparent, second_port=second
        )
        stack.callback(served_ports.faults.close)
        sync = self._sync = SyncLoop(
            self._planner,
            served_ports,
            steering,
            recovered=recovered,
            min_period_s=options.min_sync_period_s,
            facts=self._facts,
            check_health=self._check_health,
            report=self._source.record,
            prepare=self._client_addresses.prepare if self._client_addresses else None,
            want_nodes=self._source.want_nodes,
        )
        if steering.name != "none":
            addresses = NodeAddresses(asyncio.get_running_loop(), sync.look_again)
            stack.callback(addresses.close)
            self._addresses = lambda: addresses.current
        if (last := self._predecessors) is not None or options.report_serving is not None:
            self._supervisor.start("hand-over", lambda: relieve(last, sync, plane, options))
        self._supervisor.start("sync", sync.run)
        self._demand = Demand(plane, served_ports, self._source, is_allowed=options.allow_wake)
        self._supervisor.start("demand", self._demand.run)
        last_state = self._last_state = LastState(sync, self._source, options)
        # First, because what follows imports half of the program.
        await last_state.serve()
        await self._open_status(plane, sync, KernelCounts(steering, served_ports))
        names = ProxyNames(sync, served_ports, steering.bind, options)
        self.dns_address = await serve_dns(names, options, self._supervisor, stack)
        if steering.name != "none":
            self._watch_node(steering)
        if (write := options.print_addresses) is not None:
            printer = AddressPrinter(sync, served_ports, steering.bind, write)
            self._supervisor.start("addresses", printer.run)
        self._supervisor.start("last state", last_state.run)
        self._supervisor.start("source", lambda: self._source.run(last_state.publish))
        self._log_start(steering, len(recovered))

    def _log_start(self, steering: Steering, recovered: int) -> None:
        fields = {
            "version": __version__,
            "steering": steering.name,
            "source": self._source.kind,
            "location": self._source.location,
            "recovered": recovered,
            "page": SocketAddress(*self.admin_address) if self.admin_address else "none",
            "dns": self.dns_address or "none",
        }
        _log.info("started", extra=fields)

    def _open_plane(self, steering: Steering, label: str | None) -> Plane:
        plane = Plane(
            asyncio.get_running_loop(),
            self._options.workers,
            self._options.tuning,
            # Even if addresses can't be preserved yet: the kernel may allow it later.
            keeps_net_raw=steering.name != "none" and self._options.preserves_client_address,
            label=label,
            predecessors=self._predecessors,
            dialer=self._options.dialer,
        )
        plane.start()
        self._stack.callback(plane.close)
        return plane

    def _watch_node(self, steering: Steering) -> None:
        """Follow what other programs change on a node whose kernel steers packets."""
        untracked = None
        if isinstance(self._wanted_steering, str):
            status = (self.health_address, self.admin_address)
            untracked = exempt_ports(status, self._options.proxy_name, self._stack)
        self._tracking = TrackingWatch(self._source.record, untracked)
        self._supervisor.start("tracking", self._tracking.run)
        if self._client_addresses is not None:
            self._supervisor.start("client addresses", self._client_addresses.repair)
        if isinstance(self._wanted_steering, str):
            self._firewalls = FirewallWatch(steering.name, self._options.proxy_ports)
            self._stack.callback(self._firewalls.close)
            self._supervisor.start("firewalls", self._firewalls.run)

    def _facts(self, snapshot: Snapshot) -> NodeFacts:
        options = self._options
        if self._steering is not None:
            options = options_with(self._steering.name, options)
        no_kernel_path = self._steering.no_kernel_path if self._steering is not None else {}
        facts = make_facts(options, snapshot, self._addresses(), no_kernel_path)
        before, self._no_node_ports = self._no_node_ports, why_no_node_ports(facts)
        if (cause := self._no_node_ports) not in ("", before):
            _log.warning("node ports are not served: %(cause)s", extra={"cause": cause})
        return facts

    async def _check_health(self, plan: Plan) -> None:
        """Serve the health check node ports of a plan."""
        if self._health_checks is None:
            if not plan.health_checks:
                return
            # aiohttp takes half a second to import, and few proxies have such a Service.
            from ..status.health_checks import HealthCheckPorts

            self._health_checks = HealthCheckPorts(
                lambda: is_working(self._view(()), time.time()),
                who_holds=lambda ip, port: who_holds(Protocol.TCP, port, IPFamily.of(ip)),
            )
            self._stack.push_async_callback(self._health_checks.close)
        facts = self._planner.facts
        await self._health_checks.apply(
            plan.health_checks.values(),
            None
            if facts.has_node_ports_everywhere
            else [ip for family in IPFamily for ip in facts.node_port_addresses(family)],
        )

    async def _open_status(self, plane: Plane, sync: SyncLoop, counts: KernelCounts) -> None:
        self._kernel_counts = counts

        async def refresh() -> None:
            await asyncio.gather(plane.refresh(), counts.refresh())

        options, supervisor, stack = self._options, self._supervisor, self._stack
        await self._status_servers.open(options, plane, sync, refresh, supervisor, stack)

    @property
    def admin_address(self) -> tuple[str, int] | None:
        """Where the page answers; None while it doesn't."""
        return self._status_servers.admin_address

    @property
    def health_address(self) -> tuple[str, int] | None:
        """Where ``/healthz`` answers; None while it doesn't."""
        return self._status_servers.health_address

    async def stop(self, *, drain_s: float = 0.0) -> None:
        """Undo :meth:`start`; nothing of this proxy stays in the kernel. Idempotent.

        Args:
            drain_s: Seconds that open connections may go on; then they are reset. New ones are
                served meanwhile, too.
        """
        self._stopping.set()
        if self._plane is not None:
            await self._plane.idle(drain_s)
        await self._supervisor.stop()
        if self._predecessors is not None:
            self._predecessors.end()
        # No client is steered to a closed port. Open connections need the rest, which goes last.
        if self._steering is not None:
            await steer_nothing(self._steering)
        if self._served_ports is not None:
            self._served_ports.close()
        if self._plane is not None and (reset := await self._plane.drain(0)):
            _log.warning("connections were reset at the end of the drain", extra={"count": reset})
        steering, self._steering = self._steering, None
        if steering is not None and not await remove_steering(steering):
            self.left_behind = True
        await self._stop_client_addresses()
        await self._stack.aclose()

    async def _stop_client_addresses(self) -> None:
        client_addresses, self._client_addresses = self._client_addresses, None
        if client_addresses is not None and not await remove_client_addresses(client_addresses):
            self.left_behind = True

    async def is_awaited(self) -> bool:
        """Return whether the last process takes the node back when this one ends.

        This agent doesn't report any more that it serves, so end it in either case.
        """
        await self._supervisor.stop("hand-over")
        return self._options.is_awaited()

    def abandon(self) -> None:
        """End the workers; this process exits at once, and leaves all else as it is."""
        if self._plane is not None:
            self._plane.hang_up()

    async def failed(self) -> UserspaceProxyError:
        """Wait until the source or the steering can't go on, and return why."""
        return await self._supervisor.failed()

    async def settled(self) -> None:
        """Wait until everything that the source has published is in force.

        Raises:
            UserspaceProxyError: The source can't be read at all.
            RuntimeError: The proxy was stopped meanwhile.
        """
        sync = self._running()
        outcome = await first_of(self._supervisor.failed(), sync.settled(), self._stopping.wait())
        if isinstance(outcome, UserspaceProxyError):
            raise outcome
        if outcome is not None:
            raise RuntimeError("this proxy was stopped before the change was in force")

    def _running(self) -> SyncLoop:
        if self._sync is None or self._stopping.is_set():
            raise RuntimeError("this proxy isn't running: enter `async with Proxy(…)` first")
        return self._sync

    def status(self) -> StatusView:
        """Return everything about this proxy at this moment.

        Counters of worker processes are some seconds old; those of the page are not.
        """
        plane, served_ports, steering = self._plane, self._served_ports, self._steering
        if plane is None or served_ports is None or steering is None:
            return self._view(())
        ports = view_ports(served_ports, plane, steering.bind, self._clock)
        problems = self._health_checks.problems if self._health_checks is not None else {}
        plan = self._sync.plan if self._sync is not None else Plan.empty()
        return self._view(ports, view_health_checks(plan, problems))

    def _view(
        self, ports: tuple[ServicePortView, ...], checks: tuple[HealthCheckView, ...] = ()
    ) -> StatusView:
        view = view_proxy(
            ports,
            health_checks=checks,
            options=self._options,
            started=self._started,
            source=self._source,
            steering=self._steering,
            sync=self._sync,
            last_state=self._last_state,
            plane=self._plane.state() if self._plane else PlaneState(0, 0, is_accepting=False),
            is_draining=self._stopping.is_set(),
            unserved=self._status_servers.problems,
            client_addresses=self._client_addresses,
            tracking=self._tracking,
            firewalls=self._firewalls.found if self._firewalls else (),
        )
        probes = view_probes(self._served_ports)
        demand = self._demand.services() if self._demand else view.demand
        counted = self._kernel_counts.total if self._kernel_counts else None
        totals = replace(view.totals, kernel_connections=counted)
        return replace(view, probes=probes, demand=demand, totals=totals)
