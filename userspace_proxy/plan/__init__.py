"""The desired state of the node, and the difference between two such states."""

from .plan import (
    HealthCheck,
    IgnoredService,
    Plan,
    PlanChanges,
    PortPlan,
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
    "PortPlan",
    "diff_plans",
    "new_conflicts",
]
