"""One Service's counters, in a form that assertions print readably."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from userspace_proxy.facts import EndpointFacts, PortFacts, Traffic
from userspace_proxy.facts.units import plural


@dataclass(frozen=True, slots=True)
class ServiceStats:
    """One Service's counters since its creation, at one moment."""

    service: str
    connections: int
    """Connections (with UDP, flows) that an endpoint answered."""
    active: int
    """Open connections; a flow is open until idle for 30 s, or 120 s after several exchanges."""
    saved: int
    """Connections that an endpoint failed to answer but another endpoint answered."""
    failures: int
    """Failed dials."""
    refused: int
    """Accepted connections that no endpoint answered. Connections that the kernel refuses because
    no endpoint is usable aren't counted."""
    received_bytes: int
    """Bytes from clients."""
    sent_bytes: int
    """Bytes to clients."""
    state: str
    """A sentence per Service port: how clients are served, or why they aren't."""
    endpoints: Mapping[str, Traffic]
    """Traffic by the backend's name, or by address for an endpoint without a backend."""

    def __getitem__(self, endpoint: str) -> Traffic:
        if endpoint not in self.endpoints:
            raise KeyError(f"{endpoint!r} is not one of {', '.join(self.endpoints) or 'none'}")
        return self.endpoints[endpoint]

    def __repr__(self) -> str:
        # Print everything on one line, because pytest's explanations print a line feed as \\n.
        each = [
            f"{name}: {plural(traffic.connections, 'connection')}, "
            f"{plural(traffic.failures, 'failed dial')}"
            for name, traffic in self.endpoints.items()
        ]
        own = (
            f"{plural(self.connections, 'connection')}, {self.active} open, {self.saved} saved, "
            f"{plural(self.failures, 'failed dial')}, {self.refused} refused"
        )
        return f"<{self.service}: {'; '.join([own, *each, self.state])}>"


def stats_of(service: str, ports: Sequence[PortFacts], names: Mapping[str, str]) -> ServiceStats:
    """Return a Service's counters.

    Args:
        ports: Its Service ports, of all families.
        names: The backends' names by address.
    """
    endpoints = [endpoint for port in ports for endpoint in port.endpoints]
    return ServiceStats(
        service,
        connections=sum(port.connections for port in ports),
        active=sum(port.active for port in ports),
        saved=sum(port.saved for port in ports),
        failures=sum(port.failures for port in ports),
        refused=sum(port.refused for port in ports),
        received_bytes=sum(port.received_bytes for port in ports),
        sent_bytes=sum(port.sent_bytes for port in ports),
        state="; ".join(port.state.sentence for port in ports) or "not served",
        endpoints={_name(endpoint, names): endpoint for endpoint in endpoints},
    )


def _name(endpoint: EndpointFacts, names: Mapping[str, str]) -> str:
    return names.get(endpoint.address, endpoint.address)
