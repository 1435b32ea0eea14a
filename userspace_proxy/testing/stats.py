"""What was counted for one Service, in a form that an assertion prints readably."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..status.port_state import judge
from ..status.view import EndpointView, ServicePortView, Traffic


@dataclass(frozen=True, slots=True)
class ServiceStats:
    """The counters of one Service at one moment, since it was created."""

    service: str
    connections: int
    """Connections that an endpoint answered; with UDP, flows."""
    active: int
    """Open ones."""
    saved: int
    """Connections that a dead endpoint would have cost, and that another one answered."""
    failures: int
    """Dials that failed."""
    refused: int
    """Connections that no endpoint answered."""
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
            f"{name}: {traffic.connections} connections, {traffic.failures} failed dials"
            for name, traffic in self.endpoints.items()
        ]
        own = (
            f"{self.connections} connections, {self.active} open, {self.saved} saved, "
            f"{self.failures} failed dials, {self.refused} refused"
        )
        return f"<{self.service}: {'; '.join([own, *each, self.state])}>"


def stats_of(
    service: str, ports: Sequence[ServicePortView], names: Mapping[str, str]
) -> ServiceStats:
    """Return the counters of a Service.

    Args:
        ports: Its Service ports, of each family.
        names: Backends' names by address.
    """
    totals = [port.traffic for port in ports]
    endpoints = [endpoint for port in ports for endpoint in port.endpoints]
    return ServiceStats(
        service,
        connections=sum(traffic.connections for traffic in totals),
        active=sum(traffic.active for traffic in totals),
        saved=sum(port.saved for port in ports),
        failures=sum(traffic.failures for traffic in totals),
        refused=sum(port.refused for port in ports),
        received_bytes=sum(traffic.received_bytes for traffic in totals),
        sent_bytes=sum(traffic.sent_bytes for traffic in totals),
        state="; ".join(judge(port).sentence for port in ports) or "not served",
        endpoints={_name(endpoint, names): endpoint.traffic for endpoint in endpoints},
    )


def _name(endpoint: EndpointView, names: Mapping[str, str]) -> str:
    address = str(endpoint.verdict.address)
    return names.get(address, address)
