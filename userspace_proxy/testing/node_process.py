"""The proxy on the node of a network, seen from the test's process."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..agent.arguments import EndpointAddress
from ..child import end_child, start_child
from ..errors import SandboxError
from ..model import EndpointSlice, Service, ServiceKey, SocketAddress
from ..status.view import StatusView
from .calls import PROXY, Call, CallResult, Reference, receive, send
from .decisions import Decision
from .served_service import ServiceHandle

if TYPE_CHECKING:
    from ..sandbox import Namespace, SandboxNode
    from .node_main import AddressInfos

_ENTRY = "userspace_proxy.testing.node_main:main"
# A proxy starts in 0.4 s, and a change takes milliseconds, more while other tests use the machine.
_ANSWER_WITHIN_S = 30.0
_END_WITHIN_S = 10.0


class NodeProcess:
    """A process on a node that runs a proxy; it starts while this process does something else.

    Its calls may come from any thread. Those without an explanation are those of ``Proxy``.
    """

    def __init__(self, node: SandboxNode) -> None:
        self._lock = threading.Lock()
        self._process, self._link = start_child(
            _ENTRY, *node.ip.packed, prefix=node.prefix, has_own_session=True
        )
        self._link.settimeout(_ANSWER_WITHIN_S)

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def wait_until_ready(self) -> None:
        """Wait until the proxy has started.

        Raises:
            UserspaceProxyError: It can't.
        """
        with self._lock:
            self._answer()

    def open_socket(
        self, namespace: Namespace, family: socket.AddressFamily, type_: socket.SocketKind
    ) -> socket.socket:
        """Return a socket of a namespace, which the caller closes."""
        with self._lock:
            passed = self._exchange((namespace.pid, int(family), int(type_)))[1]
        assert passed is not None, "it was passed with the answer"
        return passed

    def look_up(
        self, host: str, port: int, type_: socket.SocketKind, namespace: str
    ) -> AddressInfos:
        """Return the addresses of a name as in a pod of a namespace.

        Raises:
            socket.gaierror: It isn't known there.
        """
        found: AddressInfos = self.call(PROXY, "look_up", host, port, int(type_), namespace)
        return found

    def add_service(self, *arguments: Any, **keywords: Any) -> ServiceHandle:
        """Part of ProxyCalls."""
        reference = self.call(PROXY, "add_service", *arguments, **keywords)
        return ServiceOfNode(self, reference)

    def put(self, service: Service, slices: Iterable[EndpointSlice]) -> None:
        """Part of ProxyCalls."""
        self.call(PROXY, "put", service, list(slices))

    def add_fault(self, service: ServiceKey, type_: str, **arguments: Any) -> None:
        """Part of ProxyCalls."""
        self.call(PROXY, "add_fault", service, type_, **arguments)

    def remove_faults(
        self, service: ServiceKey, *, endpoint: EndpointAddress | None = None
    ) -> None:
        """Part of ProxyCalls."""
        self.call(PROXY, "remove_faults", service, endpoint=endpoint)

    def faults_of(self, service: ServiceKey) -> Mapping[SocketAddress, Sequence[str]]:
        """Part of ProxyCalls."""
        faults: Mapping[SocketAddress, Sequence[str]] = self.call(PROXY, "faults_of", service)
        return faults

    def choose_next(self, service: ServiceKey, endpoint: EndpointAddress) -> None:
        """Part of ProxyCalls."""
        self.call(PROXY, "choose_next", service, endpoint)

    def status(self) -> StatusView:
        """Part of ProxyCalls."""
        view: StatusView = self.call(PROXY, "status")
        return view

    def decisions_of(self, service: ServiceKey) -> Sequence[Decision]:
        """Part of ProxyCalls."""
        decisions: Sequence[Decision] = self.call(PROXY, "decisions_of", service)
        return decisions

    @property
    def dns_address(self) -> SocketAddress | None:
        """Where names of Services are answered by DNS; None: dnspython isn't installed."""
        address: SocketAddress | None = self.call(PROXY, "dns_address")
        return address

    def call(self, target: Reference, name: str, *arguments: Any, **keywords: Any) -> Any:
        """Call a method of an object in the process; return its result, or raise its exception.

        Raises:
            SandboxError: The process has ended, or gives no answer.
            RuntimeError: It was closed.
        """
        with self._lock:
            return self._exchange(Call(target, name, arguments, keywords))[0]

    def close(self) -> int:
        """Stop the proxy; return the exit status of its process. Idempotent."""
        self._link.close()
        return end_child(self._process, _END_WITHIN_S)

    def _exchange(self, message: object) -> tuple[Any, socket.socket | None]:
        if self._link.fileno() < 0:
            raise RuntimeError("this network has ended")
        with contextlib.suppress(ConnectionError):
            send(self._link, message)
        return self._answer()

    def _answer(self) -> tuple[Any, socket.socket | None]:
        try:
            answer, passed = receive(self._link)
        except TimeoutError:
            self._process.kill()
            raise SandboxError(
                f"the proxy of the network gave no answer within {_ANSWER_WITHIN_S:g} s"
            ) from None
        except (EOFError, OSError):
            status = end_child(self._process, _END_WITHIN_S)
            raise SandboxError(f"the proxy of the network ended with status {status}") from None
        assert isinstance(answer, CallResult), "the other side sends nothing else"
        if answer.error is not None:
            raise answer.error
        return answer.value, passed


class ServiceOfNode:
    """A Service that a :class:`NodeProcess` serves; a ``ServiceHandle``."""

    def __init__(self, process: NodeProcess, reference: Reference) -> None:
        self._process = process
        self._reference = reference

    def __repr__(self) -> str:
        return str(self._process.call(self._reference, "__repr__"))

    @property
    def service(self) -> Service:
        """Part of ServiceHandle."""
        service: Service = self._process.call(self._reference, "service")
        return service

    @property
    def key(self) -> ServiceKey:
        """Part of ServiceHandle."""
        key: ServiceKey = self._process.call(self._reference, "key")
        return key

    @property
    def address(self) -> SocketAddress:
        """Part of ServiceHandle."""
        address: SocketAddress = self._process.call(self._reference, "address")
        return address

    def remove(self) -> None:
        """Part of ServiceHandle."""
        self._process.call(self._reference, "remove")
