"""Chooses endpoints: in turn or by load, with ClientIP affinity and ejection of dead ones."""

from .affinity import AffinityTable
from .balancer import Balancer, Strategy
from .ejection import Ejections
from .least_connections import LeastConnections
from .power_of_two import PowerOfTwoChoices
from .round_robin import RoundRobin
from .split import SplitBalancer

__all__ = [
    "AffinityTable",
    "Balancer",
    "Ejections",
    "LeastConnections",
    "PowerOfTwoChoices",
    "RoundRobin",
    "SplitBalancer",
    "Strategy",
]
