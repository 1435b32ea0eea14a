"""Draws restarts in unusual states, with few other events that could excuse failures.

The API server is unavailable, ports and addresses have other owners, rules are refused, or workers
have died.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from random import Random

from ..plan import Event
from .drawing_lacks import with_health_check
from .drawing_outside import IN_FORCE_S, merge_in_crash
from .lacks import FILTER
from .plan import (
    ADDRESSES,
    API,
    CLIENT,
    CLOCK,
    CRASH,
    DISK,
    END,
    FIRST_PROXY_PORT,
    KILL,
    LOOPBACK_IP,
    NODE_IP,
    OTHER_NODE_IP,
    OTHER_PODS,
    PUT,
    REFUSE,
    SHORT,
    STOP,
    TAKE,
    ZONE,
    Object,
)
from .shapes import client_of, slice_of

RESTARTS = 0.25
"""The share of plans with restarts in unusual states."""
QUIET = 0.25
"""The share of other features in such a plan."""

KEPT = 0.4
"""The share of these plans whose workers outlast their agent; in others, ports are recovered."""
CROWDED = 0.03
"""The share of plans in which other programs have more ports than an agent tries at once."""
CROWD = 300

_DENIED, _ADMITTED = "10.3.9.0/24", "10.3.0.0/24"
_BARRED = "10.3.9.2"
"""A client in the network ``_DENIED``."""
# The interval at which the agent writes its state.
_WRITTEN_S = 5.5


def restarts(
    rng: Random, objects: Sequence[Object], events: Sequence[Event], calm_at: float
) -> Iterator[Event]:
    """Yield the events of one or two restarts, with affected clients."""
    services = [item for item in objects if item["kind"] == "Service"]
    services += [
        e.args[0] for e in events if e.what == PUT and e.args[0]["kind"] == "Service" and e.at < 1.0
    ]
    draws = (
        _without_server,
        _full_disk,
        _taken_port,
        _taken_apart,
        _merged_sides,
        _released_in_shortage,
        _worker_that_can_not_start,
        _udp_port_and_death,
        _refused_filter,
        _barred_in_recovery,
        _clients_of_new_address,
    )
    for draw in rng.sample(draws, rng.choice([1, 2])) if services else ():
        at = IN_FORCE_S + max(0.0, calm_at - 2 * IN_FORCE_S) * rng.random()
        yield from draw(rng, rng.choice(services), at)


def _without_server(rng: Random, item: Object, at: float) -> Iterator[Event]:
    """Start an agent while the API server is unavailable: it has only the saved state."""
    yield Event(0.1, PUT, (item,))
    yield Event(0.1, PUT, (_hinted(item),))
    if rng.random() < 0.5:
        at += _WRITTEN_S
    yield Event(at, API, rng.choice([("restart", 4.0), ("refuse", 503, 4.0)]))
    yield Event(at + 0.01, rng.choice([CRASH, CRASH, END]))
    if rng.random() < 0.3:
        yield Event(at + 0.005, CLOCK, (rng.choice([-86400.0, -1.0, 3600.0, 1e8]),))
    for _ in range(5):
        yield client_of(rng, item, at + 0.3 + 3.0 * rng.random(), NODE_IP)
    if rng.random() < 0.4:
        # The agent exits before its first round, and removes the last agent's leftovers.
        yield Event(at + rng.choice([1.0, 3.0]), END)


def _full_disk(rng: Random, item: Object, at: float) -> Iterator[Event]:
    """Change a slice while the disk is full; the agent may exit once the disk has room again."""
    yield Event(0.1, PUT, (item,))
    yield Event(at, DISK, ("full",))
    yield Event(at + 0.05, PUT, (slice_of(item, rng.sample(OTHER_PODS, 2)),))
    yield Event(at + rng.choice([0.5, _WRITTEN_S]), DISK, ("well",))
    if rng.random() < 0.5:
        yield Event(at + _WRITTEN_S + 3.5, END)


def _taken_port(rng: Random, item: Object, at: float) -> Iterator[Event]:
    """Give another program a port to which a dead agent's rules point."""
    yield Event(0.1, PUT, (item,))
    yield Event(0.1, PUT, (slice_of(item),))
    yield Event(at, API, ("restart", rng.choice([0.5, 2.0])))
    yield Event(at, CRASH)
    if rng.random() < 0.6:
        # The saved state is too old: the agent can serve nothing before the API server answers.
        yield Event(at + 0.005, CLOCK, (1e8,))
    for number in rng.sample(range(FIRST_PROXY_PORT, FIRST_PROXY_PORT + 5), 2):
        yield Event(at + 0.01, TAKE, (number, True, rng.choice([0.3, 2.0])))
    if rng.random() < 0.5:
        yield Event(at + 0.02, REFUSE, (rng.choice([1, 2]),))
    for _ in range(5):
        yield client_of(rng, item, at + 0.15 + rng.random(), NODE_IP)


