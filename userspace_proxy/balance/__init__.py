"""Chooses endpoints by a strategy and session affinity, and ejects endpoints that fail."""

from .affinity import AffinityEntry, AffinityTables
from .balancer import Balancer
from .least_connections import LeastConnections, WeightedLeastConnections
from .random_choice import (
    PowerOfTwoChoices,
    RandomChoice,
    WeightedPowerOfTwoChoices,
    WeightedRandomChoice,
)
from .round_robin import RoundRobin, WeightedRoundRobin
from .slots import count_slots, fill_slots
from .source_hash import SourceHash
from .split import SplitBalancer
from .strategies import Load, make_strategy
from .strategy import Limited, Preferred, Strategy
from .weights import SlowStart, Weights

__all__ = [
    "AffinityEntry",
    "AffinityTables",
    "Balancer",
    "LeastConnections",
    "Limited",
    "Load",
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
    "make_strategy",
]
