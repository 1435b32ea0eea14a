"""The wanted state of the node, and what turns one such state into another."""

from .diff import PlanChanges, diff_plans
from .plan import Ignored, Plan, PortKey, PortPlan
from .planner import Planner

__all__ = ["Ignored", "Plan", "PlanChanges", "Planner", "PortKey", "PortPlan", "diff_plans"]