def _taken_apart(rng: Random, item: Object, at: float) -> Iterator[Event]:
    """Let other programs take two node ports of a Service, one of them for longer."""
    spec = item["spec"]
    ports = [
        {"name": "http", "port": 80, "protocol": "TCP", "targetPort": 8080},
        {"name": "admin", "port": 81, "protocol": "TCP", "targetPort": 8081},
    ]
    inside = {**item, "spec": {**spec, "type": "ClusterIP", "ports": ports}}
    outside = with_health_check(inside)
    for each in inside, slice_of(inside):
        yield Event(max(0.0, at - IN_FORCE_S), PUT, (each,))
    numbers = [port["nodePort"] for port in outside["spec"]["ports"]]
    short, long = rng.sample(numbers, 2)
    yield Event(at - 0.05, TAKE, (short, True, 0.5))
    yield Event(at - 0.05, TAKE, (long, True, 6.0))
    yield Event(at, PUT, (outside,))
    for _ in range(3):
        yield _dial(at + IN_FORCE_S + 3.0 * rng.random(), "10.3.0.1", (NODE_IP, short, "TCP"))


def _merged_sides(rng: Random, item: Object, at: float) -> Iterator[Event]:
    """Merge a Service's two ports after a crash, while its rules are refused."""
    apart = with_health_check(item)
    yield from merge_in_crash(apart, at)
    yield Event(at + 0.01, REFUSE, (rng.choice([1, 2, 3]),))
    for _ in range(4):
        yield client_of(rng, apart, at + 0.1 + 1.2 * rng.random(), NODE_IP)


def _released_in_shortage(rng: Random, item: Object, at: float) -> Iterator[Event]:
    """Give a Service node ports that can't be bound, and remove them before they can be."""
    yield Event(max(0.0, at - 1.0), PUT, (item,))
    yield Event(at - 0.01, SHORT, ("bind", errno.ENOMEM, 0, 1.5))
    yield Event(at, PUT, (with_health_check(item),))
    yield Event(at + rng.choice([0.1, 0.6, 1.2]), PUT, (item,))


def _worker_that_can_not_start(rng: Random, item: Object, at: float) -> Iterator[Event]:
    """Kill a worker while descriptors are short, so that it can't be replaced immediately."""
    del item
    what = rng.choice(["rendezvous", "clone"])
    yield Event(at - 0.01, SHORT, (what, errno.EMFILE, rng.choice([0, 0, 1]), 0.5))
    for _ in range(rng.choice([1, 2])):
        yield Event(at + 0.3 * rng.random(), KILL, (rng.randint(0, 1),))


def _udp_port_and_death(rng: Random, item: Object, at: float) -> Iterator[Event]:
    """Remove a UDP port while a worker is slow to close it, or dies instead."""
    spec = item["spec"]
    ports = [{"name": "dns", "port": 53, "protocol": "UDP", "targetPort": 5353}]
    item = {**item, "spec": {**spec, "ports": [*spec["ports"][:1], *ports]}}
    without = {**item, "spec": {**spec, "ports": spec["ports"][:1]}}
    yield Event(max(0.0, at - IN_FORCE_S), PUT, (item,))
    yield Event(max(0.0, at - IN_FORCE_S), PUT, (slice_of(item),))
    if rng.random() < 0.7:
        yield Event(at - 0.01, STOP, (False, 0, 0.3))
        yield Event(at + 0.15, KILL, (0,))
    else:
        yield Event(at + 0.01 * rng.random(), KILL, (0,))
    yield Event(at, PUT, (without,))
    yield Event(at + rng.choice([0.05, 1.0]), PUT, (item,))
    for _ in range(2):
        yield client_of(rng, item, at + 2.5 * rng.random(), NODE_IP)


