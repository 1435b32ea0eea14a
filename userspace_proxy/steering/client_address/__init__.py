"""Delivers endpoints' replies to clients' addresses to this proxy, in any steering mode.

    reply_routing  nftables tables that mark and divert replies  (ADR 0070)
    routes         policy routing that delivers marked packets locally

``policy.locality`` decides for which clients the address is preserved, ``dataplane.client_address``
dials, and ``agent.watchers.client_address`` connects the three.
"""

from .reply_routing import ReplyRouting

__all__ = ["ReplyRouting"]
