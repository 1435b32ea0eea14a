"""The desired state of the node, and the difference between two such states."""

from .plan import (
    HealthCheck,
    IgnoredService,
    Plan,
    PlanChanges,
    PortKey,
    PortPlan,
    Side,
    diff_plans,
    new_conflicts,
)
from .planner import Planner

__all__ = [
    "HealthCheck",
    "IgnoredService",
    "Plan",
    "PlanChanges",
    "Planner",
    "PortKey",
    "PortPlan",
    "Side",
    "diff_plans",
    "new_conflicts",
]
