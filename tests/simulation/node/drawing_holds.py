"""Lets clients of Services without endpoints wait, while endpoints are added."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from random import Random

from ..plan import Event
from .drawing_outside import IN_FORCE_S
from .plan import DELETE, NODE_IP, OTHER_PODS, OWN_PODS, PUT, Object, Plan
from .readings import HOLD, cluster_ips
from .shapes import TARGETS, client_of, slice_of

HOLDS = 0.05
"""The share of plans with Services that hold clients."""

_SECONDS = ("1s", "3s")


def with_holds(rng: Random, plan: Plan) -> Plan:
    """Return a plan in which clients of some Services wait."""
    puts = [item for item in plan.objects if item["kind"] == "Service"]
    puts += [e.args[0] for e in plan.events if e.what == PUT and e.args[0]["kind"] == "Service"]
    usual = [item for item in puts if _is_usual(item)]
    if not usual:
        return plan
    names = {item["metadata"]["name"] for item in puts if rng.random() < 0.7}
    item = rng.choice(usual)
    names.add(item["metadata"]["name"])

    def held(item: Object) -> Object:
        metadata = item["metadata"]
        if item["kind"] != "Service" or metadata["name"] not in names:
            return item
        return {**item, "metadata": {**metadata, "annotations": {HOLD: rng.choice(_SECONDS)}}}

    at = (plan.calm_at - IN_FORCE_S) * rng.random()
    events = [*plan.events, *_emptied(rng, item, at)]
    return replace(
        plan,
        features=plan.features | {"holds"},
        objects=tuple(map(held, plan.objects)),
        events=tuple(
            Event(event.at, PUT, (held(event.args[0]),)) if event.what == PUT else event
            for event in sorted(events, key=lambda event: event.at)
        ),
    )


def _is_usual(item: Object) -> bool:
    """Return whether a Service has a cluster IP, and only ports with known targets."""
    names = {port.get("name") for port in item["spec"].get("ports", ())}
    return bool(cluster_ips(item)) and names <= TARGETS.keys()


def _emptied(rng: Random, item: Object, at: float) -> Iterator[Event]:
    """Remove a Service's endpoints, and add some while clients still wait, or later."""
    metadata = item["metadata"]
    yield Event(at, PUT, (item,))
    yield Event(at, DELETE, (("EndpointSlice", metadata["namespace"], f"{metadata['name']}-1"),))
    for _ in range(2):
        yield Event(at, PUT, (slice_of(item, ()),))
        at += IN_FORCE_S
        for _ in range(3):
            yield client_of(rng, item, at + 0.3 * rng.random(), NODE_IP)
        at += rng.choice([0.4, 0.4, 2.0, 4.0])
        yield Event(at, PUT, (slice_of(item, rng.sample(OWN_PODS + OTHER_PODS, 2)),))
        at += rng.choice([0.0, 0.3, 1.0])
