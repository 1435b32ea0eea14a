"""Words that no byte has come back on the TCP connections of a Service port, and what to do.

Rule 1: this is an observation: programs that only receive are as they should be.
"""

from __future__ import annotations

from ..facts import PortFacts
from .units import plural

_BOTH_WAIT = (
    "Client and server may each wait for the other to begin: compare the protocol, and the port, "
    "that both speak; health checks that only connect send nothing, too"
)
_UNANSWERED = (
    "Read the log of the program: it may expect another protocol, or take the end of a client's "
    "request for an abort; programs that only receive (syslog, graphite) send nothing"
)


def no_byte_in_words(port: PortFacts) -> tuple[str, str]:
    """Return that no byte has come back, in words, and what to do about it."""
    made = plural(port.connections, "connection")
    if port.received_bytes:
        return f"No byte has come back ({made})", _UNANSWERED
    return f"No byte has passed in either direction ({made})", _BOTH_WAIT
