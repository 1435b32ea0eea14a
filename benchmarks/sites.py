"""The place of one measurement: a client, a node and two backend pods.

    client ──veth── node ──veth── pod a
                         └─veth── pod b

Each way has its own site, so that a way's rules, and the connection tracking that they enable, cost
other ways nothing.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from userspace_proxy.errors import SandboxError
from userspace_proxy_testing.sandbox import Pod, Sandbox, SandboxNode
from userspace_proxy_testing.sandbox.holder import read_line

SERVICE_IP = "10.96.0.10"
READY_S = 20.0


@dataclass(frozen=True, slots=True)
class Port:
    """One port of the Service."""

    name: str
    protocol: str
    front: int
    """The port that clients dial at the Service address."""
    back: int
    """The port on which the backends listen."""


PORTS = {
    port.name: port
    for port in (
        Port("http", "TCP", 80, 8080),
        Port("echo", "TCP", 7, 7000),
        Port("source", "TCP", 19, 9000),
        Port("udp", "UDP", 53, 5353),
        Port("request", "TCP", 70, 7070),
        Port("banner", "TCP", 25, 2525),
    )
}

# The client represents many clients, each with its own source ports, so ports in TIME_WAIT are
# reused after a second. The node has the kernel's defaults, as in production.
CLIENT_SYSCTLS = ("net/ipv4/ip_local_port_range=10240 65535", "net/ipv4/tcp_tw_reuse=1")
# Otherwise the table would contain the closed connections of two minutes.
CONNTRACK = "net/netfilter/nf_conntrack_tcp_timeout_time_wait=5"


class Site:
    """The namespaces of one way, with backends that answer.

    Args:
        sandbox: The sandbox to which the node is added.
        name: The name of the node, and the prefix of its pods' names.
        goload: The load program.
    """

    def __init__(self, sandbox: Sandbox, name: str, goload: Path) -> None:
        self.node: SandboxNode = sandbox.add_node(name)
        self.client: Pod = self.node.add_pod(f"{name}-client")
        self.pods: list[Pod] = [self.node.add_pod(f"{name}-{letter}") for letter in "ab"]
        self.goload = str(goload)
        self.client.configure(sysctls=CLIENT_SYSCTLS)
        for pod in self.pods:
            self._serve(pod)

    def endpoints(self, port: Port) -> list[str]:
        """Return the addresses of a port's backends, as IP:PORT."""
        return [f"{pod.ip}:{port.back}" for pod in self.pods]

    def objects(self) -> Iterator[dict[str, Any]]:
        """Yield the Service and its EndpointSlice."""
        yield {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "bench"},
            "spec": {
                "clusterIP": SERVICE_IP,
                "ports": [
                    {"name": p.name, "port": p.front, "protocol": p.protocol}
                    for p in PORTS.values()
                ],
            },
        }
        yield {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {"name": "bench-1", "labels": {"kubernetes.io/service-name": "bench"}},
            "addressType": "IPv4",
            "ports": [
                {"name": p.name, "port": p.back, "protocol": p.protocol} for p in PORTS.values()
            ],
            "endpoints": [{"addresses": [str(pod.ip)]} for pod in self.pods],
        }

    def shorten_conntrack(self) -> None:
        """Make entries of closed connections expire soon, if the node tracks connections."""
        path, _, value = CONNTRACK.partition("=")
        script = f"[ ! -e /proc/sys/{path} ] || echo {value} >/proc/sys/{path}"
        self.node.run(["sh", "-c", script])

    def _serve(self, pod: Pod) -> None:
        flags = [f"--{port.name}={port.back}" for port in PORTS.values()]
        backend = pod.popen(
            [self.goload, "serve", *flags], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
        )
        if backend.stdout is None or read_line(backend.stdout.fileno(), READY_S) != "ready":
            raise SandboxError(f"cannot start the backend in {pod.name}")
        backend.stdout.close()
