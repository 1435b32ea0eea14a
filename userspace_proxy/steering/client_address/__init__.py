"""Delivers to this proxy the replies that endpoints send to clients' addresses.

    reply_routing  nftables tables that mark and divert replies  (ADR 0070)
    routes         policy routing that delivers marked packets locally

It works in any steering mode. ``policy.locality`` decides for which clients the address is
preserved, ``dataplane.client_address`` dials, and ``agent.watchers.client_address`` connects these.
"""

from .reply_routing import ReplyRouting

__all__ = ["ReplyRouting"]
