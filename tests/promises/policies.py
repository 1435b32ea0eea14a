"""Traffic policies, and the health check node ports that load balancers probe.

external Local, endpoints elsewhere only:   laptop ──X (silence)     pod, node ──▶ endpoint
"""

from __future__ import annotations

import json

from tests.node.clients import read_all

from .specs import ELSEWHERE, At, Port, Spec
from .world import INSIDE, Address, World

LB_IP = "203.0.113.11"
BOTH = (Port(80, name="web", node_port=30120), Port(80, "UDP", name="dns", node_port=30120))
INTERNAL = Spec("internal", ["10.96.4.1"], more={"internalTrafficPolicy": "Local"})
CHECK_PORT = 30121
LOCAL = {"type": "LoadBalancer", "externalTrafficPolicy": "Local"}
EXTERNAL = Spec(
    "external",
    ["10.96.4.2"],
    BOTH,
    more={**LOCAL, "healthCheckNodePort": CHECK_PORT},
    ingress=[{"ip": LB_IP}],
)
CLUSTER = EXTERNAL.but(more={"type": "LoadBalancer"})
CHECKED = EXTERNAL.but(
    name="checked",
    ips=["10.96.4.3"],
    ports=[Port(node_port=30122)],
    more={**LOCAL, "healthCheckNodePort": 30123},
    ingress=(),
)


def far(ip: str) -> At:
    """Return an endpoint on another node."""
    return At(ip, node=ELSEWHERE)


class TestPolicies:
    """Traffic policies. Source: e2e service.go, "… internalTrafficPolicy …", and "ESIPP"."""

    def test_internal_local_uses_only_this_nodes_endpoints(self, world: World) -> None:
        one, two, three = world.pods()
        world.put(INTERNAL.at(one, far(two), three))
        for client in INSIDE:
            assert world.all_of(client, INTERNAL.address) == {"one", "three"}

    def test_internal_local_drops_clients_without_a_local_endpoint(self, world: World) -> None:
        world.put(INTERNAL.at(far(world.ip("one"))))
        assert world.by_client(INTERNAL.address) == dict.fromkeys(world.testbed.clients, "silence")
        world.put(INTERNAL)
        assert world.by_client(INTERNAL.address) == dict.fromkeys(world.testbed.clients, "refused")

    def test_internal_local_can_be_toggled_on_a_live_service(self, world: World) -> None:
        at = INTERNAL.at(far(world.ip("one")))
        for policy, who in {"Cluster": "one", "Local": "silence"}.items():
            world.put(at.but(more={"internalTrafficPolicy": policy}))
            assert world.who("pod", INTERNAL.address) == who
        world.put(at.but(more={}))
        assert world.who("pod", INTERNAL.address) == "one"

    def test_external_local_sends_outside_clients_to_this_nodes_endpoints(
        self, world: World
    ) -> None:
        one, two, three = world.pods()
        world.put(EXTERNAL.at(one, far(two), three))
        for protocol, at in outside(world):
            assert world.all_of("laptop", at, protocol) == {"one", "three"}
            assert world.all_of("pod", at, protocol) == {"one", "two", "three"}
            assert world.all_of("node-1", at, protocol) == {"one", "two", "three"}
        for protocol in ("TCP", "UDP"):
            said = world.all_of("laptop", EXTERNAL.address, protocol)
            assert said == {"one", "two", "three"}

    def test_external_local_drops_outside_clients_without_a_local_endpoint(
        self, world: World
    ) -> None:
        world.put(EXTERNAL.at(far(world.ip("one"))))
        said = world.answers(
            (client, at, protocol)
            for client in world.testbed.clients
            for protocol, at in (*outside(world), ("TCP", EXTERNAL.address))
        )
        dropped = {("laptop", at, protocol) for protocol, at in outside(world)}
        assert said == {ask: "silence" if ask in dropped else "one" for ask in said}

    def test_external_local_refuses_clients_without_any_endpoint(self, world: World) -> None:
        world.put(EXTERNAL)
        for protocol, at in outside(world):
            said = world.by_client(at, protocol)
            assert said == dict.fromkeys(world.testbed.clients, "refused"), (protocol, at)

    def test_external_local_can_be_toggled_on_a_live_service(self, world: World) -> None:
        at, (one, two) = (world.ip("node-1"), 30120), world.pods("one", "two")
        world.put(CLUSTER.at(one, far(two)))
        assert world.all_of("laptop", at) == {"one", "two"}
        world.put(EXTERNAL.at(one, far(two)))
        assert world.all_of("laptop", at) == {"one"}
        world.put(EXTERNAL.at(far(two)))
        assert world.who("laptop", at) == "silence"
        world.put(CLUSTER.at(far(two)))
        assert world.who("laptop", at) == "two"

    def test_external_local_uses_a_local_terminating_endpoint_rather_than_a_remote_ready_one(
        self, world: World
    ) -> None:
        """Source: e2e "should fallback to local terminating endpoints …" (KEP-1669)."""
        one, two = world.pods("one", "two")
        here = At(one, ready=False, serving=True, terminating=True)
        world.put(EXTERNAL.at(here, far(two)))
        assert world.all_of("laptop", (LB_IP, 80)) == {"one"}
        assert world.all_of("pod", (LB_IP, 80)) == {"two"}

    def test_a_health_check_node_port_counts_this_nodes_ready_endpoints(self, world: World) -> None:
        one, two, three = world.pods()
        leaving = At(three, ready=False, serving=True, terminating=True)
        for endpoints, count in (((one, two, leaving), 2), ((one, far(two)), 1), ((far(one),), 0)):
            world.put(CHECKED.at(*endpoints))
            assert check(world, 30123) == (200 if count else 503, count)

    def test_a_health_check_node_port_closes_once_the_policy_is_cluster(self, world: World) -> None:
        world.put(CHECKED.at(*world.pods("one")))
        assert check(world, 30123)[0] == 200
        world.put(CHECKED.but(more={"type": "LoadBalancer"}).at(*world.pods("one")))
        assert world.who("laptop", (world.ip("node-1"), 30123)) == "refused"
        assert world.who("laptop", (world.ip("node-1"), 30122)) == "one"


def outside(world: World) -> list[tuple[str, Address]]:
    """Return the protocols and addresses at which clients outside dial EXTERNAL."""
    ats = ((world.ip("node-1"), 30120), (LB_IP, 80))
    return [(protocol, at) for protocol in ("TCP", "UDP") for at in ats]


def check(world: World, port: int) -> tuple[int, int]:
    """Probe a health check node port, like a load balancer; return status and local endpoints."""
    address = (world.ip("node-1"), port)
    with world.testbed["laptop"].tcp() as sock:
        sock.connect(address)
        sock.sendall(b"GET /healthz HTTP/1.1\r\nHost: node-1\r\nConnection: close\r\n\r\n")
        head, _, body = read_all(sock).partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)["localEndpoints"]
