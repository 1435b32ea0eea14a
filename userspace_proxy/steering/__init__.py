"""How traffic for a frontend reaches its listener: by rules, by routes, or not at all.

``base`` has the contract; each other module here is one way to keep it, and
:func:`make_steering` is the one place that knows their names.
"""

from .base import REFUSE, Bind, Refusal, Steering, SteeringFacts, Target
from .choice import make_steering
from .iptables import IptablesSteering
from .names import proxy_label
from .nftables import labels as nftables_labels

__all__ = [
    "REFUSE",
    "Bind",
    "IptablesSteering",
    "Refusal",
    "Steering",
    "SteeringFacts",
    "Target",
    "make_steering",
    "nftables_labels",
    "proxy_label",
]
