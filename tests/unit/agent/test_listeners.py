"""The listeners follow the plan, for each place where a steering wants them."""

import asyncio
import socket

import pytest

from userspace_proxy.agent.listeners import Listeners
from userspace_proxy.dataplane import DataPlane, PortPool
from userspace_proxy.model import Frontend, Protocol
from userspace_proxy.plan import Plan, Planner, diff_plans
from userspace_proxy.policy import NodeFacts
from userspace_proxy.steering import REFUSE, Bind

from .samples import Cluster

POD = "192.0.2.1"


@pytest.fixture
async def plane():
    plane = DataPlane(asyncio.get_running_loop())
    yield plane
    plane.close()


@pytest.fixture
def make(plane):
    """Listeners that follow snapshots: ``follow(snapshot)`` does what a round does."""

    def make(bind, pool=None):
        listeners = Listeners(plane, bind, pool or PortPool(27000, 27999))
        planner = Planner(NodeFacts())
        have = Plan.empty()

        def follow(snapshot, preferred=None):
            nonlocal have
            want = planner.plan(snapshot)
            changes = diff_plans(have, want)
            for key in changes.close:
                listeners.leave(key)
            for port in changes.update:
                listeners.update(port)
            for port in changes.open:
                listeners.open(port, preferred or {})
            listeners.close_leaving()
            have = want
            return listeners.targets()

        listeners.follow = follow
        return listeners

    return make


def frontend(ip, port=80, protocol=Protocol.TCP):
    return Frontend(ip, port, protocol)


def accepts(ip, port):
    with socket.socket() as sock:
        sock.settimeout(5)
        return sock.connect_ex((ip, port)) == 0


async def test_a_service_port_has_one_proxy_port_out_of_the_range(make):
    targets = make(Bind.PROXY_PORT).follow(Cluster().serve("web", "10.96.0.1", POD))
    assert targets.keys() == {frontend("10.96.0.1")}
    port = targets[frontend("10.96.0.1")]
    assert 27000 <= port <= 27999
    assert accepts("127.0.0.1", port)


async def test_without_usable_endpoints_the_target_is_refuse_and_the_port_is_kept(make):
    cluster, listeners = Cluster(), make(Bind.PROXY_PORT)
    port = listeners.follow(cluster.serve("web", "10.96.0.1", POD))[frontend("10.96.0.1")]
    assert listeners.follow(cluster.serve("web", "10.96.0.1")) == {frontend("10.96.0.1"): REFUSE}
    assert not accepts("127.0.0.1", port)
    assert listeners.follow(cluster.serve("web", "10.96.0.1", POD)) == {frontend("10.96.0.1"): port}
    assert accepts("127.0.0.1", port)


async def test_the_port_that_rules_of_an_earlier_run_name_is_taken_again(make):
    preferred = {frontend("10.96.0.1"): 27123}
    targets = make(Bind.PROXY_PORT).follow(Cluster().serve("web", "10.96.0.1", POD), preferred)
    assert targets == {frontend("10.96.0.1"): 27123}


async def test_a_port_of_the_range_that_somebody_holds_is_passed_over(make):
    with socket.create_server(("0.0.0.0", 27500)):
        listeners = make(Bind.PROXY_PORT, PortPool(27500, 27501))
        targets = listeners.follow(Cluster().serve("web", "10.96.0.1", POD))
        assert targets == {frontend("10.96.0.1"): 27501}


async def test_an_exhausted_range_is_a_problem_of_the_later_service_alone_until_there_is_room(make):
    cluster, listeners = Cluster(), make(Bind.PROXY_PORT, PortPool(27600, 27600))
    listeners.follow(cluster.serve("cart", "10.96.0.1", POD))
    targets = listeners.follow(cluster.serve("web", "10.96.0.2", POD))
    assert targets == {frontend("10.96.0.1"): 27600, frontend("10.96.0.2"): REFUSE}
    problems = [served.problem for served in listeners]
    assert problems == [
        "",
        (
            "cannot listen for shop/web: every proxy port of 27600-27600 is in use "
            "(widen --proxy-port-range)"
        ),
    ]
    assert not listeners.retry()
    listeners.follow(cluster.remove("cart"))
    assert listeners.retry()
    assert listeners.targets() == {frontend("10.96.0.2"): 27600}
    assert not listeners.has_problems


async def test_a_changed_protocol_is_another_socket(make):
    cluster, listeners = Cluster(), make(Bind.PROXY_PORT)
    listeners.follow(cluster.serve("web", "10.96.0.1", POD))
    targets = listeners.follow(cluster.serve("web", "10.96.0.1", POD, protocol="UDP"))
    assert targets.keys() == {frontend("10.96.0.1", protocol=Protocol.UDP)}


async def test_a_service_that_changes_its_address_keeps_its_proxy_port(make):
    cluster, listeners = Cluster(), make(Bind.PROXY_PORT)
    (port,) = listeners.follow(cluster.serve("web", "10.96.0.1", POD)).values()
    targets = listeners.follow(cluster.serve("web", "10.96.0.2", POD))
    assert targets == {frontend("10.96.0.2"): port}


async def test_a_udp_port_that_was_taken_meanwhile_is_replaced(make):
    cluster, listeners = Cluster(), make(Bind.PROXY_PORT)
    (port,) = listeners.follow(cluster.serve("dns", "10.96.0.1", POD, protocol="UDP")).values()
    listeners.follow(cluster.serve("dns", "10.96.0.1", protocol="UDP"))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as thief:
        thief.bind(("0.0.0.0", port))
        (other,) = listeners.follow(cluster.serve("dns", "10.96.0.1", POD, protocol="UDP")).values()
    assert other not in (port, REFUSE)
    assert not listeners.has_problems


async def test_a_frontend_is_bound_as_it_is(make):
    targets = make(Bind.FRONTEND).follow(Cluster().serve("web", "127.98.0.1", POD, port=8080))
    assert targets == {frontend("127.98.0.1", 8080): 8080}
    assert accepts("127.98.0.1", 8080)


async def test_an_address_that_moves_to_another_service_is_served_by_it(make):
    cluster, listeners = Cluster(), make(Bind.FRONTEND)
    listeners.follow(cluster.serve("web", "127.98.0.2", POD, port=8080))
    cluster.remove("web")
    targets = listeners.follow(cluster.serve("cart", "127.98.0.2", POD, port=8080))
    assert targets == {frontend("127.98.0.2", 8080): 8080}
    assert not listeners.has_problems


async def test_a_service_that_changes_its_address_listens_there_alone(make):
    cluster, listeners = Cluster(), make(Bind.FRONTEND)
    listeners.follow(cluster.serve("web", "127.98.0.3", POD, port=8080))
    listeners.follow(cluster.serve("web", "127.98.0.4", POD, port=8080))
    assert accepts("127.98.0.4", 8080)
    assert not accepts("127.98.0.3", 8080)


async def test_an_address_of_the_cluster_is_served_on_loopback_at_a_port_of_the_range(make):
    listeners = make(Bind.LOOPBACK)
    (port,) = listeners.follow(Cluster().serve("web", "10.96.0.1", POD)).values()
    assert 27000 <= port <= 27999
    assert accepts("127.0.0.1", port)


async def test_closing_refuses_everything(make):
    listeners = make(Bind.PROXY_PORT)
    (port,) = listeners.follow(Cluster().serve("web", "10.96.0.1", POD)).values()
    listeners.close()
    assert not accepts("127.0.0.1", port)
    assert listeners.targets() == {}
