r"""Services for tests: a proxy in a thread, with backends that can die and return.

::

    with ServiceProxy() as proxy:
        web = proxy.service("web", port=80, backends=2)
        web.backends[0].stop()
        assert urlopen(web.url).read() == b"web-2\n"
        assert web.stats.saved == 1
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from ..agent.arguments import EndpointAddress, make_slices, read_endpoint
from ..agent.blocking import BlockingService
from ..model import Balance, EndpointSlice, Service, ServiceKey, SocketAddress
from .backends import Backend, BackendLike, make_backend
from .served_service import RecordingProxy, ServedService


class ServiceProxy(RecordingProxy):
    """A proxy whose Services have backends; the arguments are those of ``Proxy``."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._made: dict[ServiceKey, ProxiedService] = {}

    def __repr__(self) -> str:
        return f"<ServiceProxy, {len(self._made)} Services>"

    def service(
        self,
        name: str = "web",
        *,
        port: int = 80,
        backends: int | Iterable[BackendLike] = 1,
        namespace: str = "default",
        protocol: str = "TCP",
        affinity_timeout_s: int | None = None,
        balance: str = Balance.ROUND_ROBIN,
        seed: int = 0,
    ) -> ProxiedService:
        """Serve a Service with backends; it is in force on return.

        Args:
            name: Its name; a Service of the same name is removed first.
            port: The port that clients dial; another one if it isn't available, such as one below
                1024 without privileges.
            backends: Their number, or what each of them is: see ``testing.backends``.
            namespace: Its namespace.
            protocol: ``TCP`` or ``UDP``.
            affinity_timeout_s: Seconds of ClientIP affinity; None: no affinity.
            balance: How backends are chosen: see ``Proxy.add_service``.
            seed: The same seed gives the same choices in each run.
        """
        earlier = self._made.get(ServiceKey(namespace, name))
        if earlier is not None:
            earlier.remove()
        wanted = [None] * backends if isinstance(backends, int) else list(backends)
        made: list[Backend] = []
        try:
            for number, like in enumerate(wanted, 1):
                # Endpoints take turns in the order of their addresses: so it is that of the list.
                host = f"127.0.{number // 250}.{number % 250 + 1}"
                backend_name = f"{name}-{number}"
                made.append(
                    make_backend(
                        like, name=backend_name, protocol=protocol, thread=self._thread, host=host
                    )
                )
            handle = self.add_service(
                name,
                port=port,
                endpoints=[backend.address for backend in made],
                namespace=namespace,
                protocol=protocol,
                affinity_timeout_s=affinity_timeout_s,
                balance=balance,
                seed=seed,
            )
        except BaseException:
            for backend in made:
                backend.close()
            raise
        service = self._made[handle.key] = ProxiedService(self, handle, made)
        return service

    @property
    def services(self) -> Sequence[ProxiedService]:
        """Part of RecordingProxy."""
        return tuple(self._made.values())

    def end_services(self) -> None:
        """Part of RecordingProxy: remove all Services."""
        for service in self.services:
            service.remove()

    def forget(self, service: ProxiedService) -> None:
        """Stop listing a Service; idempotent."""
        if self._made.get(service.key) is service:
            del self._made[service.key]


class ProxiedService(ServedService):
    """One Service of a test, with its backends."""

    def __init__(
        self, proxy: ServiceProxy, handle: BlockingService, backends: Sequence[Backend]
    ) -> None:
        super().__init__(proxy, handle.key)
        self._owner = proxy
        self._backends = list(backends)
        self._handle = handle
        self._endpoints = [backend.address for backend in backends]
        for backend in backends:
            backend.attach(self._control)

    def __repr__(self) -> str:
        return repr(self._handle)

    @property
    def address(self) -> SocketAddress:
        """Part of ServedService."""
        return self._handle.address

    @property
    def backends(self) -> Sequence[Backend]:
        """In the order in which they were given."""
        return self._backends

    @property
    def endpoints(self) -> list[SocketAddress]:
        """Where its connections go; may be set to other addresses, or to none."""
        return list(self._endpoints)

    @endpoints.setter
    def endpoints(self, endpoints: Iterable[EndpointAddress]) -> None:
        self._endpoints = [read_endpoint(endpoint) for endpoint in endpoints]
        self._put()

    def drain(self, backend: Backend) -> None:
        """Make a backend terminate: its connections go on, and new ones go to the others.

        While no other backend is ready, new ones still go to it, as in Kubernetes (KEP-1669).
        """
        backend.is_draining = True
        self._put()

    def undrain(self, backend: Backend) -> None:
        """Make a backend ready again."""
        backend.is_draining = False
        self._put()

    def served_addresses(self) -> list[SocketAddress]:
        """Part of ServedService: its own, and those of the backends of this process."""
        if self._handle.service.ports[0].protocol != "TCP":
            return []
        own = [backend.address for backend in self.backends if backend.is_own]
        return [self.address, *own]

    def remove(self) -> None:
        """Stop serving it, and end its backends. Idempotent."""
        try:
            self._handle.remove()
        finally:
            self._owner.forget(self)
            for backend in self.backends:
                backend.close()

    def _put(self) -> None:
        slices = make_slices(self._service(), self._endpoints)
        draining = {backend.address for backend in self.backends if backend.is_draining}
        self._proxy.put(self._service(), [_with_draining(item, draining) for item in slices])

    def _service(self) -> Service:
        return self._handle.service


def _with_draining(item: EndpointSlice, draining: set[SocketAddress]) -> EndpointSlice:
    port = item.ports[0].port
    return replace(
        item,
        endpoints=tuple(
            replace(e, ready=False, serving=True, terminating=True)
            if SocketAddress(e.ip, port) in draining
            else e
            for e in item.endpoints
        ),
    )


__all__ = ["ProxiedService", "ServiceProxy"]
