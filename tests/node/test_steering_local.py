"""Local steering in a real namespace: the contract, the routes, and traffic."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
import steering_nodes as nodes
from steering_contract import CART, DNS, WEB, KernelSteeringContract

from userspace_proxy.errors import SteeringConflict, SteeringError
from userspace_proxy.model import Frontend
from userspace_proxy.steering import REFUSE, Steering, SteeringFacts, make_steering

pytestmark = pytest.mark.netns
FACTS = SteeringFacts(service_cidrs=("10.96.0.0/16", "fd00:96::/112"))


@pytest.fixture
def node():
    """The node of a pair; the test's thread stands in it."""
    nodes.need_namespaces()
    cluster = nodes.Cluster()
    with cluster.node:
        yield cluster.node
    cluster.close()


def our_routes(node: nodes.Net) -> str:
    return node.run("ip route show table local proto 117; ip -6 route show table local proto 117")


class TestLocalSteering(KernelSteeringContract):
    facts = FACTS

    @pytest.fixture
    def steerings(self, node):
        self.node = node
        return lambda: make_steering("local", self.facts, own_namespace=True)

    def in_force(self) -> str:
        # Link-local routes come when the kernel is done with its address detection.
        return self.node.run(
            "ip route show table all; ip -6 route show table all | grep -v -e fe80 -e ff00"
        )

    @contextmanager
    def obstacle(self, frontend: Frontend):
        self.node.run(f"ip route add local {frontend.ip} dev lo proto static")
        yield
        self.node.run(f"ip route del local {frontend.ip} dev lo proto static")

    def break_it(self, steering: Steering) -> None:
        self.node.run("ip route flush table local proto 117")


class TestLocalSteeringWithoutServiceRanges(TestLocalSteering):
    facts = SteeringFacts()


async def test_ranges_are_routed_with_the_nodes_address_as_source(node):
    steering = make_steering(
        "local",
        SteeringFacts(FACTS.service_cidrs, node_addresses=("192.0.2.9", nodes.NODE_IP)),
        own_namespace=True,
    )
    await steering.apply({WEB: 80})
    assert our_routes(node) == (
        "local 10.96.0.0/16 dev lo scope host src 10.1.0.1 \n"
        "local fd00:96::/112 dev lo metric 1024 pref medium\n"
    )
    await steering.close()


async def test_without_ranges_each_address_has_a_route_of_its_own(node):
    steering = make_steering("local", SteeringFacts(), own_namespace=True)
    own = Frontend(nodes.NODE_IP, 30080, WEB.protocol)
    loopback = Frontend("127.0.0.9", 80, WEB.protocol)
    await steering.apply({WEB: 80, CART: REFUSE, own: 30080, loopback: 80})
    assert our_routes(node) == (
        "local 10.96.7.1 dev lo scope host \nlocal 10.96.7.2 dev lo scope host \n"
    )
    assert "127.0.0.9:80" in await steering.render()
    await steering.close()


async def test_a_route_of_somebody_else_is_a_conflict(node):
    node.run("ip route add local 10.96.0.0/16 dev lo proto static")
    steering = make_steering("local", FACTS, own_namespace=True)
    with pytest.raises(SteeringConflict) as caught:
        await steering.apply({WEB: 80})
    assert str(caught.value) == (
        "cannot route 10.96.0.0/16 here: already routed by protocol number 4 "
        "(stop the program that routes it, or run with --steering=none)"
    )
    assert our_routes(node) == ""
    await steering.close()


async def test_it_refuses_to_run_on_a_real_node(node):
    steering = make_steering("local", FACTS)
    with pytest.raises(SteeringError, match="every daemon on"):
        await steering.start()
    with pytest.raises(SteeringError, match="every daemon on"):
        await steering.apply({WEB: 80})
    await steering.clean_up()
    assert our_routes(node) == ""
    await steering.close()


async def test_the_node_reaches_a_listener_on_the_frontend_and_is_refused_elsewhere(node):
    steering = make_steering("local", FACTS, own_namespace=True)
    await steering.apply({WEB: 80})
    server = node.tcp()
    server.bind((WEB.ip, 80))
    server.listen()
    assert nodes.can_dial(node, WEB.ip, 80)
    assert not nodes.can_dial(node, CART.ip, 80)
    client = node.udp()
    client.connect((DNS.ip, DNS.port))
    assert nodes.is_refused(client)
    server.close()
    client.close()
    await steering.close()
