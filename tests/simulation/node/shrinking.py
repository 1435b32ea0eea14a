"""Shrinks plans of whole nodes, and describes them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from ..machine.machine import Speed
from ..shrinking import parts_removed
from .machine import QUEUE
from .plan import Plan


def smaller_plans(plan: Plan) -> Iterator[Plan]:
    """Yield smaller plans, the smallest first."""
    for events in parts_removed(plan.events):
        yield replace(plan, events=tuple(events))
    for objects in parts_removed(plan.objects):
        yield replace(plan, objects=tuple(objects))
    if any(plan.agent_dies_at):
        yield replace(plan, agent_dies_at=())
    if plan.speed != Speed():
        yield replace(plan, speed=Speed())
    if plan.workers > 1 or plan.later_workers > 1:
        yield replace(plan, workers=1, later_workers=1)
    if plan.later_path != plan.settings.path:
        yield replace(plan, later_path=plan.settings.path)
    if plan.queue < QUEUE:
        yield replace(plan, queue=QUEUE)
    if plan.crowd:
        yield replace(plan, crowd=0)
    if plan.keeps_state:
        yield replace(plan, keeps_state=False)


def describe(plan: Plan) -> Iterator[str]:
    """Yield the lines that describe a plan."""
    yield f"{plan.workers} workers, later {plan.later_workers}, {plan.speed}"
    yield f"path {plan.settings.path}, later {plan.later_path}"
    yield f"workers {'stay' if plan.keeps_workers else 'end'} when the agent dies"
    yield f"the last state is {'kept' if plan.keeps_state else 'not kept'}"
    if plan.queue < QUEUE:
        yield f"{plan.queue} clients wait for a listener at most"
    if plan.crowd:
        yield f"other programs have {plan.crowd} proxy ports"
    if any(plan.agent_dies_at):
        yield f"agents die at calls {plan.agent_dies_at}"
    for item in plan.objects:
        metadata = item["metadata"]
        yield f"{item['kind']} {metadata.get('namespace', '')}/{metadata['name']}: {_short(item)}"


def _short(item: object) -> str:
    return str(item.get("spec") or item.get("endpoints"))[:300]  # type: ignore[attr-defined]
