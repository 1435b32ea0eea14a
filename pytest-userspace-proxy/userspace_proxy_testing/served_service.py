"""The base class of tests' Services, for each source of Services and backends."""

from __future__ import annotations

import abc
import asyncio
import inspect
import socket
import threading
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence, Sized
from typing import Any, Protocol, Self

from userspace_proxy.clocks import Clocks
from userspace_proxy.embedding.arguments import EndpointAddress
from userspace_proxy.facts import PortFacts, StatusFacts
from userspace_proxy.model import EndpointSlice, Service, ServiceKey, SocketAddress

from .backend import Backend, FaultControl
from .connections import connect_ex
from .decisions import Decision
from .places import family_of
from .proxy_with_decisions import ProxyWithDecisions
from .stats import ServiceStats, stats_of

EVENTUALLY_S = 5.0
_POLL_S = 0.005


class HasTruth(Protocol):
    """A value that defines its truth value, such as a number; a coroutine doesn't."""

    def __bool__(self) -> bool:
        """Return the truth value."""


class ProxyCalls(Protocol):
    """The methods that a test's Services need from their proxy; see :class:`.EmbeddedProxy`."""

    def add_service(self, *arguments: Any, **keywords: Any) -> ServiceHandle:
        """Serve a Service, and return it."""

    def add_fault(self, service: ServiceKey, type_: str, **arguments: Any) -> None:
        """Inject a fault into connections of a Service."""

    def remove_faults(
        self, service: ServiceKey, *, endpoint: EndpointAddress | None = None
    ) -> None:
        """Remove the faults of a Service, or only the faults of one endpoint."""

    def faults_of(self, service: ServiceKey) -> Mapping[SocketAddress, Sequence[str]]:
        """Return descriptions of a Service's active faults, by endpoint."""

    def choose_next(self, service: ServiceKey, endpoint: EndpointAddress) -> None:
        """Direct the next connection to an endpoint."""

    def status(self) -> StatusFacts:
        """Return the proxy's status."""

    def decisions_of(self, service: ServiceKey) -> Sequence[Decision]:
        """Return a Service's last ended connections."""


class ServiceHandle(Protocol):
    """A served Service, such as :class:`.BlockingService`."""

    @property
    def service(self) -> Service:
        """The Service as the proxy received it."""

    @property
    def key(self) -> ServiceKey:
        """The Service's namespace and name."""

    @property
    def address(self) -> SocketAddress:
        """The address to dial."""

    def put(self, slices: Iterable[EndpointSlice]) -> None:
        """Replace the Service's slices."""

    def remove(self) -> None:
        """Stop serving the Service. Idempotent."""


class RecordingProxy(ProxyWithDecisions, abc.ABC):
    """A proxy with a test's Services, and with the arguments of ``Proxy``."""

    def close(self) -> None:
        """End the test's Services and their backends, the proxy and its thread. Idempotent.

        Raises:
            AssertionError: A Service's or backend's address is still served.
        """
        services = self.services
        served = [address for service in services for address in service.served_addresses()]
        backends = [backend for service in services for backend in service.backends]
        try:
            self.end_services()
        finally:
            super().close()
        left = [str(address) for address in served if _is_served(address)]
        left += [str(backend.address) for backend in backends if backend.is_left]
        assert not left, f"still served after the end of the proxy: {', '.join(left)}"

    @property
    @abc.abstractmethod
    def services(self) -> Sequence[ServedService]:
        """The test's Services, in order of creation."""

    @abc.abstractmethod
    def end_services(self) -> None:
        """End the Services' backends, and whatever else the test started for them. Idempotent."""


