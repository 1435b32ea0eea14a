"""The largest inputs that a namespace can have, and its users' queries."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from itertools import chain, count
from random import Random
from typing import Any

from userspace_proxy.plan.bounds import ENDPOINTS_OF_NAMESPACE_MAX, FRONTENDS_OF_NAMESPACE_MAX
from userspace_proxy.plan.kernel_room import NODE_RULES_MAX
from userspace_proxy.policy.usable import ENDPOINTS_MAX
from userspace_proxy.sources.kubernetes.shares import (
    OBJECT_BYTES,
    PART_BYTES,
    SERVICE_BYTES,
    SHARE_BYTES,
)

from .rig import EVERY_S, Node, Object

TENANT = "tenant"
OF_A_SLICE = 1000
"""The maximum number of endpoints in a slice that the API server admits."""
PORTION = 500
"""The number of objects that an API server accepts from one client in EVERY_S."""
_VIPS, _POD_IPS = IPv4Address("10.97.0.0"), IPv4Address("10.128.0.0")
_DNS = ("127.0.0.1", 53)
_A, _PTR = 1, 12


@dataclass(frozen=True)
class Input:
    """The objects that a namespace writes, and the query of its users."""

    name: str = "nothing"
    objects: Callable[[], list[Object]] = list
    """Objects that exist when the agent starts."""
    later: Callable[[], list[Object]] = list
    """Objects that are written together during the measurement."""
    changes: Callable[[], Iterator[Sequence[Object]]] = lambda: iter(())
    """Objects that are written one after another during the measurement."""
    question: Callable[[Node], Callable[[], object]] = lambda _: lambda: None
    """Returns the query that users repeat."""
    flags: Sequence[str] = field(default=())


def service(name: str, number: int, ports: int = 1, annotations: Any = None, **spec: Any) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"namespace": TENANT, "name": name, "annotations": annotations or {}},
        "spec": {
            "clusterIP": str(_VIPS + number),
            "ports": [{"name": f"p{n}", "port": 80 + n} for n in range(ports)],
            **spec,
        },
    }


def endpoint_slice(
    service_name: str,
    number: int,
    ips: Sequence[str] = (),
    ports: int = 1,
    annotations: Any = None,
) -> Object:
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "namespace": TENANT,
            "name": f"{service_name}-{number}",
            "labels": {"kubernetes.io/service-name": service_name},
            "annotations": annotations or {},
        },
        "addressType": "IPv4",
        "ports": [{"name": f"p{n}", "port": 8080} for n in range(ports)],
        "endpoints": [{"addresses": [ip]} for ip in ips],
    }


def _pods(first: int, number: int) -> list[str]:
    return [str(_POD_IPS + first + n) for n in range(number)]


def _empty_slices() -> list[Object]:
    slices = SHARE_BYTES // (OBJECT_BYTES + PART_BYTES)
    return [service("a", 1), *(endpoint_slice("a", n) for n in range(slices))]


def _patched_slice() -> Iterator[Sequence[Object]]:
    for number in count(1):
        yield [endpoint_slice("a", 0, ports=1 + number % 2)]


EMPTY_SLICES = Input("empty slices", _empty_slices, changes=_patched_slice)


def _endpoints() -> list[Object]:
    slices = SHARE_BYTES // (OBJECT_BYTES + PART_BYTES + OF_A_SLICE * PART_BYTES)
    return [
        service("a", 1, clusterIP="None"),
        *(endpoint_slice("a", n, _pods(n * OF_A_SLICE, OF_A_SLICE)) for n in range(slices)),
    ]


def _patched_endpoints() -> Iterator[Sequence[Object]]:
    for number in count(1):
        yield [endpoint_slice("a", 0, _pods(0, OF_A_SLICE - number % 2))]


def _asks_names(node: Node) -> Callable[[], object]:
    name = str(_POD_IPS + 7).replace(".", "-")
    numbers = count()

    def ask() -> None:
        for host in ("a", f"{name}.a"):
            _ask_dns(node, f"{host}.{TENANT}.svc.cluster.local", next(numbers))

    return ask


def _asks_addresses(node: Node) -> Callable[[], object]:
    numbers = count()
    return lambda: _ask_dns(node, (_POD_IPS + 7).reverse_pointer, next(numbers), _PTR)


def _ask_dns(node: Node, name: str, number: int, kind: int = _A) -> None:
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    query = struct.pack("!6H", number & 0xFFFF, 0x0100, 1, 0, 0, 0) + labels
    query += struct.pack("!x2H", kind, 1)
    with node.testbed["node-1"].new_udp() as sock:
        sock.settimeout(EVERY_S * 40)
        sock.sendto(query, _DNS)
        assert sock.recv(4096)[:2] == query[:2]


ENDPOINTS = Input(
    "endpoints of a headless Service, and DNS",
    _endpoints,
    changes=_patched_endpoints,
    question=_asks_names,
    flags=("--dns-bind-address=127.0.0.1",),
)

ADDRESSES = Input(
    "endpoints of a headless Service, and DNS of addresses",
    _endpoints,
    changes=_patched_endpoints,
    question=_asks_addresses,
    flags=("--dns-bind-address=127.0.0.1",),
)


def _long_names() -> list[Object]:
    objects = [service("a", 1, clusterIP="None")]
    for number in range(SHARE_BYTES // (OF_A_SLICE * PART_BYTES)):
        item = endpoint_slice("a", number, _pods(number * OF_A_SLICE, OF_A_SLICE))
        for n, endpoint in enumerate(item["endpoints"]):
            endpoint["hostname"] = f"{number:05}{n:058}"
            endpoint["nodeName"] = ".".join(("n" * 63, "n" * 63, "n" * 63, f"{number:05}{n:056}"))
        objects.append(item)
    return objects


LONG_NAMES = Input(
    "long names of endpoints, and DNS",
    _long_names,
    question=_asks_names,
    flags=("--dns-bind-address=127.0.0.1",),
)


def _watches_calls(node: Node) -> Callable[[], object]:
    agent = node.agent
    return lambda: agent.read("/api/v1/connections")


def _served(ports: int, endpoints: int) -> list[Object]:
    """Return as many Services as one namespace's endpoints allow, plus one."""
    slices = endpoints // OF_A_SLICE
    objects = []
    for n in range(ENDPOINTS_OF_NAMESPACE_MAX // (ports * endpoints) + 1):
        objects.append(service(f"s{n}", n, ports))
        for number in range(slices):
            ips = _pods((n * slices + number) * OF_A_SLICE, OF_A_SLICE)
            objects.append(endpoint_slice(f"s{n}", number, ips, ports))
    return objects


def _patched_served() -> Iterator[Sequence[Object]]:
    for number in count(1):
        yield [endpoint_slice("s0", 0, _pods(0, OF_A_SLICE - number % 2))]


PODS = Input(
    "endpoints of Services, and calls",
    lambda: _served(1, ENDPOINTS_MAX),
    changes=_patched_served,
    question=_watches_calls,
)
PORTS = Input("endpoints of many ports", lambda: _served(20, OF_A_SLICE), changes=_patched_served)


def _services() -> list[Object]:
    services = SHARE_BYTES // (SERVICE_BYTES + OBJECT_BYTES + 2 * PART_BYTES)
    return [service(f"s{n}", n % 50_000) for n in range(services)]


def _patched_service() -> Iterator[Sequence[Object]]:
    for number in count(1):
        yield [service("s0", 0, ports=1 + number % 2)]


SERVICES = Input("Services", _services, changes=_patched_service)


def _rejected() -> list[Object]:
    slices = SHARE_BYTES // OBJECT_BYTES
    return [endpoint_slice("a", n) | {"addressType": "IPX"} for n in range(slices)]


def _patched_rejected() -> Iterator[Sequence[Object]]:
    for number in count(1):
        yield [endpoint_slice("a", number % 2) | {"addressType": f"IPX{number}"}]


REJECTED = Input("rejected slices", _rejected, changes=_patched_rejected)


def _frontends() -> list[Object]:
    ports = 10
    pairs = []
    for n in range(FRONTENDS_OF_NAMESPACE_MAX // ports + 10):
        pairs += [service(f"s{n}", n, ports), endpoint_slice(f"s{n}", 0, _pods(n, 2), ports)]
    return pairs


FRONTENDS = Input("ports", _frontends, changes=_patched_service)


def _kernel_services() -> list[Object]:
    on_kernel = {"userspace-proxy.io/path": "kernel", "userspace-proxy.io/balance": "source-hash"}
    objects = []
    for n in range(100):
        objects.append(service(f"s{n}", n, 4, on_kernel))
        for weight in (1, 2):
            weighted = {"userspace-proxy.io/weight": str(weight)}
            objects.append(endpoint_slice(f"s{n}", weight, _pods(2 * n + weight, 1), 4, weighted))
    return objects


KERNEL = Input("weighted slots", later=_kernel_services)


def _portions(objects: list[Object], size: int) -> Iterator[Sequence[Object]]:
    return (objects[n : n + size] for n in range(0, len(objects), size))


def _pinned(services: int, first_pod: int) -> list[Object]:
    """Return slices of Services with affinity, as many as the node's rules allow."""
    pods = NODE_RULES_MAX // services // 4
    return [
        endpoint_slice(f"s{n}", 0, _pods(n * (pods + 1) + first_pod, pods)) for n in range(services)
    ]


def _pinned_services(services: int) -> list[Object]:
    on_kernel = {"userspace-proxy.io/path": "kernel"}
    some = [service(f"s{n}", n, 1, on_kernel, sessionAffinity="ClientIP") for n in range(services)]
    return [*some, *_pinned(services, 0)]


def _patched_pinned(services: int) -> Iterator[Sequence[Object]]:
    for number in count(1):
        yield from _portions(_pinned(services, number % 2), PORTION)


LARGE_RULES = Input(
    "rules of large Services",
    lambda: _pinned_services(10),
    changes=lambda: _patched_pinned(10),
)
SMALL_RULES = Input(
    "rules of small Services",
    lambda: _pinned_services(2500),
    changes=lambda: _patched_pinned(2500),
)


def _small_services() -> Iterator[Sequence[Object]]:
    pairs = (
        (service(f"s{n}", n, 2), endpoint_slice(f"s{n}", 0, _pods(n, 1), 2))
        for n in range(FRONTENDS_OF_NAMESPACE_MAX // 2)
    )
    return _portions([*chain.from_iterable(pairs)], 4 * PORTION)


SMALL = Input("small Services", changes=_small_services)


def _asks_unknown_names(node: Node) -> Callable[[], object]:
    agent, letters = node.agent, Random(1)

    def ask() -> None:
        code, _ = agent.read(f"/api/v1/status?service={TENANT}/{_name(letters)}")
        assert code in (404, 503)

    return ask


def _name(letters: Random) -> str:
    """Return a name whose comparison with similar names is slow."""
    return "".join(letters.choices("ab", k=63))


def _similar_names() -> list[Object]:
    letters = Random(2)
    return [service(_name(letters), n) for n in range(2000)]


NAMES = Input("names", _similar_names, question=_asks_unknown_names)
