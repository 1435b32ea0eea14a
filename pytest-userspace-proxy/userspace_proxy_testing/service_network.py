r"""Services for tests in their own network: with pods, cluster IPs and kernel steering.

::

    with ServiceNetwork() as network:
        web = network.service("web", port=80, backends=2)
        client = network.client()
        web.backends[0].stop()
        assert client.get("http://web/").text == "web-2\n"

::

    test's process ── client, backends: sockets of pods
         │ calls
    sandbox: client ── node-1 (proxy, DNS) ── pods of the backends

It needs no root if the kernel allows user namespaces; the test's process stays in its own
namespaces.
"""

from __future__ import annotations

import contextlib
import ipaddress
import itertools
import os
import socket
import tempfile
import threading
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from types import TracebackType
from typing import Self

from userspace_proxy.clocks import Clocks
from userspace_proxy.embedding.loop_thread import LoopThread
from userspace_proxy.facts.units import plural

from .backends import BackendLike
from .network_client import NetworkClient
from .node_process import NodeProcess
from .places import BackendPlace, family_of
from .sandbox import Pod, Sandbox, write_resolver_files
from .sandbox.address_plan import SERVICE_CIDR
from .sandbox.reaper import namespace_of
from .served_service import ProxyCalls
from .services import Services

BACKEND_PORT = 8080
_FIRST_CLUSTER_IP = 10
# The number of pods that are created while the proxy starts, which takes longer; most tests need no
# more.
_PODS_AT_START = 3
# The time limit for a killed process to exit, which takes milliseconds unless the machine is busy.
_END_WITHIN_S = 3.0
_POLL_S = 0.005


class ServiceNetwork(Services):
    """A sandbox with a proxy on its node, and Services whose backends are pods."""

    def __init__(self) -> None:
        super().__init__()
        self.sandbox = Sandbox()
        """The sandbox's nodes, pods and links, which a test may configure."""
        self._stack = contextlib.ExitStack()
        self._idle: list[Pod] = []
        """The pods that no backend or client uses."""
        self._numbers = itertools.count(1)
        self._hosts = itertools.count(_FIRST_CLUSTER_IP)
        self._clients: dict[tuple[str, str], NetworkClient] = {}
        self._process: NodeProcess | None = None
        self._thread: LoopThread
        self._folder: Path

    def __repr__(self) -> str:
        services = plural(len(self.services), "Service")
        return f"<ServiceNetwork, {services}, {plural(len(self._clients), 'client')}>"

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
        """Create the sandbox and start the proxy; :meth:`close` undoes it.

        Raises:
            SandboxError: Namespaces can't be created here; the hint contains the remedy.
            SteeringError: The namespace supports no steering mode.
        """
        with contextlib.ExitStack() as stack:
            self._folder = Path(
                stack.enter_context(tempfile.TemporaryDirectory(prefix="userspace-proxy-"))
            )
            stack.enter_context(self.sandbox)
            process = self._process = NodeProcess(self.sandbox.node)
            stack.callback(process.close)
            self._thread = LoopThread()
            self._thread.start()
            stack.callback(self._thread.close)
            self._idle = [self._add_pod() for _ in range(_PODS_AT_START)]
            process.wait_until_ready()
            self._stack = stack.pop_all()

    def close(self) -> None:
        """End the Services, the proxy and all namespaces. Idempotent.

        Raises:
            AssertionError: The proxy's exit status isn't 0, or processes are left in a namespace.
        """
        process = self._process
        if not self.sandbox.nodes or process is None:
            return
        hosts = [self.sandbox.lan, *self.sandbox.nodes, *self.sandbox.pods.values()]
        namespaces = {namespace_of(host.pid) for host in hosts}
        with self._stack:
            for client in self._clients.values():
                client.close()
            status = process.close()
            for service in self.services:
                service.end_backends()
        assert status == 0, f"the proxy of the network ended with status {status}"
        left = _wait_for_end(namespaces)
        assert not left, f"processes of the network are left: {left}"

    def client(self, name: str = "client", *, namespace: str = "default") -> NetworkClient:
        """Return a client in its own pod; the same client for the same arguments.

        Args:
            namespace: The Kubernetes namespace for short names.

        Raises:
            RuntimeError: The network hasn't started.
        """
        client = self._clients.get((name, namespace))
        if client is None:
            client = self._clients[name, namespace] = NetworkClient(
                name,
                self.take_pod(),
                self._running(),
                namespace=namespace,
                files=self._files(namespace),
            )
        return client

    def take_pod(self) -> Pod:
        """Return an unused pod; :meth:`give_pod` takes it back."""
        self._running()
        return self._idle.pop(0) if self._idle else self._add_pod()

    def give_pod(self, pod: Pod) -> None:
        """Take back a pod, so that a later backend can use it."""
        self._idle.append(pod)

    def open_socket(
        self, pod: Pod, family: socket.AddressFamily, type_: socket.SocketKind
    ) -> socket.socket:
        """Return a socket in a pod."""
        return self._running().open_socket(pod, family, type_)

    def _files(self, namespace: str) -> Mapping[str, Path]:
        """Return the resolver's configuration files for programs in a namespace."""
        folder = self._folder / namespace
        folder.mkdir(exist_ok=True)
        return write_resolver_files(folder, str(self.sandbox.node.ip), namespace)

    def _add_pod(self) -> Pod:
        return self.sandbox.add_pod(f"pod-{next(self._numbers)}")

    def _running(self) -> NodeProcess:
        if self._process is None:
            raise RuntimeError("this network isn't started: use it in a with block")
        return self._process

    def _calls(self) -> ProxyCalls:
        return self._running()

    def _backend_thread(self) -> LoopThread:
        self._running()
        return self._thread

    def _find_place(
        self, number: int, like: BackendLike | None, *, cluster_ip: str | None, namespace: str
    ) -> BackendPlace:
        is_ipv6 = cluster_ip is not None and ":" in cluster_ip
        return PodPlace(self, self.take_pod(), self._files(namespace), is_ipv6=is_ipv6)

    def _free_cluster_ip(self) -> str:
        network = ipaddress.ip_network(SERVICE_CIDR.partition(",")[0])
        taken = {service.host for service in self.services}
        return next(ip for n in self._hosts if (ip := str(network[n])) not in taken)


