"""Chooses endpoints: in turn or by load, with ClientIP affinity and ejection of dead ones."""

from .affinity import Pin
from .balancer import Balancer, Strategy
from .least_connections import LeastConnections
from .power_of_two import PowerOfTwoChoices
from .preferred import Preferred
from .round_robin import RoundRobin
from .split import SplitBalancer

__all__ = [
    "Balancer",
    "LeastConnections",
    "Pin",
    "PowerOfTwoChoices",
    "Preferred",
    "RoundRobin",
    "SplitBalancer",
    "Strategy",
]
