"""Changes of a Service's type and ports while clients connect; deletion and recreation."""

from __future__ import annotations

import json
from functools import partial
from itertools import pairwise

from .specs import ELSEWHERE, NODE, At, Port, Spec, node_object
from .world import PODS, Address, World, eventually

LB_IP = "203.0.113.10"
NODE_PORT = 30100
CHANGING = Spec("changing", ["10.96.2.1"])
# The sequence contains each change from one type to another once.
ALL_CHANGES = "CNCLCENLNELEC"
SERVED_AT = {
    "C": {"cluster IP"},
    "N": {"cluster IP", "node port"},
    "L": {"cluster IP", "node port", "load balancer"},
    "E": set[str](),
}
MANY = Spec("many-ports", ["10.96.2.2"])
STAYS = Spec("stays", ["10.96.2.3"])
PHOENIX = Spec("phoenix", ["10.96.2.4"], [Port(node_port=30101)], more={"type": "NodePort"})


def of_type(letter: str) -> Spec:
    with_node_port = [Port(node_port=NODE_PORT)]
    match letter:
        case "N":
            return CHANGING.but(ports=with_node_port, more={"type": "NodePort"})
        case "L":
            more = {"type": "LoadBalancer"}
            return CHANGING.but(ports=with_node_port, more=more, ingress=[{"ip": LB_IP}])
        case "E":
            more = {"type": "ExternalName", "externalName": "shop.example.com"}
            return CHANGING.but(ips=(), more=more)
    return CHANGING.but(more={"type": "ClusterIP"})


class TestTypes:
    """Changes of Services. Source: e2e "should be able to change the type …", "… recreate …"."""

    def test_a_service_can_change_between_all_types(self, world: World) -> None:
        assert len(set(pairwise(ALL_CHANGES))) == 12
        addresses: dict[str, Address] = {
            "cluster IP": CHANGING.address,
            "node port": (world.ip("node-1"), NODE_PORT),
            "load balancer": (LB_IP, 80),
        }
        for before, letter in pairwise("E" + ALL_CHANGES):
            world.put(of_type(letter).at(*world.pods("one")))
            served = {what for what, at in addresses.items() if world.serves("laptop", at)}
            assert served == SERVED_AT[letter], f"{before} to {letter}"

    def test_unchanged_ports_are_served_without_interruption(self, world: World) -> None:
        web, second, third = (Port(n, name=f"p{n}") for n in (80, 81, 82))
        world.put(MANY.but(ports=[web, second]).at(*world.pods("one")))
        assert world.who("pod", (MANY.ips[0], 81)) == "one"
        seen: set[str] = set()
        world.put(
            MANY.but(ports=[third, web]).at(*world.pods("one")),
            meanwhile=lambda: seen.add(world.who("pod", MANY.address)),
        )
        assert seen == {"one"}
        assert world.who("pod", (MANY.ips[0], 82)) == "one"
        assert not world.serves("pod", (MANY.ips[0], 81))

    def test_a_target_port_changes_without_interruption(self, world: World) -> None:
        seen = []
        world.put(MANY.at(*world.pods("one")))
        world.put(
            MANY.but(ports=[Port(target=8081)]).at(*world.pods("one")),
            meanwhile=lambda: seen.append(world.who("pod", MANY.address)),
        )
        assert world.who("pod", MANY.address) == "one-new"
        # Answers change from the old to the new target once, and no client is refused.
        assert set(seen) <= {"one", "one-new"}
        assert seen == sorted(seen)

    def test_recreating_a_service_does_not_interrupt_other_services(self, world: World) -> None:
        world.put(PHOENIX.at(*world.pods("one")), STAYS.at(*world.pods()))
        at, seen = (world.ip("node-1"), 30101), set[str]()

        def look() -> None:
            seen.add(world.who("pod", STAYS.address))

        for pod in ("two", "three"):
            world.delete(PHOENIX, meanwhile=look)
            assert not world.serves("laptop", PHOENIX.address)
            assert not world.serves("laptop", at)
            world.put(PHOENIX.at(*world.pods(pod)), meanwhile=look)
            assert world.by_client(PHOENIX.address) == dict.fromkeys(world.testbed.clients, pod)
            assert world.who("laptop", at) == pod
        assert seen == set(PODS)


TAINT = {"key": "ToBeDeletedByClusterAutoscaler", "effect": "NoSchedule"}
HEALTH = 10256
HINTED = Spec("hinted", ["10.96.9.1"])


class TestNodes:
    """The node's taints, zone and name. Source: KEP-3836, and kube-proxy's NodeEligible."""

    def test_the_autoscaler_taint_fails_only_the_health_check(self, world: World) -> None:
        for taints, status in (((), 200), ((TAINT,), 503), ((), 200)):
            world.write_node(node_object(taints=taints))
            eventually("health", (status, status == 200), lambda: health(world))
            assert world.agent.read("/livez", port=HEALTH)[0] == 200

    def test_topology_hints_select_endpoints_of_this_zone_and_node(self, world: World) -> None:
        """Source: KEP-2433, KEP-3015; e2e topology_hints.go, traffic_distribution.go."""
        one, two, three = (partial(At, ip) for ip in world.pods())
        near, far = ["here"], ["there"]
        world.write_node(node_object(labels={"topology.kubernetes.io/zone": "here"}))
        world.put(HINTED.at(one(zones=near), two(zones=near), three(zones=far)))
        seen = partial(world.all_of, "pod", HINTED.address)
        eventually("this zone", {"one", "two"}, seen)
        on_nodes = (one(zones=near, nodes=[NODE]), two(zones=near, nodes=[ELSEWHERE]))
        world.put(HINTED.at(*on_nodes, three(zones=near, nodes=[ELSEWHERE])))
        assert seen() == {"one"}
        # If one endpoint lacks a hint, the hints of all endpoints are ignored.
        world.put(HINTED.at(one(zones=near), two(zones=far), three()))
        assert seen() == set(PODS)


def health(world: World) -> tuple[int, bool]:
    """Return the status and ``nodeEligible`` of ``/healthz``."""
    status, body = world.agent.read("/healthz", port=HEALTH)
    return status, json.loads(body)["nodeEligible"]
