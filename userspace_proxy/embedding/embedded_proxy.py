"""Defines the base class of ``Proxy``, to which programs add Services, and handles of Services."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Unpack

from ..agent.agent import Agent
from ..agent.rounds.options import Options
from ..agent.rounds.served_port import ServedPort
from ..agent.watchers.names import NamesInNamespace, ProxyNames
from ..agent.watchers.printed_addresses import dialled_address
from ..causes.say import say
from ..cluster import Snapshot
from ..errors import ListenError
from ..facts.connection import ConnectionFacts, ConnectionFilter
from ..facts.units import plural
from ..lookup.in_process import ProcessNames
from ..model import (
    Balance,
    EndpointSlice,
    Protocol,
    Service,
    ServiceKey,
    SocketAddress,
    parse_ip,
)
from ..plan.claims import claims_of
from ..plan.detours import At, Reasons
from ..policy import choose_path
from ..policy.node_facts import ADDRESSES_WITHOUT_STEERING, make_facts, options_with
from ..sources import MemorySource, Source
from ..status.observing import Collector
from ..steering import Bind, Steering
from .arguments import (
    EndpointAddress,
    HandlingArguments,
    free_loopback,
    make_slices,
    read_affinity,
    read_endpoint,
    read_handling,
    read_key,
    read_label,
    read_port,
)
from .named_endpoints import make_all_slices

if TYPE_CHECKING:
    from ..lookup.aiohttp_resolver import ServiceResolver


class EmbeddedProxy(Agent):
    """A proxy whose Services are added by calls; for arguments, see ``Proxy``."""

    def __init__(
        self,
        *,
        steering: str | Steering = "none",
        source: Source | None = None,
        options: Options | None = None,
    ) -> None:
        if steering is None:
            raise TypeError("steering: expected a name such as 'none', or a Steering, got None")
        memory = MemorySource()
        self._memory = memory if source is None else None
        self._services: dict[ServiceKey, tuple[Service, tuple[EndpointSlice, ...]]] = {}
        """The Services added by :meth:`put`, with their slices."""
        self._seed = secrets.token_hex(8)
        """Makes the addresses of this proxy's Services differ from addresses of other proxies."""
        super().__init__(steering, source or memory, options or Options())

    def __repr__(self) -> str:
        ports = len(self.status().ports)
        return f"<Proxy, {ports} Service port{'' if ports == 1 else 's'}>"

    async def add_service(
        self,
        name: str,
        *,
        port: int,
        endpoints: Iterable[EndpointAddress] = (),
        standby: Iterable[EndpointAddress] = (),
        namespace: str = "default",
        protocol: str = "TCP",
        cluster_ip: str | None = None,
        affinity_timeout_s: int | None = None,
        balance: str = Balance.ROUND_ROBIN,
        seed: int = 0,
        **handling: Unpack[HandlingArguments],
    ) -> AddedService:
        """Serve a Service, or replace the Service of the same name; applied on return.

        The handle of a replaced Service no longer has any effect.

        Args:
            name: The Service's name.
            port: The port that clients dial.
            endpoints: ``ip:port``, ``[ip6]:port``, tuples of IP and port, or a mapping to weights.
                Names instead of IPs (``db.example.com:5432``) are off by default:
                ``Options(allow_endpoint_names=("example.com",))`` allows names below
                ``example.com``. This machine's DNS servers resolve them after the return; addresses
                of this machine and reserved addresses are ignored: see docs/services.md.
            standby: Endpoints that serve only while no other endpoint can.
            namespace: The Service's namespace.
            protocol: ``TCP`` or ``UDP``.
            cluster_ip: The address that clients dial; None for an address of 127.64.0.0/10.
            affinity_timeout_s: Seconds of ClientIP affinity; None for no affinity.
            balance: How endpoints are chosen: a value of :class:`Balance`.
            seed: The same seed gives the same choices in each run.
            handling: Annotations by their names, such as ``hold``: see :class:`HandlingArguments`.

        Returns:
            A handle with the ``address`` to dial: with ``none`` steering, its port differs from
            ``port`` if that port isn't available.

        Raises:
            ValueError: The proxy reads its Services elsewhere, or an argument is invalid here.
            TypeError: An argument has another type.
            ListenError: The Service can't be served; ``status()`` shows why. The previous Service
                of this name is served again.
        """
        key = read_key(namespace, name)
        service = Service(
            key,
            (read_port(port, protocol),),
            cluster_ips=(parse_ip(cluster_ip) if cluster_ip else self._free_address(key),),
            affinity_timeout_s=read_affinity(affinity_timeout_s),
            handling=read_handling(seed, balance=balance, **handling),
        )
        self._check_path(service)
        allowed = self._options.allow_endpoint_names
        await self._replace(service, make_all_slices(service, endpoints, standby, allowed))
        return AddedService(self, service)

    def _check_path(self, service: Service) -> None:
        """Raise a ValueError if a Service requests a path or range of ports that it can't get."""
        handling = service.handling
        lacks = self._steering.no_kernel_path if self._steering is not None else {}
        family = SocketAddress(service.cluster_ips[0], 0).family
        why = lacks.get(family) or lacks.get(handling.balance, "")
        if note := choose_path(handling, self._options.path, why).note:
            raise ValueError(say(note))
        options = options_with(self._steering.name if self._steering else "none", self._options)
        facts = make_facts(options, Snapshot({}), ADDRESSES_WITHOUT_STEERING, lacks)
        claims = claims_of(service, facts)
        for note in (*claims.notes, *(note for claim in claims.ports for note in claim.notes)):
            raise ValueError(say(note))

    async def _replace(self, service: Service, slices: Iterable[EndpointSlice]) -> None:
        """Serve a Service; if that fails, serve the previous Service again."""
        before = self._services.get(service.key)
        try:
            await self.put(service, slices)
        except ListenError:
            if before is None:
                await self.delete(service.key)
            else:
                with contextlib.suppress(ListenError):
                    await self.put(*before)
            raise

    async def put(self, service: Service, slices: Iterable[EndpointSlice]) -> None:
        """Serve a Service made of model values, or replace it by its name; applied on return.

        Args:
            service: The Service.
            slices: All its slices, which replace the slices of an earlier call.

        Raises:
            ValueError: The proxy reads its Services elsewhere.
            ListenError: The Service can't be served; ``status()`` shows why. Clients are refused,
                and the proxy retries every second. A headless Service, which only DNS serves, never
                fails.
        """
        memory = self._embedded()
        _, before = self._services.get(service.key, (service, ()))
        now = tuple(slices)
        self._services[service.key] = service, now
        memory.put_service(service)
        for item in now:
            memory.put_slice(item)
        for key in {item.key for item in before} - {item.key for item in now}:
            memory.delete_slice(key)
        await self.settled()
        self._raise_problem(service.key)

    def has_put(self, service: Service) -> bool:
        """Return whether :meth:`put` added this object, and it wasn't removed or replaced since."""
        return self._services.get(service.key, (None, ()))[0] is service

    async def delete(self, key: ServiceKey) -> None:
        """Stop serving a Service that :meth:`put` added, and wait until that is applied.

        Idempotent.

        Raises:
            ValueError: The proxy reads its Services from another source.
        """
        memory = self._embedded()
        memory.delete_service(key)
        _, slices = self._services.pop(key, (None, ()))
        for item in slices:
            memory.delete_slice(item.key)
        await self.settled()

    def endpoints_of(
        self, service: ServiceKey, endpoint: EndpointAddress | None = None
    ) -> list[At]:
        """Return the endpoints of all ports of a Service, or only the endpoints at one address.

        One address with TCP and UDP counts as two endpoints.

        Raises:
            LookupError, ValueError, TypeError: The Service or endpoint is missing or invalid.
        """
        latest = self._running().sync.progress.latest
        state = latest.services.get(service) if latest is not None else None
        if state is None:
            raise LookupError(f"there is no Service {service}")
        have = {
            At(Protocol(port.protocol), SocketAddress(e.ip, port.port)): None
            for item in state.slices
            for port in item.ports
            if port.protocol in Protocol.__members__
            for e in item.endpoints
        }
        if endpoint is None:
            return list(have)
        wanted = read_endpoint(endpoint)
        found = [at for at in have if at.endpoint == wanted]
        if not found:
            raise LookupError(f"{service} has no endpoint {wanted}")
        return found

    def detour(
        self,
        service: ServiceKey,
        detours: Mapping[At, SocketAddress],
        why: Callable[[], Reasons] = dict,
    ) -> None:
        """Redirect dials of a Service's endpoints to other addresses; applied on return.

        The listener at another address forwards connections to the endpoint or replaces it; the
        status page shows the endpoint with the reasons. Detours stay when the Service is removed.

        Args:
            service: A Service, which may be served later.
            detours: The address to dial by endpoint; replaces the detours of earlier calls.
            why: Returns the reasons in words by endpoint; called whenever the Service is shown.

        Raises:
            ValueError: An argument isn't an address; nothing has changed.
            TypeError: An address has another type; nothing has changed.
        """
        read = {
            At(Protocol(protocol), read_endpoint(endpoint)): read_endpoint(to)
            for (protocol, endpoint), to in detours.items()
        }
        self._running().served_ports.detour(service, read, why)

    def at_end(self, callback: Callable[[], Awaitable[object]]) -> None:
        """Register a callback that is awaited when the proxy stops."""
        self._running()
        self._stack.push_async_callback(callback)

    @contextlib.asynccontextmanager
    async def observe(
        self,
        service: ServiceKey | str = "",
        *,
        client: str = "",
        failed: bool = False,
        saved: bool = False,
        slow_s: float | None = None,
    ) -> AsyncIterator[list[ConnectionFacts]]:
        """Observe connections and UDP flows in a `with` block, as a list that grows.

        The list contains connections that ended, or were saved, held or refused, until 0.25 s ago;
        after the block, until the block ended. Open connections are missing. Each worker reports at
        most 128 in 0.25 s for all blocks and streams together; a record with the event ``left-out``
        counts the others. The list keeps its last 4,096 records.

        Args:
            service: Only connections to a Service, a namespace, or ``namespace/name:port``.
            client: Only connections from this IP address.
            failed: Only connections whose clients got no complete answer. Any of ``failed``,
                ``saved`` and ``slow_s`` suffices.
            saved: Only connections whose first dial failed and that another endpoint answered. Each
                has two records: ``saved`` at the answer, and ``ended``.
            slow_s: Only connections that waited at least this long for the first byte.

        Raises:
            LookupError: No port of such a Service is served.
            ValueError: An argument is invalid.
            UserspaceProxyError: 64 different filters are already in use, streams' filters included.
        """
        core, name = self._running(), str(service)
        wanted = ConnectionFilter(
            service=name,
            client=parse_ip(client) if client else "",
            failed=failed,
            saved=saved,
            slow_s=slow_s,
        )
        ports = [port.plan.key.name for port in self.status().ports]
        if name and not any(wanted.takes_service(port.prefixes) for port in ports):
            raise LookupError(f"there is no Service port of {name!r}")
        with core.observing.watch(Collector(wanted)) as collector:
            await core.observation.ask()
            try:
                yield collector.records
            finally:
                await core.observation.ask()

    def choose_next(self, service: ServiceKey, endpoint: EndpointAddress) -> None:
        """Send the next connection of each of a Service's ports to an endpoint; applied on return.

        If the endpoint is ejected, the first connection after the ejection is sent there. A client
        with session affinity stays with its endpoint.

        Raises:
            LookupError, ValueError, TypeError: The Service or endpoint is missing or invalid.
        """
        wanted = self.endpoints_of(service, endpoint)[0].endpoint
        for served in self._ports_of(service):
            # Skip ports without this endpoint, because endpoints may differ between the ports of a
            # Service.
            if self._plane is not None and wanted in {v.address for v in served.plan.verdicts}:
                self._plane.prefer(served.group, wanted)

    def address_of(self, key: ServiceKey, port: str = "") -> SocketAddress | None:
        """Return the address that clients of a Service port dial; None if it isn't served.

        Args:
            key: The Service.
            port: The port's name, which may be empty.
        """
        for served in self._ports_of(key):
            if served.plan.key.name.port == port and self._steering is not None:
                return dialled_address(served, self._steering.bind)
        return None

    def names(self, namespace: str = "default") -> ProcessNames:
        """Make this process resolve the names of Services, in a `with` block.

        In the block, ``socket.getaddrinfo`` resolves names as in a pod of the namespace, and so do
        requests, httpx and asyncio, but not uvloop and C libraries. With ``none`` steering, the
        result is the address and port on which a Service port answers.
        """
        return ProcessNames(self._lookups(namespace))

    def resolver(self, namespace: str = "default") -> ServiceResolver:
        """Return a resolver for aiohttp: ``TCPConnector(resolver=proxy.resolver())``."""
        # Import aiohttp only here, because the import takes half a second.
        from ..lookup.aiohttp_resolver import ServiceResolver

        return ServiceResolver(self._lookups(namespace))

    def _lookups(self, namespace: str) -> NamesInNamespace:
        read_label(namespace, "namespace")
        bind = self._steering.bind if self._steering is not None else Bind.LOOPBACK
        core = self._running()
        names = ProxyNames(core.sync.progress, core.served_ports.listeners, bind, self._options)
        return names.search(namespace)

    def _ports_of(self, key: ServiceKey) -> Collection[ServedPort]:
        return self._core.served_ports.of_service(key) if self._core is not None else ()

    def _free_address(self, key: ServiceKey) -> str:
        others = (service for service, _ in self._services.values() if service.key != key)
        taken = {ip for service in others for ip in service.cluster_ips}
        return free_loopback(key, taken, self._seed)

    def _embedded(self) -> MemorySource:
        self._running()
        if self._memory is None:
            raise ValueError(f"this proxy reads its Services from {self._source.kind}")
        return self._memory

    def _raise_problem(self, key: ServiceKey) -> None:
        """Raise a ListenError if a Service is ignored, or one of its ports isn't served."""
        served_ports = self._ports_of(key)
        for served in served_ports:
            if served.problem:
                raise ListenError(served.problem, hint=served.hint)
        if not served_ports and self._services[key][0].cluster_ips:
            reasons = [say(i.cause) for i in self._running().sync.plan.ignored if i.service == key]
            raise ListenError(": ".join([f"cannot serve {key}", *reasons[:1]]))


