"""Words what an endpoint has done before, and what has come back from it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..model import CauseCode
from ..status.port_state import without_answer
from ..status.units import plural

if TYPE_CHECKING:
    from ..facts import EndpointFacts, PortFacts

# The connections that it ends, that it leaves without an answer, or that suffer a fault, are among
# those that it accepted.
_STILL_ACCEPTS = (
    CauseCode.ENDPOINT_RESETS,
    CauseCode.ENDPOINT_SENDS_NOTHING,
    CauseCode.FAULT_ON_PURPOSE,
)


def before_it_failed(endpoint: EndpointFacts, protocol: str) -> str:
    """Return what an endpoint that fails now did before; empty if that is nothing.

    A UDP flow begins without the endpoint: only what has come back shows that it was there.
    """
    if endpoint.cause is None or not endpoint.connections:
        return ""
    if endpoint.cause.code in _STILL_ACCEPTS:
        return ""
    if protocol == "UDP":
        return "; it answered before" if endpoint.sent_bytes else ""
    verb = "served" if endpoint.sent_bytes else "accepted"
    return f"; it {verb} {plural(endpoint.connections, 'connection')} before"


def nothing_came_back(port: PortFacts) -> tuple[str, str]:
    """Return that none of a Service port's flows was answered, and a remedy; both empty: one was.

    Some protocols of UDP have no answers (statsd, syslog), so the port's state is well.
    """
    flows = without_answer(port)
    if not flows:
        return "", ""
    counted = plural(flows, "flow")
    what = f"No datagram has come back in {counted}: if the protocol has answers, clients get none"
    return what, (
        "The endpoint may drop what it gets, answer from another address than it was asked at, or "
        "be kept by a network policy or firewall from answering"
    )
