"""Lets the kernel refuse all rules for a while, while changes arrive and other faults occur.

Load balancers and users see the age of the oldest pending change, not of the newest.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from random import Random

from ..plan import Event
from .drawing_outside import IN_FORCE_S
from .objects import node_object
from .plan import (
    API,
    CLOCK,
    CRASH,
    DRIFT,
    KILL,
    OTHER_PODS,
    OWN_PODS,
    PUT,
    REFUSE_FOR,
    Object,
    Plan,
)
from .readings import LEAVES
from .shapes import slice_of

REFUSALS = 0.06
"""The share of plans with refused rules."""

_SECONDS = (1.5, 2.5, 4.0)


def with_refusals(rng: Random, plan: Plan) -> Plan:
    """Return a plan in which the kernel refuses rules during repeated changes."""
    services = [item for item in plan.objects if item["kind"] == "Service"]
    if not services:
        return plan
    seconds = rng.choice(_SECONDS)
    at = max(0.3, (plan.calm_at - seconds - IN_FORCE_S) * rng.random())
    events = [*plan.events, *_refused(rng, services, at, seconds)]
    return replace(
        plan,
        features=plan.features | {"refusals"},
        events=tuple(sorted(events, key=lambda event: event.at)),
    )


def _refused(rng: Random, services: list[Object], at: float, seconds: float) -> Iterator[Event]:
    yield Event(at, REFUSE_FOR, (seconds,))
    times = sorted(at + seconds * rng.random() for _ in range(rng.choice([2, 3, 6])))
    for each in times:
        item = rng.choice(services)
        count = rng.choice([0, 1, 2])
        yield Event(each, PUT, (slice_of(item, rng.sample(OWN_PODS + OTHER_PODS, count)),))
    if rng.random() < 0.5:
        yield Event(at + seconds * rng.random(), PUT, (leaving_node(rng),))
        if rng.random() < 0.7:
            yield Event(at + seconds * (0.5 + rng.random()), PUT, (node_object(),))
    for what, arguments, share in (
        (KILL, (0,), 0.3),
        (CRASH, (), 0.15),
        (DRIFT, ("delete element", rng.randrange(1000)), 0.3),
        (API, ("restart", 0.5), 0.2),
        (CLOCK, (rng.choice([-86400.0, 3600.0]),), 0.15),
    ):
        if rng.random() < share:
            yield Event(at + seconds * rng.random(), what, arguments)


def leaving_node(rng: Random) -> Object:
    """Return this node's object, with a taint or a timestamp that announces its deletion."""
    node = node_object()
    if rng.random() < 0.5:
        taint = {"key": LEAVES, "effect": "NoSchedule"}
        return {**node, "spec": {**node["spec"], "taints": [taint]}}
    metadata = {**node["metadata"], "deletionTimestamp": "2026-01-01T00:00:00Z"}
    return {**node, "metadata": metadata}
