"""What is counted, per endpoint and per Service port. All of it only grows, but for ``active``."""

from __future__ import annotations


class EndpointCounters:
    """The counters of one endpoint of one Service port."""

    __slots__ = ("active", "connections", "failures", "received_bytes", "sent_bytes")

    def __init__(self) -> None:
        self.active = 0
        """Open connections, or live flows."""
        self.connections = 0
        """Connections that this endpoint answered, or flows that began with it."""
        self.failures = 0
        """Dials that failed, whoever's fault it was."""
        self.received_bytes = 0
        """From clients to the endpoint."""
        self.sent_bytes = 0
        """From the endpoint to clients."""

    def add(self, other: EndpointCounters) -> None:
        """Add another endpoint's counters to these."""
        self.active += other.active
        self.connections += other.connections
        self.failures += other.failures
        self.received_bytes += other.received_bytes
        self.sent_bytes += other.sent_bytes


class GroupCounters:
    """What is counted per Service port beside the sums over its endpoints."""

    __slots__ = ("dropped_datagrams", "evicted_flows", "refused", "shortages")

    def __init__(self) -> None:
        self.refused = 0
        """Connections that no endpoint answered, and datagrams without an endpoint."""
        self.shortages = 0
        """Dials that failed for want of our own descriptors, ports or memory."""
        self.dropped_datagrams = 0
        """Datagrams that a full socket didn't take."""
        self.evicted_flows = 0
        """Flows that ended early because the table was full."""
