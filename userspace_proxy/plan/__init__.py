"""Plans the desired state of the node, and computes the changes between two plans."""

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
