"""Steers a frontend's traffic to its listener: by rules, by routes, or not at all.

``base`` defines the contract, and ``programmer`` implements what the mechanisms that change the
kernel share; :func:`make_steering` returns the mechanism for a name.
"""

from .base import (
    REFUSE,
    Affinity,
    Bind,
    EndpointChoice,
    KernelTarget,
    Refusal,
    Steering,
    SteeringFacts,
    Target,
)
from .client_address import ReplyRouting
from .held_tables import ConntrackHold, Untracked
from .iptables import IptablesSteering
from .local import remove_routes as remove_local_routes
from .names import (
    GUARD_TABLES,
    REPLY_TABLES,
    nftables_labels_here,
    proxy_label,
)
from .selection import make_steering, remove_leftovers

__all__ = [
    "GUARD_TABLES",
    "REFUSE",
    "REPLY_TABLES",
    "Affinity",
    "Bind",
    "ConntrackHold",
    "EndpointChoice",
    "IptablesSteering",
    "KernelTarget",
    "Refusal",
    "ReplyRouting",
    "Steering",
    "SteeringFacts",
    "Target",
    "Untracked",
    "make_steering",
    "nftables_labels_here",
    "proxy_label",
    "remove_leftovers",
    "remove_local_routes",
]
