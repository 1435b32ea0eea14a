"""Delivers replies to clients' own addresses to this proxy, beside every steering.

    reply_routing    which packets are replies: an nftables table marks them     (ADR 0008)
    routes           policy routing that delivers marked packets to this node
    bridge_delivery  lifts replies to clients on the same bridge off that bridge (ADR 0017)

The decision whose address is used is ``policy.locality``; the dial is in
``dataplane.client_address``, and ``agent.client_address`` connects the three.
"""

from .reply_routing import ReplyRouting, labels

__all__ = ["ReplyRouting", "labels"]
