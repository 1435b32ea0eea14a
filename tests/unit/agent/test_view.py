"""What the page is told about a Service port."""

import asyncio

import pytest

from userspace_proxy.agent.listeners import Listeners
from userspace_proxy.agent.view import view_ignored, view_ports
from userspace_proxy.dataplane import DataPlane, PortPool
from userspace_proxy.plan import Planner
from userspace_proxy.policy import NodeFacts
from userspace_proxy.steering import Bind

from .samples import Cluster

POD_A, POD_B = "192.0.2.1", "192.0.2.2"


@pytest.fixture
async def plane():
    plane = DataPlane(asyncio.get_running_loop())
    yield plane
    plane.close()


def served(plane, bind, snapshot):
    listeners = Listeners(plane, bind, PortPool(26000, 26999))
    for port in Planner(NodeFacts()).plan(snapshot).ports.values():
        listeners.open(port, {})
    return listeners


async def test_a_served_port_names_its_frontends_endpoints_and_proxy_port(plane):
    snapshot = Cluster().serve("web", "10.96.0.1", POD_A, POD_B)
    listeners = served(plane, Bind.PROXY_PORT, snapshot)
    (port,) = listeners.targets().values()
    (view,) = view_ports(listeners, plane, Bind.PROXY_PORT, now=0)
    assert (view.namespace, view.service, view.port, view.family) == ("shop", "web", "", "IPv4")
    assert view.protocol == "TCP"
    assert [(f.address, f.kind, f.target) for f in view.frontends] == [
        ("10.96.0.1:80", "ClusterIP", f"proxy port {port}")
    ]
    assert [(e.address, e.state, e.is_usable) for e in view.endpoints] == [
        (f"{POD_A}:8080", "ready", True),
        (f"{POD_B}:8080", "ready", True),
    ]
    assert view.reason == view.problem == ""


async def test_counters_and_ejections_stand_with_their_endpoint(plane):
    snapshot = Cluster().serve("web", "10.96.0.1", POD_A, POD_B)
    listeners = served(plane, Bind.PROXY_PORT, snapshot)
    (port,) = listeners
    first, second = port.plan.usable
    port.group.counters_of(first).connections = 7
    port.group.counters_of(first).received_bytes = 70
    port.group.balancer.failed(second, now=10.0)
    port.group.counters.refused = 3
    (view,) = view_ports(listeners, plane, Bind.PROXY_PORT, now=11.0)
    assert [(e.connections, e.ejected_for_s) for e in view.endpoints] == [(7, None), (0, 4.0)]
    assert (view.connections, view.received_bytes, view.refused) == (7, 70, 3)


async def test_a_port_without_usable_endpoints_says_refused_and_why(plane):
    listeners = served(plane, Bind.PROXY_PORT, Cluster().serve("web", "10.96.0.1"))
    (view,) = view_ports(listeners, plane, Bind.PROXY_PORT, now=0)
    assert view.frontends[0].target == "refused"
    assert view.reason == "it has no endpoints"


@pytest.mark.parametrize(
    ("bind", "ip", "target"),
    [
        pytest.param(Bind.FRONTEND, "127.97.0.1", "listens there", id="own-address"),
        pytest.param(Bind.LOOPBACK, "127.97.0.2", "listens there", id="loopback-as-asked"),
        pytest.param(Bind.LOOPBACK, "10.96.0.1", "127.0.0.1:26000", id="loopback-elsewhere"),
    ],
)
async def test_a_frontend_says_where_it_is_served(plane, bind, ip, target):
    listeners = served(plane, bind, Cluster().serve("web", ip, POD_A, port=8080))
    (view,) = view_ports(listeners, plane, bind, now=0)
    assert view.frontends[0].target == target


def test_an_ignored_port_is_named_with_its_reason():
    plan = Planner(NodeFacts()).plan(Cluster().serve("web", "10.96.0.1", protocol="SCTP"))
    (view,) = view_ignored(plan)
    assert (view.service, view.port) == ("shop/web", "80")
    assert view.reason == "protocol SCTP is not carried (TCP and UDP are)"
