"""Services and their ports."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from .handling import DEFAULT_HANDLING, Handling
from .names import ServiceKey
from .notes import Note


class ServiceType(enum.StrEnum):
    """``spec.type``."""

    CLUSTER_IP = "ClusterIP"
    NODE_PORT = "NodePort"
    LOAD_BALANCER = "LoadBalancer"
    EXTERNAL_NAME = "ExternalName"


@dataclass(frozen=True, slots=True)
class ServicePort:
    """One port of a Service."""

    name: str
    """May be empty if it is the only port."""
    port: int
    protocol: str
    """As written, in upper case; policy excludes all but TCP and UDP."""
    node_port: int = 0
    """0: none."""


@dataclass(frozen=True, slots=True)
class Service:
    """One Service, with the fields that affect its traffic."""

    key: ServiceKey
    ports: tuple[ServicePort, ...]
    type: ServiceType = ServiceType.CLUSTER_IP
    cluster_ips: tuple[str, ...] = ()
    """Empty for a headless Service, ExternalName, and a manifest before allocation."""
    is_headless: bool = False
    of_endpoints: tuple[ServiceKey, ...] | None = None
    """The Services that stand for its endpoints, such as ``web-0.web``: only they lead to them.
    None: each endpoint answers at its own address."""
    selector: tuple[tuple[str, str], ...] = ()
    """Labels of its pods, sorted; empty: nothing creates EndpointSlices for it."""
    affinity_timeout_s: int | None = None
    """Seconds of ``sessionAffinity: ClientIP``; None: no affinity."""
    external_ips: tuple[str, ...] = ()
    load_balancer_ips: tuple[str, ...] = ()
    """Of ``status.loadBalancer.ingress``, without those that have ``ipMode: Proxy``."""
    balanced_elsewhere: tuple[str, ...] = ()
    """Those that have ``ipMode: Proxy``: the load balancer answers for them."""
    load_balancer_source_ranges: tuple[str, ...] = ()
    """Networks, in canonical form, that a load-balancer IP admits; empty: all."""
    health_check_node_port: int = 0
    """0: none."""
    is_internal_local: bool = False
    """``internalTrafficPolicy: Local``."""
    is_external_local: bool = False
    """``externalTrafficPolicy: Local``."""
    handling: Handling = DEFAULT_HANDLING
    """What its annotations ask for."""
    notes: tuple[Note, ...] = ()
    """Fields and annotations that can't be followed."""
    proxy_name: str | None = None
    """The label ``service.kubernetes.io/service-proxy-name``; None: it has none."""
    has_headless_label: bool = False
    """It has the label ``service.kubernetes.io/headless``, whatever its value."""
    external_name: str = ""
    """Of type ExternalName: the name that DNS returns; without a dot at its end."""
    uid: str = ""
    """The API server's, for Events about it; empty: unknown."""
    created: str = ""
    """``creationTimestamp``: RFC 3339 in UTC, so the text's order is that of time."""

    @property
    def addresses(self) -> tuple[str, ...]:
        """The IP addresses that it may be dialled at, beside nodes'; some may be repeated."""
        return (*self.cluster_ips, *self.external_ips, *self.load_balancer_ips)
