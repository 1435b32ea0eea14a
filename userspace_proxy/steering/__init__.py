"""How traffic for a frontend reaches its listener: by rules, by routes, or not at all.

``base`` has the contract; each other module here is one way to keep it, and
:func:`make_steering` is the one place that knows their names.
"""

from ..kernel.one_thread import OneThread
from ..kernel.tracking_timeouts import TrackingTimeouts
from .base import REFUSE, Bind, Refusal, Steering, SteeringFacts, Target
from .choice import make_steering
from .client_address import ReplyRouting
from .client_address import labels as reply_routing_labels
from .conntrack_hold import ConntrackHold
from .iptables import IptablesSteering
from .leftovers import remove_leftovers
from .local import labels as local_labels
from .local import remove_routes as remove_local_routes
from .names import proxy_label
from .nftables import labels as nftables_labels
from .untracked import Untracked

__all__ = [
    "REFUSE",
    "Bind",
    "ConntrackHold",
    "IptablesSteering",
    "OneThread",
    "Refusal",
    "ReplyRouting",
    "Steering",
    "SteeringFacts",
    "Target",
    "TrackingTimeouts",
    "Untracked",
    "local_labels",
    "make_steering",
    "nftables_labels",
    "proxy_label",
    "remove_leftovers",
    "remove_local_routes",
    "reply_routing_labels",
]
