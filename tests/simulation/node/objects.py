"""Makes objects of the Kubernetes API, as JSON, from drawn specs of Services."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from .plan import NODE, NODE_IP, POD_NETWORK, ZONE, Object


@dataclass
class EndpointSpec:
    """One endpoint of a slice."""

    ip: str
    node: str
    ready: bool | None = True
    """None if the controller hasn't set it."""
    serving: bool | None = True
    terminating: bool | None = False
    zones: tuple[str, ...] = ()
    nodes: tuple[str, ...] = ()

    def as_object(self) -> Object:
        hints = {}
        if self.zones:
            hints["forZones"] = [{"name": zone} for zone in self.zones]
        if self.nodes:
            hints["forNodes"] = [{"name": node} for node in self.nodes]
        known = ("ready", self.ready), ("serving", self.serving), ("terminating", self.terminating)
        return {
            "addresses": [self.ip],
            "nodeName": self.node,
            "conditions": {name: value for name, value in known if value is not None},
            **({"hints": hints} if hints else {}),
        }


@dataclass
class PortSpec:
    """One port of a Service."""

    name: str
    port: int
    protocol: str = "TCP"
    node_port: int = 0
    target: int = 8080


@dataclass
class ServiceSpec:
    """One Service and its slices."""

    namespace: str
    name: str
    uid: str
    created: str
    cluster_ip: str
    ports: list[PortSpec]
    slices: list[list[EndpointSpec]]
    type: str = "ClusterIP"
    external_ips: list[str] = field(default_factory=list)
    balancer_ips: list[str] = field(default_factory=list)
    ranges: list[str] = field(default_factory=list)
    is_internal_local: bool = False
    is_external_local: bool = False
    affinity_s: int | None = None
    health_port: int = 0
    is_there: bool = True
    names: list[dict[str, str]] = field(default_factory=list)
    """For each slice, the port names that differ from the Service's; empty to omit a port."""

    @property
    def slice_names(self) -> list[str]:
        return [f"{self.name}-{number}" for number in range(len(self.slices))]

    def service(self) -> Object:
        """Return the Service as an API object."""
        spec: dict[str, Any] = {
            "type": self.type,
            "clusterIP": self.cluster_ip,
            "clusterIPs": [self.cluster_ip],
            "selector": {"app": self.name},
            "ports": [self._port(port) for port in self.ports],
            "sessionAffinity": "None" if self.affinity_s is None else "ClientIP",
        }
        if self.affinity_s is not None:
            spec["sessionAffinityConfig"] = {"clientIP": {"timeoutSeconds": self.affinity_s}}
        if self.external_ips:
            spec["externalIPs"] = self.external_ips[:]
        if self.is_internal_local:
            spec["internalTrafficPolicy"] = "Local"
        if self.type != "ClusterIP" and self.is_external_local:
            spec["externalTrafficPolicy"] = "Local"
            if self.type == "LoadBalancer" and self.health_port:
                spec["healthCheckNodePort"] = self.health_port
        if self.type == "LoadBalancer" and self.ranges:
            spec["loadBalancerSourceRanges"] = self.ranges[:]
        status = {}
        if self.type == "LoadBalancer":
            status["loadBalancer"] = {"ingress": [{"ip": ip} for ip in self.balancer_ips]}
        metadata = {
            "namespace": self.namespace,
            "name": self.name,
            "uid": self.uid,
            "creationTimestamp": self.created,
        }
        return {"kind": "Service", "metadata": metadata, "spec": spec, "status": status}

    def _port(self, port: PortSpec) -> Object:
        node_port = {"nodePort": port.node_port} if self.type != "ClusterIP" else {}
        return {"name": port.name, "port": port.port, "protocol": port.protocol, **node_port}

    def slice(self, number: int) -> Object:
        """Return a slice."""
        names = self.names[number] if number < len(self.names) else {}
        return {
            "kind": "EndpointSlice",
            "addressType": "IPv4",
            "metadata": {
                "namespace": self.namespace,
                "name": self.slice_names[number],
                "labels": {"kubernetes.io/service-name": self.name},
            },
            "ports": [
                {"name": name, "port": port.target, "protocol": port.protocol}
                for port in self.ports
                if (name := names.get(port.name, port.name))
            ],
            "endpoints": [endpoint.as_object() for endpoint in self.slices[number]],
        }

    def objects(self) -> Iterator[Object]:
        """Yield the Service and its slices."""
        yield self.service()
        for number in range(len(self.slices)):
            yield self.slice(number)


def node_object(zone: str = ZONE) -> Object:
    """Return this node's object."""
    return {
        "kind": "Node",
        "metadata": {"name": NODE, "labels": {"topology.kubernetes.io/zone": zone}},
        "spec": {"podCIDRs": [POD_NETWORK]},
        "status": {"addresses": [{"type": "InternalIP", "address": NODE_IP}]},
    }
