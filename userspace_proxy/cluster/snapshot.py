"""State of the cluster at one moment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..model import EndpointSlice, Node, Service, ServiceKey


@dataclass(frozen=True, slots=True)
class ServiceState:
    """One Service and the slices that belong to it, in the order of their names.

    The same object is kept from snapshot to snapshot while nothing about the
    Service changes, so whoever caches by Service may compare with ``is``.
    """

    service: Service
    slices: tuple[EndpointSlice, ...]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """State of the cluster at one moment; equal states compare equal."""

    services: Mapping[ServiceKey, ServiceState]
    node: Node | None = None
    """This node's object; None where there is none, or none yet."""
    node_addresses: frozenset[str] = frozenset()
    """Of all Nodes, as far as the source knows them."""
    revision: int = field(default=0, compare=False)
    """Counts up with every change; for logs and the page."""
