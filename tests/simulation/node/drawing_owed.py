"""Lets the kernel refuse the last round of a plan, after which no event triggers another one.

The change of that round is applied only if the agent remembers that it is pending.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from random import Random

from ..plan import Event
from .drawing_lacks import with_health_check
from .drawing_outside import IN_FORCE_S
from .plan import (
    ADDRESSES,
    CLIENT,
    LOOPBACK_IP,
    NODE_IP,
    OTHER_NODE_IP,
    OTHER_PODS,
    OWN_PODS,
    PUT,
    REFUSE,
    TAKE,
    Object,
    Plan,
)
from .shapes import slice_of

OWED = 0.04
"""The share of plans that end with a refused round."""

_ADDRESSES = (LOOPBACK_IP, NODE_IP, OTHER_NODE_IP), (LOOPBACK_IP, OTHER_NODE_IP)
# The times from the last round to the calm part of the run: long enough for a retry before that
# part, or too short.
_TRIED_S, _OWED_S = 2.6, 0.15
# When another program has released a port, the agent retries it within a second.
_TAKEN_S = 0.3
# Less than the shortest turn: after a turn, its Service waits for as long as the turn took.
_WAITS_S = 0.02


def with_owed(rng: Random, plan: Plan) -> Plan:
    """Return a plan that ends with a refused round."""
    services = [item for item in plan.objects if item["kind"] == "Service"]
    if not services:
        return plan
    item, at = rng.choice(services), plan.calm_at - rng.choice([_TRIED_S, _OWED_S])
    features = plan.features | {"owed rounds"}
    if plan.endpoint_s:
        last = _turn(rng, item, plan.calm_at - _TRIED_S)
    elif rng.random() < 0.5:
        last, features = _addresses(rng, item, at), features | {"outside"}
    else:
        last, features = _port(item, plan.calm_at - _TRIED_S), features | {"outside"}
    first = min(max(0.0, at - IN_FORCE_S), plan.calm_at - _TRIED_S)
    events = [event for event in plan.events if event.at < first or event.what == CLIENT]
    return replace(
        plan,
        features=features,
        events=tuple(sorted([*events, *last], key=lambda event: event.at)),
    )


def _addresses(rng: Random, item: Object, at: float) -> Iterator[Event]:
    """Add an address of the node on which node ports have to answer."""
    item = with_health_check(item)
    for each in item, slice_of(item):
        yield Event(max(0.0, at - IN_FORCE_S), PUT, (each,))
    yield Event(at - 0.01, REFUSE, (1,))
    yield Event(at, ADDRESSES, (rng.choice(_ADDRESSES),))


def _port(item: Object, at: float) -> Iterator[Event]:
    """Free a Service's node ports after a while, and refuse the rules of the retry."""
    item = with_health_check(item)
    for port in item["spec"]["ports"]:
        yield Event(at, TAKE, (port["nodePort"], port["protocol"] == "TCP", _TAKEN_S))
    for each in item, slice_of(item):
        yield Event(at + 0.01, PUT, (each,))
    yield Event(at + _TAKEN_S, REFUSE, (1,))


def _turn(rng: Random, item: Object, at: float) -> Iterator[Event]:
    """Give a Service node ports while it waits for its turn, because its last turn was long."""
    ips = OWN_PODS + OTHER_PODS
    yield Event(max(0.0, at - IN_FORCE_S), PUT, (item,))
    yield Event(at, PUT, (slice_of(item, rng.sample(ips, rng.choice([6, len(ips)]))),))
    # Before its turn there is no write that the kernel could refuse.
    yield Event(at + _WAITS_S, PUT, (with_health_check(item),))
    yield Event(at + _WAITS_S, REFUSE, (1,))
