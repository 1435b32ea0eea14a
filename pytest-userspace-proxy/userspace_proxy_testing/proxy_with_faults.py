"""A proxy with fault injection for tests, with an event loop or in a thread.

::

    async with ProxyWithFaults() as proxy:
        web = await proxy.add_service("web", port=8080, endpoints=["127.0.0.1:8081"])
        proxy.add_fault(web.key, "latency", latency=100)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from userspace_proxy import Options, Proxy
from userspace_proxy.embedding.arguments import EndpointAddress, read_endpoint
from userspace_proxy.embedding.blocking import BlockingProxy, awaited, called
from userspace_proxy.embedding.embedded_proxy import EmbeddedProxy
from userspace_proxy.model import ServiceKey, SocketAddress
from userspace_proxy.sources import Source
from userspace_proxy.steering import Steering

from .faults.endpoint_faults import EndpointFaults
from .faults.fault_types import protocols_of


class ProxyWithFaults(Proxy):
    """A running Service proxy, with the arguments of ``Proxy``."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.faults = EndpointFaults(self.detour)

    @staticmethod
    def in_thread(
        *,
        steering: str | Steering = "none",
        source: Source | None = None,
        options: Options | None = None,
    ) -> BlockingProxyWithFaults:
        """Return a proxy for programs without an event loop, like ``Proxy.in_thread``."""
        return BlockingProxyWithFaults(steering=steering, source=source, options=options)

    async def start(self) -> None:
        """Start the proxy; the faults end with it."""
        await super().start()
        self.at_end(self.faults.close)

    async def delete(self, key: ServiceKey) -> None:
        """Delete a Service and its faults."""
        self.remove_faults(key)
        await super().delete(key)

    def add_fault(
        self,
        /,
        service: ServiceKey,
        type_: str,
        *,
        endpoint: EndpointAddress | None = None,
        stream: str = "downstream",
        toxicity: float = 1.0,
        name: str = "",
        **attributes: int,
    ) -> None:
        """Inject a fault into connections to a Service's endpoints; applied on return.

        Toxics also affect open connections that were opened while the endpoint had a fault.

        Args:
            service: A Service of this proxy; its ports share faults. With TCP and UDP, the fault
                affects endpoints of the protocols that support it.
            type_: As in toxiproxy: ``latency``, ``bandwidth``, ``slow_close``, ``timeout``,
                ``reset_peer``, ``slicer``, ``limit_data``. Also ``refuse``, ``silent``,
                ``half_open``, and ``fail_first`` with ``count`` per endpoint. ``reset_peer`` and
                ``fail_first`` wait for the client's first byte, unless ``at_connect``. UDP has
                ``latency``, ``loss`` and ``reorder``, the last two with ``percent``.
            endpoint: One of the endpoints; None for all of them.
            stream: ``downstream``, from the endpoint to the client, or ``upstream``.
            toxicity: The share of affected connections (UDP: datagrams).
            name: The name, empty for ``type_stream``; a fault of the same name is replaced.
            attributes: As in toxiproxy, such as ``latency`` and ``jitter`` in milliseconds.

        Raises:
            ConfigError: The fault doesn't exist, or an attribute is invalid.
            TypeError, ValueError: The type isn't a string, or the endpoint isn't an address.
            LookupError: The Service or endpoint doesn't exist, or the Service has no endpoint.
        """
        endpoints, protocols = self.endpoints_of(service, endpoint), protocols_of(type_)
        if not endpoints:
            raise LookupError(f"{service} has no endpoint that could suffer a fault")
        # If no endpoint's protocol supports the fault, ``add`` raises the error.
        for at in [at for at in endpoints if at.protocol in protocols] or endpoints:
            self.faults.add(
                service,
                at.endpoint,
                at.protocol,
                type_,
                attributes,
                stream=stream,
                toxicity=toxicity,
                name=name,
            )

    def remove_faults(
        self, service: ServiceKey, *, endpoint: EndpointAddress | None = None
    ) -> None:
        """Remove all faults of an endpoint or Service, and reset connections that they affect.

        Args:
            service: The Service; it may have been removed.
            endpoint: One of its endpoints; None for all of them.
        """
        self.faults.remove(service, None if endpoint is None else read_endpoint(endpoint))

    def faults_of(self, service: ServiceKey) -> Mapping[SocketAddress, Sequence[str]]:
        """Return descriptions of active faults by endpoint, for TCP and UDP."""
        words: dict[SocketAddress, list[str]] = {}
        for at, each in self.faults.of(service).items():
            words.setdefault(at.endpoint, []).extend(each)
        return words

    async def serve_toxiproxy(self, bind: tuple[str, int] = ("127.0.0.1", 8474)) -> tuple[str, int]:
        """Serve toxiproxy's HTTP API to its clients until the proxy stops.

        A toxiproxy proxy is a Service here; this proxy may also have other Services.

        Args:
            bind: The IP address and the port; port 0 for any free port.

        Returns:
            The address.

        Raises:
            TypeError, ListenError: ``bind`` isn't an IP address with a port, or is in use.
        """
        # Import aiohttp only here, because that takes half a second.
        from .faults.toxiproxy_services import serve_toxiproxy

        return await serve_toxiproxy(self, self.faults, bind)


class BlockingProxyWithFaults(BlockingProxy):
    """A proxy in its own thread, with the methods of ``ProxyWithFaults`` without ``await``."""

    proxy_class: ClassVar[type[EmbeddedProxy]] = ProxyWithFaults

    add_fault = called(ProxyWithFaults.add_fault)
    remove_faults = called(ProxyWithFaults.remove_faults)
    faults_of = called(ProxyWithFaults.faults_of)
    serve_toxiproxy = awaited(ProxyWithFaults.serve_toxiproxy)
