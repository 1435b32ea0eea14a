"""Which endpoint next: round robin, ClientIP affinity, ejection of dead ones."""

from .affinity import AffinityTable
from .balancer import Balancer
from .ejection import Ejections
from .round_robin import RoundRobin

__all__ = ["AffinityTable", "Balancer", "Ejections", "RoundRobin"]
