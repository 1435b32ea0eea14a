"""Words what an endpoint has done before it failed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..facts.port import UNANSWERED
from ..facts.units import plural
from ..model import CauseCode

if TYPE_CHECKING:
    from ..facts import EndpointFacts

# The connections that it ends, that it leaves without an answer, that lose packets or suffer a
# fault, are among those that it accepted; one that denies some clients still serves others.
_STILL_ACCEPTS = (
    CauseCode.ENDPOINT_RESETS,
    *UNANSWERED,
    CauseCode.ENDPOINT_DENIES,
    CauseCode.ENDPOINT_CUTS_OFF,
    CauseCode.PACKETS_LOST,
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
        return "; it answered before" if endpoint.has_sent else ""
    answered = "answered clients, and " if endpoint.has_sent else ""
    return f"; it {answered}accepted {plural(endpoint.connections, 'connection')} before"
