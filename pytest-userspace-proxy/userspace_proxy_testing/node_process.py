"""The proxy on a network's node, as seen from the test's process."""

from __future__ import annotations

import pickle
import socket
import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from userspace_proxy.answering_child import AnsweringChild, ChildEnded
from userspace_proxy.embedding.arguments import EndpointAddress
from userspace_proxy.errors import SandboxError
from userspace_proxy.facts import StatusFacts
from userspace_proxy.model import EndpointSlice, Service, ServiceKey, SocketAddress

from .calls import PROXY, Call, CallResult, Reference
from .decisions import Decision
from .served_service import ServiceHandle

if TYPE_CHECKING:
    from .node_main import AddressInfos
    from .sandbox import Namespace, SandboxNode

_ENTRY = "userspace_proxy_testing.node_main:main"
# The time limit for an answer. A proxy starts in 0.4 s and a change takes milliseconds, but other
# tests may load the machine.
_ANSWER_WITHIN_S = 30.0


class NodeProcess:
    """The process that runs a node's proxy; it starts in the background.

    Any thread may call its methods. Methods without a docstring implement :class:`.ProxyCalls`.
    """

    def __init__(self, node: SandboxNode) -> None:
        self._lock = threading.Lock()
        self._child = AnsweringChild(
            _ENTRY, *node.ip.packed, answer_within_s=_ANSWER_WITHIN_S, prefix=node.prefix
        )

    @property
    def pid(self) -> int:
        """The process id."""
        return self._child.pid

    def wait_until_ready(self) -> None:
        """Wait until the proxy has started.

        Raises:
            UserspaceProxyError, OSError: The proxy can't start, or doesn't answer in time.
        """
        with self._lock:
            self._exchange(None)

    def open_socket(
        self, namespace: Namespace, family: socket.AddressFamily, type_: socket.SocketKind
    ) -> socket.socket:
        """Return a socket in a namespace; the caller closes it. Raise OSError if there is none."""
        with self._lock:
            _, (passed,) = self._exchange((namespace.pid, int(family), int(type_)))
        return passed

    def look_up(
        self, host: str, port: int, type_: socket.SocketKind, namespace: str
    ) -> AddressInfos:
        """Resolve a name as in a pod of a namespace; return the result of ``getaddrinfo``.

        Raises:
            socket.gaierror: The name is unknown there.
        """
        found: AddressInfos = self.call(PROXY, "look_up", host, port, int(type_), namespace)
        return found

    def add_service(self, *arguments: Any, **keywords: Any) -> ServiceHandle:
        reference = self.call(PROXY, "add_service", *arguments, **keywords)
        return ServiceOfNode(self, reference)

    def add_fault(self, service: ServiceKey, type_: str, **arguments: Any) -> None:
        self.call(PROXY, "add_fault", service, type_, **arguments)

    def remove_faults(
        self, service: ServiceKey, *, endpoint: EndpointAddress | None = None
    ) -> None:
        self.call(PROXY, "remove_faults", service, endpoint=endpoint)

    def faults_of(self, service: ServiceKey) -> Mapping[SocketAddress, Sequence[str]]:
        faults: Mapping[SocketAddress, Sequence[str]] = self.call(PROXY, "faults_of", service)
        return faults

    def choose_next(self, service: ServiceKey, endpoint: EndpointAddress) -> None:
        self.call(PROXY, "choose_next", service, endpoint)

    def status(self) -> StatusFacts:
        view: StatusFacts = self.call(PROXY, "status")
        return view

    def decisions_of(self, service: ServiceKey) -> Sequence[Decision]:
        decisions: Sequence[Decision] = self.call(PROXY, "decisions_of", service)
        return decisions

    def call(self, target: Reference, name: str, *arguments: Any, **keywords: Any) -> Any:
        """Call a method of an object in the process; return its result or raise its exception.

        Raises:
            SandboxError: The process has ended or doesn't answer.
            RuntimeError: The process was closed.
        """
        with self._lock:
            return self._exchange(Call(target, name, arguments, keywords))[0]

    def close(self) -> int:
        """Stop the proxy; return its process's exit status. Idempotent."""
        return self._child.close()

    def _exchange(self, message: object) -> tuple[Any, list[socket.socket]]:
        if self._child.is_closed:
            raise RuntimeError("this network has ended")
        try:
            data, passed = self._child.ask(None if message is None else pickle.dumps(message))
        except ChildEnded as exc:
            raise SandboxError(f"the proxy of the network {exc}") from None
        answer = pickle.loads(data)
        assert isinstance(answer, CallResult), "the other side sends nothing else"
        if answer.error is not None:
            raise answer.error
        return answer.value, passed


class ServiceOfNode:
    """A Service of the proxy in a :class:`NodeProcess`; a ``ServiceHandle``."""

    def __init__(self, process: NodeProcess, reference: Reference) -> None:
        self._process = process
        self._reference = reference

    def __repr__(self) -> str:
        return str(self._process.call(self._reference, "__repr__"))

    @property
    def service(self) -> Service:
        service: Service = self._process.call(self._reference, "service")
        return service

    @property
    def key(self) -> ServiceKey:
        key: ServiceKey = self._process.call(self._reference, "key")
        return key

    @property
    def address(self) -> SocketAddress:
        address: SocketAddress = self._process.call(self._reference, "address")
        return address

    def put(self, slices: Iterable[EndpointSlice]) -> None:
        self._process.call(self._reference, "put", list(slices))

    def remove(self) -> None:
        self._process.call(self._reference, "remove")
