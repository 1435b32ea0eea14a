"""Draws shortages of a node's resources while Services are added and changed."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from random import Random

from ..plan import Event
from .plan import (
    FIRST_PROXY_PORT,
    NODE_IP,
    OTHER_PODS,
    OWN_PODS,
    PUT,
    SHORT,
    TAKE,
    Object,
)
from .shapes import client_of, endpoint

LACKING = 0.3
"""The share of plans in which a resource runs short."""

_SECONDS = (0.3, 1.5, 3.0)
_CALLS = (
    ("socket", errno.EMFILE),
    ("socket", errno.ENFILE),
    ("socket", errno.ENOBUFS),
    ("bind", errno.ENOMEM),
    ("listen", errno.ENOMEM),
    ("listen", errno.ENOBUFS),
    ("rendezvous", errno.EMFILE),
)
# The time until a Service gets its node ports back.
_APART_S = 0.6


def what_lacks(
    rng: Random, objects: Sequence[Object], events: Sequence[Event], calm_at: float
) -> Iterator[Event]:
    """Yield events that occupy ports of Services, or make the agent's system calls fail."""
    puts = [(0.5 + rng.random(), item) for item in objects if item["kind"] == "Service"]
    puts += [(e.at, e.args[0]) for e in events if e.what == PUT and e.args[0]["kind"] == "Service"]
    for _ in range(rng.randint(1, 3) if puts else 0):
        at, item = rng.choice(puts)
        at, seconds = max(at, _APART_S), rng.choice(_SECONDS)
        item = with_health_check(item) if rng.random() < 0.4 else without_health_check(item)
        # Write the Service without its node ports and health check port, then with them.
        yield Event(at - _APART_S, PUT, (_inside(item),))
        yield Event(at, PUT, (item,))
        if rng.random() < 0.6:
            for number, is_tcp in _ports(rng, item):
                yield Event(at - 0.05, TAKE, (number, is_tcp, seconds))
        else:
            call, error = rng.choice(_CALLS)
            yield Event(at - 0.01, SHORT, (call, error, rng.choice([0, 0, 1, 2]), seconds))
        for _ in range(2):
            yield client_of(rng, item, at + 0.1 + 2 * seconds * rng.random(), NODE_IP)


def _ports(rng: Random, item: Object) -> Iterator[tuple[int, bool]]:
    spec = item["spec"]
    numbers = [
        (port["nodePort"], port["protocol"] == "TCP")
        for port in spec["ports"]
        if port.get("nodePort")
    ]
    if number := spec.get("healthCheckNodePort"):
        numbers.append((number, True))
    first = FIRST_PROXY_PORT
    if not numbers or rng.random() < 0.3:
        numbers += [(first + n, rng.random() < 0.8) for n in range(rng.choice([1, 6]))]
    yield from numbers


def _inside(item: Object) -> Object:
    """Return a Service without node ports and external addresses."""
    spec = {
        name: value
        for name, value in item["spec"].items()
        if name not in ("externalIPs", "healthCheckNodePort", "externalTrafficPolicy")
    }
    spec["type"] = "ClusterIP"
    spec["ports"] = [
        {name: value for name, value in port.items() if name != "nodePort"}
        for port in spec["ports"]
    ]
    return {**item, "spec": spec}


def with_health_check(item: Object) -> Object:
    """Return a Service with a load balancer that probes this node's health check port."""
    spec, number = dict(item["spec"]), _number_of(item["metadata"])
    spec |= {"type": "LoadBalancer", "externalTrafficPolicy": "Local"}
    spec["healthCheckNodePort"] = 31200 + number
    spec["ports"] = [
        {**port, "nodePort": 30200 + 3 * number + n} for n, port in enumerate(spec["ports"])
    ]
    return {**item, "spec": spec}


def _number_of(metadata: Object) -> int:
    """Return a number that is unique among a plan's Services, even if they exchange addresses.

    The API server allocates a health check node port to only one Service.
    """
    whole = str(metadata["name"])
    name = whole.rstrip("x")
    is_other = str(metadata["namespace"]) == "lab"
    return 16 * (2 * int(name.rpartition("-")[2]) + is_other) + (len(whole) - len(name)) % 16


def without_health_check(item: Object) -> Object:
    """Return a Service without the health check node port, which its replacement may have."""
    spec = {name: each for name, each in item["spec"].items() if name != "healthCheckNodePort"}
    return {**item, "spec": spec}


def bursts(rng: Random, objects: Sequence[Object], calm_at: float) -> Iterator[Event]:
    """Yield changes of all slices at the same time, each with many endpoints."""
    slices = [item for item in objects if item["kind"] == "EndpointSlice"]
    for _ in range(rng.choice([1, 2])):
        at = round(calm_at * rng.random(), 4)
        for item in slices:
            ips = rng.sample(OWN_PODS + OTHER_PODS, rng.choice([4, 6, 8]))
            yield Event(at, PUT, ({**item, "endpoints": [endpoint(ip) for ip in ips]},))
