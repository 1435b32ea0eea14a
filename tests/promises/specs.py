"""Services and slices, and their objects for manifests and for the API server."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

Object = dict[str, Any]

NAMESPACE = "shop"
NODE = "node-1"
"""The agent's node."""
ELSEWHERE = "node-2"
PROXY_NAME = "service.kubernetes.io/service-proxy-name"
HEADLESS = "service.kubernetes.io/headless"
BALANCE = "userspace-proxy.io/balance"
SLOW_START = "userspace-proxy.io/slow-start"
WEIGHT, PRIORITY = "userspace-proxy.io/weight", "userspace-proxy.io/priority"
PROXY_PROTOCOL = "userspace-proxy.io/proxy-protocol"
HOLD, MAX_CONNECTIONS = "userspace-proxy.io/hold", "userspace-proxy.io/max-connections"
ON_REMOVAL = "userspace-proxy.io/on-endpoint-removal"
PATH = "userspace-proxy.io/path"


@dataclass(frozen=True)
class Port:
    """One port of a Service."""

    number: int = 80
    protocol: str = "TCP"
    target: int = 8080
    name: str = ""
    node_port: int = 0


@dataclass(frozen=True)
class At:
    """One endpoint."""

    ip: str
    node: str = NODE
    ready: bool = True
    serving: bool | None = None
    """None: the value of ``ready``."""
    terminating: bool = False
    zones: Sequence[str] = ()
    """The zones of the endpoint's topology hints."""
    nodes: Sequence[str] = ()
    """The nodes of the endpoint's topology hints."""

    def as_object(self) -> Object:
        serving = self.ready if self.serving is None else self.serving
        conditions = {"ready": self.ready, "serving": serving, "terminating": self.terminating}
        shown: Object = {"addresses": [self.ip], "nodeName": self.node, "conditions": conditions}
        hints = {"forZones": self.zones, "forNodes": self.nodes}
        if wanted := {k: [{"name": n} for n in names] for k, names in hints.items() if names}:
            shown["hints"] = wanted
        return shown


@dataclass(frozen=True, eq=False)
class Spec:
    """A Service with its slices."""

    name: str
    ips: Sequence[str] = ()
    """Its cluster IPs, the primary family first; empty for ExternalName."""
    ports: Sequence[Port] = (Port(),)
    slices: Sequence[Sequence[At]] = ()
    more: Mapping[str, Any] = field(default_factory=dict)
    """Further fields of the Service's spec."""
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    preferences: Sequence[Mapping[str, str]] = ()
    """Annotations of the slices, in the order of the slices."""
    ingress: Sequence[Mapping[str, str]] = ()
    """The addresses that the load balancer reported."""

    @property
    def address(self) -> tuple[str, int]:
        """The first cluster IP and port."""
        return self.ips[0], self.ports[0].number

    def at(self, *endpoints: At | str) -> Spec:
        """Return a copy with these endpoints, a slice per family; a string is a ready endpoint."""
        ends = [At(e) if isinstance(e, str) else e for e in endpoints]
        by_family = ([e for e in ends if (":" in e.ip) is is_6] for is_6 in (False, True))
        return replace(self, slices=tuple(tuple(part) for part in by_family if part))

    def but(self, **changes: Any) -> Spec:
        return replace(self, **changes)

    def service(self) -> Object:
        spec: Object = {"ports": [self._port(port) for port in self.ports], **self.more}
        if self.ips:
            families = ["IPv6" if ":" in ip else "IPv4" for ip in self.ips]
            policy = "RequireDualStack" if len(self.ips) > 1 else "SingleStack"
            spec |= {"clusterIP": self.ips[0], "clusterIPs": list(self.ips)}
            spec |= {"ipFamilies": families, "ipFamilyPolicy": policy}
        metadata = {"labels": dict(self.labels), "annotations": dict(self.annotations)}
        return {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"namespace": NAMESPACE, "name": self.name, **metadata},
            "spec": spec,
            "status": {"loadBalancer": {"ingress": list(map(dict, self.ingress))}},
        }

    def endpoint_slices(self) -> Iterator[Object]:
        label = {"kubernetes.io/service-name": self.name}
        for number, endpoints in enumerate(self.slices):
            is_6 = any(":" in e.ip for e in endpoints)
            family = "IPv6" if is_6 else "IPv4"
            name = f"{self.name}-{family.lower()}-{number}"
            preferences = self.preferences[number : number + 1]
            annotated = {"annotations": dict(preferences[0])} if preferences else {}
            yield {
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "metadata": {"namespace": NAMESPACE, "name": name, "labels": label, **annotated},
                "addressType": family,
                "ports": [
                    {"name": p.name, "port": p.target, "protocol": p.protocol} for p in self.ports
                ],
                "endpoints": [e.as_object() for e in endpoints],
            }

    def objects(self) -> Iterator[Object]:
        yield self.service()
        yield from self.endpoint_slices()

    @staticmethod
    def _port(port: Port) -> Object:
        # Named target ports would require Pod objects.
        shown: Object = {"port": port.number, "protocol": port.protocol, "targetPort": port.target}
        if port.name:
            shown["name"] = port.name
        if port.node_port:
            shown["nodePort"] = port.node_port
        return shown


def node_object(
    *, taints: Sequence[Mapping[str, str]] = (), addresses: Sequence[str] = (), **metadata: Any
) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": NODE, **metadata},
        "spec": {"taints": list(map(dict, taints))},
        "status": {"addresses": [{"type": "InternalIP", "address": a} for a in addresses]},
    }
