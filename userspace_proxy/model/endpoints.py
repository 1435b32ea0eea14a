"""Defines endpoints, as EndpointSlices describe them."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from .addresses import IPFamily
from .names import ServiceKey, SliceKey
from .notes import Note

DEFAULT_WEIGHT = 100
"""The default weight of an endpoint. Source: Cilium, whose annotation is also read."""
CONTROLLER = "endpointslice-controller.k8s.io"
"""The ``managed-by`` label of slices that Kubernetes writes for pods, not of mirrored slices."""
_name = operator.attrgetter("name")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One address of a slice with its conditions; it serves on all ports of the slice.

    Source: discovery.k8s.io/v1 EndpointConditions, and kube-proxy: a missing ``ready`` or
    ``serving`` means true, a missing ``terminating`` false.
    """

    ip: str
    ready: bool = True
    serving: bool = True
    terminating: bool = False
    node: str = ""
    """The node it runs on; empty if unknown."""
    hinted_zones: tuple[str, ...] = ()
    """``hints.forZones``: the zones whose clients should use it; may be empty."""
    hinted_nodes: tuple[str, ...] = ()
    """``hints.forNodes``: the nodes whose clients should use it; may be empty."""
    hostname: str = ""
    """Its DNS label below a headless Service's name; if empty, DNS derives it from the address."""
    weight: int = DEFAULT_WEIGHT
    """The weight that sets its share of new connections; 0 if it gets no new connections."""
    priority: int = 0
    """0 is the highest priority; an endpoint is on standby while a lower number is usable."""
    pod: str = ""
    """Name of its pod, always valid because it becomes part of a URL; empty if it is unknown or
    invalid, or if the endpoint isn't a pod."""
    host: str = ""
    """The DNS name that resolved to the address; empty if the slice contains the address."""


@dataclass(frozen=True, slots=True)
class SlicePort:
    """One port of all endpoints of a slice."""

    name: str
    port: int
    protocol: str
    """The protocol as written; no Service port matches unless it is a :class:`Protocol`."""


@dataclass(frozen=True, slots=True)
class EndpointSlice:
    """Some of one Service's endpoints."""

    key: SliceKey
    service: ServiceKey
    """The Service to which it belongs; the name is empty if the slice names no Service."""
    family: IPFamily
    ports: tuple[SlicePort, ...]
    """The ports, sorted by name."""
    endpoints: tuple[Endpoint, ...]
    triggered_at: float = field(default=0.0, compare=False)
    """Unix time of the pod or Service change that caused this content; 0 if unknown."""
    notes: tuple[Note, ...] = ()
    """Notes about ignored fields: invalid addresses, targets and annotations; too many hints."""
    unnumbered: tuple[str, ...] = ()
    """The names of ports without a number."""
    is_headless: bool = False
    """Whether the slice has the label of headless Services, so that no other Service uses it."""
    manager: str = ""
    """The value of its label ``managed-by``, the program that writes it; empty if unknown."""

    @property
    def is_managed(self) -> bool:
        """Whether Kubernetes' controller writes it, so that its endpoints are pods that ran."""
        return self.manager == CONTROLLER

    def __post_init__(self) -> None:
        """Sort the ports, so that slices with equal ports are equal."""
        if len(self.ports) > 1:
            object.__setattr__(self, "ports", tuple(sorted(self.ports, key=_name)))


def named_pods(slices: Iterable[EndpointSlice]) -> Sequence[str]:
    """Return up to ten pods that slices name without being made from pods: they may not exist."""
    foreign = (one for item in slices if not item.is_managed for one in item.endpoints)
    return sorted({one.pod for one in foreign if one.pod})[:10]
