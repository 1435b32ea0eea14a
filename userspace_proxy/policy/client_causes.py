"""Words why clients are turned away because of what they send."""

from __future__ import annotations

from ..model import Cause, CauseCode


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
