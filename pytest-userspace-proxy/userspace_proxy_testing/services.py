"""A test's Services, each with backends that can be stopped and restarted.

Rule 1: the differences between a proxy in this process and a proxy in a sandbox are in
``ProxyCalls`` and in the backends' places; Services are the same in both.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from inspect import signature
from typing import Unpack

from userspace_proxy.clocks import Clocks
from userspace_proxy.embedding.arguments import (
    EndpointAddress,
    HandlingArguments,
    check_names,
    make_slices,
    read_endpoint,
    read_key,
)
from userspace_proxy.embedding.loop_thread import LoopThread
from userspace_proxy.facts import StatusFacts
from userspace_proxy.model import Balance, EndpointSlice, ServiceKey, SocketAddress

from .backend import Backend
from .backend_arguments import BackendLike, read_backends
from .backends import make_backend
from .decisions import Decision
from .places import BackendPlace
from .served_service import ProxyCalls, ServedService, ServiceHandle


class Services:
    """One proxy's Services; the base class of the fixtures' values."""

    def __init__(self) -> None:
        self._made: dict[ServiceKey, ProxiedService] = {}

    def _calls(self) -> ProxyCalls:
        """Return the proxy, or the object that calls it in another process."""
        raise NotImplementedError

    def _backend_thread(self) -> LoopThread:
        """Return the thread in which backends of this process run."""
        raise NotImplementedError

    def _find_place(
        self, number: int, like: BackendLike | None, *, cluster_ip: str | None, namespace: str
    ) -> BackendPlace:
        """Return the place where a backend listens.

        Args:
            number: The backend's number in its Service, from 1.
            like: The kind of backend.
            cluster_ip: The Service's address, whose family the result must have; None for IPv4.
            namespace: The Service's namespace.
        """
        raise NotImplementedError

    def _free_cluster_ip(self) -> str | None:
        """Return a free address for a Service; None to let the proxy choose one."""
        return None

    def service(
        self,
        name: str = "web",
        *,
        port: int = 80,
        backends: int | Iterable[BackendLike | None] = 1,
        namespace: str = "default",
        protocol: str = "TCP",
        cluster_ip: str | None = None,
        affinity_timeout_s: int | None = None,
        balance: str = Balance.ROUND_ROBIN,
        seed: int = 0,
        **handling: Unpack[HandlingArguments],
    ) -> ProxiedService:
        """Serve a Service with backends; applied on return.

        Args:
            name: Its name; an existing Service with the same name is removed first.
            port: The port that clients dial; ``service_proxy`` uses another if it is unavailable.
            backends: Their number, or the kind of each: see the module ``backends``.
            namespace: Its namespace.
            protocol: ``TCP`` or ``UDP``.
            cluster_ip: The IP address that clients dial; with ``service_proxy`` a loopback address.
                Backends have addresses of the same family. None for a free IPv4 address.
            affinity_timeout_s: Seconds of ClientIP affinity; None for no affinity.
            balance: The balance method: see ``Proxy.add_service``.
            seed: The same seed reproduces the same choices.
            handling: Annotations by name: see ``Proxy.add_service``.

        Raises:
            TypeError, ValueError: An argument is invalid, or would have no effect.
            BackendError, ListenError, OSError: A backend can't start, or no address is free.
        """
        asked: dict[str, object] = {
            "port": port,
            "protocol": protocol,
            "cluster_ip": cluster_ip,
            "affinity_timeout_s": affinity_timeout_s,
            "balance": balance,
            "seed": seed,
            **handling,
        }
        self._check_effect(protocol, cluster_ip, handling)
        likes = read_backends(backends, protocol)
        earlier = self._made.get(read_key(namespace, name))
        if earlier is not None:
            earlier.remove()
        cluster_ip, began_at = cluster_ip or self._free_cluster_ip(), Clocks.time()
        with contextlib.ExitStack() as undo:
            made = self._make_backends(undo, name, likes, protocol, cluster_ip, namespace)
            handle = self._calls().add_service(
                name,
                endpoints=[backend.address for backend in made],
                namespace=namespace,
                **{**asked, "cluster_ip": cluster_ip},
            )
            undo.pop_all()
        service = ProxiedService(self._calls(), handle, made, asked, began_at, forget=self._forget)
        self._made[handle.key] = service
        return service

    def _check_effect(
        self, protocol: str, cluster_ip: str | None, handling: HandlingArguments
    ) -> None:
        """Raise TypeError or ValueError if an argument is unknown or would have no effect."""
        check_names(handling, Services.service)
        if protocol == "UDP" and handling.get("proxy_protocol"):
            raise ValueError("proxy_protocol: it has no effect: only TCP connections have a header")

    def _make_backends(
        self,
        undo: contextlib.ExitStack,
        name: str,
        likes: Sequence[BackendLike | None],
        protocol: str,
        cluster_ip: str | None,
        namespace: str,
    ) -> list[Backend]:
        """Return started backends; callbacks that end them are added to the stack."""
        made = []
        for number, like in enumerate(likes, 1):
            backend = make_backend(
                like,
                name=f"{name}-{number}",
                protocol=protocol,
                thread=self._backend_thread(),
                find_place=partial(
                    self._find_place, number, like, cluster_ip=cluster_ip, namespace=namespace
                ),
            )
            undo.callback(backend.close)
            made.append(backend)
        return made

    @property
    def services(self) -> Sequence[ProxiedService]:
        """All Services, in order of creation."""
        return tuple(self._made.values())

    def status(self) -> StatusFacts:
        """Return the proxy's current status."""
        return self._calls().status()

    def _forget(self, service: ProxiedService) -> None:
        if self._made.get(service.key) is service:
            del self._made[service.key]


