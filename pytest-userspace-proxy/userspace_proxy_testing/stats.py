"""What was counted for one Service, in a form that an assertion prints readably."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from userspace_proxy.facts import EndpointFacts, PortFacts, Traffic
from userspace_proxy.facts.units import plural


@dataclass(frozen=True, slots=True)
class ServiceStats:
    """The counters of one Service at one moment, since it was created."""

    service: str
    connections: int
    """Connections that an endpoint answered; with UDP, flows."""
    active: int
    """Open ones; a UDP flow is open until it has been idle for 30 s, or 120 s."""
    saved: int
    """Connections that a dead endpoint would have cost, and that another one answered."""
    failures: int
    """Dials that failed."""
    refused: int
    """Connections that were accepted and no endpoint answered. Those that the kernel refuses, while
    no endpoint is usable, aren't counted."""
    received_bytes: int
    """From clients."""
    sent_bytes: int
    """To clients."""
    state: str
    """How clients are served, and why not, in a sentence."""
    endpoints: Mapping[str, Traffic]
    """By the backend's name, or its address."""

    def __getitem__(self, endpoint: str) -> Traffic:
        if endpoint not in self.endpoints:
            raise KeyError(f"{endpoint!r} is not one of {', '.join(self.endpoints) or 'none'}")
        return self.endpoints[endpoint]

    def __repr__(self) -> str:
        # On one line: in the explanation of an assertion pytest prints a line feed as \\n.
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
    """Return the counters of a Service.

    Args:
        ports: Its Service ports, of each family.
        names: Backends' names by address.
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
