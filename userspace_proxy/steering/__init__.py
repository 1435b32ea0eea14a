"""How traffic for a frontend reaches its listener: by rules, by routes, or not at all.

``base`` has the contract; each other module here is one way to keep it, and
:func:`make_steering` is the one place that knows their names.
"""

from .anchor import Anchor
from .answers import Answers
from .answers import labels as answers_labels
from .base import REFUSE, Bind, Refusal, Steering, SteeringFacts, Target
from .choice import make_steering
from .iptables import IptablesSteering
from .leftovers import remove_leftovers
from .local import labels as local_labels
from .local import remove_routes as remove_local_routes
from .names import proxy_label
from .nftables import labels as nftables_labels
from .one_thread import OneThread
from .tracking_timeouts import TrackingTimeouts
from .untracked import Untracked

__all__ = [
    "REFUSE",
    "Anchor",
    "Answers",
    "Bind",
    "IptablesSteering",
    "OneThread",
    "Refusal",
    "Steering",
    "SteeringFacts",
    "Target",
    "TrackingTimeouts",
    "Untracked",
    "answers_labels",
    "local_labels",
    "make_steering",
    "nftables_labels",
    "proxy_label",
    "remove_leftovers",
    "remove_local_routes",
]
