"""Runs the proxy of a test network in a process of its own, on the sandbox's node.

    test process ──calls──▶ main thread ──▶ the proxy, in its own thread
                 ◀──answers, sockets──

Rule 1: the process ends when the link to the test's process is closed.
Rule 2: only the main thread enters other namespaces, and only to create a socket.
"""

from __future__ import annotations

import ctypes
import os
import pickle
import socket
from pathlib import Path
from typing import Any

from userspace_proxy.agent.rounds.options import Options
from userspace_proxy.embedding.blocking import BlockingService
from userspace_proxy.errors import UserspaceProxyError
from userspace_proxy.frames import receive_frame, send_frame
from userspace_proxy.kernel.offers import FOR_NFTABLES, read_kernel_offers
from userspace_proxy.steering import nftables

from .calls import PROXY, Call, CallResult, Reference
from .proxy_with_decisions import ProxyWithDecisions
from .sandbox.address_plan import POD_CIDR, SERVICE_CIDR

_DNS_PORT = 53
_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)

AddressInfos = list[tuple[Any, Any, int, str, Any]]
"""The result of ``socket.getaddrinfo``."""


class NodeProxy(ProxyWithDecisions):
    """The proxy on a network's node.

    Args:
        address: The node's IP address.
    """

    def __init__(self, address: str) -> None:
        lacks = nftables.missing(read_kernel_offers(FOR_NFTABLES))
        super().__init__(
            steering="local" if lacks else "nftables",
            options=Options(
                node_name="node-1",
                node_addresses=(address,),
                service_cidrs=tuple(SERVICE_CIDR.split(",")),
                cluster_networks=tuple(POD_CIDR.split(",")),
                is_own_namespace=True,
                preserves_client_address=True,
                dns=(address, _DNS_PORT),
            ),
        )

    def look_up(self, host: str, port: int, type_: int, namespace: str) -> AddressInfos:
        """Resolve a name as in a pod of a namespace; return the result of ``getaddrinfo``."""
        with self.names(namespace):
            return socket.getaddrinfo(host, port, type=type_)

    @property
    def has_left_something(self) -> bool:
        """Whether the proxy left an object in the kernel when it closed."""
        return self._object.left_behind


def open_socket(pid: int, family: int, type_: int) -> socket.socket:
    """Return a socket in a process's network namespace; raise OSError if that is impossible."""
    with (
        Path("/proc/thread-self/ns/net").open("rb") as own,
        Path(f"/proc/{pid}/ns/net").open("rb") as other,
    ):
        _enter(other.fileno())
        try:
            return socket.socket(family, type_)
        finally:
            _enter(own.fileno())


def _enter(namespace: int) -> None:
    if _libc.setns(namespace, _CLONE_NEWNET) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"cannot enter a network namespace: {os.strerror(code)}")


class Objects:
    """The objects whose methods the other process may call, by reference."""

    def __init__(self, proxy: NodeProxy) -> None:
        self._objects: dict[Reference, object] = {PROXY: proxy}

    def answer(self, call: Call) -> CallResult:
        """Execute a call; return its result or expected exception, or raise an unexpected one."""
        try:
            value = getattr(self._objects[call.target], call.name)
            if callable(value):
                value = value(*call.arguments, **call.keywords)
        except (UserspaceProxyError, OSError, LookupError, TypeError, ValueError) as exc:
            return CallResult(error=exc)
        if isinstance(value, BlockingService):
            reference = Reference(len(self._objects))
            self._objects[reference] = value
            return CallResult(reference)
        return CallResult(value)


def main(descriptor: int, *octets: int) -> int:
    """Serve calls until the other process ends.

    Args:
        descriptor: The link to the other process.
        octets: The four octets of the node's IPv4 address.

    Returns:
        The exit status: 1 if the proxy can't start, or left something in the kernel.
    """
    with socket.socket(fileno=descriptor) as link:
        proxy = NodeProxy(socket.inet_ntoa(bytes(octets)))
        try:
            proxy.start()
        except (UserspaceProxyError, OSError) as exc:
            _send(link, CallResult(error=exc))
            return 1
        try:
            _send(link, CallResult())
            _serve(link, Objects(proxy))
        except (EOFError, ConnectionError):
            pass
        finally:
            proxy.close()
    return int(proxy.has_left_something)


def _serve(link: socket.socket, objects: Objects) -> None:
    while True:
        message = pickle.loads(receive_frame(link)[0])
        if isinstance(message, Call):
            _send(link, objects.answer(message))
            continue
        try:
            made = open_socket(*message)
        except OSError as exc:
            _send(link, CallResult(error=exc))
            continue
        with made:
            _send(link, CallResult(), made)


def _send(link: socket.socket, result: CallResult, *passed: socket.socket) -> None:
    send_frame(link, pickle.dumps(result), *passed)
