"""Makes plans of the control half smaller, and describes them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from ..shrinking import parts_removed
from .machine import Speed
from .plan import Plan


def smaller_plans(plan: Plan) -> Iterator[Plan]:
    """Yield plans with less in them, those with the least first."""
    for events in parts_removed(plan.events):
        yield replace(plan, events=tuple(events))
    for number in plan.worker_fates:
        others = {n: fate for n, fate in plan.worker_fates.items() if n != number}
        yield replace(plan, worker_fates=others)
    for number in plan.control_fates:
        others = {n: fate for n, fate in plan.control_fates.items() if n != number}
        yield replace(plan, control_fates=others)
    if plan.limits or plan.speaks_more:
        yield replace(plan, limits={}, speaks_more=False)
    for speed in (Speed(), replace(plan.speed, room=Speed.room)):
        if speed != plan.speed:
            yield replace(plan, speed=speed)
    for count in range(1, max(plan.workers) + (len(plan.workers) > 1)):
        yield replace(plan, workers=(count,))


def describe(plan: Plan) -> Iterator[str]:
    """Yield lines about a plan."""
    workers = ", then ".join(map(str, plan.workers))
    yield f"{workers} workers, {plan.descriptors} descriptors, {plan.speed}"
    if plan.limits or plan.speaks_more:
        yield f"other limits: {plan.limits}, workers of another version: {plan.speaks_more}"
    for what, fates in (("worker", plan.worker_fates), ("control process", plan.control_fates)):
        for number, fate in sorted(fates.items()):
            at = "message" if fate.is_message else "call"
            yield f"{what} {number} in the order of starts: dies at {at} {fate.number}"
    for number, service in enumerate(plan.services):
        places = ", ".join(str(service.addresses[place]) for place in service.places)
        ips = ", ".join(each.ip for each in service.serving.endpoints)
        yield f"service {number}: {service.protocol} at {places}, served by {ips or 'none'}"
