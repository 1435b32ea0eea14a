"""The embedded proxy for programs without an event loop.

Generated from ``embedding`` and ``agent`` by `make docs`: don't edit it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, Unpack

from ..errors import UserspaceProxyError
from ..lookup.in_process import ProcessNames
from ..model import Balance, EndpointSlice, Service, ServiceKey, SocketAddress
from ..status.view import StatusView
from .added_service import AddedService
from .arguments import EndpointAddress, HandlingArguments
from .embedding import EmbeddedProxy
from .loop_thread import LoopThread

if TYPE_CHECKING:
    from ..lookup.aiohttp_resolver import ServiceResolver


class BlockingProxy:
    """A Service proxy in a thread of its own, with the calls of ``Proxy`` without ``await``.

    ``with Proxy.in_thread() as proxy`` creates, starts and stops it. Its calls may come from any
    thread but the proxy's own.

    Args:
        arguments: Those of ``Proxy``.
    """

    def __init__(self, **arguments: Any) -> None:
        self._arguments = arguments
        self._thread: LoopThread
        self._proxy: EmbeddedProxy

    def __repr__(self) -> str:
        if not hasattr(self, "_thread") or not self._thread.is_running:
            return "<BlockingProxy, not running>"
        return f"<BlockingProxy of {self._thread.do(lambda: repr(self._proxy))}>"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _exc: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self.close()

    def start(self) -> None:
        """Start the thread, and the proxy in it; :meth:`close` undoes it.

        Raises what ``Proxy.start`` raises.
        """
        self._thread = LoopThread()
        try:
            # Its events belong to the loop in which it is created.
            self._proxy = self._thread.do(lambda: EmbeddedProxy(**self._arguments))
            self._thread.call(self._proxy.start())
        except BaseException:
            self._thread.close()
            raise

    def serve_toxiproxy(self, bind: tuple[str, int] = ("127.0.0.1", 8474)) -> tuple[str, int]:
        """Serve toxiproxy's HTTP API until the proxy stops, and return its address."""
        from .toxiproxy import serve_toxiproxy

        return self._thread.call(serve_toxiproxy(self._proxy, bind))

    def close(self) -> None:
        """Stop the proxy and end its thread. Idempotent."""
        if self._thread.is_running:
            try:
                self._thread.call(self._proxy.stop())
            finally:
                self._thread.close()

    @property
    def dns_address(self) -> SocketAddress | None:
        """Where names of Services are answered by DNS; None: nowhere."""
        return self._thread.do(lambda: self._proxy.dns_address)

    def add_service(
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
    ) -> BlockingService:
        """Serve a Service, or replace the one of the same name; in force on return.

        The handle of a Service that was replaced changes nothing any more.

        Args:
            name: Its name.
            port: The port that clients dial.
            endpoints: ``ip:port``, ``[ip6]:port``, tuples of IP and port, or a mapping to weights.
            standby: Endpoints that serve only while none of the others can.
            namespace: Its namespace.
            protocol: ``TCP`` or ``UDP``.
            cluster_ip: The address that clients dial; None: one of 127.64.0.0/10.
            affinity_timeout_s: Seconds of ClientIP affinity; None: no affinity.
            balance: How endpoints are chosen: a value of :class:`Balance`.
            seed: The same seed gives the same choices in each run.
            handling: Annotations by their names, such as ``hold``: see :class:`HandlingArguments`.

        Returns:
            A handle with the ``address`` to dial: with steering ``none`` it has another port if
            the one that was asked for isn't available.

        Raises:
            ValueError: The proxy reads its Services elsewhere, or an argument is invalid here.
            TypeError: An argument has another type.
            ListenError: It can't be served, for the reason that ``status()`` shows; the Service
                that had its name before is served again.
        """
        return BlockingService(
            self._thread,
            self._thread.call(
                self._proxy.add_service(
                    name,
                    port=port,
                    endpoints=endpoints,
                    standby=standby,
                    namespace=namespace,
                    protocol=protocol,
                    cluster_ip=cluster_ip,
                    affinity_timeout_s=affinity_timeout_s,
                    balance=balance,
                    seed=seed,
                    **handling,
                )
            ),
        )

    def put(self, service: Service, slices: Iterable[EndpointSlice]) -> None:
        """Serve a Service made of model values, or replace the one of its name; in force on return.

        Args:
            service: The Service.
            slices: All its slices; those of an earlier call are deleted.

        Raises:
            ValueError: The proxy reads its Services elsewhere.
            ListenError: It can't be served, for the reason that ``status()`` shows: clients are
                refused, and it is retried each second. Only DNS serves those without a cluster IP.
        """
        self._thread.call(self._proxy.put(service, slices))

    def delete(self, key: ServiceKey) -> None:
        """Stop serving a Service that was put here; in force on return. Idempotent.

        Raises:
            ValueError: The proxy reads its Services elsewhere.
        """
        self._thread.call(self._proxy.delete(key))

    def add_fault(
        self,
        service: ServiceKey,
        type_: str,
        *,
        endpoint: EndpointAddress | None = None,
        stream: str = "downstream",
        toxicity: float = 1.0,
        name: str = "",
        **attributes: int,
    ) -> None:
        """Make connections to endpoints of a Service suffer a fault; in force on return.

        Toxics affect open connections, too, if they were opened while the endpoint had a fault.

        Args:
            service: A Service of this proxy; its ports share their faults.
            type_: As in toxiproxy: ``latency``, ``bandwidth``, ``slow_close``, ``timeout``,
                ``reset_peer``, ``slicer``, ``limit_data``. Also ``refuse``, ``silent``,
                ``half_open``, and ``fail_first`` with ``count``. UDP has ``latency``, ``loss`` and
                ``reorder``, the last two with ``percent``.
            endpoint: One of its endpoints; None: all of them.
            stream: ``downstream``, from the endpoint to the client, or ``upstream``.
            toxicity: The share of connections that are affected.
            name: A fault of the same name is replaced; empty: ``type_stream``.
            attributes: As in toxiproxy, such as ``latency`` and ``jitter`` in milliseconds.

        Raises:
            ConfigError: There is no such fault, or an attribute is invalid.
            LookupError: There is no such Service, or it has no such endpoint.
        """
        self._thread.do(
            lambda: self._proxy.add_fault(
                service,
                type_,
                endpoint=endpoint,
                stream=stream,
                toxicity=toxicity,
                name=name,
                **attributes,
            )
        )

    def remove_faults(
        self, service: ServiceKey, *, endpoint: EndpointAddress | None = None
    ) -> None:
        """Remove all faults of an endpoint, or of a Service; open connections there are reset.

        Args:
            service: The Service; it may have been removed.
            endpoint: None: all its endpoints.
        """
        self._thread.do(lambda: self._proxy.remove_faults(service, endpoint=endpoint))

    def faults_of(self, service: ServiceKey) -> Mapping[SocketAddress, Sequence[str]]:
        """Return the faults in force in words, by endpoint."""
        return self._thread.do(lambda: self._proxy.faults_of(service))

    def choose_next(self, service: ServiceKey, endpoint: EndpointAddress) -> None:
        """Have the next connection of a Service go to one of its endpoints; in force on return.

        If the endpoint is ejected, it is the next connection after that. A client that affinity has
        pinned stays with its endpoint.

        Raises:
            LookupError: There is no such Service, or it has no such endpoint.
        """
        self._thread.do(lambda: self._proxy.choose_next(service, endpoint))

    def address_of(self, key: ServiceKey, port: str = "") -> SocketAddress | None:
        """Return the address that clients of a Service port dial; None if it isn't served.

        Args:
            key: The Service.
            port: The port's name, which may be empty.
        """
        return self._thread.do(lambda: self._proxy.address_of(key, port))

    def names(self, namespace: str = "default") -> ProcessNames:
        """Have this process find the names of Services, in a `with` block.

        In it, ``socket.getaddrinfo`` finds them as in a pod of that namespace, and so do requests,
        httpx and asyncio; not uvloop and libraries in C. With steering ``none`` it returns the
        address and port at which a Service port answers.
        """
        return self._thread.do(lambda: self._proxy.names(namespace))

    def resolver(self, namespace: str = "default") -> ServiceResolver:
        """Return a resolver for aiohttp: ``TCPConnector(resolver=proxy.resolver())``."""
        return self._thread.do(lambda: self._proxy.resolver(namespace))

    def settled(self) -> None:
        """Wait until everything that the source has published is in force.

        Raises:
            UserspaceProxyError: The source can't be read at all.
            RuntimeError: The proxy was stopped meanwhile.
        """
        self._thread.call(self._proxy.settled())

    def status(self) -> StatusView:
        """Return everything about this proxy at this moment.

        Counters of worker processes are some seconds old; those of the page are not.
        """
        return self._thread.do(self._proxy.status)

    def failed(self) -> UserspaceProxyError:
        """Wait until the source or the steering can't go on, and return why."""
        return self._thread.call(self._proxy.failed())

    def stop(self, *, drain_s: float = 0.0) -> None:
        """Undo :meth:`start`; nothing of this proxy stays in the kernel. Idempotent.

        Args:
            drain_s: Seconds that open connections may go on; then they are reset. New ones are
                served meanwhile, too.
        """
        self._thread.call(self._proxy.stop(drain_s=drain_s))


