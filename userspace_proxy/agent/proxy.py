"""The proxy as one object: ``run`` and ``demo`` use it, and so do programs that embed it.

::

    async with Proxy(steering="none") as proxy:
        web = await proxy.add_service("web", port=8080, endpoints=["127.0.0.1:8081"])
        reader, writer = await asyncio.open_connection(*web.address)

It lives in the loop that starts it, asyncio's own or uvloop's, starts no thread and no
process of its own with steering ``none``, and needs no privileges there.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Self

from .. import __version__
from ..errors import ListenError, UserspaceProxyError
from ..kernel.addresses import NodeAddresses
from ..kernel.port_holders import who_holds
from ..model import EndpointSlice, IPFamily, Protocol, Service, ServiceKey, SocketAddress
from ..plan import Plan, Planner
from ..plane import Plane, PlaneState, PortPool
from ..policy import NodeFacts
from ..sources import MemorySource, Source
from ..status.health import is_working
from ..status.view import HealthCheckView, ServicePortView, StatusView
from ..steering import (
    Bind,
    ConntrackHold,
    Steering,
    SteeringFacts,
    TrackingTimeouts,
    Untracked,
    make_steering,
    remove_leftovers,
)
from .added import AddedService, make_service
from .client_address import ClientAddresses
from .facts import make_facts, why_no_node_ports
from .firewalls import FirewallWatch
from .listeners import Listeners
from .lock import NodeLock
from .options import Bind as StatusBind
from .options import Options
from .refuse import RefusePort
from .status_addresses import StatusAddresses
from .sync import SyncLoop
from .tasks import Supervisor
from .tracking import TrackingWatch
from .view import view_health_checks, view_ports, view_proxy

if TYPE_CHECKING:
    from ..cluster import Snapshot
    from ..status.health_checks import HealthCheckPorts
    from ..status.server import StatusServer

_log = logging.getLogger("userspace_proxy.agent")

# Each waits some seconds for a lock that somebody else holds; a pod gets 30 s in all.
_CLEAN_UP_TRIES = 3
# Where node ports stand without steering: nobody else's.
_LOOPBACK = ("127.0.0.1",)


class Proxy:
    """A running Service proxy.

    Args:
        steering: ``none`` (no privileges: frontends are loopback addresses), ``local``,
            ``nftables``, ``iptables`` or ``auto``; or a steering of your own.
        source: Where Services come from; None: from :meth:`add_service` alone.
        options: Everything else.
    """

    def __init__(
        self,
        *,
        steering: str | Steering = "none",
        source: Source | None = None,
        options: Options | None = None,
    ) -> None:
        self._wanted_steering = steering
        self._memory = MemorySource() if source is None else None
        self._source: Source = source or self._memory or MemorySource()
        self._options = options or Options()
        self._supervisor = Supervisor()
        self._lock = NodeLock(self._options.proxy_name)
        self._stack = contextlib.AsyncExitStack()
        self._steering: Steering | None = None
        self._plane: Plane | None = None
        self._client_addresses: ClientAddresses | None = None
        self._tracking: TrackingWatch | None = None
        self._firewalls: FirewallWatch | None = None
        self._listeners: Listeners | None = None
        self._sync: SyncLoop | None = None
        self._stopping = asyncio.Event()
        self._added: dict[ServiceKey, tuple[Service, tuple[EndpointSlice, ...]]] = {}
        """Each Service that was put here, with its slices."""
        self._seed = secrets.token_hex(8)
        """Sets its Services' addresses apart from those of other proxies."""
        self._addresses: Callable[[], Sequence[str]] = tuple
        """Returns the addresses of this node's interfaces."""
        self._planner = Planner(NodeFacts())
        """Its facts are those that the plan in force was made with."""
        self._no_node_ports = ""
        """Why no address answers at node ports, as far as it was logged."""
        self._health_checks: HealthCheckPorts | None = None
        self._status_addresses = StatusAddresses()
        self._started = 0.0
        self.left_behind = False
        """A stop could not remove everything from the kernel."""
        self.admin_address: tuple[str, int] | None = None
        """Where the page answers; None while it doesn't."""
        self.health_address: tuple[str, int] | None = None
        """Where ``/healthz`` answers; None while it doesn't."""

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Open what needs opening and begin to read Services; :meth:`stop` undoes it.

        Returns before the first Services are read: see :meth:`settled`. A status address that
        can't be had is a problem of :meth:`status`, and is tried again every 5 s.

        Raises:
            SourceError: There is nothing to read Services from.
            LockHeld: Another proxy steers this node.
            SteeringError: The steering can't work here; the message says what would.
            ListenError: No port of this node is free.
        """
        try:
            await self._start()
        except BaseException:
            await self._stop_client_addresses()
            await self._stack.aclose()
            raise

    async def _start(self) -> None:
        options = self._options
        self._started = time.time()
        self._source.check()
        first, last = options.proxy_ports
        pool = PortPool(first, last)
        steering = self._steering = self._make_steering(pool)
        self._stack.push_async_callback(steering.close)
        recovered = await steering.start()
        if isinstance(self._wanted_steering, str) and steering.name != "none":
            await self._remove_leftovers(steering.name)
        if steering.bind is Bind.PROXY_PORT and isinstance(self._wanted_steering, str):
            await self._hold_conntrack()
            self._raise_timeouts()

        await self._start_client_addresses(steering)
        plane = self._plane = self._make_plane()
        self._stack.callback(plane.close)
        if self._client_addresses is not None:
            self._client_addresses.follow(plane)
        listeners = self._listeners = Listeners(
            plane, steering.bind, pool, transparent=steering.needs_transparent
        )
        status = await self._open_status()
        self._planner = Planner(self._facts(None))
        sync = self._sync = SyncLoop(
            self._planner,
            listeners,
            steering,
            recovered=recovered,
            min_period_s=options.min_sync_period_s,
            observe=status.sync.observe if status is not None else lambda _seconds: None,
            facts=self._facts,
            check_health=self._check_health,
            report=self._source.record,
            want_nodes=self._source.want_nodes,
        )
        self._watch_addresses(steering)
        self._supervisor.start("sync", sync.run)
        self._supervisor.start("status addresses", self._status_addresses.run)
        if self._client_addresses is not None:
            self._supervisor.start("client addresses", self._client_addresses.repair)
        if steering.name != "none":
            self._tracking = TrackingWatch(self._source.record, self._untracked())
            self._supervisor.start("tracking", self._tracking.run)
        if steering.name != "none" and isinstance(self._wanted_steering, str):
            self._firewalls = FirewallWatch(steering.name, options.proxy_ports)
            self._stack.callback(self._firewalls.close)
            self._supervisor.start("firewalls", self._firewalls.run)
        self._supervisor.start("source", lambda: self._source.run(sync.publish))
        _log.info(
            "started",
            extra={
                "version": __version__,
                "steering": steering.name,
                "source": self._source.kind,
                "location": self._source.location,
                "recovered": len(recovered),
                "page": "{}:{}".format(*self.admin_address) if self.admin_address else "none",
            },
        )

    async def _remove_leftovers(self, chosen: str) -> None:
        """Remove what an earlier run by another steering left, before anybody listens."""
        options = self._options
        found = await remove_leftovers(chosen, options.proxy_name or "")
        for cause in found.unseen:
            _log.warning("cannot look for leftovers of other steerings", extra={"cause": cause})
        for name in found.removed:
            _log.info("removed leftovers of another steering", extra={"steering": name})

    async def _hold_conntrack(self) -> None:
        """Let open connections go on while somebody flushes the node's rules."""
        hold = ConntrackHold(self._options.proxy_name or "")
        self._stack.push_async_callback(hold.let_go)
        lack = await hold.hold()
        if lack:
            _log.info(
                "open connections will not survive a flush of the node's rules",
                extra={"cause": lack},
            )

    def _untracked(self) -> Untracked | None:
        """Return what keeps the status ports out of a full table of connection tracking."""
        addresses = (self.health_address, self.admin_address)
        ports = [address[1] for address in addresses if address is not None]
        if not ports or not isinstance(self._wanted_steering, str):
            return None
        untracked = Untracked(ports, self._options.proxy_name or "")
        self._stack.push_async_callback(untracked.let_go)
        return untracked

    def _raise_timeouts(self) -> None:
        """Let the kernel translate a half-closed connection for as long as it may last."""
        timeouts = TrackingTimeouts(self._options.tuning.tcp_half_closed_s)
        self._stack.callback(timeouts.put_back)
        lack = timeouts.hold()
        if lack:
            _log.info(
                "cannot extend conntrack's timeout, only keep-alive keeps half-closed connections "
                "translated",
                extra={"cause": lack},
            )

    async def _start_client_addresses(self, steering: Steering) -> None:
        """Have the kernel catch answers to clients' own addresses, where that is wanted."""
        options = self._options
        if steering.name == "none":
            return
        client_addresses = ClientAddresses(options.proxy_name or "", options.cluster_networks)
        self._stack.push_async_callback(client_addresses.close)
        if options.preserves_client_address:
            await client_addresses.start()
            self._client_addresses = client_addresses
        else:
            await client_addresses.leave_nothing()

    def _watch_addresses(self, steering: Steering) -> None:
        """Know the node's addresses, where frontends may stand on them."""
        if steering.name == "none":
            self._addresses = lambda: _LOOPBACK
            return
        sync = self._running()
        watch = NodeAddresses(asyncio.get_running_loop(), sync.look_again)
        self._stack.callback(watch.close)
        self._addresses = lambda: watch.current

    def _facts(self, snapshot: Snapshot | None) -> NodeFacts:
        options, steering = self._options, self._steering
        # Without steering only programs of this machine get here; they reach its loopback
        # addresses anyway.
        is_here_only = steering is not None and steering.name == "none"
        facts = make_facts(
            options,
            snapshot,
            self._addresses(),
            allow_loopback_endpoints=options.allow_loopback_endpoints or is_here_only,
        )
        if snapshot is not None:
            before, self._no_node_ports = self._no_node_ports, why_no_node_ports(facts)
            if self._no_node_ports not in ("", before):
                _log.warning("node ports are not served", extra={"cause": self._no_node_ports})
        return facts

    async def _check_health(self, plan: Plan) -> None:
        """Serve the health check node ports of a plan."""
        if self._health_checks is None:
            if not plan.health_checks:
                return
            # aiohttp costs half a second to import: only who has such a Service pays.
            from ..status.health_checks import HealthCheckPorts

            self._health_checks = HealthCheckPorts(
                lambda: is_working(self._view(()), time.time()),
                who_holds=lambda ip, port: who_holds(Protocol.TCP, port, IPFamily.of(ip)),
            )
            self._stack.push_async_callback(self._health_checks.close)
        await self._health_checks.apply(
            {key: (check.port, check.local_endpoints) for key, check in plan.health_checks.items()},
            [ip for family in IPFamily for ip in self._planner.facts.node_port_addresses(family)]
            if not self._planner.facts.has_node_ports_everywhere
            else None,
        )

    def _make_plane(self) -> Plane:
        options = self._options
        plane = Plane(
            asyncio.get_running_loop(),
            options.workers,
            options.tuning,
            # Also where addresses can't be kept yet: what the kernel refuses it may grant later.
            keeps_net_raw=self._client_addresses is not None,
        )
        plane.start()
        return plane

    def _make_steering(self, pool: PortPool) -> Steering:
        options, wanted = self._options, self._wanted_steering
        if not isinstance(wanted, str):
            return wanted
        facts = SteeringFacts(
            proxy_name=options.proxy_name or "",
            service_cidrs=options.service_cidrs,
            proxy_ports=options.proxy_ports,
            node_addresses=options.node_addresses,
        )
        if wanted != "none":
            self._take_lock()
            refuse_port = RefusePort()
            self._stack.callback(refuse_port.close)
            pool.take(refuse_port.open(pool.first, pool.last))
            facts = replace(facts, refuse_port=refuse_port.number)
        return make_steering(wanted, facts, own_namespace=options.is_own_namespace)

    def _take_lock(self) -> None:
        self._lock.take()
        self._stack.callback(self._lock.release)
        loop = asyncio.get_running_loop()
        loop.add_reader(self._lock.fileno(), self._lock.answer)
        self._stack.callback(loop.remove_reader, self._lock.fileno())

    async def _open_status(self) -> StatusServer | None:
        options = self._options
        if options.admin is None and options.health is None:
            return None
        # aiohttp costs half a second to import: only who shows something pays.
        from ..status.server import StatusServer

        server = StatusServer(self.status, health=lambda: self._view(()), refresh=self._refresh)
        self._stack.push_async_callback(server.close)

        async def serve_admin(bind: StatusBind) -> None:
            self.admin_address = await server.serve_admin(bind)

        async def serve_health(bind: StatusBind) -> None:
            self.health_address = await server.serve_health(bind)

        wanted = ((options.admin, serve_admin), (options.health, serve_health))
        self._status_addresses = StatusAddresses(
            (bind, serve) for bind, serve in wanted if bind is not None
        )
        await self._status_addresses.open()
        return server

    async def stop(self, *, drain_s: float = 0.0) -> None:
        """Take the steering away, close the listeners, let connections finish, close all.

        What this proxy made in the kernel is gone afterwards. Idempotent.

        Args:
            drain_s: Seconds that open connections may go on; then they are reset.
        """
        self._stopping.set()
        await self._supervisor.stop()
        # New connections must not come to a port that is closed; but open ones still need
        # the routes that carry their packets, and the guard, without which the kernel would
        # stop tracking, and so translating, them. So no frontend is steered, and the rest
        # goes last.
        await self._steer_nothing()
        if self._listeners is not None:
            self._listeners.close()
        if self._plane is not None:
            reset = await self._plane.drain(drain_s)
            if reset:
                _log.warning(
                    "connections were reset at the end of the drain", extra={"count": reset}
                )
        await self._take_steering_away()
        await self._stop_client_addresses()
        await self._stack.aclose()

    async def _take_steering_away(self) -> None:
        steering, self._steering = self._steering, None
        if steering is not None:
            for _ in range(_CLEAN_UP_TRIES):
                try:
                    await steering.clean_up()
                except UserspaceProxyError as exc:
                    _log.warning("cannot clean up steering", extra={"cause": str(exc)})
                else:
                    return
            self.left_behind = True
            _log.error("steering rules were left behind, run userspace-proxy cleanup")

    async def _stop_client_addresses(self) -> None:
        client_addresses, self._client_addresses = self._client_addresses, None
        if client_addresses is not None:
            try:
                await client_addresses.clean_up()
            except UserspaceProxyError as exc:
                self.left_behind = True
                _log.error(
                    "cannot remove client address routing, run userspace-proxy cleanup",
                    extra={"cause": str(exc)},
                )

    async def _steer_nothing(self) -> None:
        if self._steering is not None:
            try:
                await self._steering.apply({})
            except UserspaceProxyError as exc:
                _log.error(
                    "cannot stop steering, clients are still sent to this proxy",
                    extra={"cause": str(exc)},
                )

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
        waiting = asyncio.ensure_future(sync.settled())
        failing = asyncio.ensure_future(self._supervisor.failed())
        stopping = asyncio.ensure_future(self._stopping.wait())
        everything = {waiting, failing, stopping}
        try:
            await asyncio.wait(everything, return_when=asyncio.FIRST_COMPLETED)
            if failing.done():
                raise failing.result()
            if not waiting.done():
                raise RuntimeError("this proxy was stopped before the change was in force")
        finally:
            for future in everything:
                future.cancel()

    # -- Services of an embedder ----------------------------------------------

    async def add_service(
        self,
        name: str,
        *,
        port: int,
        endpoints: Iterable[str] = (),
        namespace: str = "default",
        protocol: str = "TCP",
        cluster_ip: str | None = None,
        affinity_timeout_s: int | None = None,
    ) -> AddedService:
        """Serve a Service, or replace the one of the same name; in force on return.

        The handle of a Service that was replaced changes nothing any more.

        Args:
            name: Its name.
            port: The port that clients dial.
            endpoints: ``ip:port`` or ``[ip6]:port``, in any order; none: clients are refused.
            namespace: Its namespace.
            protocol: ``TCP`` or ``UDP``.
            cluster_ip: The address that clients dial; None for one of 127.64.0.0/10.
            affinity_timeout_s: Seconds of ClientIP affinity; None for none.

        Returns:
            A handle, whose ``address`` is what to dial: with steering ``none`` the port
            is another than asked for where that one can't be had.

        Raises:
            ValueError: The proxy reads its Services elsewhere, or an argument can't be.
            ListenError: It can't be served, for the reason that ``status()`` shows; what was
                served under its name before is served again.
        """
        key = ServiceKey(namespace, name)
        before = self._added.get(key)
        ports = self._running().plan.ports.values()
        service = make_service(
            key,
            port,
            protocol,
            cluster_ip=cluster_ip,
            affinity_timeout_s=affinity_timeout_s,
            taken={f.ip for port in ports if port.key.name.service != key for f in port.frontends},
            seed=self._seed,
        )
        added = AddedService(self, service)
        try:
            await added.set_endpoints(endpoints)
            self._raise_if_ignored(key)
        except ListenError:
            if before is None:
                await self.delete(key)
            else:
                with contextlib.suppress(ListenError):
                    await self.put(*before)
            raise
        return added

    async def put(self, service: Service, slices: Iterable[EndpointSlice]) -> None:
        """Serve a Service made of model values, with these slices; in force on return.

        Args:
            service: Added, or put in the place of the one of the same name.
            slices: All that it has: those of an earlier call are forgotten.

        Raises:
            ValueError: The proxy reads its Services elsewhere.
            ListenError: One of its ports can't be had, for the reason that ``status()`` shows:
                clients of that port are refused, and it is tried again each second.
        """
        memory = self._embedded()
        _, before = self._added.get(service.key, (service, ()))
        now = tuple(slices)
        self._added[service.key] = service, now
        memory.put_service(service)
        for item in now:
            memory.put_slice(item)
        for key in {item.key for item in before} - {item.key for item in now}:
            memory.delete_slice(key)
        await self.settled()
        self._raise_problem(service.key)

    def has_put(self, service: Service) -> bool:
        """Return whether this very Service was put here, and not removed or replaced since."""
        return self._added.get(service.key, (None, ()))[0] is service

    async def delete(self, key: ServiceKey) -> None:
        """Stop serving a Service that was put here; in force on return. Idempotent.

        Raises:
            ValueError: The proxy reads its Services elsewhere.
        """
        memory = self._embedded()
        memory.delete_service(key)
        _, slices = self._added.pop(key, (None, ()))
        for item in slices:
            memory.delete_slice(item.key)
        await self.settled()

    def address_of(self, key: ServiceKey, port: str = "") -> SocketAddress | None:
        """Return what clients of a Service port dial; None when it isn't served.

        Args:
            key: The Service.
            port: The port's name; empty for the one without a name.
        """
        for served in self._listeners or ():
            name = served.plan.key.name
            if name.service == key and name.port == port:
                frontend = served.plan.frontends[0]
                listener = served.listeners.get(frontend)
                if listener is None:
                    return None
                steering = self._steering
                is_dialled = steering is not None and steering.bind is Bind.PROXY_PORT
                return frontend.address if is_dialled else listener.address
        return None

    # -- what it does ----------------------------------------------------------

    def status(self) -> StatusView:
        """Return everything about this proxy at this moment.

        Counters of worker processes are some seconds old; those of the page are not.
        """
        plane, listeners, steering = self._plane, self._listeners, self._steering
        if plane is None or listeners is None or steering is None:
            return self._view(())
        ports = view_ports(listeners, plane, steering.bind, time.monotonic())
        problems = self._health_checks.problems if self._health_checks is not None else {}
        return self._view(ports, view_health_checks(self._running_plan(), problems))

    async def _refresh(self) -> None:
        if self._plane is not None:
            await self._plane.refresh()

    def _running_plan(self) -> Plan:
        return self._sync.plan if self._sync is not None else Plan.empty()

    def _view(
        self,
        ports: tuple[ServicePortView, ...],
        health_checks: tuple[HealthCheckView, ...] = (),
    ) -> StatusView:
        """Return what is known beside the Service ports; probes need no more."""
        return view_proxy(
            ports,
            health_checks=health_checks,
            options=self._options,
            started=self._started,
            source=self._source,
            steering=self._steering,
            sync=self._sync,
            plane=self._plane.state() if self._plane else PlaneState(0, 0, is_accepting=False),
            is_draining=self._stopping.is_set(),
            unserved=self._status_addresses.problems,
            client_addresses=self._client_addresses,
            tracking=self._tracking,
            firewalls=self._firewalls.found if self._firewalls else (),
        )

    def _running(self) -> SyncLoop:
        if self._sync is None or self._stopping.is_set():
            raise RuntimeError("this proxy isn't running: enter `async with Proxy(…)` first")
        return self._sync

    def _embedded(self) -> MemorySource:
        self._running()
        if self._memory is None:
            raise ValueError(f"this proxy reads its Services from {self._source.kind}")
        return self._memory

    def _raise_problem(self, key: ServiceKey) -> None:
        """Raise why a port of a Service isn't served, if one isn't."""
        for served in self._listeners or ():
            if served.plan.key.name.service == key and served.problem:
                error = served.not_listening
                raise ListenError(
                    error.message if error else served.problem, hint=error.hint if error else ""
                )

    def _raise_if_ignored(self, key: ServiceKey) -> None:
        """Raise why a Service is left out, if it is."""
        if any(served.plan.key.name.service == key for served in self._listeners or ()):
            return
        for ignored in self._running().plan.ignored:
            if ignored.service == key:
                raise ListenError(f"cannot serve {key}: {ignored.reason}")
        raise ListenError(f"cannot serve {key}")
