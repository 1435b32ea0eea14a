"""What a fault on purpose changes: its endpoint is dialled elsewhere, by a detour.

Rule 1: a failure of a detour isn't one of the endpoint: it is worded so, and ends with the detour.
"""

from __future__ import annotations

from collections.abc import Callable, Container

from ..balance import Balancer, SplitBalancer
from ..causes.cause import Cause
from ..causes.say import say
from ..facts import EndpointCounters
from ..model import SocketAddress
from ..model.serving import Serving


def failure_fields(
    endpoint: SocketAddress, cause: Cause, detours: Container[SocketAddress]
) -> dict[str, str]:
    """Return the fields of a failed dial for the log."""
    on_purpose = " (a fault on purpose)" if endpoint in detours else ""
    return {"endpoint": str(endpoint), "cause": f"{say(cause)}{on_purpose}"}


def end_failures(
    old: Serving,
    new: Serving,
    counters_of: Callable[[SocketAddress], EndpointCounters],
    balancer: Balancer | SplitBalancer,
    on_returned: Callable[[SocketAddress], None] | None,
) -> None:
    """End failures and ejections of endpoints that are dialled elsewhere now."""
    if old.detours == new.detours:
        return
    for endpoint, _ in set(old.detours) ^ set(new.detours):
        counters_of(endpoint).dials.end()
        if balancer.answered(endpoint) and on_returned is not None:
            on_returned(endpoint)
