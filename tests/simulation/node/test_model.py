"""Tests of what the model of a node takes for right where it can't know what an agent has seen."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Sequence
from dataclasses import replace

import pytest

from ..control.machine import Speed
from ..plan import Event
from .claims import key_of
from .expecting import Expecting
from .lacks import NOT_CAPTURED
from .objects import EndpointSpec, PortSpec, ServiceSpec, node_object
from .plan import (
    LOOPBACK_IP,
    NODE,
    NODE_IP,
    OTHERS,
    PUT,
    SHORT,
    SLOW,
    TAKE,
    Object,
    Plan,
    Settings,
)
from .world import World

BALANCER_IP, CLIENT_IP, NODE_PORT = "203.0.113.2", "10.3.0.1", 30010
AT = BALANCER_IP, 80, "TCP"


def balanced(number: int, *, is_local: bool = False) -> ServiceSpec:
    """Return a Service with an endpoint of this node and one of another one."""
    name = f"web-{number}"
    here, elsewhere = f"10.2.0.{number}", f"10.2.1.{number}"
    return ServiceSpec(
        "lab",
        name,
        name,
        "2026-01-01T00:00:00Z",
        "10.96.0.1",
        [PortSpec("http", 80, node_port=NODE_PORT)],
        [[EndpointSpec(here, NODE), EndpointSpec(elsewhere, OTHERS[0])]],
        "LoadBalancer",
        balancer_ips=[BALANCER_IP],
        is_external_local=is_local,
    )


def a_plan(objects: Iterable[Object] = (), events: Sequence[Event] = ()) -> Plan:
    """Return a plan in which nothing else happens."""
    return Plan(
        seed=0,
        features=frozenset(),
        workers=1,
        keeps_workers=False,
        keeps_state=False,
        speed=Speed(latency_s=0.0005, start_s=0.05, room=65536),
        objects=(node_object(), *objects),
        events=tuple(events),
        has_api=False,
        endpoint_s=0.0,
        agent_dies_at=(),
        calm_at=6.0,
        queue=4096,
        settings=Settings(),
        addresses=(LOOPBACK_IP, NODE_IP),
        crowd=0,
    )


def allowed(*services: ServiceSpec) -> set[str]:
    """Return what a client may get at an address that Services have had one after another."""
    world = World(a_plan())
    for service in services:
        world.cluster.put(*service.objects())
        if service is not services[-1]:
            world.cluster.delete(key_of(service.service()))
    expecting = Expecting(world)
    found = expecting.at_moments(expecting.moments(world.freshness.floors()), CLIENT_IP, AT)
    return {ip for each in found for ip, _ in each.endpoints}


def test_an_address_of_another_service_may_be_at_the_port_that_its_last_owner_shared() -> None:
    local, all_nodes = balanced(1, is_local=True), balanced(2)
    assert allowed(all_nodes, local) == {"10.2.0.1", "10.2.1.1", "10.2.0.2", "10.2.1.2"}
    assert allowed(local, all_nodes) == {"10.2.0.1", "10.2.0.2", "10.2.1.2"}
    assert allowed(balanced(2, is_local=True), local) == {"10.2.0.1", "10.2.0.2"}


@pytest.mark.parametrize(
    ("taken_at", "call", "excused"), [(1.55, "socket", 1), (1.45, "socket", 0), (1.55, "listen", 0)]
)
def test_an_agent_without_a_socket_may_have_a_node_port_before_another_program(
    taken_at: float, call: str, excused: int
) -> None:
    service = balanced(1)
    inside = replace(service, type="ClusterIP")
    events = (
        Event(1.0, SLOW, (0.2,)),
        Event(1.4, SHORT, (call, errno.ENFILE, 0, 1.0)),
        Event(1.5, PUT, (service.service(),)),
        Event(taken_at, TAKE, (NODE_PORT, True, 3.0)),
    )
    world = World(a_plan(inside.objects(), events))
    assert world.run() == []
    reasons = {reason for oracle, reason in world.judgements.excused if oracle == NOT_CAPTURED}
    assert len(reasons) == excused
