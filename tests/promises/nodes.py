"""What this node's own object decides: whether clients come here, and whose hints count."""

from __future__ import annotations

import json
from functools import partial

from .specs import ELSEWHERE, NODE, At, Spec, node_object
from .world import PODS, World, eventually

TAINT = {"key": "ToBeDeletedByClusterAutoscaler", "effect": "NoSchedule"}
HEALTH = 10256
HINTED = Spec("hinted", ["10.96.9.1"])


class TestNodes:
    """Source: KEP-3836, and kube-proxy's NodeEligible."""

    def test_the_autoscalers_taint_turns_clients_away_and_nothing_else(self, world: World) -> None:
        for taints, status in (((), 200), ((TAINT,), 503), ((), 200)):
            world.write_node(node_object(taints=taints))
            eventually("health", (status, status == 200), lambda: health(world))
            assert world.agent.read("/livez", port=HEALTH)[0] == 200

    def test_a_node_that_is_being_deleted_turns_clients_away(self, world: World) -> None:
        world.write_node(node_object())
        eventually("health", (200, True), lambda: health(world))
        world.doom_node()
        eventually("its end", (503, False), lambda: health(world))
        assert world.agent.read("/livez", port=HEALTH)[0] == 200
        world.write_node(node_object())
        eventually("health", (200, True), lambda: health(world))

    def test_hints_name_the_endpoints_of_this_zone_and_node(self, world: World) -> None:
        """Source: KEP-2433, KEP-3015; e2e topology_hints.go, traffic_distribution.go."""
        one, two, three = (partial(At, ip) for ip in world.pods())
        near, far = ["here"], ["there"]
        world.write_node(node_object(labels={"topology.kubernetes.io/zone": "here"}))
        world.put(HINTED.at(one(zones=near), two(zones=near), three(zones=far)))
        seen = partial(world.all_of, "pod", HINTED.address)
        eventually("the zone's", {"one", "two"}, seen)
        on_nodes = (one(zones=near, nodes=[NODE]), two(zones=near, nodes=[ELSEWHERE]))
        world.put(HINTED.at(*on_nodes, three(zones=near, nodes=[ELSEWHERE])))
        assert seen() == {"one"}
        # One without a hint, and all of them count for nothing.
        world.put(HINTED.at(one(zones=near), two(zones=far), three()))
        assert seen() == set(PODS)


def health(world: World) -> tuple[int, bool]:
    """Return status and ``nodeEligible`` of ``/healthz``."""
    status, body = world.agent.read("/healthz", port=HEALTH)
    return status, json.loads(body)["nodeEligible"]
