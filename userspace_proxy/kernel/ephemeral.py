"""Reads the range of ports that the kernel uses for outgoing connections.

Only a socket that dials one of these ports can connect to itself. An unbound UDP socket takes a
port for the whole node, whatever its peer is (source: inet_dgram_connect() in net/ipv4/af_inet.c,
which first binds it to all addresses), so the number of ports limits the flows of all clients
together.
"""

from __future__ import annotations

import math
from pathlib import Path

# The range of ephemeral ports, which also applies to IPv6.
_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")

# Seconds between two reads of the range, which may change at run time. A read takes about 15 µs.
_LOOK_EVERY_S = 10.0

_ALL = range(1 << 16)


class EphemeralPorts:
    """The ephemeral ports of this process's network namespace; ``now`` is in monotonic seconds."""

    def __init__(self, path: Path = _RANGE) -> None:
        self._path = path
        self._ports = _ALL
        self._looked_at = -math.inf

    def includes(self, port: int, now: float) -> bool:
        """Return whether a port is in the ephemeral range; True if the range can't be read."""
        return port in self._at(now)

    def count(self, now: float) -> int:
        """Return the number of ephemeral ports; 65,536 if the range can't be read."""
        return len(self._at(now))

    def _at(self, now: float) -> range:
        if now - self._looked_at >= _LOOK_EVERY_S:
            self._looked_at = now
            self._ports = self._read()
        return self._ports

    def _read(self) -> range:
        try:
            first, last = map(int, self._path.read_text().split())
        except (OSError, ValueError):
            return _ALL
        return range(first, last + 1)


EPHEMERAL = EphemeralPorts()
"""The instance that all callers share."""
