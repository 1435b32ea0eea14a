"""Endpoints, as EndpointSlices describe them."""

from __future__ import annotations

from dataclasses import dataclass

from .addresses import IPFamily, Protocol, SocketAddress
from .names import ServiceKey, SliceKey


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One address of a slice with its conditions; a slice's ports apply to each.

    Source: discovery.k8s.io/v1 EndpointConditions, and kube-proxy: a missing ``ready``
    or ``serving`` counts as true, a missing ``terminating`` as false.
    """

    ip: str
    ready: bool = True
    serving: bool = True
    terminating: bool = False
    node: str = ""
    """Name of the node it runs on; empty when the slice doesn't say."""
    hinted_zones: tuple[str, ...] = ()
    """``hints.forZones``: who is to use it, by zone; empty where there is no hint."""
    hinted_nodes: tuple[str, ...] = ()
    """``hints.forNodes``, likewise."""


@dataclass(frozen=True, slots=True)
class SlicePort:
    """One port that every endpoint of a slice serves on."""

    name: str
    port: int
    protocol: str
    """As written; what isn't a :class:`Protocol` matches no Service port of ours."""


@dataclass(frozen=True, slots=True)
class EndpointSlice:
    """A part of the endpoints of one Service."""

    key: SliceKey
    service: ServiceKey
    family: IPFamily
    ports: tuple[SlicePort, ...]
    endpoints: tuple[Endpoint, ...]

    def addresses(self, name: str, protocol: Protocol) -> list[tuple[SocketAddress, Endpoint]]:
        """Return the addresses that serve a Service port, in the slice's order.

        Args:
            name: Name of the Service port; empty where it has none.
            protocol: Protocol of the Service port.
        """
        return [
            (SocketAddress(endpoint.ip, port.port), endpoint)
            for port in self.ports
            if port.name == name and port.protocol == protocol
            for endpoint in self.endpoints
        ]
