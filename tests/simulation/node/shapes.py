"""Builds Services and slices with unusual shapes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from random import Random
from typing import Any

from ..plan import Event
from .plan import CLIENT, NODE, NODE_IP, OTHER_NODE_IP, OTHER_PODS, OTHERS, OWN_PODS, PUT, Object
from .readings import LABEL_SERVICE, cluster_ips, name_of

PODS = OWN_PODS + OTHER_PODS
CLIENTS = ("10.3.0.1", "10.3.9.2", "10.2.1.77", NODE_IP)
DIALLERS = ("10.3.0.1", "10.3.0.2", "10.2.1.77", NODE_IP, OTHER_NODE_IP)
TARGETS = {"http": 8080, "admin": 8081, "dns": 5353}
# A change is applied within this time: a client that dials later has one possible outcome.
_IN_FORCE_S = 2.1
# The time until the next change, which is mostly made after clients have dialled.
_STEPS_S = (0.05, 0.6, 2.7, 2.7, 2.7, 2.7)
_GAPS_S = (0.0, 0.001, 0.05, 2.2)
CREATED = ("2025-01-01T00:00:00Z", "2027-01-01T00:00:00Z")
"""Creation times of a Service that is older than all others, or newer."""


class Shape:
    """One Service, and its possible changes."""

    def __init__(self, rng: Random, item: Object) -> None:
        self.rng = rng
        spec: dict[str, Any] = {**item["spec"]}
        spec.pop("healthCheckNodePort", None)
        if rng.random() < 0.3:
            spec["sessionAffinity"] = rng.choice(["None", "ClientIP", "ClientIP"])
        self.item = {**item, "spec": spec}
        metadata = item["metadata"]
        self.namespace, self.name = metadata["namespace"], metadata["name"]
        self.number = int(self.name.partition("-")[2].rstrip("x")) + 1

    @property
    def health_port(self) -> int:
        # Another Service, with a longer name, may get this one's address next, but never its port.
        return 31600 + 16 * self.number + len(self.name) % 16

    def gap(self) -> float:
        return self.rng.choice(_GAPS_S)

    def step(self) -> float:
        return self.rng.choice(_STEPS_S)

    def put(self, at: float, *items: Object) -> Iterator[Event]:
        for item in items:
            yield Event(at, PUT, (item,))

    def having(self, item: Object | None = None, **changes: Any) -> Object:
        """Return the Service with changed fields; the value None removes a field."""
        item = self.item if item is None else item
        spec = {k: v for k, v in {**item["spec"], **changes}.items() if v is not None}
        return {**item, "spec": spec}

    def outside(self, **changes: Any) -> Object:
        """Return the Service with node ports, a load balancer IP, and changed fields."""
        ports = [
            {**port, "nodePort": 30300 + 10 * self.number + n}
            for n, port in enumerate(self.item["spec"]["ports"])
        ]
        ingress = [{"ip": f"203.0.113.{self.number}"}]
        item = self.having(type="LoadBalancer", ports=ports, **changes)
        return {**item, "status": {"loadBalancer": {"ingress": ingress}}}

    def twin(self, **changes: Any) -> Object:
        """Return another Service with one port, ``http`` 80, and the given changes."""
        port = {"name": "http", "port": 80, "protocol": "TCP"}
        spec = {
            "type": "ClusterIP",
            "clusterIP": f"10.96.0.{self.number + 100}",
            "ports": [port],
            "selector": {"app": "twin"},
        }
        metadata = {
            "namespace": self.rng.choice(["shop", "lab"]),
            "name": f"{self.rng.choice('az')}-twin-{self.number}",
            "uid": f"uid-twin-{self.number}-{self.rng.randrange(1000)}",
            "creationTimestamp": self.rng.choice(CREATED),
        }
        return self.having({"kind": "Service", "metadata": metadata, "spec": spec}, **changes)

    def slice(
        self, number: int, endpoints: Sequence[Object], *, of: Object | None = None, **more: Any
    ) -> Object:
        """Return a slice of the Service."""
        return _slice(self.item if of is None else of, number, endpoints, **more)

    def endpoints(self, count: int, ips: Sequence[str] = PODS) -> list[Object]:
        return [endpoint(ip) for ip in self.rng.sample(ips, count)]

    def dials(self, at: float, *items: Object, count: int = 3) -> Iterator[Event]:
        """Yield dials of clients to addresses of Services."""
        rng = self.rng
        found = [dialled for item in items for dialled in _dialled(item)]
        for _ in range(count if found else 0):
            later = self.later()
            dialled, ip = rng.choice(found), rng.choice(CLIENTS)
            # A program of the node may use the Service's address that it dials as its source.
            ip = dialled[0] if ip == NODE_IP and rng.random() < 0.5 else ip
            yield Event(round(at + later, 4), CLIENT, (ip, dialled, 0.0))

    def later(self) -> float:
        rng = self.rng
        if rng.random() < 0.4:
            return rng.choice([0.01, 0.5]) * rng.random()
        return _IN_FORCE_S + 0.5 * rng.random()


def endpoint(ip: str) -> Object:
    """Return a ready endpoint."""
    is_here = ip in OWN_PODS or ip == NODE_IP
    return {"addresses": [ip], "nodeName": NODE if is_here else OTHERS[0], "conditions": {}}


def conditions(rng: Random) -> Object:
    """Draw the conditions of an unready endpoint, or of a ready one that terminates."""
    ready, serving, terminating = rng.choice(
        [(False, False, False), (False, True, True), (False, False, True), (True, True, True)]
    )
    return {"ready": ready, "serving": serving, "terminating": terminating}


def slice_of(item: Object, ips: Sequence[str] = (OWN_PODS[0], OTHER_PODS[0])) -> Object:
    """Return a Service's first slice, by default with a local and a remote endpoint."""
    return _slice(item, 0, [endpoint(ip) for ip in ips])


