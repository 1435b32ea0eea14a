"""Words that nothing has come back to the clients of a Service port, ever or lately.

Rule 1: this is an observation: programs that only receive are as they should be, and so are
Services without clients.
Rule 2: an age is added where it is shown (``with_age``): a view doesn't change with time alone.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..facts import EndpointFacts, PortFacts
from ..facts.units import plural, seconds_in_words
from ..model import Cause, CauseCode, FrontendKind, is_loopback
from ..policy.endpoint_causes import BEFORE, EXPECTS_NO_HEADER, NO_DATAGRAM_HINT

_BOTH_WAIT = (
    "Client and server may each wait for the other to begin: compare the protocol, and the port, "
    "that both speak; health checks that only connect send nothing, too"
)
_UNANSWERED = (
    "Read the log of the program: it may expect another protocol, or take the end of a client's "
    "request for an abort; programs that only receive (syslog, graphite) send nothing"
)
_QUIET = "no client has been answered in the last minute"
_FEW = 2
"""Connections that show nothing: one may have just begun, and ``explain --probe`` sends nothing."""


def without_silence(port: PortFacts) -> Sequence[EndpointFacts]:
    """Return the endpoints of a Service port, over UDP without the cause of mere silence.

    As long as no datagram has ever come back, all of them may only receive, as over TCP. One that
    has failed otherwise before keeps its cause.
    """
    causes = [endpoint.cause for endpoint in port.endpoints if endpoint.cause is not None]
    is_mute = port.protocol == "UDP" and port.is_without_answer
    if not (causes and is_mute and all(map(_is_silence, causes))):
        return port.endpoints
    return tuple(endpoint.without_cause() for endpoint in port.endpoints)


def _is_silence(cause: Cause) -> bool:
    return cause.code is CauseCode.ENDPOINT_SENDS_NOTHING and BEFORE not in cause.sentence


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
        return f"Ready: {by}; no client has {verb} yet{_node_ports(port)}"
    if port.connections <= _FEW:
        return f"No {unit} has come back yet {made}"
    if port.received_bytes or not is_tcp:
        return f"No {unit} has come back {made}"
    return f"No byte has passed in either direction {made}"


def _node_ports(port: PortFacts) -> str:
    """Return where its node port is served, as the end of a sentence; empty if at many addresses.

    Flags may restrict the addresses, and the proxy doesn't see clients that dial others.
    """
    at = [one.address for one in port.frontends if one.kind == FrontendKind.NODE_PORT]
    at = [address for address in at if not is_loopback(address.rpartition(":")[0].strip("[]"))]
    return f"; node port at {' and '.join(at)}" if 0 < len(at) <= _FEW else ""


def quiet_in_words(port: PortFacts, by: str) -> str:
    """Return that clients were answered a while ago; the arguments are as above."""
    # The kernel may lead others to endpoints, or have done so a moment ago.
    where = "on the userspace path " if port.kernel_connections else ""
    return f"Ready: {by}; {where}{_QUIET}"


def with_age(sentence: str, port: PortFacts, now: float) -> str:
    """Return a sentence about a Service port with the age of its last answer, if it is quiet.

    Args:
        now: Unix time.
    """
    last = f"{_QUIET} ({last_in_words(port, now)})"
    return sentence.replace(_QUIET, last, 1)


def last_in_words(port: PortFacts, now: float) -> str:
    """Return when a client was last answered; empty if that was a moment ago, or never."""
    if not port.is_quiet:
        return ""
    return f"last answer {seconds_in_words(max(0.0, now - port.sent_at))} ago"


def closed_in_words(failing: Sequence[EndpointFacts], sentence: str) -> str:
    """Return how many connections were closed by endpoints that have never sent a byte.

    Args:
        sentence: What the endpoints do.
    """
    count = sum(endpoint.cause.count for endpoint in failing if endpoint.cause)
    return f"No byte has come back in {plural(count, 'connection')}: {sentence}"


def remedy_for_no_byte(port: PortFacts) -> str:
    """Return what to do about that; empty: wait for clients."""
    if port.connections <= _FEW:
        return ""
    if port.protocol == "UDP":
        return NO_DATAGRAM_HINT
    header = EXPECTS_NO_HEADER if port.proxy_protocol else ""
    return f"{header}{_UNANSWERED if port.received_bytes else _BOTH_WAIT}"
