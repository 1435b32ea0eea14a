"""Words what an endpoint has done before it failed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..facts.units import plural

if TYPE_CHECKING:
    from ..facts import EndpointFacts


def before_it_failed(endpoint: EndpointFacts, protocol: str) -> str:
    """Return what an endpoint that fails now did before; empty if that is nothing.

    A UDP flow begins without the endpoint: only what has come back shows that it was there.
    """
    if endpoint.cause is None or not endpoint.connections:
        return ""
    if endpoint.cause.code.traits.accepts:
        return ""
    if protocol == "UDP":
        return "; it answered before" if endpoint.has_sent else ""
    answered = "answered clients, and " if endpoint.has_sent else ""
    return f"; it {answered}accepted {plural(endpoint.connections, 'connection')} before"
