"""Words that nothing has come back to the clients of a Service port, and what to do.

Rule 1: this is an observation: programs that only receive are as they should be.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..facts import EndpointFacts, PortFacts
from ..policy.endpoint_causes import EXPECTS_NO_HEADER
from .units import plural

_BOTH_WAIT = (
    "Client and server may each wait for the other to begin: compare the protocol, and the port, "
    "that both speak; health checks that only connect send nothing, too"
)
_UNANSWERED = (
    "Read the log of the program: it may expect another protocol, or take the end of a client's "
    "request for an abort; programs that only receive (syslog, graphite) send nothing"
)
_FEW = 2
"""Connections that show nothing: one may have just begun, and ``explain --probe`` sends nothing."""


def no_byte_in_words(port: PortFacts, by: str) -> str:
    """Return that nothing has come back.

    Args:
        by: The endpoints that serve, in words.
    """
    is_tcp = port.protocol == "TCP"
    unit, noun = ("byte", "connection") if is_tcp else ("datagram", "flow")
    made = f"({plural(port.connections, noun)})"
    if not port.connections:
        has_failed = port.failed or port.failures or port.bad_headers or port.waits.total
        verb = "been served" if has_failed else "connected"
        return f"Ready: {by}; no client has {verb} yet"
    if not is_tcp or port.connections <= _FEW:
        return f"No {unit} has come back yet {made}"
    if port.received_bytes:
        return f"No byte has come back {made}"
    return f"No byte has passed in either direction {made}"


def closed_in_words(failing: Sequence[EndpointFacts], sentence: str) -> str:
    """Return how many connections were closed by endpoints that have never sent a byte.

    Args:
        sentence: What the endpoints do.
    """
    count = sum(endpoint.cause.count for endpoint in failing if endpoint.cause)
    return f"No byte has come back in {plural(count, 'connection')}: {sentence}"


def remedy_for_no_byte(port: PortFacts) -> str:
    """Return what to do about that; empty: wait for clients."""
    if port.protocol != "TCP" or port.connections <= _FEW:
        return ""
    header = EXPECTS_NO_HEADER if port.proxy_protocol else ""
    return f"{header}{_UNANSWERED if port.received_bytes else _BOTH_WAIT}"
