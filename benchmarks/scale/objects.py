"""Generates any number of Services and EndpointSlices as controllers write them, reproducibly.

Each Service has one port and three endpoints, one at each backend pod. Endpoints share no address,
so that the agent can't share their state. ClusterIPs are spread over the range, as the API server's
allocator does.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Any
from uuid import UUID

Object = dict[str, Any]

NAMESPACES = tuple(f"team-{number:02}" for number in range(20))
FRONT, BACK = 80, 8080
ECHO_FRONT, ECHO_BACK = 7, 7000
SERVICE_CIDR = "10.96.0.0/16"
BACKENDS = ("a", "b", "c")
ENDPOINT_RANGES = {"a": "10.250.0.0/16", "b": "10.251.0.0/16", "c": "10.252.0.0/16"}
"""The range routed to each backend pod, by letter; the pod answers at all its addresses."""
WATCHED = {"scale/watched": "yes"}
"""The label of objects whose changes the benchmark watches."""

_NODES, _ZONES = 50, 3


@dataclass(frozen=True, slots=True)
class Spec:
    """One Service and its slice.

    Args:
        number: Determines its name and its endpoints' addresses.
        ip: The ClusterIP.
        backends: The letters of its backend pods.
        echo: Whether its backends echo.
        watched: Whether it has the label WATCHED.
        has_range: Whether it has a range of 10,001 ports, on the kernel path, which UDP always
            takes.
    """

    number: int
    ip: str
    backends: Sequence[str] = BACKENDS
    echo: bool = False
    watched: bool = False
    has_range: bool = False

    @property
    def name(self) -> str:
        """The name of the Service and its slice."""
        return f"service-{self.number:05}"

    @property
    def namespace(self) -> str:
        """The namespace of the Service and its slice."""
        return NAMESPACES[self.number % len(NAMESPACES)]

    @property
    def front(self) -> int:
        """The port that clients dial."""
        return ECHO_FRONT if self.echo else FRONT

    def service(self) -> Object:
        """Return the Service."""
        return {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {
                "name": self.name,
                "namespace": self.namespace,
                "labels": {
                    "app.kubernetes.io/name": self.name,
                    "app.kubernetes.io/managed-by": "Helm",
                    **(WATCHED if self.watched else {}),
                },
                "annotations": self._annotations if self.has_range else {},
            },
            "spec": {
                "clusterIP": self.ip,
                "selector": {"app.kubernetes.io/name": self.name},
                "ports": [
                    {"name": "http", "port": self.front, "protocol": "TCP", "targetPort": "http"}
                ],
            },
        }

    @property
    def _annotations(self) -> Object:
        ports = f"http={self.front}-{self.front + 10_000}"
        return {"userspace-proxy.io/path": "kernel", "userspace-proxy.io/port-ranges": ports}

    def slice(self) -> Object:
        """Return the EndpointSlice."""
        return {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": f"{self.name}-x7k2p",
                "namespace": self.namespace,
                "labels": {
                    "kubernetes.io/service-name": self.name,
                    "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
                    "app.kubernetes.io/name": self.name,
                    **(WATCHED if self.watched else {}),
                },
            },
            "addressType": "IPv4",
            "ports": [
                {"name": "http", "port": ECHO_BACK if self.echo else BACK, "protocol": "TCP"}
            ],
            "endpoints": self.endpoints(self.backends),
        }

    def endpoints(self, backends: Sequence[str]) -> list[Object]:
        """Return the slice's endpoints with these backend pods."""
        return [self._endpoint(letter) for letter in backends]

    @property
    def service_path(self) -> str:
        """The API server's path for Services in this namespace."""
        return f"/api/v1/namespaces/{self.namespace}/services"

    @property
    def slice_path(self) -> str:
        """The API server's path of this slice."""
        name = f"{self.name}-x7k2p"
        return f"/apis/discovery.k8s.io/v1/namespaces/{self.namespace}/endpointslices/{name}"

    def _endpoint(self, letter: str) -> Object:
        base = IPv4Address(ENDPOINT_RANGES[letter].partition("/")[0])
        digest = hashlib.sha256(f"{self.number}{letter}".encode()).hexdigest()
        node = int(digest[:4], 16) % _NODES
        return {
            "addresses": [str(base + 256 + self.number)],
            "conditions": {"ready": True, "serving": True, "terminating": False},
            "nodeName": f"node-{node:03}",
            "zone": f"zone-{node % _ZONES}",
            "targetRef": {
                "kind": "Pod",
                "name": f"{self.name}-{digest[:10]}-{letter}",
                "namespace": self.namespace,
                "uid": str(UUID(digest[:32])),
            },
        }


def make_specs(count: int) -> list[Spec]:
    """Return this many Services; the last one is for the echo backends."""
    first = int(IPv4Address(SERVICE_CIDR.partition("/")[0]))
    # The API server allocates from the lowest addresses, such as for the Service kubernetes.
    offsets = random.Random(1).sample(range(256, 65_280), count)
    return [
        Spec(number, str(IPv4Address(first + offset)), echo=number == count - 1)
        for number, offset in enumerate(offsets)
    ]


def probe_specs(count: int, beyond: int) -> list[Spec]:
    """Return Services for watched changes; none is among the first ``beyond`` Services."""
    first = int(IPv4Address(SERVICE_CIDR.partition("/")[0]))
    taken = {spec.ip for spec in make_specs(beyond)}
    free = [ip for n in range(256, 65_280) if (ip := str(IPv4Address(first + n))) not in taken]
    ips = random.Random(2).sample(free, count)
    return [
        Spec(beyond + number, ip, backends=("a",), watched=True) for number, ip in enumerate(ips)
    ]


def all_objects(specs: Sequence[Spec]) -> Iterator[Object]:
    """Yield each Service and its slice."""
    for spec in specs:
        yield spec.service()
        yield spec.slice()