class AddedService:
    """A Service that :meth:`EmbeddedProxy.add_service` serves."""

    def __init__(self, proxy: EmbeddedProxy, service: Service) -> None:
        self._proxy = proxy
        self._service = service

    def __repr__(self) -> str:
        address = self._proxy.address_of(self.key)
        ports = (p for p in self._proxy.status().ports if p.plan.key.name.service == self.key)
        port = next(ports, None)
        if address is None or port is None:
            return f"<Service {self.key}, not served>"
        usable = sum(endpoint.is_usable for endpoint in port.endpoints)
        ejected = sum(endpoint.ejected_for_s is not None for endpoint in port.endpoints)
        words = [plural(usable, "endpoint")]
        words += [f"{ejected} ejected"] if ejected else []
        return f"<Service {self.key} at {address}, {', '.join(words)}>"

    @property
    def service(self) -> Service:
        """The Service as it was added."""
        return self._service

    @property
    def key(self) -> ServiceKey:
        """The Service's namespace and name."""
        return self._service.key

    @property
    def address(self) -> SocketAddress:
        """The address to dial: unpacks into host and port.

        Raises:
            LookupError: The Service isn't served, or no longer is.
        """
        address = self._proxy.address_of(self.key)
        if address is None:
            raise LookupError(f"{self.key} is not served")
        return address

    async def set_endpoints(
        self,
        endpoints: Iterable[EndpointAddress],
        *,
        standby: Iterable[EndpointAddress] = (),
    ) -> None:
        """Replace the endpoints, which must be addresses and not names; applied on return.

        Raises:
            ValueError: An endpoint is no address of the Service's family, or is in both arguments;
                or a weight is out of range.
            TypeError: An endpoint or a weight has another type.
            LookupError: The Service was removed, or another Service of its name replaced it.
            ListenError: Clients are refused now; the proxy retries every second with the endpoints.
        """
        await self.put(make_slices(self._service, endpoints, standby))

    async def put(self, slices: Iterable[EndpointSlice]) -> None:
        """Replace the slices; applied on return.

        Raises:
            LookupError: The Service was removed, or another Service of its name replaced it.
            ListenError: See :meth:`set_endpoints`.
        """
        if not self._proxy.has_put(self._service):
            raise LookupError(f"{self.key} was removed or replaced")
        await self._proxy.put(self._service, slices)

    async def remove(self) -> None:
        """Stop serving the Service; open connections continue. Idempotent.

        If another Service has replaced this one, that Service isn't affected.
        """
        if self._proxy.has_put(self._service):
            await self._proxy.delete(self.key)
