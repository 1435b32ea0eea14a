"""Draws changes at a node outside its Services: addresses, free ports, queues, rules."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random

from ..plan import Event
from .claims import key_of
from .drawing_lacks import with_health_check, without_health_check
from .drifting import DRIFTS
from .plan import (
    ADDRESSES,
    CLIENT,
    CRASH,
    DELETE,
    DRIFT,
    LOOPBACK_IP,
    NODE_IP,
    OTHER_NODE_IP,
    PUT,
    RANGE,
    REFUSE,
    STOP,
    TAKE,
    Object,
)
from .shapes import DIALLERS, client_of, slice_of

OUTSIDE = 0.25
"""The share of plans with changes at the node."""

_ADDRESSES = (
    (LOOPBACK_IP, NODE_IP, OTHER_NODE_IP),
    (LOOPBACK_IP, OTHER_NODE_IP),
    (LOOPBACK_IP, NODE_IP),
)
# The time until a deleted Service is created again.
_AWAY_S = 0.6
# The time within which a change of rules by another program is detected.
_NOTICED_S = 2.5
IN_FORCE_S = 2.5
"""Seconds within which an undisturbed change is applied; later, it excuses no refused client."""
# The last change is made this long before the run becomes calm: enough for one attempt.
_LAST_S = 0.15


def outside(
    rng: Random, objects: Sequence[Object], events: Sequence[Event], calm_at: float
) -> Iterator[Event]:
    """Yield the events of one or two changes at the node, with affected clients."""
    puts = [(0.0, item) for item in objects if item["kind"] == "Service"]
    puts += [(e.at, e.args[0]) for e in events if e.what == PUT and e.args[0]["kind"] == "Service"]
    if not puts:
        return
    draws = (_addresses, _range, _burst, _drifts, _last, _recovery)
    for draw in rng.sample(draws, rng.choice([1, 2])):
        at, item = rng.choice(puts)
        begins = max(at, IN_FORCE_S) + (calm_at - IN_FORCE_S) * rng.random() / 2
        yield from draw(rng, item, calm_at - _LAST_S if draw is _last else begins)


def _addresses(rng: Random, item: Object, at: float) -> Iterator[Event]:
    """Add and remove addresses of the node."""
    for ips in rng.sample(_ADDRESSES, rng.choice([1, 2, 3])):
        yield Event(at, ADDRESSES, (ips,))
        for _ in range(3):
            yield client_of(rng, item, at + rng.choice([0.01, 0.5, 2.5]) * rng.random(), ips[-1])
        at += rng.choice([0.005, 0.5, 2.0])


def _range(rng: Random, item: Object, at: float) -> Iterator[Event]:
    """Let other programs take all free proxy ports when a Service is created."""
    seconds = rng.choice([0.5, 2.0, 4.0, 9.0])
    item = without_health_check(item)
    yield Event(at - _AWAY_S, DELETE, (key_of(item),))
    yield Event(at - 0.05, RANGE, (seconds,))
    yield Event(at, PUT, (item,))
    for _ in range(3):
        yield client_of(rng, item, at + 2 * seconds * rng.random(), NODE_IP)


def _burst(rng: Random, item: Object, at: float) -> Iterator[Event]:
    """Let many clients dial together, sometimes while none is accepted."""
    kind = rng.choice(["", STOP, CRASH])
    if kind == STOP:
        yield Event(at - 0.01, STOP, (False, rng.randint(0, 1), rng.choice([0.1, 0.5])))
    elif kind == CRASH:
        yield Event(at - 0.1, CRASH)
    port = rng.choice(item["spec"]["ports"])
    for _ in range(rng.choice([6, 12])):
        dialled = (item["spec"]["clusterIP"], port["port"], port["protocol"])
        yield Event(at + 0.0002 * rng.random(), CLIENT, (rng.choice(DIALLERS), dialled, 0.0))


def _drifts(rng: Random, item: Object, at: float) -> Iterator[Event]:
    """Let another program change rules repeatedly, and the kernel refuse some repairs."""
    for _ in range(rng.choice([2, 3])):
        if rng.random() < 0.5:
            yield Event(at, REFUSE, (rng.choice([1, 2]),))
        yield Event(at, DRIFT, (rng.choice(DRIFTS), rng.randrange(1000)))
        yield client_of(rng, item, at + _NOTICED_S, NODE_IP)
        at += rng.choice([0.3, _NOTICED_S])


def _recovery(rng: Random, item: Object, at: float) -> Iterator[Event]:
    """Merge a Service's two ports after a crash; the first rules may be refused."""
    apart = with_health_check(item)
    yield from merge_in_crash(apart, at)
    if rng.random() < 0.7:
        yield Event(at + 0.01, REFUSE, (1,))
    for _ in range(3):
        yield client_of(rng, apart, at + rng.choice([0.1, 1.2]) * rng.random(), NODE_IP)


def merge_in_crash(apart: Object, at: float) -> Iterator[Event]:
    """Merge the two ports of a Service with a local policy after a crash."""
    left = "externalTrafficPolicy", "healthCheckNodePort"
    spec = {name: each for name, each in apart["spec"].items() if name not in left}
    for each in apart, slice_of(apart):
        yield Event(max(0.0, at - IN_FORCE_S), PUT, (each,))
    yield Event(at, CRASH)
    yield Event(at + 0.005, PUT, ({**apart, "spec": spec},))


def _last(rng: Random, item: Object, at: float) -> Iterator[Event]:
    """Let a Service lack ports at the end of a run: no later change triggers another round."""
    item = with_health_check(item)
    spec = item["spec"]
    ports = [(port["nodePort"], port["protocol"] == "TCP") for port in spec["ports"]]
    for number, is_tcp in (*ports, (spec["healthCheckNodePort"], True)):
        if rng.random() < 0.7:
            yield Event(at - 0.01, TAKE, (number, is_tcp, 1.0))
    yield Event(at, PUT, (item,))
