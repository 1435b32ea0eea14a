"""Services and their ports."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from .names import ServiceKey


class ServiceType(enum.StrEnum):
    """``spec.type``."""

    CLUSTER_IP = "ClusterIP"
    NODE_PORT = "NodePort"
    LOAD_BALANCER = "LoadBalancer"
    EXTERNAL_NAME = "ExternalName"


class Balance(enum.StrEnum):
    """How the endpoint of a new connection is chosen."""

    ROUND_ROBIN = "round-robin"
    LEAST_CONNECTIONS = "least-connections"
    POWER_OF_TWO_CHOICES = "power-of-two-choices"


@dataclass(frozen=True, slots=True)
class ServicePort:
    """One port of a Service."""

    name: str
    """Empty where a Service has one port without a name."""
    port: int
    protocol: str
    """As written, in upper case; policy refuses what isn't TCP or UDP."""
    node_port: int = 0
    """0 where none is allocated."""


@dataclass(frozen=True, slots=True)
class Service:
    """One Service, with the fields that decide how its traffic flows."""

    key: ServiceKey
    ports: tuple[ServicePort, ...]
    type: ServiceType = ServiceType.CLUSTER_IP
    cluster_ips: tuple[str, ...] = ()
    """Empty for ExternalName and, as nothing is allocated yet, for a manifest
    without an address; ``("None",)`` never stands here, see ``is_headless``."""
    is_headless: bool = False
    affinity_timeout_s: int | None = None
    """Seconds for ``sessionAffinity: ClientIP``; None for no affinity."""
    external_ips: tuple[str, ...] = ()
    load_balancer_ips: tuple[str, ...] = ()
    """Those of ``status.loadBalancer.ingress`` that clients reach through the node: without
    ``ipMode: Proxy``."""
    load_balancer_source_ranges: tuple[str, ...] = ()
    """Networks in canonical form that alone may come by a load-balancer IP; empty: all may."""
    health_check_node_port: int = 0
    """0 where none is allocated."""
    is_internal_local: bool = False
    """``internalTrafficPolicy: Local``."""
    is_external_local: bool = False
    """``externalTrafficPolicy: Local``."""
    balance: Balance = Balance.ROUND_ROBIN
    """The annotation ``userspace-proxy.io/balance``."""
    keeps_clients: bool = True
    """Endpoints may see their clients' own addresses; see the annotation
    ``userspace-proxy.io/preserve-client-address``."""
    notes: tuple[str, ...] = ()
    """What was written and can't be followed, one sentence each: an unknown balance."""
    proxy_name: str | None = None
    """The label ``service.kubernetes.io/service-proxy-name``; None when unset."""
    has_headless_label: bool = False
    """The label ``service.kubernetes.io/headless`` is there, whatever its value."""
    created: str = ""
    """``creationTimestamp`` as written: RFC 3339 in UTC, so text order is time order."""