def _refused_filter(rng: Random, item: Object, at: float) -> Iterator[Event]:
    """Change a Service's source ranges, and let the kernel refuse the filter for a while."""
    for each in _balanced(item, _DENIED), slice_of(item):
        yield Event(max(0.0, at - IN_FORCE_S), PUT, (each,))
    yield Event(at - 0.01, SHORT, (FILTER, errno.ENOMEM, 0, 4.0))
    yield Event(at, PUT, (_balanced(item, _ADMITTED),))
    for client in (_BARRED, _BARRED, "10.3.0.1"):
        yield _dial(at + IN_FORCE_S + rng.random(), client, _balancer_of(item))


def _barred_in_recovery(rng: Random, item: Object, at: float) -> Iterator[Event]:
    """Dial from outside a Service's source ranges while its port is recovered."""
    for each in _balanced(item, _ADMITTED), slice_of(item):
        yield Event(max(0.0, at - IN_FORCE_S), PUT, (each,))
    yield Event(at, API, ("restart", 0.5))
    yield Event(at, CRASH)
    yield Event(at + 0.005, CLOCK, (1e8,))
    for _ in range(4):
        yield _dial(at + 0.1 + 0.6 * rng.random(), _BARRED, _balancer_of(item))


def _balanced(item: Object, ranges: str) -> Object:
    """Return a Service with a load balancer that admits clients of one network."""
    spec = {**item["spec"], "type": "LoadBalancer", "loadBalancerSourceRanges": [ranges]}
    ingress = [{"ip": _balancer_of(item)[0]}]
    return {**item, "spec": spec, "status": {"loadBalancer": {"ingress": ingress}}}


def _balancer_of(item: Object) -> tuple[str, int, str]:
    """Return the address, port and protocol of a Service at its load balancer."""
    spec = item["spec"]
    number = spec["clusterIP"].rpartition(".")[2]
    return f"203.0.113.{number}", 80, str(spec["ports"][0]["protocol"])


def _clients_of_new_address(rng: Random, item: Object, at: float) -> Iterator[Event]:
    """Add a node address, from which programs of the node dial Services with remote endpoints."""
    local = with_health_check(item)
    for each in local, slice_of(item, rng.sample(OTHER_PODS, 2)):
        yield Event(max(0.0, at - IN_FORCE_S), PUT, (each,))
    ips = rng.choice([(LOOPBACK_IP, NODE_IP, OTHER_NODE_IP), (LOOPBACK_IP, OTHER_NODE_IP)])
    yield Event(at, ADDRESSES, (ips,))
    port = local["spec"]["ports"][0]
    for ip in (OTHER_NODE_IP, NODE_IP, OTHER_NODE_IP):
        dialled = (OTHER_NODE_IP, port["nodePort"], port["protocol"])
        yield _dial(at + IN_FORCE_S + rng.random(), ip, dialled)
    if rng.random() < 0.5:
        yield Event(at + 2 * IN_FORCE_S, ADDRESSES, ((LOOPBACK_IP, NODE_IP),))


def _dial(at: float, client: str, to: tuple[str, int, str]) -> Event:
    return Event(at, CLIENT, (client, to, 0.0))


def _hinted(item: Object) -> Object:
    """Return a slice whose endpoints each have a hint for one zone."""
    whole = slice_of(item)
    zones = (ZONE, "zone-2")
    endpoints = [
        {**each, "hints": {"forZones": [{"name": zone}]}}
        for each, zone in zip(whole["endpoints"], zones, strict=True)
    ]
    return {**whole, "endpoints": endpoints}
