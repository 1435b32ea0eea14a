"""Delivers replies to clients' own addresses to this proxy, beside every steering.

    reply_routing  which packets are replies: nftables tables mark and divert them  (ADR 0070)
    routes         policy routing that delivers marked packets to this node

``policy.locality`` decides for which clients the address is preserved, ``dataplane.client_address``
dials, and ``agent.watchers.client_address`` connects the three.
"""

from .reply_routing import ReplyRouting

__all__ = ["ReplyRouting"]
