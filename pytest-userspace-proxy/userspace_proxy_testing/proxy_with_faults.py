"""A proxy for tests whose endpoints can have faults, with an event loop or in a thread.

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
    """A running Service proxy; the arguments are those of ``Proxy``."""

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
        """Return one for programs without an event loop, as ``Proxy.in_thread`` does."""
        return BlockingProxyWithFaults(steering=steering, source=source, options=options)

    async def start(self) -> None:
        """Part of Proxy; at its end the faults end, too."""
        await super().start()
        self.at_end(self.faults.close)

    async def delete(self, key: ServiceKey) -> None:
        """Part of Proxy; its faults end with a Service."""
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
        """Make connections to endpoints of a Service suffer a fault; in force on return.

        Toxics affect open connections, too, if they were opened while the endpoint had a fault.

        Args:
            service: A Service of this proxy; its ports share their faults. With TCP and UDP, those
                of its endpoints suffer it for whose protocol there is such a fault.
            type_: As in toxiproxy: ``latency``, ``bandwidth``, ``slow_close``, ``timeout``,
                ``reset_peer``, ``slicer``, ``limit_data``. Also ``refuse``, ``silent``,
                ``half_open``, and ``fail_first`` with ``count``, of each endpoint. Both resets wait
                for the client's first byte, unless ``at_connect``. UDP has ``latency``, ``loss``
                and ``reorder``, the last two with ``percent``.
            endpoint: One of its endpoints; None: all of them.
            stream: ``downstream``, from the endpoint to the client, or ``upstream``.
            toxicity: The share of connections that are affected.
            name: A fault of the same name is replaced; empty: ``type_stream``.
            attributes: As in toxiproxy, such as ``latency`` and ``jitter`` in milliseconds.

        Raises:
            ConfigError: There is no such fault, or an attribute is invalid.
            LookupError: There is no such Service, or it has no such endpoint, or none.
        """
        endpoints, protocols = self.endpoints_of(service, endpoint), protocols_of(type_)
        if not endpoints:
            raise LookupError(f"{service} has no endpoint that could suffer a fault")
        # Without one of these protocols, adding it says so.
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
        """Remove all faults of an endpoint, or of a Service; open connections there are reset.

        Args:
            service: The Service; it may have been removed.
            endpoint: None: all its endpoints.
        """
        self.faults.remove(service, None if endpoint is None else read_endpoint(endpoint))

    def faults_of(self, service: ServiceKey) -> Mapping[SocketAddress, Sequence[str]]:
        """Return the faults in force in words, by endpoint; with TCP and UDP, those of both."""
        words: dict[SocketAddress, list[str]] = {}
        for at, each in self.faults.of(service).items():
            words.setdefault(at.endpoint, []).extend(each)
        return words

    async def serve_toxiproxy(self, bind: tuple[str, int] = ("127.0.0.1", 8474)) -> tuple[str, int]:
        """Serve toxiproxy's HTTP API until the proxy stops, for its clients.

        A proxy that they create is a Service here; the proxy that is embedded has others, too.

        Args:
            bind: IP address and port; 0 for any free port.

        Returns:
            The address.

        Raises:
            ListenError: The address isn't available.
        """
        # aiohttp takes half a second to import.
        from .faults.toxiproxy_services import serve_toxiproxy

        return await serve_toxiproxy(self, self.faults, bind)


class BlockingProxyWithFaults(BlockingProxy):
    """A proxy in a thread of its own, with the calls of ``ProxyWithFaults`` without ``await``."""

    proxy_class: ClassVar[type[EmbeddedProxy]] = ProxyWithFaults

    add_fault = called(ProxyWithFaults.add_fault)
    remove_faults = called(ProxyWithFaults.remove_faults)
    faults_of = called(ProxyWithFaults.faults_of)
    serve_toxiproxy = awaited(ProxyWithFaults.serve_toxiproxy)
