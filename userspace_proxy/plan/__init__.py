"""The desired state of the node, and the difference between two such states."""

from .diff import PlanChanges, diff_plans
from .plan import HealthCheck, IgnoredService, Plan, PortKey, PortPlan, Side
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
]