class ProxiedService(ServedService):
    """One Service of a test, with its backends."""

    __slots__ = (
        "_asked",
        "_backends",
        "_began_at",
        "_ended_at",
        "_endpoints",
        "_forget",
        "_handle",
    )

    def __init__(
        self,
        proxy: ProxyCalls,
        handle: ServiceHandle,
        backends: Sequence[Backend],
        asked: Mapping[str, object],
        began_at: float,
        *,
        forget: Callable[[ProxiedService], None],
    ) -> None:
        super().__init__(proxy, handle.key)
        self._forget = forget
        self._asked = asked
        self._backends = list(backends)
        self._handle = handle
        self._began_at = began_at
        self._ended_at = math.inf
        self._endpoints = [backend.address for backend in backends]
        for backend in backends:
            backend.attach(self._control)

    def __repr__(self) -> str:
        return f"<Service {self.key}, not served>" if self._is_removed else repr(self._handle)

    @property
    def address(self) -> SocketAddress:
        self._served()
        return self._handle.address

    @property
    def protocol(self) -> str:
        """``TCP`` or ``UDP``."""
        return str(self._asked["protocol"])

    @property
    def settings(self) -> Mapping[str, object]:
        """The arguments of ``service`` that differ from the defaults."""
        known = signature(Services.service).parameters
        defaults = {name: one.default for name, one in known.items()}
        return {name: value for name, value in self._asked.items() if value != defaults.get(name)}

    @property
    def decisions(self) -> Sequence[Decision]:
        """The last ended connections, oldest first, that began while this Service was served."""
        return [d for d in super().decisions if self._began_at <= d.began_at < self._ended_at]

    @property
    def backends(self) -> Sequence[Backend]:
        """The backends, in the given order."""
        return self._backends

    @property
    def endpoints(self) -> list[SocketAddress]:
        """The addresses that get connections; assign addresses, backends or an empty list."""
        return list(self._endpoints)

    @endpoints.setter
    def endpoints(self, endpoints: Iterable[EndpointAddress | Backend]) -> None:
        if isinstance(endpoints, str) or not isinstance(endpoints, Iterable):
            raise TypeError(f"endpoints: expected a list of ip:port, got {endpoints!r}")
        addresses = [e.address if isinstance(e, Backend) else read_endpoint(e) for e in endpoints]
        slices = self._slices(addresses)
        self._endpoints = addresses
        self._put(slices)

    def drain(self, backend: Backend) -> None:
        """Make a backend terminate: its connections continue, but new clients go to other backends.

        While no other backend is ready, it gets new connections, too, as in Kubernetes (KEP-1669).

        Raises:
            LookupError: The backend isn't in ``backends``, or gets no connections, or the Service
                was removed.
        """
        if self._own(backend).address not in self._endpoints:
            raise LookupError(f"{backend!r} is no endpoint of {self.key}: endpoints were set")
        backend.is_draining = True
        self._put(self._slices(self._endpoints))

    def undrain(self, backend: Backend) -> None:
        """Make a backend ready again; raise LookupError if it isn't in ``backends``."""
        self._own(backend).is_draining = False
        self._put(self._slices(self._endpoints))

    def served_addresses(self) -> list[SocketAddress]:
        """Return the Service's own address; none with UDP, or if it isn't served."""
        if self.protocol != "TCP":
            return []
        try:
            return [self.address]
        except LookupError:
            # The test has removed the Service, or the Service couldn't be served.
            return []

    def remove(self) -> None:
        """Stop serving the Service, and end its backends. Idempotent."""
        try:
            self._handle.remove()
        finally:
            self.end_backends()

    def end_backends(self) -> None:
        """End the Service's backends without notifying the proxy. Idempotent."""
        if not self._is_removed:
            self._is_removed, self._ended_at = True, Clocks.time()
        self._forget(self)
        with contextlib.ExitStack() as each:
            for backend in self.backends:
                each.callback(backend.close)

    def _own(self, backend: Backend) -> Backend:
        if backend not in self._backends:
            raise LookupError(f"{self.key} has no backend {backend!r}: give one of its backends")
        return backend

    def _slices(self, endpoints: Sequence[SocketAddress]) -> list[EndpointSlice]:
        self._served()
        return make_slices(self._handle.service, endpoints)

    def _put(self, slices: Sequence[EndpointSlice]) -> None:
        draining = {backend.address for backend in self.backends if backend.is_draining}
        self._handle.put([_with_draining(item, draining) for item in slices])


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
