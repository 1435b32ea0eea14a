"""Makes plans smaller, and shows them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from ...shrinking import describe_values, parts_removed, usual_values
from .plan import Plan

_SHOWN = ("seed", "features", "steps", "first_items")


def smaller_plans(plan: Plan) -> Iterator[Plan]:
    """Yield plans with something left out, the much smaller ones first."""
    for steps in parts_removed(plan.steps):
        yield replace(plan, steps=tuple(steps))
    for i in range(len(plan.first_items)):
        yield replace(plan, first_items=plan.first_items[:i] + plan.first_items[i + 1 :])
    yield from usual_values(plan, (*_SHOWN, "chaos_s"))


def describe(plan: Plan) -> Iterator[str]:
    """Yield lines about a plan."""
    yield describe_values(plan, _SHOWN)
    for item in plan.first_items:
        yield f"    first: {item['kind']} {item['metadata']}"
    for step in plan.steps:
        yield f"    {step}"
