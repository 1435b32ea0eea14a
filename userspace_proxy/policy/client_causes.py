"""Words why clients are turned away: because of where they are, or of what they send."""

from __future__ import annotations

from collections.abc import Sequence

from ..model import Cause, CauseCode
from .causes import NAMES_SHOWN

_IS_ADMITTED_NOW = "explain --from=ADDRESS shows whether a client is admitted now"


def source_denied(
    networks: Sequence[str], *, count: int = 0, first_at: float = 0.0, last_at: float = 0.0
) -> Cause:
    """Return that clients outside these networks are dropped, with the count of their packets."""
    shown = ", ".join(networks[:NAMES_SHOWN]) + (", …" if len(networks) > NAMES_SHOWN else "")
    return Cause(
        CauseCode.SOURCE_DENIED,
        f"clients outside {shown} are dropped" if networks else "all clients are dropped",
        shown,
        "spec.loadBalancerSourceRanges must contain the client's network",
        count,
        first_at,
        last_at,
    )


def source_was_denied() -> Cause:
    """Return that clients were dropped before the source ranges changed."""
    return Cause(
        CauseCode.SOURCE_DENIED,
        "clients were dropped before spec.loadBalancerSourceRanges changed",
        hint=_IS_ADMITTED_NOW,
    )


def none_was_local() -> Cause:
    """Return that clients were dropped while only other nodes had endpoints for them."""
    return Cause(
        CauseCode.NOT_LOCAL,
        "clients were dropped while only other nodes had endpoints, and the policy was Local",
        hint=_IS_ADMITTED_NOW,
    )


def no_proxy_header(client: str) -> Cause:
    """Return that connections were reset because they didn't begin with a PROXY header.

    Args:
        client: The last one.
    """
    return Cause(
        CauseCode.NO_PROXY_HEADER,
        f"connections without a PROXY header were reset, the last one of {client}",
        client,
        "--accept-proxy-protocol contains that address: have it send the header, or remove it "
        "from the networks there",
    )


def hop_limit_reached(client: str) -> Cause:
    """Return that datagrams were dropped because their hop limit was used up.

    Args:
        client: The sender of the last one.
    """
    return Cause(
        CauseCode.HOP_LIMIT,
        f"datagrams were dropped because their hop limit was reached, the last one of {client}",
        client,
        "Have the client send with a larger TTL (IPv6: hop limit); if it does, look for a loop: a "
        "Service whose endpoint or load balancer leads back to it",
    )