def _slice(
    of: Object,
    number: int,
    endpoints: Sequence[Object],
    *,
    annotations: Mapping[str, str] | None = None,
    labels: Mapping[str, str] | None = None,
    targets: Mapping[str, int] = TARGETS,
) -> Object:
    metadata = of["metadata"]
    return {
        "kind": "EndpointSlice",
        "addressType": "IPv4",
        "metadata": {
            "namespace": metadata["namespace"],
            "name": f"{metadata['name']}-{number}",
            "labels": {LABEL_SERVICE: metadata["name"], **(labels or {})},
            "annotations": dict(annotations or {}),
        },
        "ports": [
            {**({"name": name_of(port)} if name_of(port) else {}), **_number(port, targets)}
            for port in of["spec"]["ports"]
        ],
        "endpoints": list(endpoints),
    }


def client_of(rng: Random, item: Object, at: float, node_ip: str) -> Event:
    """Return the event that a client dials a Service, possibly at a node port."""
    spec = item["spec"]
    port = rng.choice(spec["ports"])
    ip, number = spec["clusterIP"], port["port"]
    if port.get("nodePort") and rng.random() < 0.7:
        ip, number = node_ip, port["nodePort"]
    return Event(at, CLIENT, (rng.choice(DIALLERS), (ip, number, port["protocol"]), 0.0))


def _number(port: Any, targets: Mapping[str, int]) -> Object:
    return {"port": targets.get(name_of(port), 8080), "protocol": port["protocol"]}


def numbers(port: Any) -> tuple[int, str]:
    """Return a port's number and protocol, which are unique within a Service."""
    return port["port"], port["protocol"]


def plain_ports(item: Object) -> list[Object]:
    """Return a Service's ports without node ports, with other numbers."""
    return [
        {**{k: v for k, v in port.items() if k != "nodePort"}, "port": 90 + n}
        for n, port in enumerate(item["spec"]["ports"])
    ]


def _dialled(item: Object) -> list[tuple[str, int, str]]:
    """Return the addresses of a Service that can be dialled."""
    ingress = item.get("status", {}).get("loadBalancer", {}).get("ingress", ())
    ips = [
        *cluster_ips(item),
        *(each["ip"] for each in ingress),
        *item["spec"].get("externalIPs", ()),
    ]
    found = [(ip, *numbers(port)) for port in item["spec"]["ports"] for ip in ips]
    return found + [
        (NODE_IP, port["nodePort"], port["protocol"])
        for port in item["spec"]["ports"]
        if port.get("nodePort")
    ]
