r"""Services for tests: a proxy in a thread, with backends that can die and return.

::

    with ServiceProxy() as proxy:
        web = proxy.service("web", port=80, backends=2)
        web.backends[0].stop()
        assert urlopen(web.url).read() == b"web-2\n"
        assert web.stats.saved == 1
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from ..agent.arguments import EndpointAddress, make_slices, read_endpoint
from ..agent.blocking import BlockingProxy, BlockingService
from ..model import Balance, EndpointSlice, Service, ServiceKey, SocketAddress
from .backends import Backend, BackendLike, FaultControl, make_backend
from .decisions import Decision, Decisions
from .stats import ServiceStats, stats_of

_EVENTUALLY_S = 5.0
_POLL_S = 0.005


class ServiceProxy(BlockingProxy):
    """A proxy whose Services have backends; the arguments are those of ``Proxy``."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._decisions = Decisions()
        self._made: dict[ServiceKey, ProxiedService] = {}

    def __repr__(self) -> str:
        return f"<ServiceProxy, {len(self._made)} Services>"

    def start(self) -> None:
        """Start the thread, and the proxy in it."""
        super().start()
        self._decisions.begin(self._thread.ident)

    def close(self) -> None:
        """Remove all Services, end their backends, the proxy and its thread. Idempotent.

        Raises:
            AssertionError: Something is left of them.
        """
        self._decisions.end()
        services = self.services
        served = [address for service in services for address in service.served_addresses()]
        try:
            for service in services:
                service.remove()
        finally:
            super().close()
        left = [str(address) for address in served if _is_served(address)]
        assert not left, f"still served after the end of the proxy: {', '.join(left)}"

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
        """All Services, in the order of their creation."""
        return tuple(self._made.values())

    def decisions_of(self, service: ServiceKey) -> Sequence[Decision]:
        """Return the last connections of a Service that have ended, the oldest first."""
        return self._decisions.of(service)

    def forget(self, service: ProxiedService) -> None:
        """Stop listing a Service; idempotent."""
        if self._made.get(service.key) is service:
            del self._made[service.key]


class ProxiedService:
    """One Service of a test."""

    def __init__(
        self, proxy: ServiceProxy, handle: BlockingService, backends: Sequence[Backend]
    ) -> None:
        self.backends = list(backends)
        """In the order in which they were given; changes to the list have no effect."""
        self.key = handle.key
        self._proxy = proxy
        self._handle = handle
        self._endpoints = [backend.address for backend in backends]
        add, remove = partial(proxy.add_fault, self.key), partial(proxy.remove_faults, self.key)
        self._control = FaultControl(add, remove)
        for backend in backends:
            backend.attach(self._control)

    def __repr__(self) -> str:
        return repr(self._handle)

    @property
    def address(self) -> SocketAddress:
        """What clients dial; unpacks into host and port."""
        return self._handle.address

    @property
    def host(self) -> str:
        """The IP address that clients dial."""
        return self.address.ip

    @property
    def port(self) -> int:
        """The port that clients dial."""
        return self.address.port

    @property
    def url(self) -> str:
        """``http://127.80.1.2:80``, without a slash at the end."""
        return f"http://{self.address}"

    @property
    def stats(self) -> ServiceStats:
        """What was counted until now."""
        ports = [p for p in self._proxy.status().ports if p.plan.key.name.service == self.key]
        names = {str(backend.address): backend.name for backend in self.backends}
        return stats_of(str(self.key), ports, names)

    @property
    def decisions(self) -> Sequence[Decision]:
        """The last connections that have ended, the oldest first: client, endpoint, bytes, time."""
        return self._proxy.decisions_of(self.key)

    @property
    def endpoints(self) -> list[SocketAddress]:
        """Where its connections go; may be set to other addresses, or to none."""
        return list(self._endpoints)

    @endpoints.setter
    def endpoints(self, endpoints: Iterable[EndpointAddress]) -> None:
        self._endpoints = [read_endpoint(endpoint) for endpoint in endpoints]
        self._put()

    @property
    def next_endpoint(self) -> None:
        """Set it to a backend or an address, and the next connection goes there."""

    @next_endpoint.setter
    def next_endpoint(self, endpoint: Backend | EndpointAddress) -> None:
        address = endpoint.address if isinstance(endpoint, Backend) else endpoint
        self._proxy.choose_next(self.key, address)

    def fault(
        self, type_: str, *, stream: str = "downstream", toxicity: float = 1.0, **attributes: int
    ) -> None:
        """Make connections to all its endpoints suffer a fault, as ``Proxy.add_fault`` does."""
        self._control.add(type_, stream=stream, toxicity=toxicity, **attributes)

    def heal(self) -> None:
        """Remove all its faults. Idempotent."""
        self._control.remove()

    @property
    def faults(self) -> dict[str, Sequence[str]]:
        """The faults in force in words, by the backend's name or the endpoint's address."""
        names = {backend.address: backend.name for backend in self.backends}
        found = self._proxy.faults_of(self.key)
        return {names.get(address, str(address)): words for address, words in found.items()}

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

    def eventually(
        self, predicate: Callable[[ProxiedService], object], *, timeout_s: float = _EVENTUALLY_S
    ) -> None:
        """Wait until a condition holds; it is called with this Service.

        An AssertionError of the condition means that it doesn't hold yet.

        Raises:
            AssertionError: It doesn't hold after the timeout; the text has the counters.
        """
        deadline, pause = time.monotonic() + timeout_s, threading.Event()
        while True:
            failed: AssertionError | None = None
            try:
                if predicate(self):
                    return
            except AssertionError as exc:
                failed = exc
            if time.monotonic() >= deadline:
                raise AssertionError(f"not so after {timeout_s:g} s: {self.stats!r}") from failed
            pause.wait(_POLL_S)

    def served_addresses(self) -> list[SocketAddress]:
        """Return the TCP addresses that it and the backends of this process serve."""
        if self._handle.service.ports[0].protocol != "TCP":
            return []
        own = [backend.address for backend in self.backends if backend.is_own]
        return [self.address, *own]

    def remove(self) -> None:
        """Stop serving it, and end its backends. Idempotent."""
        try:
            self._handle.remove()
        finally:
            self._proxy.forget(self)
            for backend in self.backends:
                backend.close()

    def _put(self) -> None:
        slices = make_slices(self._service(), self._endpoints)
        draining = {backend.address for backend in self.backends if backend.is_draining}
        self._proxy.put(self._service(), [_with_draining(item, draining) for item in slices])

    def _service(self) -> Service:
        return self._handle.service


def _is_served(address: SocketAddress) -> bool:
    with socket.socket() as client:
        return client.connect_ex(address) == 0


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
