"""Endpoints, as EndpointSlices describe them."""

from __future__ import annotations

import operator
from dataclasses import dataclass, field

from .addresses import IPFamily
from .names import ServiceKey, SliceKey
from .notes import Note

DEFAULT_WEIGHT = 100
"""The weight of endpoints without one. Source: Cilium, whose annotation is read, too."""
_name = operator.attrgetter("name")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One address of a slice with its conditions; it has all ports of the slice.

    Source: discovery.k8s.io/v1 EndpointConditions, and kube-proxy: a missing ``ready`` or
    ``serving`` means true, a missing ``terminating`` false.
    """

    ip: str
    ready: bool = True
    serving: bool = True
    terminating: bool = False
    node: str = ""
    """Name of the node it runs on; may be empty."""
    hinted_zones: tuple[str, ...] = ()
    """``hints.forZones``: the zones whose clients should use it; may be empty."""
    hinted_nodes: tuple[str, ...] = ()
    """``hints.forNodes``, likewise."""
    hostname: str = ""
    """Its first label in DNS, below the name of a headless Service; empty: made of its address."""
    weight: int = DEFAULT_WEIGHT
    """Its share of new connections, in proportion to the others' weights; 0: it takes none."""
    priority: int = 0
    """0 is first; endpoints of a higher number are on standby while one of a lower is usable."""
    pod: str = ""
    """Name of the pod whose address it is, if that was asked for: a valid one, as it becomes a part
    of a URL. Empty: unknown, or no pod."""
    host: str = ""
    """The name of which DNS answered with the address; empty: it was written as an address."""


@dataclass(frozen=True, slots=True)
class SlicePort:
    """One port of all endpoints of a slice."""

    name: str
    port: int
    protocol: str
    """As written; if it isn't a :class:`Protocol`, no Service port matches."""


@dataclass(frozen=True, slots=True)
class EndpointSlice:
    """A part of the endpoints of one Service."""

    key: SliceKey
    service: ServiceKey
    """Its name is empty if the slice names none."""
    family: IPFamily
    ports: tuple[SlicePort, ...]
    """In the order of their names."""
    endpoints: tuple[Endpoint, ...]
    triggered_at: float = field(default=0.0, compare=False)
    """Unix time of the change of a pod or Service that led to this content; 0 if unknown."""
    notes: tuple[Note, ...] = ()
    """What can't be followed: targets that can't be pods, annotations."""
    unnumbered: tuple[str, ...] = ()
    """The names of ports without a number."""
    is_headless: bool = False
    """It has the label of slices of headless Services, so it serves no other one."""
    is_managed: bool = False
    """Kubernetes' controller keeps it, by its label: its endpoints are pods that have run."""

    def __post_init__(self) -> None:
        """Sort the ports, so that slices with the same ones are equal."""
        if len(self.ports) > 1:
            object.__setattr__(self, "ports", tuple(sorted(self.ports, key=_name)))
