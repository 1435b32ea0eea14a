"""Defines Services and their ports."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from .handling import DEFAULT_HANDLING, Handling
from .names import ServiceKey
from .notes import Note


class ServiceType(enum.StrEnum):
    """The type of a Service (``spec.type``)."""

    CLUSTER_IP = "ClusterIP"
    NODE_PORT = "NodePort"
    LOAD_BALANCER = "LoadBalancer"
    EXTERNAL_NAME = "ExternalName"


@dataclass(frozen=True, slots=True)
class ServicePort:
    """One port of a Service."""

    name: str
    """The name; may be empty if it is the only port."""
    port: int
    protocol: str
    """The protocol in upper case; policy ignores all but TCP and UDP."""
    node_port: int = 0
    """The node port; 0 without a node port."""
    target: str = ""
    """The ``targetPort``, a number or the name of container ports; empty if it is the port."""

    @property
    def target_name(self) -> str:
        """The ``targetPort`` if it is a name; otherwise empty."""
        return "" if self.target.isdigit() else self.target


@dataclass(frozen=True, slots=True)
class Service:
    """One Service, with the fields that affect its traffic."""

    key: ServiceKey
    ports: tuple[ServicePort, ...]
    type: ServiceType = ServiceType.CLUSTER_IP
    cluster_ips: tuple[str, ...] = ()
    """Empty for headless and ExternalName Services, and for manifests before allocation."""
    is_headless: bool = False
    of_endpoints: tuple[ServiceKey, ...] | None = None
    """The Services in front of its endpoints, such as ``web-0.web``; clients reach endpoints only
    through them. None if each endpoint answers on its own address."""
    selector: tuple[tuple[str, str], ...] = ()
    """Labels of its pods, sorted; if empty, no controller creates EndpointSlices for it."""
    affinity_timeout_s: int | None = None
    """Seconds of ``sessionAffinity: ClientIP``; None for no affinity."""
    external_ips: tuple[str, ...] = ()
    load_balancer_ips: tuple[str, ...] = ()
    """IPs of ``status.loadBalancer.ingress`` without ``ipMode: Proxy``."""
    balanced_elsewhere: tuple[str, ...] = ()
    """IPs with ``ipMode: Proxy``: the load balancer itself answers for them."""
    load_balancer_source_ranges: tuple[str, ...] = ()
    """Networks, in canonical form, whose clients load-balancer IPs admit; empty for all."""
    health_check_node_port: int = 0
    """``healthCheckNodePort``; 0 if there is none."""
    is_internal_local: bool = False
    """Whether it has ``internalTrafficPolicy: Local``."""
    is_external_local: bool = False
    """Whether it has ``externalTrafficPolicy: Local``."""
    handling: Handling = DEFAULT_HANDLING
    """The settings of its annotations."""
    notes: tuple[Note, ...] = ()
    """Fields and annotations that have no effect."""
    proxy_name: str | None = None
    """The label ``service.kubernetes.io/service-proxy-name``; None without the label."""
    has_headless_label: bool = False
    """Whether the Service has the label ``service.kubernetes.io/headless``, with any value."""
    external_name: str = ""
    """For type ExternalName: the name that DNS returns, without its trailing dot."""
    uid: str = ""
    """The UID that the API server assigned, for Events; empty if unknown."""
    created: str = ""
    """``creationTimestamp``: RFC 3339 in UTC, which sorts by time."""

    @property
    def addresses(self) -> tuple[str, ...]:
        """Its IP addresses, without node addresses; may contain duplicates."""
        return (*self.cluster_ips, *self.external_ips, *self.load_balancer_ips)