class ServedService(abc.ABC):
    """One Service of a test.

    Like its subclasses, it has slots, so a misspelt ``web.next_endpoint = …`` is an error.
    """

    __slots__ = ("_control", "_is_removed", "_proxy", "key")

    def __init__(self, proxy: ProxyCalls, key: ServiceKey) -> None:
        self.key = key
        self._proxy = proxy
        self._is_removed = False
        """Whether this Service was removed; a later Service may have the same name."""
        self._control = FaultControl(self._add_fault, self._remove_faults)

    @property
    @abc.abstractmethod
    def address(self) -> SocketAddress:
        """The address that clients dial; unpacks into host and port.

        Raises:
            LookupError: The Service isn't served, or is no longer served.
        """

    @property
    @abc.abstractmethod
    def backends(self) -> Sequence[Backend]:
        """The backends that serve the Service for this test."""

    @abc.abstractmethod
    def served_addresses(self) -> list[SocketAddress]:
        """Return the Service's own TCP addresses, which must not be served after the test."""

    @property
    def settings(self) -> Mapping[str, object]:
        """The test's settings that differ from the defaults."""
        return {}

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
        """The URL, such as ``http://10.96.0.10:80``, without a trailing slash."""
        return f"http://{self.address}"

    @property
    def stats(self) -> ServiceStats:
        """The current counters.

        Raises:
            LookupError: The test has removed or replaced the Service.
        """
        names = {str(backend.address): backend.name for backend in self.backends}
        return stats_of(str(self.key), self.views(), names)

    def views(self) -> list[PortFacts]:
        """Return the Service's ports as the status page shows them.

        Raises:
            LookupError: The test has removed or replaced the Service.
        """
        return [p for p in self._served().status().ports if p.plan.key.name.service == self.key]

    @property
    def decisions(self) -> Sequence[Decision]:
        """The last ended connections, oldest first, of all Services that had this name."""
        return self._proxy.decisions_of(self.key)

    @property  # noqa: B027 - it can only be set
    def next_endpoint(self) -> None:
        """Assign a backend or an address: the next connection is sent there."""

    @next_endpoint.setter
    def next_endpoint(self, endpoint: Backend | EndpointAddress) -> None:
        address = endpoint.address if isinstance(endpoint, Backend) else endpoint
        self._served().choose_next(self.key, address)

    def fault(
        self, type_: str, *, stream: str = "downstream", toxicity: float = 1.0, **attributes: int
    ) -> None:
        """Inject a fault into connections to all endpoints, like ``Proxy.add_fault``."""
        self._control.add(type_, stream=stream, toxicity=toxicity, **attributes)

    def heal(self) -> None:
        """Remove all faults of the Service. Idempotent."""
        self._control.remove()

    @property
    def faults(self) -> dict[str, Sequence[str]]:
        """Descriptions of active faults, by the backend's name or the endpoint's address."""
        names = {backend.address: backend.name for backend in self.backends}
        found = self._served().faults_of(self.key)
        return {names.get(address, str(address)): words for address, words in found.items()}

    def _served(self) -> ProxyCalls:
        """Return the Service's proxy; raise LookupError if the Service was removed or replaced."""
        if self._is_removed:
            raise LookupError(f"{self.key} was removed or replaced")
        return self._proxy

    def _add_fault(self, type_: str, **arguments: Any) -> None:
        self._served().add_fault(self.key, type_, **arguments)

    def _remove_faults(self, **arguments: Any) -> None:
        # A Service's faults are removed together with the Service, so afterwards there is nothing
        # to do.
        if not self._is_removed:
            self._proxy.remove_faults(self.key, **arguments)

    def eventually(
        self,
        predicate: Callable[[Self], HasTruth | Sized | None],
        *,
        timeout_s: float = EVENTUALLY_S,
    ) -> None:
        """Wait until a condition, called with this Service, holds.

        A condition that raises AssertionError or OSError doesn't hold yet: a client may meanwhile
        be refused or reset. The call blocks its thread: a coroutine whose event loop must run for
        the condition to hold awaits ``asyncio.to_thread(web.eventually, condition)``.

        Raises:
            AssertionError: The condition doesn't hold in time; the message contains the counters.
            TypeError: The condition isn't a function, or is a coroutine function.
        """
        if not callable(predicate):
            raise TypeError(f"eventually: expected a function of the Service, got {predicate!r}")
        deadline, pause = Clocks.monotonic() + timeout_s, threading.Event()
        while True:
            failed: AssertionError | OSError | None = None
            try:
                if _is_true(predicate(self)):
                    return
            except (AssertionError, OSError) as exc:
                failed = exc
            if Clocks.monotonic() >= deadline:
                try:
                    shown = repr(self.stats)
                except LookupError as exc:
                    shown = str(exc)
                what = f"not so after {timeout_s:g} s: {shown}{_blocked_loop()}"
                raise AssertionError(what) from failed
            pause.wait(_POLL_S)


def _is_true(value: object) -> bool:
    if inspect.isawaitable(value):
        if isinstance(value, Coroutine):
            value.close()
        raise TypeError("eventually: expected a function that returns a value, not a coroutine")
    return bool(value)


def _blocked_loop() -> str:
    """Return a sentence if the wait blocked an event loop; empty if none runs in this thread."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return ""
    return (
        " (meanwhile the event loop of this thread stood still: if the condition needs it, "
        "await asyncio.to_thread(web.eventually, condition))"
    )


def _is_served(address: SocketAddress) -> bool:
    with socket.socket(family_of(address.ip)) as client:
        return connect_ex(client, address) == 0