class BlockingService:
    """A Service that :meth:`BlockingProxy.add_service` serves."""

    def __init__(self, thread: LoopThread, service: AddedService) -> None:
        self._thread = thread
        self._service = service

    def __repr__(self) -> str:
        if not self._thread.is_running:
            return f"<Service {self._service.key}, not served>"
        return self._thread.do(lambda: repr(self._service))

    @property
    def service(self) -> Service:
        """The Service as it was put."""
        return self._thread.do(lambda: self._service.service)

    @property
    def key(self) -> ServiceKey:
        """Its namespace and name."""
        return self._thread.do(lambda: self._service.key)

    @property
    def address(self) -> SocketAddress:
        """The address to dial: unpacks into host and port.

        Raises:
            LookupError: It isn't served (any more).
        """
        return self._thread.do(lambda: self._service.address)

    def set_endpoints(
        self, endpoints: Iterable[EndpointAddress], *, standby: Iterable[EndpointAddress] = ()
    ) -> None:
        """Replace its endpoints; in force on return.

        Args:
            endpoints: As for :meth:`EmbeddedProxy.add_service`.
            standby: Likewise.

        Raises:
            ValueError: One of them isn't an address.
            TypeError: They have another type.
            LookupError: The Service was removed, or replaced by another of its name.
            ListenError: It can't be served now: clients are refused, and it is retried each
                second, with these endpoints.
        """
        self._thread.call(self._service.set_endpoints(endpoints, standby=standby))

    def remove(self) -> None:
        """Stop serving it; open connections go on. Idempotent.

        A Service that has replaced it is still served.
        """
        self._thread.call(self._service.remove())
