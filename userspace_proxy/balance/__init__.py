"""Chooses endpoints: in turn, at random, by load; with affinity, and ejection of dead ones."""

from .affinity import AffinityTables, Pin
from .balancer import TRIED_MAX, Balancer, Strategy
from .least_connections import LeastConnections
from .limited import Limited
from .power_of_two import PowerOfTwoChoices
from .preferred import Preferred
from .random_choice import RandomChoice
from .round_robin import RoundRobin
from .slots import count_slots, fill_slots
from .slow_start import SlowStart
from .source_hash import SourceHash
from .split import SplitBalancer
from .weighted_draw import WeightedPowerOfTwoChoices, WeightedRandomChoice
from .weighted_least_connections import WeightedLeastConnections
from .weighted_round_robin import WeightedRoundRobin
from .weights import Weights

__all__ = [
    "TRIED_MAX",
    "AffinityTables",
    "Balancer",
    "LeastConnections",
    "Limited",
    "Pin",
    "PowerOfTwoChoices",
    "Preferred",
    "RandomChoice",
    "RoundRobin",
    "SlowStart",
    "SourceHash",
    "SplitBalancer",
    "Strategy",
    "WeightedLeastConnections",
    "WeightedPowerOfTwoChoices",
    "WeightedRandomChoice",
    "WeightedRoundRobin",
    "Weights",
    "count_slots",
    "fill_slots",
]
