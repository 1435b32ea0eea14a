"""Steers frontends' traffic to proxy ports or endpoints by rules or routes, or records it only.

``base`` defines the contract, and ``programmer`` contains the code that all mechanisms with state
in the kernel share; :func:`make_steering` creates a mechanism by its name.
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
