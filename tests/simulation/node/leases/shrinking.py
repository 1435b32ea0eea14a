"""Makes plans smaller, and shows them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any

from .plan import Plan

_SHOWN = ("seed", "features", "steps", "workloads", "services")


def smaller_plans(plan: Plan) -> Iterator[Plan]:
    """Yield plans with something left out, the much smaller ones first."""
    size = len(plan.steps)
    part = size // 2
    while part:
        for start in range(0, size, part):
            yield replace(plan, steps=plan.steps[:start] + plan.steps[start + part :])
        part //= 2
    for i in range(len(plan.services)):
        yield replace(plan, services=plan.services[:i] + plan.services[i + 1 :])
    for field in fields(plan):
        if field.name not in (*_SHOWN, "chaos_s", "nodes"):
            usual: Any = field.default
            if getattr(plan, field.name) != usual:
                yield replace(plan, **{field.name: usual})


def describe(plan: Plan) -> Iterator[str]:
    """Yield lines about a plan."""
    values = (f"{f.name}={getattr(plan, f.name)}" for f in fields(plan) if f.name not in _SHOWN)
    yield ", ".join(values)
    for workload in plan.workloads:
        yield f"    {workload}"
    for service in plan.services:
        yield f"    {service}"
    for step in plan.steps:
        yield f"    {step}"