class PodPlace(BackendPlace):
    """A pod of a network, as a place for a backend.

    Args:
        files: The resolver's configuration files for its programs.
    """

    def __init__(
        self, network: ServiceNetwork, pod: Pod, files: Mapping[str, Path], *, is_ipv6: bool
    ) -> None:
        super().__init__(str(pod.ip6 if is_ipv6 else pod.ip), BACKEND_PORT)
        self._network = network
        self._files = files
        self._pod: Pod | None = pod

    @property
    def pod(self) -> Pod | None:
        """The pod; None once its backend has ended."""
        return self._pod

    def open_socket(self, type_: socket.SocketKind) -> socket.socket:
        return self._network.open_socket(self._used(), family_of(self.address.ip), type_)

    def command(self, argv: Sequence[str]) -> Sequence[str]:
        return [*self._used().prefix_with_files(self._files), *argv]

    def leave(self) -> None:
        pod, self._pod = self._pod, None
        if pod is not None:
            if pod.drops_traffic:
                pod.pass_traffic()
            self._network.give_pod(pod)

    def _used(self) -> Pod:
        assert self._pod is not None, "its backend hasn't left"
        return self._pod


def _wait_for_end(namespaces: Set[str]) -> list[int]:
    """Wait until these namespaces have no process; return the PIDs that remain at the timeout."""
    deadline, pause = Clocks.monotonic() + _END_WITHIN_S, threading.Event()
    while True:
        left = [pid for pid in _pids() if namespace_of(pid) in namespaces]
        if not left or Clocks.monotonic() >= deadline:
            return left
        pause.wait(_POLL_S)


def _pids() -> list[int]:
    return [int(entry.name) for entry in os.scandir("/proc") if entry.name.isdigit()]


__all__ = ["ServiceNetwork"]
