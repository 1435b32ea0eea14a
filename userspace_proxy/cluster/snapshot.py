"""State of the cluster at one moment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..model import EndpointSlice, Node, Service, ServiceKey, SliceKey
from .persistent import PersistentMap


@dataclass(frozen=True, slots=True)
class ServiceState:
    """One Service and its slices, in the order of their names.

    It stays the same object in all snapshots until something about the Service changes, so caches
    may compare with ``is``.
    """

    service: Service
    slices: tuple[EndpointSlice, ...]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """State of the cluster at one moment; equal states compare equal."""

    services: Mapping[ServiceKey, ServiceState]
    node: Node | None = None
    """This node's object, if there is one."""
    node_addresses: frozenset[str] = frozenset()
    """Of all Nodes that the source has read."""
    orphans: Mapping[ServiceKey, tuple[SliceKey, ...]] = field(default_factory=PersistentMap)
    """Slices that name a Service that doesn't exist, by that name."""
    revision: int = field(default=0, compare=False)
    """Increases with every change; for logs and the page."""
